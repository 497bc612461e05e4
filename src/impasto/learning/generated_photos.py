"""Pictures with edges and textures like those of photographs, made from a seed, for training without a data set.

Dead leaves: shapes of every size hide one another, as objects do in a photograph; each has its own colour, shading and
1/f texture, and what lies further back is out of focus.

Source: Lee, Mumford, Huang 2001, *Occlusion Models for Natural Images*; used for training by Baradad et al. 2021,
*Learning to See by Looking at Noise*.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

LEAVES = 160
SMALLEST_RADIUS, LARGEST_RADIUS = 0.01, 0.4
"""As parts of the picture's side."""

Array = NDArray[np.float32]


def dead_leaves(size: int, *, seed: int) -> Tensor:
    """Return a picture as uint8 (3, size, size)."""
    random = np.random.default_rng(seed)
    palette = _palette(random)
    textures = [_texture(size, random) for _ in range(3)]
    picture = np.broadcast_to(palette[0], (size, size, 3)).astype(np.float32) + 0.12 * textures[0][..., None]
    for leaf in range(LEAVES):
        if leaf == LEAVES // 3:  # what lies behind is out of focus
            blur = random.uniform(0, 3)
            picture = gaussian_filter(picture, (blur, blur, 0)).astype(np.float32)
        colour = palette[random.integers(len(palette))] + random.normal(0, 0.04, 3)
        _lay(picture, colour.astype(np.float32), textures[random.integers(3)], random)
    blur = random.uniform(0.3, 0.9)
    sharp = gaussian_filter(picture, (blur, blur, 0)) + random.normal(0, 0.01, picture.shape)
    return torch.from_numpy((sharp.clip(0, 1) * 255).astype(np.uint8)).permute(2, 0, 1).contiguous()


def _palette(random: np.random.Generator) -> Array:
    """Return 12 colours (12, 3) around two hues, from dark to light."""
    light = random.uniform(0.08, 0.85, (12, 1))
    hues = random.normal(0, 0.09, (2, 3))[random.integers(2, size=12)]
    return (light + hues + random.normal(0, 0.04, (12, 3))).clip(0.02, 0.98).astype(np.float32)


def _texture(size: int, random: np.random.Generator) -> Array:
    """Return noise (size, size) of deviation 1 whose amplitude falls with the frequency to a power of 1 to 1.6."""
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / size)
    spectrum = np.fft.rfft2(random.standard_normal((size, size))) / frequency ** random.uniform(1, 1.6)
    noise = np.fft.irfft2(spectrum, s=(size, size))  # the spectrum alone does not tell an odd size from an even one
    return (noise / noise.std()).astype(np.float32)


def _lay(picture: Array, colour: Array, texture: Array, random: np.random.Generator) -> None:
    """Put one leaf on top: a rotated ellipse, diamond or box, with shading along a random direction."""
    size = len(picture)
    # Evenly spread over the orders of size, as what remains visible of a dense heap is.
    radius = size * SMALLEST_RADIUS * (LARGEST_RADIUS / SMALLEST_RADIUS) ** random.uniform()
    row, column = random.uniform(-0.1, 1.1, 2) * size
    reach = int(np.ceil(radius * 1.5))
    top, left = max(0, int(row) - reach), max(0, int(column) - reach)
    bottom, right = min(size, int(row) + reach), min(size, int(column) + reach)
    if top >= bottom or left >= right:
        return
    across, down = np.meshgrid(np.arange(left, right) - column, np.arange(top, bottom) - row)
    angle, stretch = random.uniform(0, np.pi), random.uniform(0.4, 1)
    u = (across * np.cos(angle) + down * np.sin(angle)) / radius
    v = (down * np.cos(angle) - across * np.sin(angle)) / (radius * stretch)
    power = random.choice([1.0, 2.0, 2.0, 6.0])
    inside = np.abs(u) ** power + np.abs(v) ** power < 1
    shade = random.normal(0, 0.1) * u + random.uniform(0.01, 0.08) * texture[top:bottom, left:right]
    picture[top:bottom, left:right][inside] = colour + shade[inside][:, None]
