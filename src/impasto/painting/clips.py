"""Clip files: frames out of one and into another, with all that belongs to them; FFmpeg, through PyAV, does the work.

Frames are turned upright, and go to RGB and back by the clip's own matrix and range, so that its tags stay true. Sound
and subtitles are copied packet for packet. No frame depends on a later one: the n-th packet is the n-th frame.
"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Self, cast

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags as CodecFlags
from av.container import InputContainer, OutputContainer
from av.container.core import Flags as ContainerFlags
from av.stream import Discard, Stream
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream

from impasto.images import pixel_limit
from impasto.painting.pictures import Pixels

_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# FFmpeg 8.1 gives other colours where it interpolates these by BILINEAR.
_EXACT_DEEP = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}  # the usual one of so many channels
_NOT_IN_MOV = {"flac", "opus", "truehd"}  # FFmpeg says so only once the first frame is painted
_MATRICES = {  # FFmpeg's number in a file, to its name in the conversion
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
_LARGEST_PAL = 576  # rows; what is higher and says nothing of its matrix is taken for BT.709, as players do
_MOST_FAILURES = 20  # in a row, of reading: beyond them nothing more is expected
_LATE = 0.5  # seconds that may be missing at the end: durations in headers are rough
_LEAP = Fraction(1, 4)  # seconds: what steps back further starts over, what steps back less is damaged
_LONGEST_SCALE = 2**31 - 1


KEYFRAME_EVERY = 48
"""Frames of a written clip from one keyframe to the next: those after the last one may not yet be on the disk."""


class ClipError(ValueError):
    """A file that is no readable clip, or a clip that cannot be painted as asked."""


@dataclass(frozen=True)
class Frame:
    """``pixels`` (H, W, 3) of uint8 or uint16, shown at ``time`` for ``duration``, in ticks of the clip's time base."""

    pixels: Pixels
    time: int
    duration: int


