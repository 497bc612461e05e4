"""How a CPU paints fast: a style's network rewritten, its last residual block in bfloat16 where that is wanted.

The rewritten network computes the same function, so that in float32 it differs by rounding alone: it normalises in two
steps, statistics of the whole picture, exact however large it is, and their use.

More than half of the arithmetic is in the residual blocks. Four of the five and the layers before and after all stay in
float32: of smooth pictures, such as a sky, normalisation enlarges what bfloat16 rounds off there until it shows. With
one of them a slope of 8 bits came out up to 56/255 away, with two 12/255, with three 9/255, with four 5/255.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.transformer import ConvLayer, InstanceNorm, ResidualBlock, TransformerNet

PRECISIONS = ("auto", "fp32", "bf16")
_FINE_BLOCKS = 4  # the first residual blocks, which stay in float32
_FLAT = 2.0**-11
"""Spread, as a part of the largest feature, up to which features are flat and what spread they have is rounding: 2e-4
was seen of flat pictures, 7e-3 and more of photos."""
_BLOCK = 2**14  # px: of what torch sums in float32, so few that nothing is lost


def is_bf16(precision: str, device: torch.device, *, bits: int) -> bool:
    """Return whether pictures of so many bits for a value are painted with bfloat16.

    ``auto`` does for 8 bits, which are coarser, where the processor has instructions for it: if the clock decided, the
    same picture would not always give the same painting.

    Raises:
        ValueError: the precision is unknown, or bf16 on another device than a CPU.
    """
    known = PRECISIONS if device.type == "cpu" else PRECISIONS[:2]
    if precision not in known:
        raise ValueError(f"expected a precision of {', '.join(known)} on {device}, got {precision!r}: choose again")
    if precision == "auto":
        return device.type == "cpu" and bits == 8 and torch.cpu._is_avx512_bf16_supported()
    return precision == "bf16"


def rewrite(network: TransformerNet, *, bf16: bool = False) -> TransformerNet:
    """Return a copy for a CPU that paints one picture (1, 3, H, W) as the network does."""
    rewritten = copy.deepcopy(network).to(memory_format=torch.channels_last)
    for layer in rewritten.modules():
        if isinstance(layer, ConvLayer) and isinstance(layer.norm, InstanceNorm):
            layer.norm = _Normalisation(layer.norm)  # type: ignore[assignment]
    if bf16:
        for block in [layer for layer in rewritten.layers if isinstance(layer, ResidualBlock)][_FINE_BLOCKS:]:
            block.first, block.second = _Rough(block.first), _Rough(block.second)
    return rewritten.eval().requires_grad_(False)


def measure(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance, float64 (C) each, of features (1, C, H, W)."""
    if features.device.type != "cpu":
        variance, mean = torch.var_mean(features, dim=(0, 2, 3), correction=0)
        return mean.cpu().double(), variance.cpu().double()  # some devices have no float64
    rows = max(1, _BLOCK // features.shape[-1])
    blocks = [features[:, :, top : top + rows] for top in range(0, features.shape[2], rows)]
    mean, variance = torch.stack([torch.stack(_measure_block(block)) for block in blocks], dim=1).double()
    shares = torch.tensor([block.shape[2] / features.shape[2] for block in blocks], dtype=torch.float64)
    whole = shares @ mean
    return whole, shares @ (variance + (mean - whole).square())


def normalise(features: Tensor, norm: Any, mean: Tensor, variance: Tensor) -> Tensor:
    """Return the features normalised by these statistics, with the weights of ``norm``.

    Flat ones are all the bias, as they would be without rounding, which would else be blown up from layer to layer
    until a flat picture were painted as noise.
    """
    largest = (mean.square() + variance).max()
    variance = variance.where(variance > _FLAT**2 * largest, torch.inf)
    return F.batch_norm(features, mean.to(norm.weight), variance.to(norm.weight), norm.weight, norm.bias, eps=norm.eps)


def _measure_block(block: Tensor) -> tuple[Tensor, Tensor]:
    # The running statistics are not used, but make it calculate with float32 where the features are bfloat16.
    unused = torch.zeros(2, block.shape[1])
    return torch.batch_norm_update_stats(block, unused[0], unused[1], 0.0)


class _Normalisation(nn.Module):
    """Instance normalisation of one picture."""

    def __init__(self, norm: InstanceNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's shape."""
        return normalise(x, self, *measure(x))


class _Rough(ConvLayer):
    """The layer in whose place it stands with a convolution in bfloat16."""

    def __init__(self, layer: ConvLayer) -> None:
        with torch.device("meta"):  # no random numbers are spent on weights that are replaced
            super().__init__(layer.conv.in_channels, layer.conv.out_channels, kernel=3)
        self.conv, self.norm, self.relu = layer.conv.bfloat16(), layer.norm, layer.relu

    def convolve(self, x: Tensor) -> Tensor:
        """Return the features before they are normalised, in bfloat16."""
        return super().convolve(x.bfloat16())
