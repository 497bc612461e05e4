"""How a CPU paints fast: a style's network rewritten, most residual blocks in bfloat16 where that is wanted.

The rewritten network computes the same function, so that in float32 it differs by rounding alone:

- Instance normalisation in two steps, statistics of the whole picture and their use, which keep channels last.
- Upsampling and a 3x3 convolution as one 2x2 convolution of the small features, with four times the channels.
- The output convolution for 2x2 px at a time: processors compute 16 channels at once, and it has three.

More than half of the arithmetic is in the residual blocks. The first of them and the layers before and after all stay
in float32: of smooth pictures, such as a sky, normalisation enlarges what bfloat16 rounds off there until it shows.
"""

import copy
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.transformer import ConvLayer, ResidualBlock, TransformerNet, UpsampleLayer

PRECISIONS = ("auto", "fp32", "bf16")
_FINE_BLOCKS = 1  # the first residual blocks, which stay in float32
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
    layers: list[Any] = list(rewritten.layers)
    for layer in rewritten.modules():
        if isinstance(layer, ConvLayer) and isinstance(layer.norm, nn.InstanceNorm2d):
            layer.norm = _Normalisation(layer.norm)  # type: ignore[assignment]
    for layer in layers:
        if isinstance(layer, UpsampleLayer):
            layer.layer = _Upsampling(layer.layer)
    if bf16:
        for block in [layer for layer in layers if isinstance(layer, ResidualBlock)][_FINE_BLOCKS:]:
            block.first, block.second = _Rough(block.first), _Rough(block.second)
    rewritten.layers[-1] = _Output(layers[-1])
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
    """Return the features normalised by these statistics, with the weights of ``norm``."""
    return F.batch_norm(features, mean.to(norm.weight), variance.to(norm.weight), norm.weight, norm.bias, eps=norm.eps)


def _measure_block(block: Tensor) -> tuple[Tensor, Tensor]:
    # The running statistics are not used, but make it calculate with float32 where the features are bfloat16.
    unused = torch.zeros(2, block.shape[1])
    return torch.batch_norm_update_stats(block, unused[0], unused[1], 0.0)


class _Normalisation(nn.Module):
    """Instance normalisation of one picture."""

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's shape."""
        return normalise(x, self, *measure(x))


class _Rewritten(ConvLayer):
    """A layer with another convolution, and the normalisation and ReLU of the layer whose place it takes."""

    def __init__(self, layer: ConvLayer, weight: Tensor, bias: Tensor, *, stride: int = 1) -> None:
        outputs, inputs, kernel, _ = weight.shape
        with torch.device("meta"):  # no random numbers are spent on weights that are replaced
            super().__init__(inputs, outputs, kernel=kernel, stride=stride)
        self.conv.load_state_dict({"weight": weight, "bias": bias}, assign=True)
        self.conv.to(memory_format=torch.channels_last)
        self.norm, self.relu, self.padding = layer.norm, layer.relu, layer.padding


class _Rough(_Rewritten):
    """The same layer with a convolution in bfloat16."""

    def __init__(self, layer: ConvLayer) -> None:
        super().__init__(layer, layer.conv.weight.bfloat16(), _bias(layer).bfloat16())

    def convolve(self, x: Tensor) -> Tensor:
        """Return the features before they are normalised, in bfloat16."""
        return super().convolve(x.bfloat16())


class _Upsampling(_Rewritten):
    """Nearest-neighbour upsampling and a 3x3 convolution: values of 2x2 px as four channels of small features."""

    def __init__(self, layer: ConvLayer) -> None:
        # Which of the kernel's three rows fall on which of two rows of small features: first for the odd rows of the
        # result, then for the even ones. Columns are alike.
        rows = torch.tensor([[[1.0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]])
        weight = torch.einsum("pik,qjl,ockl->opqcij", rows, rows, layer.conv.weight)
        super().__init__(layer, weight.flatten(0, 2), _bias(layer).repeat_interleave(4))

    def convolve(self, x: Tensor) -> Tensor:
        """Return the features before they are normalised."""
        # Reflected by one, upsampled features repeat the edge of the small ones. The result begins with the second
        # half of what is outside.
        features = F.pixel_shuffle(self.conv(F.pad(x, self.padding, mode="replicate")), 2)[..., 1:-1, 1:-1]
        return features.contiguous(memory_format=torch.channels_last)


class _Output(_Rewritten):
    """The last convolution: values of 2x2 px as four channels."""

    def __init__(self, layer: ConvLayer) -> None:
        outputs, inputs, kernel, _ = layer.conv.weight.shape
        weight = torch.zeros(outputs, 2, 2, inputs, kernel + 1, kernel + 1)
        for row, column in itertools.product(range(2), repeat=2):
            weight[:, row, column, :, row : row + kernel, column : column + kernel] = layer.conv.weight
        super().__init__(layer, weight.flatten(0, 2), _bias(layer).repeat_interleave(4), stride=2)

    def convolve(self, x: Tensor) -> Tensor:
        """Return the image less 0.5."""
        return F.pixel_shuffle(super().convolve(x), 2)


def _bias(layer: ConvLayer) -> Tensor:
    assert layer.conv.bias is not None, "every convolution of the network has one"
    return layer.conv.bias


__all__ = ["PRECISIONS", "is_bf16", "measure", "normalise", "rewrite"]
