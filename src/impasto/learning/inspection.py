"""What the loss network sees: feature maps, Gram matrices, and pictures made from either alone.

Source: Gatys, Ecker, Bethge 2015, figure 1; Johnson, Alahi, Fei-Fei 2016, figures 3 and 4 (reconstructions).
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from impasto.files import written_whole
from impasto.images import to_float
from impasto.learning.features import LossNetwork
from impasto.learning.losses import LossOptions
from impasto.learning.optimization import Objective, Step, StyleTarget, descend, start_noise

CELL = 128
"""Px on the longer side of a map in the grid."""

LABEL = 18
"""Px of the strip that a label stands on."""


@torch.no_grad()
def feature_maps(network: LossNetwork, image: Tensor, layer: str) -> Tensor:
    """Return the feature maps (C, H', W') of one layer for an image (1, 3, H, W), on the CPU."""
    maps: Tensor = network(image.to(network.mean), [layer])[layer]
    return maps[0].float().cpu()


def draw_maps(maps: Tensor, *, title: str, count: int = 64) -> Tensor:
    """Return one picture (1, 3, H, W): the ``count`` strongest maps of (C, H', W') in gray, with number and mean.

    Strength is the mean of the absolute values; black is each map's least value or 0, white its greatest.
    """
    strength = maps.abs().mean((1, 2))
    strongest = strength.argsort(descending=True, stable=True)[:count].tolist()
    cells = [_labelled(_gray(maps[i]), f"{i}: {float(strength[i]):.3g}") for i in strongest]
    columns = math.ceil(math.sqrt(len(cells)))
    cells += [torch.ones_like(cells[0])] * (-len(cells) % columns)
    rows = [torch.cat(cells[i : i + columns], dim=-1) for i in range(0, len(cells), columns)]
    grid = torch.cat(rows, dim=-2)
    text = f"{title}: {len(strongest)} of {len(maps)} channels, strongest first (number: mean)"
    return torch.cat([_write(text, grid.shape[-1]), grid], dim=-2)


def _gray(values: Tensor) -> Tensor:
    """Return one map (H, W) as a picture (1, 3, h, w) with CELL px on its longer side."""
    least, greatest = min(0.0, float(values.min())), float(values.max())
    scaled = (values - least) / max(greatest - least, 1e-12)
    height, width = (max(1, round(side * CELL / max(values.shape))) for side in values.shape)
    return F.interpolate(scaled[None, None], size=(height, width), mode="nearest").expand(1, 3, -1, -1)


def draw_gram(gram: Tensor, *, title: str, side: int = 512) -> Tensor:
    """Return a Gram matrix (C, C) as a heat map (1, 3, H, W): black is 0, white the greatest size of an entry.

    Roots of the sizes are shown, for a few entries are far greater than all others.
    """
    enlarged = max(1, side // len(gram))
    heat = (gram.abs() / gram.abs().max().clamp(min=1e-12)).sqrt()
    heat = heat.repeat_interleave(enlarged, 0).repeat_interleave(enlarged, 1)
    ramp = torch.stack([3 * heat, 3 * heat - 1, 3 * heat - 2]).clamp(0, 1)[None]  # black, red, yellow, white
    return _labelled(ramp, f"{title}: {len(gram)} x {len(gram)}, white is {float(gram.abs().max()):.3g}")


def _labelled(picture: Tensor, text: str) -> Tensor:
    """Return the picture with a line of text above and a white edge at the right and below."""
    return F.pad(torch.cat([_write(text, picture.shape[-1]), picture], dim=-2), (0, 4, 0, 4), value=1.0)


def _write(text: str, width: int) -> Tensor:
    strip = Image.new("RGB", (width, LABEL), "white")
    ImageDraw.Draw(strip).text((2, 2), text, fill="black", font=ImageFont.load_default(LABEL - 6))
    return to_float(torch.from_numpy(np.array(strip)).permute(2, 0, 1)[None])


def save_array(path: Path, values: Tensor) -> None:
    """Write a tensor as a NumPy file, whole or not at all."""
    with written_whole(path) as temporary:
        np.save(temporary, values.numpy())


def reconstruct_content(
    network: LossNetwork, photo: Tensor, layer: str, *, iterations: int, seed: int = 0
) -> Iterator[Step]:
    """Yield the steps from noise to a picture that one layer cannot tell from the photo; slight total variation."""
    options = LossOptions({layer: 1.0}, {}, 1.0, 0.0, 1.0, "balanced")
    photo = photo.to(network.mean)
    return descend(Objective(network, photo, [], options), start_noise(photo, seed=seed), iterations=iterations)


def reconstruct_texture(
    network: LossNetwork, texture: Tensor, layers: Sequence[str], *, iterations: int, seed: int = 0
) -> Iterator[Step]:
    """Yield the steps from noise to a picture of the texture's size with its Gram matrices at these layers."""
    options = LossOptions({}, dict.fromkeys(layers, 1.0), 0.0, 1.0, 0.0, "balanced")
    texture = texture.to(network.mean)
    objective = Objective(network, texture, [StyleTarget(texture)], options)
    return descend(objective, start_noise(texture, seed=seed), iterations=iterations)