@dataclass(frozen=True)
class Form:
    """What the first frame says of all: ``matrix`` (2, 2) turns it upright, the others are FFmpeg's tags."""

    width: int
    height: int
    is_deep: bool
    matrix: tuple[tuple[int, int], tuple[int, int]]
    colorspace: int
    color_range: int
    color_primaries: int
    color_trc: int
    is_rgb: bool

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as seen."""
        return (self.height, self.width) if self.is_turned else (self.width, self.height)

    @property
    def is_turned(self) -> bool:
        """Whether width and height change places."""
        return abs(self.matrix[0][1]) > abs(self.matrix[0][0])

    @property
    def painted(self) -> "Form":
        """The form of the painted clip: upright, in YUV."""
        width, height = self.upright_size
        colorspace = Colorspace.ITU709 if self.is_rgb else self.colorspace
        return replace(
            self,
            width=width,
            height=height,
            matrix=((1, 0), (0, 1)),
            colorspace=colorspace,
            color_range=self.shown_range,
            is_rgb=False,
        )

    @property
    def conversion(self) -> Colorspace:
        """The matrix between RGB and YUV."""
        guess = Colorspace.ITU709 if self.is_rgb or self.height > _LARGEST_PAL else Colorspace.ITU601
        return _MATRICES.get(self.colorspace, guess)

    @property
    def shown_range(self) -> ColorRange:
        """The range of the painted clip."""
        return ColorRange.JPEG if self.color_range == ColorRange.JPEG and not self.is_rgb else ColorRange.MPEG


class _Clock:
    """Times that go on where those of a file start over, as they do in MPEG files that were joined end to end.

    ``end``: of what was read so far, in seconds.
    """

    def __init__(self) -> None:
        self.end = Fraction(0)
        self.offsets = [Fraction(0)]  # in seconds, from each start of the file's own clock
        self.starts: dict[int, int] = {}  # which of them the streams, by their numbers, have reached
        self.last: dict[int, Fraction] = {}

    def set_on(self, packet: "av.Packet[Any]") -> None:
        """Give a packet the time that it has in the whole."""
        shown = packet.dts if packet.pts is None else packet.pts
        if shown is None or packet.time_base is None:
            return
        if packet.dts is not None:  # of the times of display, those of neighbours may stand in any order
            self._find_start(packet.stream, packet.dts * packet.time_base, shown=shown * packet.time_base)
        shift = round(self.offsets[self.starts.get(packet.stream.index, -1)] / packet.time_base)
        if packet.pts is not None:
            packet.pts += shift
        if packet.dts is not None:
            packet.dts += shift
        self.end = max(self.end, (shown + shift + (packet.duration or 0)) * packet.time_base)

    def _find_start(self, stream: Stream, time: Fraction, *, shown: Fraction) -> None:
        if stream.type not in ("audio", "video"):  # subtitles may stand in any order
            self.starts[stream.index] = len(self.offsets) - 1
            return
        newest = len(self.offsets) - 1
        start = self.starts.get(stream.index, newest)
        last = self.last.get(stream.index, time + self.offsets[start])
        if time + self.offsets[start] < last - _LEAP:
            # Sound and pictures start over together: the first that does sets the offset. Some parts may lack one.
            start = max(start + 1, newest)
            if start == len(self.offsets) or time + self.offsets[start] < last - _LEAP:
                self.offsets[start : start + 1] = [self.end - shown]
        elif start and time + self.offsets[start] > last + _LEAP and abs(time + self.offsets[start - 1] - last) < 1:
            # It fits what was before: it was but one damaged packet, and nothing has started over.
            if all(other < start for number, other in self.starts.items() if number != stream.index):
                del self.offsets[start:]
            start -= 1
        self.starts[stream.index], self.last[stream.index] = start, time + self.offsets[start]


class ClipReader:
    """A clip's frames and packets, once, in the order of the file.

    Raises:
        FileNotFoundError: nothing is there.
        ClipError: the file is no clip, or has no frame.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.form = _read_form(path)
        self.container = _open(path)
        self.stream = _main_stream(self.container, path)
        self.frames = 0
        self.broken = 0
        self.clock = _Clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    @property
    def time_base(self) -> Fraction:
        """Seconds of a tick."""
        assert self.stream.time_base is not None, "a stream that gave a frame has one"
        return self.stream.time_base

    @property
    def expected_frames(self) -> int | None:
        """How many frames there may be, for a progress bar."""
        if self.stream.frames:
            return self.stream.frames
        if self.container.duration is None or self.stream.average_rate is None:
            return None
        return round(self.container.duration / av.time_base * self.stream.average_rate)

    def read(self) -> "Iterator[Frame | av.Packet[Any]]":
        """Yield frames to be painted and packets to be copied; what is broken is counted and passed over."""
        last = -math.inf
        for packet in _read_packets(self.container):
            if packet is None:
                self.broken += 1
                continue
            self.clock.set_on(packet)
            if packet.stream is not self.stream:
                if packet.size and packet.dts is not None:
                    yield packet
                continue
            for frame in self._decode(packet):
                time = frame.pts if frame.pts is not None else frame.dts
                # Damaged files may step back in time, which no file to be written can.
                last = time if time is not None and time > last else last + 1 if last >= 0 else 0
                self.frames += 1
                yield Frame(_to_pixels(frame, self.form), int(last), frame.duration or 0)

    def find_cut(self) -> str | None:
        """Return, once all is read, what is wrong where the file ended before the time that its header says."""
        if self.container.duration is None or not {"mp4", "matroska"} & set(self.container.format.name.split(",")):
            return None  # others only guess their duration
        expected = Fraction(self.container.duration + max(0, self.container.start_time or 0), av.time_base)
        if self.clock.end >= expected - Fraction(_LATE):
            return None
        return (
            f"expected a whole clip of {float(expected):.1f} s, got one cut off after {float(self.clock.end):.1f} s "
            f"in {str(self.path)!r}: copy it again"
        )

    def find_missing(self) -> str | None:
        """Return, once all is read, what to tell of an AVI with fewer frames than its header says.

        That is no error: frames that a recorder dropped are counted there, too.
        """
        stated = self.stream.frames
        if self.container.format.name != "avi" or self.frames >= stated:
            return None
        return f"{str(self.path)!r} has {self.frames} of the {stated} frames that its header says: it may be cut off"

    def _decode(self, packet: "av.Packet[Any]") -> list[av.VideoFrame]:
        try:
            return packet.decode()
        except av.FFmpegError:
            self.broken += 1
            return []


