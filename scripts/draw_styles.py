"""Draws the style pictures that ship inside the package: `python scripts/draw_styles.py [NAME ...] [--output DIR]`."""

import argparse
import importlib
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from impasto.learning.config import did_you_mean

ROOT = Path(__file__).resolve().parent.parent
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status."""
    options = _parser().parse_args(arguments)
    for name in options.names:
        if name not in NAMES:
            print(f"error: {unknown_name(name)}", file=sys.stderr)
            return 2
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.names or NAMES:
        start = time.perf_counter()
        path = options.output / f"{name}.jpg"
        path.write_bytes(draw(name))
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {time.perf_counter() - start:.1f} s", flush=True)
    return 0


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


def unknown_name(name: str) -> str:
    """Message for a name that is no picture's."""
    hint = did_you_mean(name, NAMES)
    return f"expected the name of a style picture, got {name!r}; {hint}There are: {', '.join(NAMES)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Draw the style pictures that ship inside the package.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; default: all")
    assets = ROOT / "src" / "impasto" / "assets" / "styles"
    parser.add_argument("--output", type=Path, default=assets, metavar="DIR", help="folder to write to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
