"""Animated GIF and WebP files move as before when they are painted."""

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from impasto.painting import animations
from impasto.painting.batch import paint_clips
from impasto.painting.outputs import ClipOptions, Job
from impasto.painting.painter import Look
from impasto.painting.stylizer import Stylizer
from tests.clip_files import picture
from tests.test_cli import stylize
from tests.test_video import StopsAfter

DURATIONS = [40, 200, 70, 70, 1000]
SIZE = (33, 24)


def write(path: Path, *, with_alpha: bool = False, **options: Any) -> None:
    images = [Image.fromarray(picture(3 * number, SIZE)) for number in range(len(DURATIONS))]
    if with_alpha:
        for number, image in enumerate(images):
            alpha = np.full(SIZE[::-1], 255, np.uint8)
            alpha[:, 5 * number : 5 * number + 6] = 0
            image.putalpha(Image.fromarray(alpha))
    options |= {"disposal": 2} if path.suffix == ".gif" else {"lossless": True}
    images[0].save(path, save_all=True, append_images=images[1:], duration=DURATIONS, **options)


def read(path: Path) -> tuple[list[NDArray[np.uint8]], list[int], object]:
    """Frames (H, W, 4), durations in ms, and what is said of loops."""
    frames, durations = [], []
    with Image.open(path) as file:
        for number in range(getattr(file, "n_frames", 1)):
            file.seek(number)
            file.load()
            frames.append(np.array(file.convert("RGBA")))
            durations.append(int(file.info["duration"]))
        return frames, durations, file.info.get("loop")


def gray(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(frame[..., :3] @ np.array([0.299, 0.587, 0.114]), np.float64)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize("loop", [{"loop": 0}, {"loop": 3}, {}], ids=["endless", "three", "none"])
@pytest.mark.usefixtures("folder")
def test_times_and_loops_are_kept(suffix: str, loop: dict[str, Any]) -> None:
    write(Path(f"a{suffix}"), **loop)
    assert stylize(f"a{suffix}") == 0
    before, durations, loops = read(Path(f"a{suffix}"))
    after, kept, kept_loops = read(Path(f"painted/a_zigzag{suffix}"))
    assert kept == durations == DURATIONS
    assert kept_loops == loops
    assert {frame.shape for frame in after} == {(24, 33, 4)}
    stylizer = Stylizer.load("runs/zigzag", device="cpu")
    for photo, painted in zip(before, after, strict=True):
        expected = stylizer(np.ascontiguousarray(photo[..., :3]))
        # WebP halves the resolution of colour, not of lightness.
        assert np.abs(gray(expected) - gray(painted)).mean() < 8
        assert np.abs(gray(photo) - gray(painted)).mean() > 16


@pytest.mark.parametrize(
    ("gif_loop", "webp_loop"), [(None, 1), (0, 0), (1, 2), (4, 5)], ids=["once", "endless", "twice", "five times"]
)
@pytest.mark.usefixtures("folder")
def test_a_gif_says_how_often_it_repeats_and_a_webp_how_often_it_plays(gif_loop: int | None, webp_loop: int) -> None:
    options: dict[str, Any] = {} if gif_loop is None else {"loop": gif_loop}
    write(Path("a.gif"), **options)
    write(Path("a.webp"), loop=webp_loop)
    for source, target, expected in (("a.gif", "b.webp", webp_loop), ("a.webp", "b.gif", gif_loop)):
        assert stylize(source, "--output", target) == 0
        assert read(Path(target))[1:] == (DURATIONS, expected)


@pytest.mark.usefixtures("folder")
def test_a_gif_of_more_repeats_than_a_webp_can_play() -> None:
    write(Path("a.gif"), loop=65_535)
    for target in ("b.webp", "b.gif"):
        assert stylize("a.gif", "--output", target) == 0
        assert read(Path(target))[2] == 65_535


@pytest.mark.usefixtures("folder")
def test_durations_of_a_webp_keep_their_sum_in_a_gif() -> None:
    images = [Image.fromarray(picture(9 * number, SIZE)) for number in range(7)]
    images[0].save("a.webp", save_all=True, append_images=images[1:], duration=[16, 33, 33, 16, 33, 33, 17])
    assert stylize("a.webp", "--output", "b.gif") == 0
    assert read(Path("b.gif"))[1] == [20, 30, 30, 20, 30, 30, 20]  # which end after 20, 50, 80, 100, 130, 160, 180 ms


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.usefixtures("folder")
def test_what_is_transparent_is_kept(suffix: str) -> None:
    write(Path(f"a{suffix}"), with_alpha=True)
    assert stylize(f"a{suffix}", "--output", f"b{suffix}") == 0
    before, _, _ = read(Path(f"a{suffix}"))
    after, durations, _ = read(Path(f"b{suffix}"))
    assert durations == DURATIONS
    for photo, painted in zip(before, after, strict=True):
        assert np.array_equal(photo[..., 3], painted[..., 3])
        assert (photo[..., 3] == 0).any()


@pytest.mark.parametrize("is_stripped", [False, True], ids=["kept", "stripped"])
@pytest.mark.usefixtures("folder")
def test_a_turned_one_stands_upright_with_what_was_noted(is_stripped: bool) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Artist] = 6, "Ann"
    write(Path("a.webp"), exif=exif)
    words = ["--strip"] if is_stripped else []
    for target in ("b.webp", "b.gif"):
        assert stylize("a.webp", "--output", target, "--strength", 0, *words) == 0
        for photo, painted in zip(read(Path("a.webp"))[0], read(Path(target))[0], strict=True):
            assert np.abs(gray(np.rot90(photo, -1)) - gray(painted)).mean() < 5
    with Image.open("b.webp") as after:
        assert dict(after.getexif()) == ({} if is_stripped else {ExifTags.Base.Artist: "Ann"})
        assert "sRGB" in ImageCms.getProfileName(io.BytesIO(after.info["icc_profile"]))
    part = StopsAfter.load("runs/zigzag", device="cpu")
    part.left = 2
    with pytest.raises(KeyboardInterrupt):
        paint(part, "c.webp", ".webp")
    part.left = 5
    paint(part, "c.webp", ".webp", resume=True)
    assert stylize("a.webp", "--output", "d.webp") == 0
    assert Path("c.webp").read_bytes() == Path("d.webp").read_bytes()


