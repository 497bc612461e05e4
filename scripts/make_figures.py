"""Makes the pictures of README from the trained styles that come along and photographs of scikit-image.

    python scripts/make_figures.py

``hero.jpg`` shows a photo, the style picture and the result; ``gallery.jpg`` every style on two photos that no training
has seen; ``looks.jpg`` one painting at several strengths, with the photo's colours, and with larger strokes;
``large.jpg`` a painting of 6,000 x 4,000 px as a whole and a part of it; ``frames.jpg`` two frames of a clip,
the same two painted one by one, and painted with --smooth.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
from torch import Tensor

from impasto.commands.words import file_path, status_of
from impasto.images import contact_sheet, read_image, resize, write_image
from impasto.learning.config import BUILTIN, style_picture
from impasto.learning.photos import sample_photos
from impasto.painting.painter import LookOptions
from impasto.painting.pictures import to_array, to_image
from impasto.painting.smoothing import Smoother
from impasto.painting.stylizer import Stylizer
from impasto.style_file import SHIPPED

HERO = "weeping_woman"
LOOKS: tuple[LookOptions, ...] = (
    {"strength": 0.5},
    {"strength": 1.0},
    {"strength": 1.4},
    {"keep_colors": True},
    {"stroke_scale": 2.0},
)
HEIGHT = 300
COLUMNS = 2
"""Styles beside each other in the gallery."""
LARGE = 4000
"""Short side of the large picture, in px."""
FRAMES = 12


def builtin(name: str) -> Tensor:
    """Return a built-in style picture."""
    return read_image(style_picture(f"{BUILTIN}{name}.jpg"))


def make_hero(photo: Tensor) -> Tensor:
    """Return photo, style picture and result side by side."""
    painted = Stylizer.load(SHIPPED / f"{HERO}.safetensors")(photo)
    return contact_sheet([[photo, builtin(HERO), painted]], height=HEIGHT)


def make_gallery(photos: list[Tensor]) -> Tensor:
    """Return a sheet with the style picture and the painted photos for every style."""
    entries = []
    for path in sorted(SHIPPED.glob("*.safetensors")):
        stylizer = Stylizer.load(path)
        entries.append([builtin(path.stem), *(stylizer(photo) for photo in photos)])
    rows = [list(itertools.chain(*entries[i : i + COLUMNS])) for i in range(0, len(entries), COLUMNS)]
    return contact_sheet(rows, height=HEIGHT * 2 // 3)


def make_looks(photo: Tensor) -> Tensor:
    """Return the photo and its paintings, side by side."""
    stylizer = Stylizer.load(SHIPPED / f"{HERO}.safetensors")
    return contact_sheet([[photo, *(stylizer(photo, **look) for look in LOOKS)]], height=HEIGHT * 2 // 3)


def make_large(photo: Tensor) -> Tensor:
    """Return photo and large painting, made small, and a part of the painting, less so."""
    painted = Stylizer.load(SHIPPED / f"{HERO}.safetensors")(resize(photo, short_side=LARGE))
    top, left, side = LARGE // 3, LARGE * 2 // 3, LARGE // 4
    part = painted[..., top : top + side, left : left + side * 3 // 2]
    return contact_sheet([[resize(photo, short_side=HEIGHT), resize(painted, short_side=HEIGHT), part]], height=HEIGHT)


def make_frames(photo: Tensor) -> Tensor:
    """Return two frames of a clip whose camera moves to the right, painted one by one, and with --smooth."""
    stylizer, smooth = Stylizer.load(SHIPPED / f"{HERO}.safetensors"), Smoother()
    height, width = photo.shape[2] * 2 // 3, photo.shape[3] * 2 // 3
    film = [to_array(photo[..., :height, 4 * time : 4 * time + width], np.dtype(np.uint8)) for time in range(FRAMES)]
    painted = [stylizer(frame) for frame in film]
    smoothed = [smooth(*pair) for pair in zip(film, painted, strict=True)]
    rows = [[to_image(frames[number]) for number in (0, -1)] for frames in (film, painted, smoothed)]
    return contact_sheet([list(itertools.chain(*rows))], height=HEIGHT * 2 // 3)


def main() -> int:
    """Make the figures, and return the exit status."""
    return status_of(lambda: run(parse_arguments()))


def run(arguments: argparse.Namespace) -> None:
    """Make the figures."""
    _, held_out = sample_photos()
    photos = [resize(read_image(path), short_side=400) for path in held_out]
    write_image(arguments.to / "hero.jpg", make_hero(photos[0]), quality=88)
    write_image(arguments.to / "gallery.jpg", make_gallery(photos), quality=85)
    write_image(arguments.to / "looks.jpg", make_looks(photos[1]), quality=85)
    write_image(arguments.to / "frames.jpg", make_frames(photos[0]), quality=85)
    write_image(arguments.to / "large.jpg", make_large(photos[1]), quality=85)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=file_path, default=Path("docs"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
