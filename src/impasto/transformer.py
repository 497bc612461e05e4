"""The image transformer: a photo in, the same photo painted in one style out.

Source: Johnson, Alahi, Fei-Fei 2016, *Perceptual Losses for Real-Time Style Transfer and Super-Resolution*,
supplementary material; instance normalisation from Ulyanov, Vedaldi, Lempitsky 2016.

Differs from the supplement, on purpose:

- Reflection padding in front of every convolution, residual blocks included, instead of 40 px once at the start:
  the image keeps its size on the way through, and no frame appears at the borders.
- Nearest-neighbour upsampling and a convolution instead of transposed convolutions: no checkerboard.
- A linear output instead of a scaled tanh: no slope is lost at black and white. Files are clamped when written.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MINIMUM_SIZE = 8
"""Smallest height and width in px: at a quarter of it, reflection by one pixel needs two."""


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalisation that on a CPU leaves channels last, and calculates with float32 whatever the features are.

    torch's own puts channels first there, after every convolution, and the next one back again.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's shape."""
        if x.device.type != "cpu":
            return super().forward(x)
        alone = [
            F.batch_norm(image, None, None, self.weight, self.bias, training=True, eps=self.eps)
            for image in torch.split(x, 1)
        ]
        return torch.cat(alone)


class ConvLayer(nn.Module):
    """Reflection padding and convolution; instance normalisation and ReLU after it, where asked for."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int = 1, norm: bool = True, relu: bool = True
    ) -> None:
        super().__init__()
        self.padding = (kernel // 2,) * 4
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride)
        self.norm = InstanceNorm(out_channels, affine=True) if norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return features of shape (N, out_channels, ceil(H / stride), ceil(W / stride)), or of twice the size."""
        return self.relu(self.norm(self.convolve(x)))

    def convolve(self, x: Tensor) -> Tensor:
        """Return the features before they are normalised."""
        return self.conv(pad(x, self.padding, mode="reflect"))


class UpsampleConvLayer(ConvLayer):
    """Twice the size by nearest neighbour, then a 3x3 convolution.

    Computed as one 2x2 convolution of the small features with four times the channels, values of 2x2 px: the same
    function, with less than half of the arithmetic, and never the large features before the convolution.
    """

    def convolve(self, x: Tensor) -> Tensor:
        """Return the features before they are normalised."""
        # Which of the kernel's three rows fall on which of two rows of small features: first for the odd rows of the
        # result, then for the even ones. Columns are alike.
        first, middle, last = torch.eye(3, dtype=self.conv.weight.dtype, device=self.conv.weight.device)
        rows = torch.stack([first + middle, last, first, middle + last]).view(2, 2, 3)
        weight = torch.einsum("pik,qjl,ockl->opqcij", rows, rows, self.conv.weight).flatten(0, 2)
        # Reflected by one, upsampled features repeat the edge of the small ones. The result begins with the second
        # half of what is outside.
        features = convolve_four(pad(x, self.padding, mode="replicate"), weight, self.conv.bias)[..., 1:-1, 1:-1]
        return features.contiguous(memory_format=torch.channels_last)


class OutputConvLayer(ConvLayer):
    """A convolution alone. Computed for 2x2 px at a time: processors compute 16 channels at once, and it has three."""

    def convolve(self, x: Tensor) -> Tensor:
        """Return the features."""
        weight = self.conv.weight
        moved = [F.pad(weight, (column, 1 - column, row, 1 - row)) for row in range(2) for column in range(2)]
        return convolve_four(
            pad(x, self.padding, mode="reflect"), torch.stack(moved, 1).flatten(0, 1), self.conv.bias, stride=2
        )


def convolve_four(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1) -> Tensor:
    """Return features (N, C, 2H, 2W) from a convolution to (N, 4C, H, W): each channel has four kernels, for 2x2 px."""
    assert bias is not None, "every convolution of the network has one"
    return F.pixel_shuffle(F.conv2d(x, weight, bias.repeat_interleave(4), stride), 2)


def pad(x: Tensor, padding: tuple[int, ...], *, mode: str) -> Tensor:
    """Return padded features, in their own number format: on a CPU autocast would go to float32 and back."""
    with torch.autocast(x.device.type, enabled=False):
        return F.pad(x, padding, mode=mode)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions added to their input; no ReLU after the addition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvLayer(channels, channels, kernel=3)
        self.second = ConvLayer(channels, channels, kernel=3, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's shape."""
        return x + self.second(self.first(x))


class TransformerNet(nn.Module):
    """Image to image: (N, 3, H, W) in [0, 1] to (N, 3, H, W), about [0, 1], for any H, W of 8 px or more.

    ``width`` is the number of channels of the first convolution: 32 is the paper's network (1,679,235 parameters), 16
    the half-width form its authors released (424,899).
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            ConvLayer(3, width, kernel=9),
            ConvLayer(width, 2 * width, kernel=3, stride=2),
            ConvLayer(2 * width, 4 * width, kernel=3, stride=2),
            *(ResidualBlock(4 * width) for _ in range(5)),
            # Each under the name that style files have for it.
            nn.Sequential(OrderedDict(layer=UpsampleConvLayer(4 * width, 2 * width, kernel=3))),
            nn.Sequential(OrderedDict(layer=UpsampleConvLayer(2 * width, width, kernel=3))),
            OutputConvLayer(width, 3, kernel=9, norm=False, relu=False),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the painted images, of exactly the input's size.

        Raises:
            ValueError: the input is smaller than 8 px on a side, or has not the shape (N, 3, H, W).
        """
        check_input(images)
        height, width = images.shape[-2:]
        centred = (images - 0.5).contiguous(memory_format=torch.channels_last)
        painted: Tensor = self.layers(centred) + 0.5  # 4·ceil(H/4) by 4·ceil(W/4)
        return painted[..., :height, :width]


def check_input(images: Tensor) -> None:
    """Raise ValueError unless the images have the shape (N, 3, H, W) with H and W of 8 px or more."""
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3:
        raise ValueError(f"expected images of shape (N, 3, H, W), got {shape}")
    if min(shape[2:]) < MINIMUM_SIZE:
        raise ValueError(
            f"expected images of at least {MINIMUM_SIZE} x {MINIMUM_SIZE} px, got {shape[3]} x {shape[2]} px: "
            "enlarge the image first"
        )


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def find_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is the first there is of cuda, mps and cpu.

    Raises:
        ValueError: the name is unknown, or this machine has no such device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = [device for device, is_there in there.items() if is_there]
    if name == "auto":
        return torch.device(found[0])
    if name not in found:
        raise ValueError(f"expected auto or a device of this machine ({', '.join(found)}), got {name!r}: choose again")
    return torch.device(name)