@pytest.mark.parametrize("gray", [0, 255])
@pytest.mark.usefixtures("folder")
def test_opaque_edges_stay_opaque(gray: int) -> None:
    frames = np.full((3, 24, 33, 4), gray, np.uint8)
    frames[..., 3] = 255
    for number, frame in enumerate(frames):
        frame[5:12, 5 + 3 * number : 20] = (200, 100, 50, 0)
        frame[12:15, 5 + 3 * number : 20] = (50, 100, 200, 255)
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save("a.webp", save_all=True, append_images=others, duration=50, lossless=True)
    assert stylize("a.webp", "--output", "b.gif", "--strength", 0) == 0
    after = np.stack(read(Path("b.gif"))[0])
    assert np.array_equal(after[..., 3], frames[..., 3])
    assert np.array_equal(after[frames[..., 3] > 0], frames[frames[..., 3] > 0])


@pytest.mark.usefixtures("folder")
def test_one_frame_is_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("moving.gif"))
    Image.fromarray(picture(0, SIZE)).save("still.gif")
    assert stylize("moving.gif", "still.gif") == 0
    assert sorted(os.listdir("painted")) == ["moving_zigzag.gif", "still_zigzag.png"]
    assert stylize("moving.gif", "--output", "first.png") == 0
    assert read_size(Path("first.png")) == SIZE
    assert capsys.readouterr().err == ""


def read_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