class ClipWriter:
    """A new clip with the frames given and the packets of the source; a file that is playable at any time.

    ``frames``: how many it has, without those that the encoder still holds. ``left_out`` names what the
    new file's kind does not take, such as subtitles.

    Raises:
        ClipError: the file's kind holds no such clip.
        OSError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, path: Path, source: ClipReader, *, quality: int, mark: str, strip: bool) -> None:
        self.form, self.time_base = source.form, source.time_base
        self.frames = 0
        self.broken = 0
        self.failure: Exception | None = None
        self.left_out: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self.container: OutputContainer = av.open(_url(path), "w", options=_options(path, source))
        # What is written is on the disk at once, should the machine fail.
        self.container.flags |= cast(int, ContainerFlags.flush_packets.value)
        self.stream = self._add_video(source, quality=quality, is_webm=path.suffix.lower() == ".webm")
        self.strip = strip
        self.stream.metadata.update({**self._kept(source.stream.metadata), "handler_name": mark})
        self.copies: dict[int, Stream] = {}
        self.unpacking: dict[int, BitStreamFilterContext] = {}
        for stream in source.container.streams:
            # MP4 has chapters in a track of its own, which FFmpeg reads as such and discards.
            if stream is not source.stream and stream.discard != Discard.all:
                self._add_copy(stream)
        if not strip:
            self.container.metadata.update(source.container.metadata)
            self.container.set_chapters(source.container.chapters())

    def write(self, frame: Frame) -> None:
        """Encode the painted frame."""
        encoded = _to_frame(frame, self.form, self.stream.pix_fmt or "")
        encoded.time_base = self.time_base
        self._add_frames(self.stream.encode(encoded))

    def write_encoded(self, packet: "av.Packet[Any]", frame: Frame) -> None:
        """Add a frame that a former run encoded in the same way, at the time of its source."""
        packet.stream = self.stream
        packet.time_base = self.time_base
        packet.pts = packet.dts = frame.time
        packet.duration = frame.duration
        self._add_frames([packet])

    def copy(self, packet: "av.Packet[Any]") -> None:
        """Add a packet of sound or subtitles, if its stream is taken."""
        number = packet.stream.index
        if number not in self.copies:
            return
        try:
            copied = self.unpacking[number].filter(packet) if number in self.unpacking else [packet]
            for each in copied:
                each.stream = self.copies[number]
            self._mux(copied)
        except (av.ArgumentError, av.InvalidDataError, av.PatchWelcomeError):  # out of order, or with a broken header
            self.broken += 1

    def close(self) -> None:
        """Write what is still held back, and the end of the file."""
        try:
            self._add_frames(self.stream.encode(None))
        finally:
            self.container.close()

    def _add_frames(self, packets: "list[av.Packet[Any]]") -> None:
        self._mux(packets)
        self.frames += len(packets)

    def _mux(self, packets: "list[av.Packet[Any]]") -> None:
        if self.failure is not None:  # given more after a full disk, FFmpeg's MP4 writer ends the whole program
            raise self.failure
        for packet in packets:
            try:
                self.container.mux(packet)
            except av.InvalidDataError:  # MP4 reads the head of some sound, perhaps of a packet given earlier
                self.broken += 1
            except av.ArgumentError:
                raise
            except Exception as error:
                self.failure = error
                raise

    def _add_video(self, source: ClipReader, *, quality: int, is_webm: bool) -> VideoStream:
        form = self.form
        width, height = form.upright_size
        rate = source.stream.average_rate or Fraction(25)
        crf = round(51 - 0.36 * quality)  # 95: 17, as good as the painting; 75: 24; 50: 33
        stream: VideoStream
        if is_webm:
            stream = self.container.add_stream("libvpx-vp9", rate, {"crf": f"{crf}", "cpu-used": "4"})
        else:
            stream = self.container.add_stream("libx264", rate, {"crf": f"{crf}"})
        stream.width, stream.height = width, height
        sampling = "444" if width % 2 or height % 2 else "420"
        stream.pix_fmt = f"yuv{sampling}p" + ("10le" if form.is_deep and not is_webm else "")
        if form.is_deep and is_webm:
            self.left_out.append("more than 8 bits")
        context = stream.codec_context
        context.time_base = self.time_base
        context.gop_size = KEYFRAME_EVERY
        context.max_b_frames = 0
        context.flags |= CodecFlags.frame_duration
        context.color_range, context.colorspace = form.painted.color_range, form.painted.colorspace
        context.color_primaries, context.color_trc = form.color_primaries, form.color_trc
        if aspect := source.stream.sample_aspect_ratio:  # of the container, where the codec has none
            context.sample_aspect_ratio = 1 / aspect if form.is_turned else aspect
            if is_webm and aspect != 1:  # it could, but PyAV has no way to write it there
                self.left_out.append(f"sample aspect ratio ({aspect.numerator}:{aspect.denominator})")
        return stream

    def _add_copy(self, template: Stream) -> None:
        context = template.codec_context
        name = "" if context is None else context.name
        is_refused = self.container.format.name == "mov" and name in _NOT_IN_MOV
        if template.type in ("audio", "subtitle") and not is_refused:
            with suppress(ValueError):
                stream = self.container.add_stream_from_template(template)
                stream.metadata.update(self._kept(template.metadata))
                stream.disposition = template.disposition
                if name == "aac":
                    # In camcorders' and broadcast clips each packet has a header of its own, which MP4 does not take.
                    self.unpacking[template.index] = BitStreamFilterContext("aac_adtstoasc", template)
                self.copies[template.index] = stream
                _name_layout(stream.codec_context)
                return
        self.left_out.append(f"{template.type} ({name})" if name else template.type)

    def _kept(self, noted: dict[str, str]) -> dict[str, str]:
        """Return a stream's tags, with ``strip`` only the language."""
        return {name: value for name, value in noted.items() if not self.strip or name.lower() == "language"}


