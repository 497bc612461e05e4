"""Video: a clip in, the painted clip out, in memory that does not grow with its length.

While a frame is painted, the next are decoded and those before are encoded. What an interruption leaves can be played,
and continued.
"""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import av

from impasto.files import NO_SPACE, flush_to_disk, hidden_beside, reserved
from impasto.painting.clips import KEYFRAME_EVERY, ClipError, ClipReader, ClipWriter, FormerClip, Frame
from impasto.painting.outputs import ClipOptions, Job, is_our_part, mark_of, note_part, partial_path
from impasto.painting.painter import Look, Painter
from impasto.painting.pictures import Pixels
from impasto.painting.smoothing import Smoother

_AHEAD = 3  # frames that are decoded and not painted, and that are painted and not encoded
_Item = TypeVar("_Item")

Progress = Callable[[int, int | None], None]
"""Told how many frames are done, of how many where that is known."""


def paint_clip(
    painter: Painter, job: Job, look: Look, options: ClipOptions, *, progress: Progress, warn: Callable[[str], None]
) -> None:
    """Write the painted clip: size, frame times, colours, sound and subtitles are those of the source.

    On any error, and on Ctrl-C, the frames painted until then stay as a clip at ``partial_path``, unless an earlier run
    left as many there; a note of the error says what is there. ``options.resume`` goes on from it.

    Raises:
        FileNotFoundError: nothing is there.
        ClipError: the source is no clip, has no frames, or ends too early.
        ValueError: the memory is too little for a frame, the partial clip is of something else, or another run paints
            the same one.
        OSError: the disk is full, or the folder cannot be written.
    """
    mark = mark_of(painter, job, look, options)
    with ExitStack() as stack:
        source = stack.enter_context(ClipReader(job.source))
        stack.enter_context(reserved(job.target))
        part = stack.enter_context(_Part(partial_path(job.target), mark, resume=options.resume))
        writer = ClipWriter(part.place, source, quality=options.quality, mark=mark, strip=options.strip)
        if writer.left_out:
            warn(f"{str(job.target)!r} cannot hold, and leaves out: {', '.join(writer.left_out)}")
        former = part.former if options.resume else None
        run = _Run(painter, source, former, writer, look, Smoother() if options.smooth else None)
        try:
            run.paint(part, progress)
            writer.close()
            part.show()
            cut = source.find_cut()
            if broken := source.broken + writer.broken:
                warn(f"passed over {broken} broken packets of {str(job.source)!r}")
            if missing := source.find_missing():
                warn(missing)
        except BaseException as error:
            told = _explain(error, job.target)
            part.keep(writer)
            note_part(told, part.path, frames=part.frames, is_ours=part.is_ours)
            raise told from error.__cause__
        if cut is not None:
            raise ClipError(f"{cut}; its {writer.frames} frames are painted in {str(part.path)!r}")
        flush_to_disk(part.path)
        os.replace(part.path, job.target)


