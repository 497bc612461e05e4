"""Animated GIF and WebP: every frame painted; its time, the number of loops and what is transparent stay.

Pillow holds all frames of a file until it is written: in a GIF a byte for each pixel, in a WebP three or four.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from impasto.files import written_whole
from impasto.images import format_of, opened
from impasto.painting.outputs import ClipOptions, Job, partial_path
from impasto.painting.painter import Look, Painter
from impasto.painting.pictures import Picture, from_pillow, to_pillow
from impasto.painting.smoothing import Smoother

_UNSEEN = 255  # the colour of a GIF that is transparent


def paint_animation(
    painter: Painter, job: Job, look: Look, options: ClipOptions, *, progress: Callable[[int, int | None], None]
) -> None:
    """Write the painted animation, whole; on any error and on Ctrl-C the frames done stay at ``partial_path``.

    A note of the error says so.

    Raises:
        FileNotFoundError: nothing is there.
        ImageFileError: the file is no picture, or is damaged.
        ValueError: the memory is too little for a frame.
        OSError: the disk is full, or the folder cannot be written.
    """
    frames: list[Image.Image] = []
    loop: dict[str, object] = {}
    durations: list[int] = []
    smooth = Smoother() if options.smooth else None
    is_gif = format_of(job.target) == "GIF"
    try:
        for picture, info in _read(job.source):
            pixels = painter.paint(picture.pixels, look)
            pixels = smooth(picture.pixels, pixels) if smooth is not None else pixels
            painted = to_pillow(Picture(pixels, picture.alpha))
            frames.append(_with_palette(painted) if is_gif else painted)
            durations.append(info["duration"])
            loop = {"loop": info["loop"]} if "loop" in info else {}
            progress(len(frames), info["frames"])
    except BaseException as error:
        if frames:
            partial = partial_path(job.target)
            _write(partial, frames, durations, quality=options.quality, **loop)
            error.add_note(f"the {len(frames)} frames done are in {str(partial)!r}")
        raise
    _write(job.target, frames, durations, quality=options.quality, **loop)


def _read(path: Path) -> Iterator[tuple[Picture, dict[str, int]]]:
    """Yield each frame, with its ``duration`` in ms, the ``loop`` where there is one, and how many ``frames``."""
    with opened(path) as file:
        count = int(getattr(file, "n_frames", 1))
        for number in range(count):
            file.seek(number)
            file.load()
            info = {"duration": int(file.info.get("duration", 0)), "frames": count}
            if "loop" in file.info:
                info["loop"] = int(file.info["loop"])
            yield from_pillow(file), info


def _with_palette(image: Image.Image) -> Image.Image:
    """Return the image in its own best colours; what is more than half transparent is wholly so."""
    colours = image.convert("RGB").quantize(_UNSEEN)
    if image.mode != "RGBA":
        return colours
    indices = np.where(np.asarray(image.getchannel("A")) < 128, _UNSEEN, np.asarray(colours)).astype(np.uint8)
    unseen = Image.fromarray(indices).convert("P")
    unseen.putpalette((colours.getpalette() or []) + [0] * 3)
    unseen.info["transparency"] = _UNSEEN
    return unseen


def _write(path: Path, frames: list[Image.Image], durations: list[int], *, quality: int, **options: object) -> None:
    if format_of(path) == "GIF":
        # Each frame from an empty one, or the last would show through; and no colour is left out, or indices move.
        options |= {"disposal": 2, "optimize": False}
    else:
        options |= {"quality": quality}
    with written_whole(path) as temporary:
        frames[0].save(
            temporary,
            format_of(path),
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            **options,
        )


__all__ = ["paint_animation"]
