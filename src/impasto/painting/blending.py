"""What becomes of a painting beside its photo: how strong it is, and whose colours it has.

Source: Björn Ottosson 2020, *A perceptual color space for image processing* (Oklab), with the matrices of 2021-01-25.
"""

import torch
from torch import Tensor

from impasto.painting.pictures import Pixels, to_array, to_image

_TO_CONES = torch.tensor(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    dtype=torch.float64,
)
_TO_LAB = torch.tensor(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    dtype=torch.float64,
)
_BLENDED_ROWS = 256
_HALVINGS = 8  # of the chroma's interval: to 1/256 of it


def blend_pixels(photo: Pixels, painted: Pixels, *, strength: float, keeps_colors: bool) -> None:
    """Change the painted pixels (H, W, 3), a band at a time: the photo's colours first, then the strength."""
    for top in range(0, len(photo), _BLENDED_ROWS):
        band = slice(top, top + _BLENDED_ROWS)
        before, after = to_image(photo[band]), to_image(painted[band])
        after = keep_colors(before, after) if keeps_colors else after
        painted[band] = to_array(blend(before, after, strength=strength), painted.dtype)


def blend(photo: Tensor, painted: Tensor, *, strength: float) -> Tensor:
    """Return the photo at strength 0, the painting at 1, what lies beyond it above: (N, 3, H, W) in [0, 1]."""
    return torch.lerp(photo, painted, strength).clamp(0, 1)


def keep_colors(photo: Tensor, painted: Tensor) -> Tensor:
    """Return the painting's lightness with the photo's hue and chroma, in Oklab: (N, 3, H, W) in [0, 1].

    Where no colour on a screen has both, the chroma is lowered until one has: hue and lightness stay.
    """
    lightness = to_oklab(painted)[:, :1]
    chroma = to_oklab(photo)[:, 1:]
    low, high = torch.zeros_like(lightness), torch.ones_like(lightness)
    share = high
    for _ in range(_HALVINGS):
        linear = _to_linear(torch.cat([lightness, chroma * share], dim=1))
        is_shown = ((linear > -1e-4) & (linear < 1 + 1e-4)).all(dim=1, keepdim=True)
        low, high = torch.where(is_shown, share, low), torch.where(is_shown, high, share)
        share = (low + high) / 2
    return _gamma(_to_linear(torch.cat([lightness, chroma * low], dim=1)))


def to_oklab(image: Tensor) -> Tensor:
    """Return lightness and the two axes of chroma (N, 3, H, W) of an sRGB image in [0, 1]."""
    linear = torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055).pow(2.4))
    return _mix(_TO_LAB, _mix(_TO_CONES, linear).clamp(min=0).pow(1 / 3))


def _to_linear(lab: Tensor) -> Tensor:
    return _mix(_TO_CONES.inverse(), _mix(_TO_LAB.inverse(), lab).pow(3))


def _gamma(linear: Tensor) -> Tensor:
    linear = linear.clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.pow(1 / 2.4) - 0.055)


def _mix(matrix: Tensor, image: Tensor) -> Tensor:
    return torch.einsum("ij,njhw->nihw", matrix.to(image), image)
