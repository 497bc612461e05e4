"""Every shipped style paints what it painted when its picture was taken: an upgrade that changes results is caught.

``golden_pictures.png`` holds three generated photos in its first column, then a column for each style in the order of
their names. After a change that is meant to change them: ``python -m tests.test_golden_pictures``, and look at it.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from impasto.images import read_image, to_float, write_image
from impasto.learning.generated_photos import dead_leaves
from impasto.painting.stylizer import Stylizer
from impasto.style_file import SHIPPED, load_style

SHEET = Path(__file__).with_name("golden_pictures.png")
SIZE = 48
STYLES = sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def column(index: int) -> Tensor:
    """The pictures (3, 3, SIZE, SIZE) of a column, from top to bottom."""
    pictures = read_image(SHEET)[..., index * SIZE : (index + 1) * SIZE]
    return torch.cat(torch.split(pictures, SIZE, dim=2))


def paint(style: str, photos: Tensor) -> Tensor:
    return Stylizer.load(SHIPPED / f"{style}.safetensors", device="cpu")(photos)


@pytest.mark.parametrize("style", STYLES)
def test_a_shipped_style_paints_what_it_painted(style: str) -> None:
    difference = (paint(style, column(0)) - column(1 + STYLES.index(style))).abs() * 255
    assert difference.mean() < 0.3  # of which the sheet's 8 bits are 0.25
    assert difference.max() < 2


def test_mirrored_weights_would_be_noticed() -> None:
    style = load_style(SHIPPED / f"{STYLES[0]}.safetensors")
    weight = next(iter(style.network.parameters()))
    weight.copy_(weight.flip(-1))
    assert (Stylizer(style, device="cpu")(column(0)) - column(1)).abs().mean() * 255 > 1


def main() -> None:
    """Take the pictures anew."""
    photos = to_float(torch.stack([dead_leaves(SIZE, seed=seed) for seed in range(3)]))
    columns = [photos, *(paint(style, photos) for style in STYLES)]
    write_image(SHEET, torch.cat([torch.cat(list(pictures[:, None]), dim=2) for pictures in columns], dim=3))


if __name__ == "__main__":
    main()