class TestInterrupted:
    def stopped(self, left: int, suffix: str, *, done: int | None = None, **options: bool) -> None:
        stylizer = StopsAfter.load("runs/zigzag", device="cpu")
        stylizer.left = left
        with pytest.raises(KeyboardInterrupt) as caught:
            paint(stylizer, f"b/b{suffix}", suffix, **options)
        note = f"the {done or left} frames done are in 'b/b.partial{suffix}', and --resume continues"
        assert caught.value.__notes__ == [note]
        assert os.listdir("b") == [f"b.partial{suffix}"]

    @pytest.mark.parametrize("is_smooth", [False, True], ids=["plain", "smooth"])
    @pytest.mark.parametrize("with_alpha", [False, True], ids=["opaque", "transparent"])
    @pytest.mark.parametrize("suffix", [".gif", ".webp"])
    @pytest.mark.usefixtures("folder")
    def test_what_is_done_stays_and_is_continued(self, suffix: str, with_alpha: bool, is_smooth: bool) -> None:
        write(Path(f"a{suffix}"), with_alpha=with_alpha, loop=3)
        paint(Stylizer.load("runs/zigzag", device="cpu"), f"whole{suffix}", suffix, smooth=is_smooth)
        self.stopped(1, suffix, smooth=is_smooth)
        self.stopped(2, suffix, smooth=is_smooth, done=3, resume=True)
        assert read(Path(f"b/b.partial{suffix}"))[1:] == (DURATIONS[:3], 3)
        rest = StopsAfter.load("runs/zigzag", device="cpu")
        rest.left = 2
        paint(rest, f"b/b{suffix}", suffix, smooth=is_smooth, resume=True)
        assert os.listdir("b") == [f"b{suffix}"]
        whole, resumed = read(Path(f"whole{suffix}")), read(Path(f"b/b{suffix}"))
        assert resumed[1:] == whole[1:] == (DURATIONS, 3)
        assert np.array_equal(np.stack(resumed[0]), np.stack(whole[0]))
        assert b"impasto" not in Path(f"b/b{suffix}").read_bytes()

    @pytest.mark.parametrize("suffix", [".gif", ".webp"])
    @pytest.mark.usefixtures("folder")
    def test_frames_that_are_alike_are_counted(self, suffix: str) -> None:
        images = [Image.fromarray(picture(number, SIZE)) for number in (0, 0, 0, 9, 9, 0, 20)]
        # Else the writer of this source would put the frames together, too.
        for number, image in enumerate(images):
            image.putpixel((0, 0), (number, 0, 0))
        images[0].save("a.gif", save_all=True, append_images=images[1:], duration=50, disposal=2)
        whole, alike = (Alike.load("runs/zigzag", device="cpu") for _ in range(2))
        whole.left = 7
        paint(whole, f"whole{suffix}", ".gif")
        alike.left = 5
        with pytest.raises(KeyboardInterrupt) as caught:
            paint(alike, f"b/b{suffix}", ".gif")
        part = f"b/b.partial{suffix}"
        assert caught.value.__notes__ == [f"the 5 frames done are in {part!r}, and --resume continues"]
        assert read(Path(part))[1] == [150, 100]
        alike.left, alike.painted = 2, 0
        paint(alike, f"b/b{suffix}", ".gif", resume=True)
        first, second = read(Path(f"whole{suffix}")), read(Path(f"b/b{suffix}"))
        assert first[1:] == second[1:] == ([150, 100, 50, 50], first[2])
        assert np.array_equal(np.stack(first[0]), np.stack(second[0]))

    @pytest.mark.parametrize("suffix", [".gif", ".webp"])
    @pytest.mark.usefixtures("folder")
    def test_fewer_frames_never_replace_more(self, suffix: str) -> None:
        write(Path(f"a{suffix}"))
        self.stopped(3, suffix)
        before = Path(f"b/b.partial{suffix}").read_bytes()
        job = Job(Path(f"a{suffix}"), Path(f"b/b{suffix}"), is_clip=True)

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        stylizer = Stylizer.load("runs/zigzag", device="cpu")
        with pytest.raises(KeyboardInterrupt) as caught:
            list(paint_clips(stylizer, [job], look=Look(), options=ClipOptions(resume=True), progress=stop))
        note = f"the 3 frames done are in 'b/b.partial{suffix}', and --resume continues"
        assert caught.value.__notes__ == [note]
        assert Path(f"b/b.partial{suffix}").read_bytes() == before

    @pytest.mark.parametrize("suffix", [".gif", ".webp"])
    @pytest.mark.usefixtures("folder")
    def test_a_run_that_begins_again_keeps_the_longer_part(self, suffix: str) -> None:
        write(Path(f"a{suffix}"))
        self.stopped(3, suffix)
        before = Path(f"b/b.partial{suffix}").read_bytes()
        self.stopped(2, suffix, done=3)
        assert Path(f"b/b.partial{suffix}").read_bytes() == before
        stylizer = StopsAfter.load("runs/zigzag", device="cpu")
        stylizer.left = 3
        with pytest.raises(KeyboardInterrupt) as caught:
            paint(stylizer, f"b/b{suffix}", suffix, smooth=True)
        note = f"'b/b.partial{suffix}' still has the 3 frames that a run with another source, style or options painted"
        assert caught.value.__notes__ == [note]
        assert Path(f"b/b.partial{suffix}").read_bytes() == before
        self.stopped(4, suffix, smooth=True)
        assert read(Path(f"b/b.partial{suffix}"))[1] == DURATIONS[:4]
        paint(Stylizer.load("runs/zigzag", device="cpu"), f"b/b{suffix}", suffix)
        assert os.listdir("b") == [f"b{suffix}"]

    @pytest.mark.parametrize("suffix", [".gif", ".webp"])
    @pytest.mark.usefixtures("folder")
    def test_a_part_made_in_another_way_is_refused(self, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
        write(Path(f"a{suffix}"))
        self.stopped(3, suffix)
        part = Path(f"b/b.partial{suffix}")
        before = part.read_bytes()
        expected = (
            "error: expected a partial clip of the same source, style and options, got another in "
            f"{str(part)!r}: remove it, or run without --resume\n"
        )
        assert stylize(f"a{suffix}", "--output", f"b/b{suffix}", "--resume", "--strength", 0.5) == 2
        assert capsys.readouterr().err == expected
        assert part.read_bytes() == before
        write(part)  # made by another program
        assert stylize(f"a{suffix}", "--output", f"b/b{suffix}", "--resume") == 2
        assert capsys.readouterr().err == expected

    @pytest.mark.parametrize("suffix", [".gif", ".webp"])
    @pytest.mark.parametrize("damage", ["cut", "empty", "changed"])
    @pytest.mark.usefixtures("folder")
    def test_a_damaged_part_begins_again(self, suffix: str, damage: str) -> None:
        write(Path(f"a{suffix}"))
        paint(Stylizer.load("runs/zigzag", device="cpu"), f"whole{suffix}", suffix)
        self.stopped(4, suffix)
        part = Path(f"b/b.partial{suffix}")
        data = part.read_bytes()
        middle = len(data) // 2
        changed = data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
        part.write_bytes({"cut": data[:middle], "empty": b"", "changed": changed}[damage])
        again = StopsAfter.load("runs/zigzag", device="cpu")
        again.left = 5
        paint(again, f"b/b{suffix}", suffix, resume=True)
        assert again.painted == 5
        assert Path(f"b/b{suffix}").read_bytes() == Path(f"whole{suffix}").read_bytes()
        assert os.listdir("b") == [f"b{suffix}"]


class Alike(StopsAfter):
    """Paints what differs in the first pixel alone alike."""

    def paint(self, pixels: NDArray[np.uint8], look: Look) -> NDArray[np.uint8]:
        pixels = pixels.copy()
        pixels[0, 0] = 0
        return super().paint(pixels, look)


def paint(stylizer: Stylizer, target: str, suffix: str, *, resume: bool = False, smooth: bool = False) -> None:
    """Paint the animation ``a``; raises its error."""
    job = Job(Path(f"a{suffix}"), Path(target), is_clip=True)
    for _, error in paint_clips(stylizer, [job], look=Look(), options=ClipOptions(resume=resume, smooth=smooth)):
        assert error is None


@pytest.mark.usefixtures("folder")
def test_frames_that_stay_too_long_for_a_gif(capsys: pytest.CaptureFixture[str]) -> None:
    images = [Image.fromarray(picture(number, SIZE)) for number in range(2)]
    images[0].save("a.webp", save_all=True, append_images=images[1:], duration=[700_000, 40])
    assert stylize("a.webp", "--output", "a.gif") == 2
    expected = "error: expected frames that stay for at most 655 s, as a GIF's can, got longer ones for 'a.gif'"
    assert capsys.readouterr().err.splitlines()[-1] == f"{expected}: write a .webp instead"
    assert not Path("a.gif").exists()
    assert stylize("a.webp") == 0
    assert read(Path("painted/a_zigzag.webp"))[1] == [700_000, 40]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("width", "advice"), [(33, "write a .webp instead"), (16_384, "let them stay shorter")])