def _name_layout(context: Any) -> None:
    """Say which loudspeakers the channels are for, where the source gives their number alone: MP4 wants to know."""
    layout = getattr(context, "layout", None)
    if layout is not None and layout.name.endswith("channels") and layout.nb_channels in _LAYOUTS:
        context.layout = _LAYOUTS[layout.nb_channels]


@dataclass(frozen=True)
class FormerClip:
    """The encoded frames of a partial clip, to go on from; ``mark`` is what it says of its making."""

    path: Path
    mark: str
    frames: int

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """Return what an earlier run left; None where nothing is there, or no frame of a killed run was on the disk.

        Raises:
            ClipError: it may not be read, so that nobody knows whether it may be replaced.
        """
        try:
            path.open("rb").close()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ClipError(
                f"expected a partial clip that can be read, got {error.strerror!r} for {str(path)!r}: move it away"
            ) from error
        try:
            with _open(path) as container:
                tags = _main_stream(container, path).metadata
            frames = sum(1 for _ in _whole_packets(path))
        except (FileNotFoundError, ClipError):
            return None
        mark = next((value for key, value in tags.items() if key.lower() == "handler_name"), "")
        return cls(path, mark, frames) if frames else None

    def packets(self) -> "Iterator[av.Packet[Any]]":
        """Yield the packet of each frame, as the encoder gave it."""
        packing = None
        for packet in _whole_packets(self.path):
            if packet.stream.codec_context.name != "h264":
                yield packet
                continue
            packing = packing or BitStreamFilterContext("h264_mp4toannexb", packet.stream)
            yield from packing.filter(packet)

    def last_frame(self, form: Form) -> Pixels | None:
        """Return the pixels of the last frame, or None without one."""
        last = None
        for packet in _whole_packets(self.path):
            if packet.is_keyframe:
                packet.stream.codec_context.flush_buffers()
            for frame in packet.decode():
                last = frame
        return None if last is None else _to_pixels(last, form.painted)


def _whole_packets(path: Path) -> "Iterator[av.Packet[Any]]":
    # A killed run may leave half a packet at the end.
    with _open(path) as container, suppress(av.FFmpegError):
        for packet in container.demux(_main_stream(container, path)):
            if packet.is_corrupt:
                return
            if packet.size:
                yield packet


def _options(path: Path, source: ClipReader) -> dict[str, str]:
    if path.suffix.lower() not in (".mp4", ".m4v", ".mov"):
        return {}
    rates = [stream.codec_context.sample_rate for stream in source.container.streams.audio if stream.codec_context]
    ticks = math.lcm(source.time_base.denominator, *(rate for rate in rates if rate))
    if ticks > _LONGEST_SCALE:
        ticks = source.time_base.denominator
    # In fragments until it is done: those written are playable, whatever happens. In the default ticks, of a
    # millisecond, the start of the clip would be rounded.
    return {"movflags": "hybrid_fragmented+frag_keyframe+delay_moov", "movie_timescale": f"{ticks}"}


def _open(path: Path) -> InputContainer:
    if not os.path.exists(path):  # Path.exists() raises where a folder may not be entered
        raise FileNotFoundError(f"expected a clip, found nothing at {str(path)!r}: check the path")
    if path.stat().st_size == 0:
        raise ClipError(f"expected a clip, got zero bytes in {str(path)!r}: copy it again")
    try:
        return av.open(_url(path), "r", metadata_errors="replace")
    except av.FFmpegError as error:
        raise ClipError(
            f"expected a clip that FFmpeg reads, got {error.strerror!r} from {str(path)!r}: copy it again"
        ) from error


