"""Draws the style pictures that ship inside the package: `python scripts/draw_styles.py [NAME ...] [--output DIR]`."""

import argparse
import importlib
import io
import sys
import time

import numpy as np
from PIL import Image

from impasto.commands.words import file_path, status_of
from impasto.files import written_whole
from impasto.learning.config import BUILTIN, did_you_mean, style_picture

NAMES = (
    "weeping_woman",
    "stained_glass",
    "woodblock_wave",
    "starry_swirls",
    "mosaic",
    "pointillism",
    "ink_hatching",
    "thick_oil",
    "watercolour",
    "embroidery",
)
LARGEST_FILE = 400_000  # bytes


def main() -> int:
    """Draw, and return the exit status."""
    return status_of(lambda: run(parse_arguments()))


def run(arguments: argparse.Namespace) -> None:
    """Draw the pictures named, or all."""
    for name in arguments.names:
        if name not in NAMES:
            hint = did_you_mean(name, NAMES)
            raise ValueError(f"expected the name of a style picture, got {name!r}; {hint}There are: {', '.join(NAMES)}")
    for name in arguments.names or NAMES:
        start = time.perf_counter()
        path = arguments.output / f"{name}.jpg"
        with written_whole(path) as temporary:
            temporary.write_bytes(draw(name))
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {time.perf_counter() - start:.1f} s", flush=True)


def draw(name: str) -> bytes:
    """JPEG file of the picture `name`, the same bytes every time."""
    picture = importlib.import_module(f"styles.{name}").draw()
    image = Image.fromarray(np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8))
    return smallest_loss(image)


def smallest_loss(image: Image.Image) -> bytes:
    """JPEG file of the best quality that has at most `LARGEST_FILE` bytes."""
    for quality in range(94, 9, -2):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= LARGEST_FILE:
            break
    return file.getvalue()


def parse_arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description="Draw the style pictures that ship inside the package.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; default: all")
    parser.add_argument(
        "--output", type=file_path, default=style_picture(BUILTIN), metavar="DIR", help="folder to write to"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