def test_equal_frames_that_stay_too_long_together(width: int, advice: str) -> None:
    frame = Image.new("P", (width, 2))
    expected = "expected frames that stay for at most 655 s, as a GIF's can, got longer ones for 'a.gif'"
    with pytest.raises(ValueError, match=rf"^{re.escape(expected)}: {advice}$"):
        animations._write(Path("a.gif"), [frame, frame.copy()], [400_000, 400_000], plays=1)
    assert not Path("a.gif").exists()


@pytest.mark.usefixtures("folder")
def test_frames_too_wide_for_a_webp_are_not_painted(capsys: pytest.CaptureFixture[str]) -> None:
    images = [Image.new("L", (16_384, 2), gray) for gray in (0, 90)]
    images[0].save("a.gif", save_all=True, append_images=images[1:], duration=50)
    stylizer = StopsAfter.load("runs/zigzag", device="cpu")
    job = Job(Path("a.gif"), Path("a.webp"), is_clip=True)
    ((_, error),) = paint_clips(stylizer, [job], look=Look(), options=ClipOptions())
    assert str(error) == (
        "expected frames of at most 16,383 px a side, as a WebP's can be, got 16384 x 2 px for 'a.webp': "
        "write a .gif instead"
    )
    assert stylizer.painted == 0
    assert not Path("a.webp").exists()