def _url(path: Path) -> str:
    """Return the name for FFmpeg, which would take what stands before a colon for a protocol."""
    return f"file:{path}"


def _main_stream(container: InputContainer, path: Path) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.codec_context is None:
        container.close()
        raise ClipError(f"expected a clip with frames, found none in {str(path)!r}: give another file")
    return stream


def _read_form(path: Path) -> Form:
    """Return the form of the first frame that can be decoded."""
    with _open(path) as container:
        stream = _main_stream(container, path)
        _check_size(stream.width, stream.height, path)  # before a frame takes so much memory
        frame = _first_frame(container, stream)
    if frame is None:
        raise ClipError(f"expected a clip with frames, found none in {str(path)!r}: give another file")
    _check_size(frame.width, frame.height, path)
    return Form(
        width=frame.width,
        height=frame.height,
        is_deep=any(component.bits > 8 for component in frame.format.components),
        matrix=_read_matrix(frame),
        colorspace=frame.colorspace,
        color_range=frame.color_range,
        color_primaries=frame.color_primaries,
        color_trc=frame.color_trc,
        is_rgb=frame.format.is_rgb,
    )


def _check_size(width: int, height: int, path: Path) -> None:
    most = pixel_limit()
    if most is not None and width * height > most:
        raise ClipError(
            f"expected frames of at most {most:,} px, got {width} x {height} px in {str(path)!r}: make it smaller, "
            "or raise the limit"
        )


def _read_packets(container: InputContainer) -> "Iterator[av.Packet[Any] | None]":
    """Yield the packets, and None for what cannot be read."""
    failures = 0
    while failures < _MOST_FAILURES:
        try:
            for packet in container.demux():
                failures = 0
                yield packet
            return
        except av.FFmpegError:
            failures += 1
            yield None


def _first_frame(container: InputContainer, stream: VideoStream) -> av.VideoFrame | None:
    for packet in _read_packets(container):
        if packet is not None and packet.stream is stream:
            with suppress(av.FFmpegError):
                for frame in packet.decode():
                    return frame
    return None


_QUARTERS = (((1, 0), (0, 1)), ((0, -1), (1, 0)), ((-1, 0), (0, -1)), ((0, 1), (-1, 0)))


def _read_matrix(frame: av.VideoFrame) -> tuple[tuple[int, int], tuple[int, int]]:
    try:
        side_data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV gives none where there are some that it does not know, as EXIF
        return _QUARTERS[round(frame.rotation / 90) % 4]
    if side_data is None:
        return (1, 0), (0, 1)
    a, b, _, c, d = np.frombuffer(bytes(cast(Any, side_data)), np.int32)[:5].tolist()
    return (a, b), (c, d)


def _to_pixels(frame: av.VideoFrame, form: Form) -> Pixels:
    """Return the pixels, upright; all frames have the size of the first."""
    rgb = frame.reformat(
        form.width,
        form.height,
        "rgb48le" if form.is_deep else "rgb24",
        src_colorspace=form.conversion,
        src_color_range=ColorRange.JPEG if form.is_rgb else form.shown_range,
        dst_color_range=ColorRange.JPEG,
        interpolation=_EXACT_DEEP if form.is_deep else _EXACT,
    )
    return _turn(rgb.to_ndarray(), form.matrix)


def _turn(pixels: Pixels, matrix: tuple[tuple[int, int], tuple[int, int]]) -> Pixels:
    """Return the pixels (H, W, 3) where x' = ax + cy and y' = bx + dy, of which only the signs count."""
    (a, b), (c, d) = matrix
    if abs(b) > abs(a):
        pixels, across, down = pixels.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _to_frame(frame: Frame, form: Form, pix_fmt: str) -> av.VideoFrame:
    rgb = av.VideoFrame.from_ndarray(frame.pixels, "rgb48le" if form.is_deep else "rgb24")
    encoded = rgb.reformat(
        format=pix_fmt,
        dst_colorspace=form.conversion,
        src_color_range=ColorRange.JPEG,
        dst_color_range=form.shown_range,
        interpolation=_EXACT,
    )
    encoded.pict_type = PictureType.NONE
    encoded.pts = frame.time
    encoded.duration = frame.duration
    return encoded
