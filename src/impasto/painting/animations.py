"""Animated GIF and WebP: every frame painted, upright; its time, the number of loops and what is transparent stay.

Pillow holds all frames of a file until it is written: in a GIF a byte for each pixel, in a WebP three or four. What an
interruption leaves says how it was made, and how often each of its frames was painted: writers put equal ones together.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import accumulate, chain, count, groupby, pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from impasto.files import reserved, written_whole
from impasto.images import ImageFileError, format_of, opened, upright
from impasto.painting.outputs import ClipOptions, Job, is_our_part, mark_of, note_part, partial_path
from impasto.painting.painter import Look, Painter
from impasto.painting.pictures import Picture, from_pillow, kept_notes, notes_for, to_pillow
from impasto.painting.smoothing import Smoother

_UNSEEN = 255  # the colour of a GIF that is transparent
_RARE = (254, 0, 255)  # under it: Pillow takes edges of the same colour, were they not transparent, for transparent
_LONGEST_STAY = 655_350  # ms, in a GIF
_MOST_LOOPS = 65_535
_LONGEST_SIDE = 16_383  # px, of a WebP
_COLOURS = _UNSEEN - 1  # others of a painted frame: read back, the white below what is transparent may be one more


def paint_animation(
    painter: Painter, job: Job, look: Look, options: ClipOptions, *, progress: Callable[[int, int | None], None]
) -> None:
    """Write the painted animation, whole; on any error and on Ctrl-C the frames done stay at ``partial_path``.

    There they replace those of an earlier run where they are more; a note of the error says what is there.
    ``options.resume`` goes on from it.

    Raises:
        FileNotFoundError: nothing is there.
        ImageFileError: the file is no picture, or is damaged.
        ValueError: the memory is too little for a frame, the partial file is of something else, another run paints the
            same one, or the target cannot hold the size of a frame, or how long it stays.
        OSError: the disk is full, or the folder cannot be written.
    """
    with opened(job.source):
        pass  # no folder is made for a source that is no picture
    with reserved(job.target):
        partial, mark = partial_path(job.target), mark_of(painter, job, look, options)
        said, left = _read_part(partial)
        is_ours = is_our_part(said, mark, partial, resume=options.resume)
        former = left if options.resume else []
        done = len(left)
        del left
        frames: list[Image.Image] = []
        plays = 1
        exif: bytes | None = None
        durations: list[int] = []
        paint = _FramePainter(painter, look, is_gif=format_of(job.target) == "GIF", is_smooth=options.smooth)
        try:
            for photo, info in _read(job.source):
                _check_fits(job.target, photo.pixels.shape[1::-1], duration=info["duration"])
                known = former[len(frames)] if len(frames) < len(former) else None
                try:
                    frames.append(paint(photo) if known is None else paint.remember(photo, known))
                except ValueError as error:
                    raise ValueError(f"{error} ({str(job.source)!r})") from error
                durations.append(info["duration"])
                exif = None if options.strip else photo.exif
                plays = info["plays"]
                progress(len(frames), info["frames"])
            notes = {} if paint.is_gif else notes_for("WEBP", exif)
            _write(job.target, frames, durations, plays=plays, quality=options.quality, **notes)
        except BaseException as error:
            with suppress(Exception):  # the error that led here is the one to be told
                if len(frames) > done:
                    _write_part(partial, frames, durations, plays=plays, mark=mark)
                    done, is_ours = len(frames), True
            note_part(error, partial, frames=done, is_ours=is_ours)
            raise
        partial.unlink(missing_ok=True)


class _FramePainter:
    """Call it with each photo, in order; what comes back is the frame as it is written."""

    def __init__(self, painter: Painter, look: Look, *, is_gif: bool, is_smooth: bool) -> None:
        self.painter, self.look, self.is_gif = painter, look, is_gif
        self.smooth = Smoother() if is_smooth else None

    def __call__(self, photo: Picture) -> Image.Image:
        pixels = self.painter.paint(photo.pixels, self.look)
        pixels = pixels if self.smooth is None else self.smooth(photo.pixels, pixels)
        if photo.alpha is not None:
            pixels[photo.alpha == 0] = 255  # as it is read back: no file keeps colours that are not seen
        frame = to_pillow(Picture(pixels, photo.alpha))
        return self.remember(photo, _with_palette(frame, _COLOURS) if self.is_gif else frame)

    def remember(self, photo: Picture, frame: Image.Image) -> Image.Image:
        """Return the frame, and take it, in the colours that its file has, for the former one of the next."""
        if self.smooth is not None:
            self.smooth.remember(photo.pixels, from_pillow(frame.copy()).pixels)
        return frame


def _read(path: Path) -> Iterator[tuple[Picture, dict[str, Any]]]:
    """Yield each frame, with its ``duration`` in ms, how often all are shown, ``plays``, and how many ``frames``.

    0 plays: for ever. No number of frames: the file is cut off, which ends with an error.
    """
    with opened(path) as file:
        total: int | None = None
        with suppress(Exception):
            total = int(getattr(file, "n_frames", 1))
        exif = kept_notes(file.getexif())
        for number in count() if total is None else range(total):
            file.seek(number)
            file.load()
            plays = _count_plays(file)
            info = {"duration": int(file.info.get("duration", 0)), "plays": plays, "frames": total}
            # Of a copy: turned, the file itself could not give the next.
            photo = from_pillow(upright(file.copy()))
            photo.exif = exif
            yield photo, info


def _count_plays(file: Image.Image) -> int:
    """Return how often an animation is shown, 0: for ever. A GIF counts how often it is shown again."""
    loop = file.info.get("loop")
    if loop is None:
        return 1
    return int(loop) + 1 if file.format == "GIF" and loop else int(loop)


def _with_palette(image: Image.Image, count: int) -> Image.Image:
    """Return the image in its own best colours; what is more than half transparent is wholly so."""
    colours = image.convert("RGB").quantize(count)
    if image.mode != "RGBA":
        return colours
    indices = np.where(np.asarray(image.getchannel("A")) < 128, _UNSEEN, np.asarray(colours)).astype(np.uint8)
    unseen = Image.fromarray(indices).convert("P")
    palette = (colours.getpalette() or [])[: 3 * _UNSEEN]
    unseen.putpalette([*palette, *[0] * (3 * _UNSEEN - len(palette)), *_RARE])
    unseen.info["transparency"] = _UNSEEN
    return unseen


def _write(path: Path, frames: list[Image.Image], durations: list[int], *, plays: int, **options: object) -> None:
    """Write frames that stay for ``durations``, in ms, and are shown ``plays`` times, 0: for ever."""
    loop: int | None = min(plays, _MOST_LOOPS)
    if format_of(path) == "GIF":
        loop = None if plays == 1 else max(0, plays - 1)
        durations = _in_hundredths(durations)
        # Each frame from an empty one, or the last would show through; and no colour is left out, or indices move.
        options |= {"disposal": 2, "optimize": False}
    options |= {"save_all": True, "append_images": frames[1:], "duration": durations, "loop": loop}
    with written_whole(path) as temporary:
        try:
            frames[0].save(temporary, format_of(path), **options)
        except (OverflowError, struct.error) as error:  # of equal frames, which are put together
            raise _too_long(path, frames[0].size) from error


def _in_hundredths(durations: list[int]) -> list[int]:
    """Return durations, in ms, that are hundredths of a second, as a GIF's are, and end as near as can be to the same.

    Rounded each by itself they would add up to another length.
    """
    ends = [0, *(round(end / 10) * 10 for end in accumulate(durations))]
    return [end - start for start, end in pairwise(ends)]


def _check_fits(path: Path, size: tuple[int, int], *, duration: int) -> None:
    """Raise ValueError unless the file can hold a frame of that width and height, in px, and duration, in ms."""
    if format_of(path) == "GIF" and duration > _LONGEST_STAY:
        raise _too_long(path, size)
    if format_of(path) == "WEBP" and max(size) > _LONGEST_SIDE:
        raise ValueError(
            f"expected frames of at most {_LONGEST_SIDE:,} px a side, as a WebP's can be, got {size[0]} x {size[1]} px "
            f"for {str(path)!r}: write a .gif instead"
        )


def _too_long(path: Path, size: tuple[int, int]) -> ValueError:
    most = _LONGEST_STAY // 1000
    advice = "write a .webp instead" if max(size) <= _LONGEST_SIDE else "let them stay shorter"
    return ValueError(
        f"expected frames that stay for at most {most} s, as a GIF's can, got longer ones for {str(path)!r}: {advice}"
    )


def _write_part(path: Path, frames: list[Image.Image], durations: list[int], *, plays: int, mark: str) -> None:
    """Write the frames so that each can be read back as it is."""
    runs = [(content, len(list(same))) for content, same in groupby(map(_content, frames))]
    said = _describe(mark, ",".join(str(count) for _, count in runs), (content for content, _ in runs))
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = said
    is_gif = format_of(path) == "GIF"
    options = {"comment": said} if is_gif else {"lossless": True, "quality": 0, "exif": exif}
    _write(path, frames, durations, plays=plays, **options)


def _read_part(path: Path) -> tuple[str | None, list[Image.Image]]:
    """Return the mark and the frames of a former run, in order; no mark without a picture, no frames if damaged."""
    try:
        with opened(path) as file:
            is_gif = file.format == "GIF"
            noted = file.info.get("comment", "") if is_gif else file.getexif().get(ExifTags.Base.Software, "")
            said = noted.decode("ascii", "replace") if isinstance(noted, bytes) else str(noted)
        pictures = [to_pillow(picture) for picture, _ in _read(path)]
    except (FileNotFoundError, ImageFileError):
        return None, []
    mark, runs = said.rpartition(" ")[0].rpartition(" ")[0], said.split(" ")[-1]
    frames = [_with_palette(picture, _UNSEEN) for picture in pictures] if is_gif else pictures
    if said != _describe(mark, runs, map(_content, frames)):
        return mark, []
    counts = map(int, runs.split(","))
    return mark, list(chain.from_iterable(map(repeat, frames, counts)))


def _describe(mark: str, runs: str, contents: Iterable[bytes]) -> str:
    """Return what a partial file says of itself: ``runs`` has, for each frame in it, how many were painted alike."""
    seen = hashlib.sha256(runs.encode())
    for content in contents:
        seen.update(content)
    return f"{mark} {seen.hexdigest()[:16]} {runs}"


def _content(frame: Image.Image) -> bytes:
    # Of a copy: where colours are transparent Pillow changes the palette, which then cannot be written.
    return hashlib.sha256(frame.copy().convert("RGBA").tobytes()).digest()