@pytest.mark.usefixtures("folder")
def test_among_several_a_frame_too_large_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("a.gif"))
    write(Path("b.gif"))
    assert stylize("a.gif", "b.gif", "--memory", "1MB") == 1
    assert [line.split(" ")[-1] for line in capsys.readouterr().err.splitlines()[:2]] == ["('a.gif')", "('b.gif')"]


@pytest.mark.usefixtures("folder")
def test_a_damaged_one_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("a.gif"))
    data = Path("a.gif").read_bytes()
    Path("a.gif").write_bytes(data[: len(data) // 2])
    assert stylize("a.gif") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: expected a whole image file, got a damaged one in 'a.gif': copy it again")
    assert printed.count("\n") == 1
    assert not Path("painted/a_zigzag.gif").exists()


@pytest.mark.parametrize(("share", "done"), [(0.3, 1), (0.5, 2), (0.7, 3), (0.98, 4)])
@pytest.mark.usefixtures("folder")
def test_one_cut_off_anywhere_is_painted_as_far_as_it_goes_and_named(
    share: float, done: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write(Path("a.gif"))
    data = Path("a.gif").read_bytes()
    Path("a.gif").write_bytes(data[: int(len(data) * share)])
    assert stylize("a.gif") == 2
    part = "painted/a_zigzag.partial.gif"
    assert capsys.readouterr().err == (
        "error: expected a whole image file, got a damaged one in 'a.gif': copy it again; "
        f"the {done} frames done are in {part!r}, and --resume continues\n"
    )
    assert len(read(Path(part))[0]) == done
    assert os.listdir("painted") == [Path(part).name]
