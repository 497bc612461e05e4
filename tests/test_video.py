"""Clips keep what belongs to them, survive interruption and damage, and need no more memory the longer they are."""

import errno
import fcntl
import io
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from impasto import files
from impasto.painting.batch import paint_clips
from impasto.painting.clips import ClipWriter, _Clock
from impasto.painting.outputs import ClipOptions, Job
from impasto.painting.painter import Look
from impasto.painting.stylizer import Stylizer
from tests import processes
from tests.clip_files import Clip, frames, packets, picture, times, write_clip
from tests.test_cli import stylize

UNEVEN = (0, 100, 1100, 1106, 2000, 2077, 3000, 4000)
UNREADABLE = "expected a clip that FFmpeg reads, got 'Invalid data found when processing input' from"
SECONDS = tuple(range(0, 8 * 1280, 1280))  # of 1/4, for clips that are cut


def pixels(frame: av.VideoFrame) -> NDArray[np.int64]:
    return frame.to_ndarray(format="rgb24").astype(np.int64)


def difference(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    return float(np.abs(first - second).mean())


def last_duration(path: Path) -> Fraction:
    frame = frames(path)[-1]
    assert frame.time_base is not None
    return frame.duration * frame.time_base


class TestKept:
    @pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.m4v", "a.mkv", "a.webm"])
    @pytest.mark.usefixtures("folder")
    def test_times_of_a_variable_rate(self, name: str) -> None:
        is_webm = name == "a.webm"
        clip = Clip(times=UNEVEN, codec="libvpx-vp9" if is_webm else "libx264")
        before = times(write_clip(Path(name), clip))
        assert stylize(name) == 0
        after = Path("painted") / f"a_zigzag.{name.partition('.')[2]}"
        assert times(after) == before
        assert last_duration(after) == last_duration(Path(name))

    @pytest.mark.usefixtures("folder")
    def test_a_start_after_zero(self) -> None:
        write_clip(Path("a.mp4"), Clip(times=[time + 777 for time in UNEVEN], has_sound=True))
        assert times(Path("a.mp4"))[0] > 0
        assert stylize("a.mp4", "--output", "b.mp4") == 0
        assert times(Path("b.mp4")) == times(Path("a.mp4"))

    @pytest.mark.parametrize(("name", "kind"), [("a.mp4", "mov_text"), ("a.mkv", "subrip")])
    @pytest.mark.usefixtures("folder")
    def test_sound_and_subtitles_packet_for_packet(
        self, name: str, kind: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_clip(Path(name), Clip(has_sound=True, subtitles=kind))
        assert stylize(name, "--output", f"b/{name}") == 0
        assert packets(Path("b") / name, "audio") == packets(Path(name), "audio")
        before, after = (
            [each for each in packets(Path(place, name), "subtitle") if b"paint" in each[0]] for place in (".", "b")
        )
        assert after == before
        assert len(after) == 1
        assert capsys.readouterr().err == ""

    @pytest.mark.usefixtures("folder")
    def test_what_the_target_cannot_hold_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_clip(Path("a.mkv"), Clip(has_sound=True, subtitles="subrip"))
        assert stylize("a.mkv", "--output", "a.mp4") == 0
        printed = capsys.readouterr()
        assert printed.err == "warning: 'a.mp4' cannot hold, and leaves out: subtitle (srt)\n"
        assert [data for data, _ in packets(Path("a.mp4"), "audio")] == [
            data for data, _ in packets(Path("a.mkv"), "audio")
        ]

    @pytest.mark.parametrize("codec", ["flac", "libopus"])
    @pytest.mark.usefixtures("folder")
    def test_sound_that_mov_cannot_hold_though_mp4_can(self, codec: str, capsys: pytest.CaptureFixture[str]) -> None:
        write_clip(Path("a.mkv"), Clip(has_sound=True, sound_codec=codec))
        assert stylize("a.mkv", "--output", "a.mov") == 0
        kind = codec.removeprefix("lib")
        assert capsys.readouterr().err == f"warning: 'a.mov' cannot hold, and leaves out: audio ({kind})\n"
        assert stylize("a.mkv", "--output", "a.mp4") == 0
        assert capsys.readouterr().err == ""
        assert [data for data, _ in packets(Path("a.mp4"), "audio")] == [
            data for data, _ in packets(Path("a.mkv"), "audio")
        ]

    @pytest.mark.parametrize("size", [(33, 24), (32, 25), (33, 25), (17, 9)])
    @pytest.mark.usefixtures("folder")
    def test_odd_sizes(self, size: tuple[int, int]) -> None:
        write_clip(Path("a.mp4"), Clip(size=size, pix_fmt="yuv444p"))
        assert stylize("a.mp4", "--output", "b.mp4", "--strength", 0) == 0
        before, after = frames(Path("a.mp4")), frames(Path("b.mp4"))
        assert {(frame.width, frame.height, frame.format.name) for frame in after} == {(*size, "yuv444p")}
        assert difference(pixels(before[3]), pixels(after[3])) < 3

    @pytest.mark.parametrize("degrees", [90, 180, 270])
    @pytest.mark.usefixtures("folder")
    def test_a_turned_clip_stands_upright(self, degrees: int) -> None:
        write_clip(Path("a.mp4"), Clip(rotation=degrees))
        before = frames(Path("a.mp4"))[3]
        assert before.rotation % 360 == degrees
        assert stylize("a.mp4", "--output", "b.mp4", "--strength", 0) == 0
        after = frames(Path("b.mp4"))[3]
        assert after.rotation == 0
        # Both count against the clock.
        assert difference(np.rot90(pixels(before), degrees // 90), pixels(after)) < 4
        assert difference(np.rot90(pixels(before), degrees // 90 + 2), pixels(after)) > 20

    @pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])  # the second says nothing of it, the container does
    @pytest.mark.parametrize(("degrees", "expected"), [(0, Fraction(4, 3)), (90, Fraction(3, 4))])
    @pytest.mark.usefixtures("folder")
    def test_pixels_that_are_not_square(
        self, codec: str, degrees: int, expected: Fraction, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_clip(Path("a.mp4"), Clip(codec=codec, rotation=degrees, sample_aspect_ratio=Fraction(4, 3)))
        assert stylize("a.mp4", "--output", "b.mkv") == 0
        with av.open("b.mkv") as clip:
            assert clip.streams.video[0].sample_aspect_ratio == expected
        assert capsys.readouterr().err == ""
        assert stylize("a.mp4", "--output", "b.webm") == 0
        assert capsys.readouterr().err == "warning: 'b.webm' cannot hold, and leaves out: sample aspect ratio (4:3)\n"

    @pytest.mark.parametrize(("colorspace", "color_range"), [(1, 1), (1, 2), (5, 1), (6, 2), (9, 1), (2, 0)])
    @pytest.mark.usefixtures("folder")
    def test_colours_and_their_tags(self, colorspace: int, color_range: int) -> None:
        write_clip(Path("a.mp4"), Clip(colorspace=colorspace, color_range=color_range, pix_fmt="yuv444p"))
        assert stylize("a.mp4", "--output", "b.mp4", "--strength", 0, "--quality", 100) == 0
        before, after = frames(Path("a.mp4"))[3], frames(Path("b.mp4"))[3]
        assert (after.colorspace, after.color_range) == (before.colorspace, before.color_range)
        # As stored, whatever a reader makes of the tags.
        planes = [
            np.array(frame.reformat(format="yuv444p").to_ndarray().mean(axis=(1, 2))) for frame in (before, after)
        ]
        assert np.abs(planes[0] - planes[1]).max() < 1

    @pytest.mark.parametrize(("colorspace", "color_range", "red"), [(1, 1, (63, 102, 240)), (5, 2, (76, 85, 255))])
    @pytest.mark.usefixtures("folder")
    def test_the_clips_own_matrix_and_range_are_used(
        self, colorspace: int, color_range: int, red: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[NDArray[np.uint8]] = []

        class Eye(Stylizer):
            def paint(self, pixels: NDArray[np.uint8], look: Look) -> NDArray[np.uint8]:
                seen.append(pixels)
                return pixels

        with av.open("a.mkv", "w") as out:
            video = out.add_stream("ffv1", 10)
            video.width, video.height, video.pix_fmt = 16, 16, "yuv444p"
            video.codec_context.colorspace, video.codec_context.color_range = colorspace, color_range
            planes = np.broadcast_to(np.array(red, np.uint8)[:, None, None], (3, 16, 16))
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(planes), "yuv444p")))
            out.mux(video.encode(None))
        job = Job(Path("a.mkv"), Path("b.mkv"), is_clip=True)
        assert list(paint_clips(Eye.load("runs/zigzag", device="cpu"), [job], look=Look(), options=ClipOptions())) == [
            (job, None)
        ]
        assert np.abs(seen[0].astype(int) - (255, 0, 0)).max() <= 2

    @pytest.mark.usefixtures("folder")
    def test_ten_bits(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_clip(Path("a.mp4"), Clip(pix_fmt="yuv420p10le"))
        assert stylize("a.mp4", "--output", "b.mp4", "--strength", 0) == 0
        assert {frame.format.name for frame in frames(Path("b.mp4"))} == {"yuv420p10le"}
        assert capsys.readouterr().err == ""
        assert stylize("a.mp4", "--output", "b.webm") == 0
        assert capsys.readouterr().err == "warning: 'b.webm' cannot hold, and leaves out: more than 8 bits\n"

    @pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv422p10le", "yuv444p10le"])
    @pytest.mark.usefixtures("folder")
    def test_colours_are_read_as_they_are(self, pix_fmt: str) -> None:
        down, across = np.mgrid[0:64, 0:96]
        slope = np.stack([4 * down, 255 - 2 * across, 2 * across], axis=2).clip(0, 255).astype(np.uint8)
        with av.open("a.mp4", "w") as clip:
            stream = clip.add_stream("libx264", rate=10, options={"crf": "1"})
            stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
            for _ in range(3):
                clip.mux(stream.encode(av.VideoFrame.from_ndarray(slope, format="rgb24")))
            clip.mux(stream.encode())
        assert stylize("a.mp4", "--output", "b.mp4", "--strength", 0, "--quality", 100) == 0
        for frame in frames(Path("b.mp4")):
            found = frame.to_ndarray(format="rgb24").astype(float)
            assert np.abs(found - slope).mean() < 4

    @pytest.mark.parametrize("layout", ["mono", "stereo"])
    @pytest.mark.usefixtures("folder")
    def test_plain_sound_of_an_avi(self, layout: str) -> None:
        with av.open("a.avi", "w") as clip:
            video, sound = clip.add_stream("mjpeg", rate=10), clip.add_stream("pcm_s16le", rate=8000, layout=layout)
            video.width, video.height, video.pix_fmt = 32, 24, "yuvj420p"
            for number in range(3):
                picture = av.VideoFrame.from_ndarray(np.zeros((24, 32, 3), np.uint8), format="rgb24")
                clip.mux(video.encode(picture.reformat(format="yuvj420p")))
                values = np.full((1, 800 * (1 + (layout == "stereo"))), 1000 * number, np.int16)
                samples = av.AudioFrame.from_ndarray(values, format="s16", layout=layout)
                samples.sample_rate, samples.pts, samples.time_base = 8000, 800 * number, Fraction(1, 8000)
                clip.mux(sound.encode(samples))
            clip.mux(video.encode())
        assert stylize("a.avi") == 0
        with av.open("painted/a_zigzag.mp4") as clip:
            heard = np.concatenate([frame.to_ndarray().ravel() for frame in clip.decode(audio=0)])
            assert clip.streams.audio[0].layout.nb_channels == 1 + (layout == "stereo")
        assert sorted(set(heard.tolist())) == [0, 1000, 2000]

    @pytest.mark.parametrize("name", ["b.mp4", "b.mov", "b.mkv"])
    @pytest.mark.usefixtures("folder")
    def test_sound_of_a_camcorder(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        write_clip(Path("a.m2ts"), Clip(times=range(0, 30 * 512, 512), has_sound=True))
        assert stylize("a.m2ts", "--output", name) == 0
        before, after = packets(Path("a.m2ts"), "audio"), packets(Path(name), "audio")
        assert [data for data, _ in after] == [data[7:] for data, _ in before]  # without the header of each
        assert [float(time) for _, time in after] == pytest.approx([float(time) for _, time in before], abs=0.001)
        with av.open(name) as clip:
            assert sum(frame.samples for frame in clip.decode(audio=0)) == 1024 * len(before)
        assert capsys.readouterr().err == ""

    @pytest.mark.usefixtures("folder")
    def test_a_camera_may_note_something_in_every_frame(self) -> None:
        exif = Image.Exif()
        exif[0x010F] = "Maker"
        with av.open("a.avi", "w") as clip:
            stream = clip.add_stream("mjpeg", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 24, "yuvj420p"
            for number in range(3):
                data = io.BytesIO()
                Image.new("RGB", (32, 24), (80 * number,) * 3).save(data, "JPEG", exif=exif)
                packet = av.Packet(data.getvalue())
                packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 10), True
                packet.pts = packet.dts = number
                clip.mux(packet)
        assert stylize("a.avi", "--output", "b.mp4", "--strength", 0) == 0
        assert [frame.to_ndarray(format="rgb24").mean().round(-1) for frame in frames(Path("b.mp4"))] == [0, 80, 160]

    @pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
    @pytest.mark.usefixtures("folder")
    def test_title_and_chapters_unless_stripped(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        write_clip(Path(name), Clip(metadata={"title": "A walk"}, chapters=["one", "two"]))
        for words, title, chapters in ([], "A walk", ["one", "two"]), (["--strip"], None, []):
            assert stylize(name, "--output", f"b/{name}", *words) == 0
            with av.open(f"b/{name}") as clip:
                assert clip.metadata.get("title") == title
                assert [chapter["metadata"]["title"] for chapter in clip.chapters()] == chapters
        assert capsys.readouterr().err == ""

    @pytest.mark.usefixtures("folder")
    def test_what_streams_say_unless_stripped(self) -> None:
        notes = {"title": "A walk", "location": "+48.1+11.5/", "language": "deu"}
        write_clip(Path("a.mkv"), Clip(has_sound=True, stream_metadata=notes))
        for words, expected in ([], set(notes)), (["--strip"], {"language"}):
            assert stylize("a.mkv", "--output", "b.mkv", *words) == 0
            with av.open("b.mkv") as clip:
                assert len(clip.streams) == 2
                for stream in clip.streams:
                    assert {name.lower() for name in stream.metadata} & set(notes) == expected

    @pytest.mark.usefixtures("folder")
    def test_a_name_with_a_colon(self) -> None:
        write_clip(Path("a.mp4")).rename("12:30.mp4")
        assert stylize("12:30.mp4", "--output", "1:x.mp4") == 0
        assert len(frames(Path("1:x.mp4").rename("b.mp4"))) == 8


class TestJoined:
    """Clips joined end to end, of which each has a clock of its own."""

    def join(self, names: Sequence[str], **options: Any) -> None:
        clip = Clip(times=range(0, 30 * 512, 512), **options)
        for name in set(names):
            write_clip(Path(name), clip)
        Path("a.m2ts").write_bytes(b"".join(Path(name).read_bytes() for name in names))

    @pytest.mark.usefixtures("folder")
    def test_times_go_on_with_the_sound_to_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.join(["b.m2ts"] * 3, has_sound=True)
        assert stylize("a.m2ts", "--output", "c.mkv") == 0
        after = times(Path("c.mkv"))
        assert len(after) == 90
        steps = [float(later - former) for former, later in pairwise(after)]
        assert min(steps) > 0.09
        assert max(steps) < 0.3  # where a clip begins, its sound may be there before its first frame
        once, thrice = packets(Path("b.m2ts"), "audio"), packets(Path("c.mkv"), "audio")
        assert len(thrice) == 3 * len(once)
        # Sound and picture of each are as far apart as in the first.
        for number in range(3):
            assert float(thrice[number * len(once)][1] - after[number * 30]) == pytest.approx(
                float(thrice[0][1] - after[0]), abs=0.002
            )
        assert capsys.readouterr().err == ""

    @pytest.mark.usefixtures("folder")
    def test_one_damaged_time_moves_no_other(self) -> None:
        self.join(["b.m2ts"])
        clock = _Clock()
        with av.open("a.m2ts") as clip:
            read = [packet for packet in clip.demux(video=0) if packet.size]
            before = [packet.pts for packet in read]
            read[20].pts = read[20].dts = 7
            for packet in read:
                clock.set_on(packet)
        after = [packet.pts for packet in read]
        assert after[:20] + after[21:] == before[:20] + before[21:]
        assert clock.offsets == [0]  # those of subtitles are not moved either

    @pytest.mark.usefixtures("folder")
    def test_sound_that_some_of_them_lack_stays_with_its_pictures(self) -> None:
        self.join(["b.m2ts"], has_sound=True)
        clock = _Clock()
        spans = []
        for is_silent in (True, False, True, False):
            with av.open("a.m2ts") as clip:
                read = [packet for packet in clip.demux() if packet.size]
                for kind in ("video",) if is_silent else ("video", "audio"):
                    own = [packet for packet in read if packet.stream.type == kind]
                    for packet in own:
                        clock.set_on(packet)
                    shown_at = [float((packet.pts or 0) * packet.time_base) for packet in own]
                    spans.append((kind, min(shown_at), max(shown_at)))
        shown = [(begin, end) for kind, begin, end in spans if kind == "video"]
        heard = [(begin, end) for kind, begin, end in spans if kind == "audio"]
        assert all(later[0] >= former[1] for former, later in pairwise(shown))
        for (begin, end), (first, last) in zip(heard, shown[1::2], strict=True):
            assert abs(begin - first) < 0.3
            assert abs(end - last) < 0.3

    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])  # the second begins without times of decoding
    @pytest.mark.usefixtures("folder")
    def test_frames_seconds_apart_that_stand_in_another_order_are_not_moved(self, name: str) -> None:
        clock = _Clock()
        write_clip(Path(name), Clip(times=range(0, 30 * 2 * 5120, 2 * 5120)))
        with av.open(name) as clip:
            read = [packet for packet in clip.demux(video=0) if packet.size]
            before = [packet.pts for packet in read]
            assert before != sorted(before, key=lambda pts: pts or 0)
            for packet in read:
                clock.set_on(packet)
        assert [packet.pts for packet in read] == before

    @pytest.mark.usefixtures("folder")
    def test_sound_that_stands_after_all_frames_is_not_moved(self) -> None:
        clock = _Clock()
        write_clip(Path("a.mp4"), Clip(times=range(0, 30 * 512, 512), has_sound=True))
        with av.open("a.mp4") as clip:
            read = sorted((packet for packet in clip.demux() if packet.size), key=lambda each: each.stream.index)
            before = [packet.pts for packet in read]
            for packet in read:
                clock.set_on(packet)
        assert [packet.pts for packet in read] == before


class TestPainted:
    @pytest.mark.usefixtures("folder")
    def test_every_frame_is_painted_as_a_picture_is(self) -> None:
        write_clip(Path("a.mp4"), Clip(size=(63, 48), pix_fmt="yuv444p"))
        assert stylize("a.mp4", "--output", "b.mp4", "--keep-colors", "--stroke-scale", 0.5) == 0
        stylizer = Stylizer.load("runs/zigzag", device="cpu")
        for before, after in zip(frames(Path("a.mp4")), frames(Path("b.mp4")), strict=True):
            expected = stylizer(before.to_ndarray(format="rgb24"), keep_colors=True, stroke_scale=0.5)
            assert difference(expected.astype(np.int64), pixels(after)) < 5
            assert difference(pixels(before), pixels(after)) > 12

    @pytest.mark.usefixtures("folder")
    def test_quality(self) -> None:
        write_clip(Path("a.mp4"), Clip(size=(64, 48)))
        for quality in (1, 100):
            assert stylize("a.mp4", "--output", f"{quality}.mp4", "--quality", quality) == 0
        assert Path("1.mp4").stat().st_size < Path("100.mp4").stat().st_size / 2

    def test_clips_among_pictures(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_clip(folder / "album" / "a.mp4")
        write_clip(folder / "album" / "b.avi", Clip(codec="mpeg4", time_base=Fraction(1, 10), times=range(8)))
        Image.fromarray(picture(0, (32, 24))).save("album/c.png")
        (folder / "album" / "broken.mkv").write_bytes(b"no clip")
        assert stylize("album") == 1
        printed = capsys.readouterr()
        painted = ["c_zigzag.png", "a_zigzag.mp4", "b_zigzag.mp4"]
        assert printed.out.splitlines() == [f"painted/{name}" for name in painted]
        assert printed.err.splitlines() == [
            f"error: {UNREADABLE} 'album/broken.mkv': copy it again",
            "error: 1 of 4 pictures could not be painted; the others are done",
        ]
        assert sorted(os.listdir("painted")) == sorted(painted)
        assert len(frames(Path("painted/b_zigzag.mp4"))) == 8


class StopsAfter(Stylizer):
    """Meets an error at a frame, as a Ctrl-C or a full memory would be."""

    left = 5
    error: type[BaseException] = KeyboardInterrupt
    paints = True  # or leaves every frame as it is, where their number and times alone are looked at
    painted = 0
    seen: Path | None = None  # a file to be read then: what would be there, were the process killed
    content = b""

    def paint(self, pixels: NDArray[np.uint8], look: Look) -> NDArray[np.uint8]:
        if self.painted == self.left:
            self.content = self.seen.read_bytes() if self.seen is not None else b""
            raise self.error("no more")
        self.painted += 1
        return super().paint(pixels, look) if self.paints else pixels


def paint(stylizer: Stylizer, source: str, target: str, *, resume: bool = False, quality: int = 100) -> None:
    """Paint one clip; raises its error."""
    job = Job(Path(source), Path(target), is_clip=True)
    for _, error in paint_clips(stylizer, [job], look=Look(), options=ClipOptions(quality, resume=resume)):
        if error is not None:
            raise error


def whole_packets(path: Path) -> int:
    """Return how many frames a clip that may be cut off has."""
    try:
        with av.open(str(path)) as clip:
            return sum(bool(packet.size) and not packet.is_corrupt for packet in clip.demux(video=0))
    except (av.FFmpegError, IndexError):
        return 0


class TestInterrupted:
    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
    @pytest.mark.usefixtures("folder")
    def test_a_playable_part_stays_and_is_continued(self, name: str) -> None:
        codec = "libvpx-vp9" if name == "a.webm" else "libx264"
        write_clip(Path(name), Clip(times=UNEVEN, has_sound=name == "a.mp4", codec=codec))
        stylizer = StopsAfter.load("runs/zigzag", device="cpu")
        paint(Stylizer.load("runs/zigzag", device="cpu"), name, f"whole/{name}")
        part = Path("b", name).with_suffix(f".partial{Path(name).suffix}")
        with pytest.raises(KeyboardInterrupt) as caught:
            paint(stylizer, name, f"b/{name}")
        assert caught.value.__notes__ == [f"the 5 frames done are in {str(part)!r}, and --resume continues"]
        assert os.listdir("b") == [part.name]
        assert times(part) == times(Path(name))[:5]
        stylizer.left, stylizer.painted = 3, 0
        paint(stylizer, name, f"b/{name}", resume=True)
        assert os.listdir("b") == [name]
        assert times(Path("b", name)) == times(Path("whole", name)) == times(Path(name))
        for first, second in zip(frames(Path("b", name)), frames(Path("whole", name)), strict=True):
            assert difference(pixels(first), pixels(second)) < 6
        if name == "a.mp4":
            assert packets(Path("b", name), "audio") == packets(Path(name), "audio")

    @pytest.mark.usefixtures("folder")
    def test_interrupted_again_and_again(self) -> None:
        write_clip(Path("a.mp4"))
        for frames_each, left in ((2, 2), (3, 5)):
            stylizer = StopsAfter.load("runs/zigzag", device="cpu")
            stylizer.left = frames_each
            with pytest.raises(KeyboardInterrupt):
                paint(stylizer, "a.mp4", "b/b.mp4", resume=True)
            assert os.listdir("b") == ["b.partial.mp4"]
            assert times(Path("b/b.partial.mp4")) == times(Path("a.mp4"))[:left]
        paint(Stylizer.load("runs/zigzag", device="cpu"), "a.mp4", "b/b.mp4", resume=True)
        assert times(Path("b/b.mp4")) == times(Path("a.mp4"))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
    @pytest.mark.usefixtures("folder")
    def test_a_part_that_may_not_be_read_is_named_and_left_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_clip(Path("a.mp4"))
        part = Path("b.partial.mp4")
        part.write_bytes(b"unknown")
        part.chmod(0)
        assert stylize("a.mp4", "--output", "b.mp4") == 2
        assert capsys.readouterr().err == (
            "error: expected a partial clip that can be read, got 'Permission denied' for 'b.partial.mp4': "
            "move it away\n"
        )
        part.chmod(0o600)
        assert part.read_bytes() == b"unknown"

    @pytest.mark.usefixtures("folder")
    def test_a_folder_in_the_place_of_a_part_leaves_the_other_clips_alone(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("a.mp4", "b.mp4"):
            write_clip(Path(name), Clip(times=range(0, 2 * 512, 512)))
        Path("out/a_zigzag.partial.mp4").mkdir(parents=True)
        assert stylize("a.mp4", "b.mp4", "--output", "out/") == 1
        assert "got 'Is a directory' for 'out/a_zigzag.partial.mp4': move it away" in capsys.readouterr().err
        assert Path("out/b_zigzag.mp4").exists()

    @pytest.mark.usefixtures("folder")
    def test_too_little_memory_keeps_the_part_and_says_so(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_clip(Path("a.mp4"))
        work, painted = Stylizer.paint, list[int]()

        def fail(*arguments: Any) -> Any:
            painted.append(0)
            if len(painted) > 3:
                raise MemoryError
            return work(*arguments)

        monkeypatch.setattr(Stylizer, "paint", fail)
        assert stylize("a.mp4", "--output", "b.mp4") == 2
        assert capsys.readouterr().err.endswith(
            "expected an image that fits the memory, got a larger one in 'a.mp4': make it smaller; "
            "the 3 frames done are in 'b.partial.mp4', and --resume continues\n"
        )

    @pytest.mark.usefixtures("folder")
    def test_a_run_that_begins_again_keeps_the_longer_part(self) -> None:
        write_clip(Path("a.mp4"))
        ours = "the 3 frames done are in 'b/b.partial.mp4', and --resume continues"
        others = "'b/b.partial.mp4' still has the 3 frames that a run with another source, style or options painted"
        for quality, left, done, note in (
            (100, 3, 3, ours),
            (100, 0, 3, ours),
            (100, 2, 3, ours),
            (90, 3, 3, others),
            (90, 5, 5, ours.replace("3", "5")),
        ):
            stylizer = StopsAfter.load("runs/zigzag", device="cpu")
            stylizer.left = left
            with pytest.raises(KeyboardInterrupt) as caught:
                paint(stylizer, "a.mp4", "b/b.mp4", quality=quality)
            assert caught.value.__notes__ == [note]
            assert os.listdir("b") == ["b.partial.mp4"]
            assert times(Path("b/b.partial.mp4")) == times(Path("a.mp4"))[:done]
        paint(Stylizer.load("runs/zigzag", device="cpu"), "a.mp4", "b/b.mp4")
        assert os.listdir("b") == ["b.mp4"]

    @pytest.mark.parametrize("is_resumed", [False, True], ids=["again", "resumed"])
    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
    @pytest.mark.usefixtures("folder")
    def test_at_no_moment_would_a_kill_leave_fewer_frames_than_before(self, name: str, is_resumed: bool) -> None:
        write_clip(Path(name), Clip(times=range(0, 140 * 512, 512)))
        part = Path("b", name).with_suffix(f".partial{Path(name).suffix}")
        stopped = StopsAfter.load("runs/zigzag", device="cpu")
        stopped.left, stopped.paints = 40, False
        with pytest.raises(KeyboardInterrupt):
            paint(stopped, name, f"b/{name}")
        left: list[int] = []
        stylizer = Calls.load("runs/zigzag", device="cpu")
        stylizer.before, stylizer.paints = lambda: left.append(whole_packets(part)), False
        paint(stylizer, name, f"b/{name}", resume=is_resumed)
        assert min(left) == 40
        assert max(left) > 40

    @pytest.mark.usefixtures("folder")
    def test_an_error_before_any_frame_leaves_nothing(self) -> None:
        write_clip(Path("a.mp4"))
        stylizer = StopsAfter.load("runs/zigzag", device="cpu")
        stylizer.left, stylizer.error = 0, ValueError
        with pytest.raises(ValueError, match=r"^no more \('a\.mp4'\)$"):
            paint(stylizer, "a.mp4", "b/b.mp4")
        assert os.listdir("b") == []

    @pytest.mark.usefixtures("folder")
    def test_a_part_beside_an_earlier_result_is_continued_and_takes_its_place(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_clip(Path("a.mp4"))
        words = ("a.mp4", "--output", "b.mp4", "--quality", 100)
        Path("b.mp4").write_bytes(b"an earlier result")
        stylizer = StopsAfter.load("runs/zigzag", device="cpu")
        with pytest.raises(KeyboardInterrupt):
            paint(stylizer, "a.mp4", "b.mp4")
        assert Path("b.partial.mp4").exists()
        assert stylize(*words, "--resume") == 0
        assert times(Path("b.mp4")) == times(Path("a.mp4"))
        assert not Path("b.partial.mp4").exists()
        capsys.readouterr()
        before = Path("b.mp4").read_bytes()
        assert stylize(*words, "--resume") == 0
        assert "skipped 1 of 1 pictures that are painted already" in capsys.readouterr().err
        assert Path("b.mp4").read_bytes() == before

    @pytest.mark.usefixtures("folder")
    def test_a_part_made_in_another_way_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_clip(Path("a.mp4"))
        stylizer = StopsAfter.load("runs/zigzag", device="cpu")
        with pytest.raises(KeyboardInterrupt):
            paint(stylizer, "a.mp4", "b.mp4")
        before = Path("b.partial.mp4").read_bytes()
        assert stylize("a.mp4", "--output", "b.mp4", "--resume", "--strength", 0.5) == 2
        assert capsys.readouterr().err == (
            "error: expected a partial clip of the same source, style and options, got another in 'b.partial.mp4': "
            "remove it, or run without --resume\n"
        )
        assert Path("b.partial.mp4").read_bytes() == before

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
    @pytest.mark.usefixtures("folder")
    def test_another_programs_file_in_the_place_of_a_part_is_left_alone(
        self, suffix: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        part = f"b.partial{suffix}"
        if suffix == ".gif":
            images = [Image.fromarray(picture(9 * number, (32, 24))) for number in range(3)]
            images[0].save("a.gif", save_all=True, append_images=images[1:], duration=50)
            images[0].save(part, save_all=True, append_images=images[1:2], duration=50)
        else:
            write_clip(Path(f"a{suffix}"))
            write_clip(Path(part), Clip(times=range(0, 2 * 512, 512)))
        before = Path(part).read_bytes()
        assert stylize(f"a{suffix}", "--output", f"b{suffix}") == 2
        assert capsys.readouterr().err == (
            f"error: expected to write the part that is painted to {part!r}, found another program's file there: "
            "rename it, or choose another output\n"
        )
        assert Path(part).read_bytes() == before
        assert not Path(f"b{suffix}").exists()

    @pytest.mark.parametrize("more", [[], ["--resume"]])
    @pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".webp"])
    @pytest.mark.usefixtures("folder")
    def test_a_file_in_the_place_of_a_part_that_is_no_clip_is_left_alone(
        self, suffix: str, more: Sequence[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        source, part = f"a{suffix}", Path(f"b.partial{suffix}")
        if suffix in {".gif", ".webp"}:
            images = [Image.fromarray(picture(9 * number, (32, 24))) for number in range(3)]
            images[0].save(source, save_all=True, append_images=images[1:], duration=50)
        else:
            write_clip(Path(source), Clip(codec="libvpx-vp9" if suffix == ".webm" else "libx264"))
        part.write_text("what to do tomorrow")
        assert stylize(source, "--output", f"b{suffix}", *more) == 2
        assert capsys.readouterr().err == (
            f"error: expected to write the part that is painted to {str(part)!r}, found another program's file there: "
            "rename it, or choose another output\n"
        )
        assert part.read_text() == "what to do tomorrow"
        assert not Path(f"b{suffix}").exists()

    def start_painting(self) -> BaseProcess:
        """Start to paint a.mp4, in a process that has painted a part of it when this returns."""
        words = ("-m", "impasto", "stylize", "--model", "runs/zigzag", "--device", "cpu", "a.mp4", "--output", "b.mp4")
        process = processes.start(*words, errors=Path("errors"))
        while not Path("b.partial.mp4").exists() or Path("b.partial.mp4").stat().st_size < 2_000:
            assert process.is_alive(), Path("errors").read_text()
            time.sleep(0.001)  # leaves the core to it
        return process

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_is_one_line_and_status_130(self, folder: Path, number: signal.Signals) -> None:
        write_clip(folder / "a.mp4", Clip(times=range(0, 400 * 512, 512)))
        process = self.start_painting()
        assert process.pid is not None
        os.kill(process.pid, number)
        process.join(60)
        done = len(frames(Path("b.partial.mp4")))
        expected = f"interrupted; the {done} frames done are in 'b.partial.mp4', and --resume continues\n"
        assert (process.exitcode, Path("errors").read_text()) == (130, expected)
        assert 0 < done < 400
        assert not Path("b.mp4").exists()

    def test_a_killed_run_leaves_a_part_too(self, folder: Path) -> None:
        write_clip(folder / "a.mp4", Clip(times=range(0, 300 * 512, 512)))
        process = self.start_painting()
        process.kill()
        process.join()
        done = whole_packets(Path("b.partial.mp4"))
        assert done > 0
        stylizer = StopsAfter.load("runs/zigzag", device="cpu")
        stylizer.left = 300 - done
        paint(stylizer, "a.mp4", "b.mp4", resume=True, quality=95)
        assert stylizer.painted == 300 - done
        assert times(Path("b.mp4")) == times(Path("a.mp4"))

    @pytest.mark.usefixtures("folder")
    def test_what_a_run_killed_while_it_catches_up_leaves_is_removed_by_the_next(self) -> None:
        write_clip(Path("a.mp4"))
        stylizer = StopsAfter.load("runs/zigzag", device="cpu")
        with pytest.raises(KeyboardInterrupt):
            paint(stylizer, "a.mp4", "b/b.mp4")
        code = """
import os
from impasto.cli import main
from impasto.painting.clips import ClipWriter
write = ClipWriter.write_encoded
ClipWriter.write_encoded = lambda self, *frame: write(self, *frame) if self.frames < 3 else os.kill(os.getpid(), 9)
main("stylize --model runs/zigzag --device cpu a.mp4 -o b/b.mp4 --quality 100 --resume".split())
"""
        before = Path("b/b.partial.mp4").read_bytes()
        for _ in range(2):
            assert processes.run("-c", code).returncode == -signal.SIGKILL
            assert len(os.listdir("b")) == 3  # the part, the lock, and what was written
        assert Path("b/b.partial.mp4").read_bytes() == before
        stylizer.left, stylizer.painted = 3, 0
        paint(stylizer, "a.mp4", "b/b.mp4", resume=True)
        assert os.listdir("b") == ["b.mp4"]

    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
    @pytest.mark.usefixtures("folder")
    def test_a_part_that_ends_anywhere_is_continued(self, name: str) -> None:
        codec = "libvpx-vp9" if name == "a.webm" else "libx264"
        write_clip(Path(name), Clip(times=range(0, 100 * 512, 512), codec=codec))
        part = Path("b", name).with_suffix(f".partial{Path(name).suffix}")
        stylizer = StopsAfter.load("runs/zigzag", device="cpu")
        stylizer.left, stylizer.seen, stylizer.paints = 98, part, False
        with pytest.raises(KeyboardInterrupt):
            paint(stylizer, name, f"b/{name}")
        painted = set()
        for length in range(0, len(stylizer.content), len(stylizer.content) // 12):
            part.write_bytes(stylizer.content[:length])
            done = whole_packets(part)
            stylizer.left, stylizer.painted = 100, 0
            paint(stylizer, name, f"b/{name}", resume=True)
            assert stylizer.painted == 100 - done
            assert times(Path("b", name)) == times(Path(name))
            painted.add(stylizer.painted)
        assert 100 in painted
        assert len(painted) > 5

    @pytest.mark.usefixtures("folder")
    def test_a_full_disk(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_clip(Path("a.mp4"), Clip(size=(128, 96), times=range(0, 120 * 512, 512)))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
        try:
            assert stylize("a.mp4", "--output", "b.mp4") == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        line = "error: no space left to write 'b.mp4' (File too large): free some and run again; "
        assert capsys.readouterr().err.startswith(line)
        assert not Path("b.mp4").exists()


class Calls(Stylizer):
    """Does something else before it paints."""

    before: Callable[[], object] = staticmethod(lambda: None)
    paints = True

    def paint(self, pixels: NDArray[np.uint8], look: Look) -> NDArray[np.uint8]:
        self.before()
        return super().paint(pixels, look) if self.paints else pixels


class TestTwoRuns:
    @pytest.mark.parametrize("suffix", [".mp4", ".gif"])
    @pytest.mark.usefixtures("folder")
    def test_the_second_is_one_line_and_takes_nothing(self, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
        source = f"a{suffix}"
        if suffix == ".mp4":
            write_clip(Path(source))
        else:
            images = [Image.fromarray(picture(9 * number, (32, 24))) for number in range(3)]
            images[0].save(source, save_all=True, append_images=images[1:], duration=50)
        target = f"b/b{suffix}"
        code = "import sys\nfrom pathlib import Path\nfrom impasto.files import reserved\n"
        code += "with reserved(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
        command = [sys.executable, "-c", code, target]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            assert stylize(source, "--output", target) == 2
            assert capsys.readouterr().err == (
                f"error: expected a target that no other run is writing, got {target!r}, which process {other.pid} on "
                f"{socket.gethostname()} is writing: wait for its end, or choose another name\n"
            )
            assert len(os.listdir("b")) == 1
            other.communicate("")
        assert os.listdir("b") == []
        assert stylize(source, "--output", target) == 0
        assert os.listdir("b") == [f"b{suffix}"]

    def test_a_killed_one_does_not_hinder_the_next(self, folder: Path) -> None:
        code = "import os\nfrom pathlib import Path\nfrom impasto.files import reserved\n"
        code += "with reserved(Path('b/b.mp4')):\n    os.kill(os.getpid(), 9)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
        assert len(os.listdir("b")) == 1
        write_clip(folder / "a.mp4")
        assert stylize("a.mp4", "--output", "b/b.mp4") == 0
        assert os.listdir("b") == ["b.mp4"]

    @pytest.mark.parametrize("reason", ["system", "file system"])
    @pytest.mark.usefixtures("folder")
    def test_without_locks_it_paints_all_the_same(self, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        if reason == "system":
            monkeypatch.setattr(files, "fcntl", None)
        else:
            monkeypatch.setattr(fcntl, "lockf", refuse)
        write_clip(Path("a.mp4"))
        assert stylize("a.mp4", "--output", "b/b.mp4") == 0
        assert os.listdir("b") == ["b.mp4"]

    @pytest.mark.usefixtures("folder")
    def test_a_lock_removed_in_the_last_moment_is_made_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        path, lockf = Path("b.mp4"), fcntl.lockf
        lock = files.hidden_beside(path, "-lock")

        def end_the_other(file: IO[bytes], how: int) -> None:
            monkeypatch.setattr(fcntl, "lockf", lockf)
            lock.unlink()
            lockf(file, how)

        monkeypatch.setattr(fcntl, "lockf", end_the_other)
        with files.reserved(path):
            assert lock.exists()
        assert not lock.exists()


def fill_with_nonsense(path: Path, numbers: Sequence[int], *, kind: str = "video") -> None:
    """Fill the packets of these numbers, of the stream of that kind, with nonsense."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as clip:
        stream = clip.streams.best(kind)  # type: ignore[arg-type]
        found = [(packet.pos or 0, bytes(packet)) for packet in clip.demux(stream) if packet.size]
    for number in numbers:
        start, content = found[number]
        place = data.index(content, start)  # Matroska has a head before it
        data[place : place + len(content)] = b"\xff" * len(content)
    path.write_bytes(data)


class TestDamaged:
    @pytest.mark.usefixtures("folder")
    def test_broken_packets_are_passed_over(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_clip(Path("a.mp4"), Clip(codec="mjpeg", pix_fmt="yuvj420p", color_range=2))
        fill_with_nonsense(Path("a.mp4"), [3, 5])
        assert stylize("a.mp4", "--output", "b.mp4") == 0
        assert capsys.readouterr().err == "warning: passed over 2 broken packets of 'a.mp4'\n"
        assert times(Path("b.mp4")) == [Fraction(number, 10) for number in (0, 1, 2, 4, 6, 7)]

    @pytest.mark.parametrize("codec", ["ac3", "eac3"])
    @pytest.mark.usefixtures("folder")
    def test_broken_packets_of_sound_are_passed_over(self, codec: str, capsys: pytest.CaptureFixture[str]) -> None:
        clip = Clip(times=range(0, 20 * 512, 512), has_sound=True, sound_codec=codec, sound_rate=48_000)
        before = [data for data, _ in packets(write_clip(Path("a.mkv"), clip), "audio")]
        fill_with_nonsense(Path("a.mkv"), [20, 21, 30], kind="audio")
        assert stylize("a.mkv", "--output", "b.mp4") == 0
        assert capsys.readouterr().err == "warning: passed over 3 broken packets of 'a.mkv'\n"
        assert times(Path("b.mp4")) == times(Path("a.mkv"))
        assert [data for data, _ in packets(Path("b.mp4"), "audio")] == before[:20] + before[22:30] + before[31:]

    @pytest.mark.parametrize(("suffix", "ends"), [(".mp4", 1.2), (".mkv", 0.8)])
    @pytest.mark.usefixtures("folder")
    def test_a_clip_cut_short(self, suffix: str, ends: float, capsys: pytest.CaptureFixture[str]) -> None:
        options = {"movflags": "faststart"} if suffix == ".mp4" else {}
        write_clip(Path(f"whole{suffix}"), Clip(times=SECONDS, codec="mjpeg", pix_fmt="yuvj420p", options=options))
        data = Path(f"whole{suffix}").read_bytes()
        Path(f"a{suffix}").write_bytes(data[: int(len(data) * 0.6)])
        assert stylize(f"a{suffix}", "--output", f"b{suffix}") == 2
        done = len(frames(Path(f"b.partial{suffix}")))
        assert capsys.readouterr().err.splitlines()[-1] == (
            f"error: expected a whole clip of 1.9 s, got one cut off after {ends} s in 'a{suffix}': "
            f"copy it again; its {done} frames are painted in 'b.partial{suffix}'"
        )
        assert 0 < done < 8
        assert not Path(f"b{suffix}").exists()

    @pytest.mark.usefixtures("folder")
    def test_an_avi_cut_short(self, capsys: pytest.CaptureFixture[str]) -> None:
        clip = Clip(codec="mpeg4", time_base=Fraction(1, 10), times=range(30))
        data = write_clip(Path("a.avi"), clip).read_bytes()
        assert stylize("a.avi", "--output", "whole.mp4") == 0
        assert capsys.readouterr().err == ""
        Path("a.avi").write_bytes(data[: int(len(data) * 0.9)])
        assert stylize("a.avi", "--output", "b.mp4") == 0
        done = len(frames(Path("b.mp4")))
        assert 0 < done < 30
        assert capsys.readouterr().err == (
            f"warning: 'a.avi' has {done} of the 30 frames that its header says: it may be cut off\n"
        )

    @pytest.mark.usefixtures("folder")
    def test_a_clip_without_its_index(self, capsys: pytest.CaptureFixture[str]) -> None:
        data = write_clip(Path("a.mp4")).read_bytes()
        Path("a.mp4").write_bytes(data[: len(data) // 2])
        assert stylize("a.mp4") == 2
        assert capsys.readouterr().err == (f"error: {UNREADABLE} 'a.mp4': copy it again\n")
        assert not Path("painted").exists()

    @pytest.mark.usefixtures("folder")
    def test_no_frames(self, capsys: pytest.CaptureFixture[str]) -> None:
        with av.open("sound.mp4", "w") as out:
            sound = out.add_stream("aac", 8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), "s16", "mono")
            frame.sample_rate = 8000
            out.mux(sound.encode(frame))
            out.mux(sound.encode(None))
        write_clip(Path("damaged.mp4"), Clip(codec="mjpeg", pix_fmt="yuvj420p"))
        fill_with_nonsense(Path("damaged.mp4"), range(8))
        Path("empty.mp4").touch()
        for name, expected in {
            "sound.mp4": "expected a clip with frames, found none in 'sound.mp4': give another file",
            "damaged.mp4": "expected a clip with frames, found none in 'damaged.mp4': give another file",
            "empty.mp4": "expected a clip, got zero bytes in 'empty.mp4': copy it again",
            "missing.mp4": "expected a clip, found nothing at 'missing.mp4': check the path",
        }.items():
            assert stylize(name) == 2
            assert capsys.readouterr().err == f"error: {expected}\n"
        assert not Path("painted").exists()

    @pytest.mark.usefixtures("folder")
    def test_a_target_of_another_kind(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_clip(Path("a.mp4"))
        assert stylize("a.mp4", "--output", "a.png") == 2
        assert capsys.readouterr().err == (
            "error: expected a video file ending in one of .m4v, .mkv, .mov, .mp4, .webm, got 'a.png': "
            "choose another ending, for example .mp4\n"
        )

    @pytest.mark.usefixtures("folder")
    def test_a_size_that_the_encoder_refuses(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_clip(Path("a.mkv"), Clip(size=(16_500, 2), codec="ffv1", times=[0]))
        assert stylize("a.mkv", "--output", "b/b.mkv") == 2
        assert capsys.readouterr().err == (
            "error: expected a clip that FFmpeg can write, got 'Generic error in an external library' for 'b/b.mkv': "
            "make it smaller, or choose another ending\n"
        )
        assert os.listdir("b") == []

    @pytest.mark.usefixtures("folder")
    def test_a_packet_that_the_writer_refuses_ends_that_clip_alone(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_clip(Path("a.mp4"))
        write_clip(Path("b.mp4"))
        refusals = iter([av.error.PermissionError(errno.EPERM, "Operation not permitted", "file:a.mp4")])
        write = ClipWriter.write

        def refuse(*arguments: Any) -> None:
            for refusal in refusals:
                raise refusal
            write(*arguments)

        monkeypatch.setattr(ClipWriter, "write", refuse)
        assert stylize("a.mp4", "b.mp4") == 1
        printed = capsys.readouterr()
        assert printed.out == "painted/b_zigzag.mp4\n"
        assert printed.err.startswith(
            "error: expected a clip that FFmpeg can write, got 'Operation not permitted' for "
            "'painted/a_zigzag.mp4': make it smaller, or choose another ending"
        )

    @pytest.mark.usefixtures("folder")
    def test_frames_larger_than_the_limit(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_clip(Path("a.mkv"), Clip(size=(3200, 2500), codec="ffv1", times=[0]))
        assert stylize("a.mkv", "--max-pixels", 7_999_998) == 2
        assert capsys.readouterr().err == (
            "error: expected frames of at most 7,999,998 px, got 3200 x 2500 px in 'a.mkv': make it smaller, "
            "or raise the limit\n"
        )
        write_clip(Path("b.mp4"))
        assert stylize("b.mp4", "--max-pixels", 32 * 24) == 0
        assert stylize("b.mp4", "--max-pixels", 32 * 24 - 2) == 2

    @pytest.mark.usefixtures("folder")
    def test_without_the_extra(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        write_clip(Path("a.mp4"))
        for module in ("impasto.painting.video", "impasto.painting.clips"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setitem(sys.modules, "av", None)
        assert stylize("a.mp4") == 2
        assert capsys.readouterr().err == (
            "error: expected the package av, which reads and writes video, found none: pip install 'impasto[video]'\n"
        )


class TestMemory:
    def test_a_clip_ten_times_longer_takes_no_more(self, folder: Path) -> None:
        peaks = []
        for count in (60, 600):
            name = f"{count}.mp4"
            write_clip(folder / name, Clip(size=(96, 72), times=range(0, count * 512, 512)))
            code = (
                "import re; from impasto.cli import main; "
                f"assert main('stylize --model runs/zigzag --device cpu {name}'.split()) == 0; "
                # Not getrusage's peak: a process begins with that of the one that started it.
                "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024)"
            )
            done = processes.run("-c", code)
            assert done.returncode == 0, done.stderr
            peaks.append(int(done.stdout.splitlines()[-1]))
        # The frames alone are 11 MB more.
        assert peaks[1] < peaks[0] + 5, peaks


def test_a_former_clip_is_replaced_only_by_a_whole_one(folder: Path) -> None:
    write_clip(folder / "a.mp4")
    shutil.copy("a.mp4", "b.mp4")
    before = Path("b.mp4").read_bytes()
    stylizer = StopsAfter.load("runs/zigzag", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        paint(stylizer, "a.mp4", "b.mp4")
    assert Path("b.mp4").read_bytes() == before
