"""Puts trained styles into the package, as float16, so that the first painting needs no training.

    python scripts/ship_styles.py runs/*

Each is looked at first: ``scripts/make_figures.py`` paints photos with all of them.
"""

import argparse
import sys
from pathlib import Path

import torch

from impasto.commands.words import file_path, status_of
from impasto.learning.config import BUILTIN, style_picture
from impasto.style_file import SHIPPED, load_style, save_style


def ship(run: Path) -> Path:
    """Write a run's style into the package and return where it is.

    Raises:
        ValueError: its picture does not come with impasto, so that nobody could say what it was made from.
    """
    style = load_style(run)
    picture = f"{style.name}.jpg"
    if style.metadata.get("picture", picture) != picture or not style_picture(BUILTIN + picture).is_file():
        raise ValueError(f"expected a style whose picture comes with impasto, got {style.name!r} in {str(run)!r}")
    path = SHIPPED / f"{style.name}.safetensors"
    save_style(path, style.network, metadata=style.metadata, dtype=torch.float16)
    return path


def main() -> int:
    """Ship, and return the exit status."""
    return status_of(lambda: run(parse_arguments()))


def run(arguments: argparse.Namespace) -> None:
    """Ship every run named."""
    SHIPPED.mkdir(exist_ok=True)
    for path in arguments.runs:
        print(ship(path))


def parse_arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=file_path, nargs="+", help="run folders or style files")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