def _explain(error: BaseException, target: Path) -> BaseException:
    """Return the error, or what FFmpeg said in words, which it says of anything but the disk."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return OSError(error.errno, error.strerror, str(target))  # FFmpeg does not say where
    # Of a packet that it does not take FFmpeg says EPERM; a folder that may not be written is EACCES.
    is_of_disk = isinstance(error, OSError) and error.errno != errno.EPERM
    if not isinstance(error, av.FFmpegError) or is_of_disk:
        return error
    return ClipError(
        f"expected a clip that FFmpeg can write, got {error.strerror!r} for {str(target)!r}: make it smaller, "
        "or choose another ending"
    )


class _Part:
    """The partial clip at ``path``, of ``frames`` frames: that of an earlier run until this one has more.

    Until then this one is written at ``place``, hidden beside it. ``is_ours``: made as ``mark`` says.
    """

    def __init__(self, path: Path, mark: str, *, resume: bool) -> None:
        self.path = path
        self.former = FormerClip.find(path)
        self.frames = 0 if self.former is None else self.former.frames
        self.is_ours = is_our_part(None if self.former is None else self.former.mark, mark, path, resume=resume)
        self.hidden = hidden_beside(path, f"-part{path.suffix}")
        self.place = path if self.former is None else self.hidden

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hidden.unlink(missing_ok=True)

    @property
    def is_hidden(self) -> bool:
        """Whether what this run writes is not yet at ``path``."""
        return self.place != self.path

    def show(self) -> None:
        """Replace what the earlier run left, if that is not done."""
        if self.is_hidden:
            os.replace(self.place, self.path)
            self.place, self.is_ours = self.path, True

    def grow(self, writer: ClipWriter) -> None:
        """Show what the writer has, if it is more even after a kill."""
        if writer.frames > self.frames + KEYFRAME_EVERY:
            self.show()

    def keep(self, writer: ClipWriter) -> None:
        """Leave a playable part, or the former one where this is not longer, or nothing where there is no frame."""
        with suppress(Exception):  # the error that led here is the one to be told
            writer.close()
        written = FormerClip.find(self.place)  # on a full disk fewer than the writer was given
        frames = 0 if written is None else written.frames
        if frames > self.frames:
            self.show()
        self.frames = max(self.frames, frames) if self.is_hidden else frames
        if not self.is_hidden and not frames:
            self.path.unlink(missing_ok=True)


@dataclass
class _Run:
    """The frames of one clip, from the source, or painted by a former run, to the writer."""

    painter: Painter
    source: ClipReader
    former: FormerClip | None
    writer: ClipWriter
    look: Look
    smooth: Smoother | None
    done: int = 0

    def __post_init__(self) -> None:
        former, smooth = self.former, self.smooth
        # Before the packets, for both read the same file.
        self.last_painted = former.last_frame(self.source.form) if former is not None and smooth is not None else None
        self.packets = iter(()) if former is None else former.packets()

    def paint(self, part: _Part, progress: Progress) -> None:
        """Write the whole clip; the part is shown when it has more frames than that of the earlier run."""
        total = self.source.expected_frames
        with ThreadPoolExecutor(1) as decoding, ThreadPoolExecutor(1) as encoding:
            writes = _Writes(encoding)
            for item in _ahead(self.source.read(), decoding):
                if not isinstance(item, Frame):
                    writes.add(self.writer.copy, item)
                    continue
                self._add(item, writes)
                self.done += 1
                if self.done > part.frames + KEYFRAME_EVERY and part.is_hidden:
                    writes.add(part.grow, self.writer)
                progress(self.done, total)
            writes.finish()

    def _add(self, frame: Frame, writes: "_Writes") -> None:
        packet = next(self.packets, None)
        if packet is not None:
            writes.add(self.writer.write_encoded, packet, frame)
            is_last = self.former is not None and self.done == self.former.frames - 1
            if is_last and self.smooth is not None and self.last_painted is not None:
                self.smooth.remember(frame.pixels, self.last_painted)
        else:
            writes.add(self.writer.write, replace(frame, pixels=self._paint(frame.pixels)))

    def _paint(self, pixels: Pixels) -> Pixels:
        try:
            painted = self.painter.paint(pixels, self.look)
        except ValueError as error:
            raise ClipError(f"{error} ({str(self.source.path)!r})") from error
        return painted if self.smooth is None else self.smooth(pixels, painted)


class _Writes:
    """Calls made in order on another thread, of which only a few may wait."""

    def __init__(self, thread: Executor) -> None:
        self.thread = thread
        self.waiting: deque[Future[None]] = deque()

    def add(self, write: Callable[..., None], *arguments: Any) -> None:
        """Call, soon; raises what an earlier call raised."""
        self.waiting.append(self.thread.submit(write, *arguments))
        while len(self.waiting) > _AHEAD:
            self.waiting.popleft().result()

    def finish(self) -> None:
        """Wait for all."""
        while self.waiting:
            self.waiting.popleft().result()


def _ahead(items: Iterator[_Item], thread: Executor) -> Iterator[_Item]:
    """Yield the items; a few are made ahead on the thread."""
    coming: deque[Future[_Item | None]] = deque(thread.submit(next, items, None) for _ in range(_AHEAD))
    while (item := coming.popleft().result()) is not None:
        coming.append(thread.submit(next, items, None))
        yield item
