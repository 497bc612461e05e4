"""Makes the pictures of README from trained runs and the photographs that come with scikit-image.

    python scripts/make_figures.py --runs runs --to docs

``hero.jpg`` shows a photo, the style picture and the result; ``gallery.jpg`` every run's style on two photos that no
training has seen.
"""

import argparse
import itertools
import sys
from importlib import resources
from pathlib import Path

from torch import Tensor

from impasto.images import contact_sheet, read_image, resize, write_image
from impasto.learning.photos import sample_photos
from impasto.painting.stylizer import Stylizer
from impasto.style_file import load_style

HERO = "weeping_woman"
HEIGHT = 300
COLUMNS = 2
"""Styles beside each other in the gallery."""


def style_picture(name: str) -> Tensor:
    """Return a built-in style picture."""
    return read_image(Path(str(resources.files("impasto.assets"))) / "styles" / f"{name}.jpg")


def make_hero(run: Path, photo: Tensor) -> Tensor:
    """Return photo, style picture and result side by side."""
    painted = Stylizer(load_style(run))(photo)
    return contact_sheet([[photo, style_picture(run.name), painted]], height=HEIGHT)


def make_gallery(runs: list[Path], photos: list[Tensor]) -> Tensor:
    """Return a sheet with the style picture and the painted photos for every run."""
    entries = []
    for run in runs:
        stylizer = Stylizer(load_style(run))
        entries.append([style_picture(run.name), *(stylizer(photo) for photo in photos)])
    rows = [list(itertools.chain(*entries[i : i + COLUMNS])) for i in range(0, len(entries), COLUMNS)]
    return contact_sheet(rows, height=HEIGHT * 2 // 3)


def main() -> int:
    """Make the figures and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run folders named as the styles")
    parser.add_argument("--to", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    _, held_out = sample_photos()
    photos = [resize(read_image(path), short_side=400) for path in held_out]
    runs = sorted(path.parent for path in arguments.runs.glob("*/*.safetensors"))
    write_image(arguments.to / "hero.jpg", make_hero(arguments.runs / HERO, photos[0]), quality=88)
    write_image(arguments.to / "gallery.jpg", make_gallery(runs, photos), quality=85)
    return 0


if __name__ == "__main__":
    sys.exit(main())
