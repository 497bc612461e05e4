"""The network keeps sizes, treats each image alone, and leaves no frame."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.transformer import (
    ConvLayer,
    InstanceNorm,
    ResidualBlock,
    TransformerNet,
    UpsampleConvLayer,
    check_input,
    count_parameters,
)


@pytest.mark.parametrize(("width", "parameters"), [(32, 1_679_235), (16, 424_899)])
def test_number_of_parameters(width: int, parameters: int) -> None:
    with torch.device("meta"):
        network = TransformerNet(width)
    assert count_parameters(network) == parameters


def test_half_width_is_the_default() -> None:
    with torch.device("meta"):
        assert count_parameters(TransformerNet()) == 424_899


SIZES = [(8, 8), (9, 13), (41, 50), *((8, width) for width in range(9, 17)), *((height, 11) for height in range(8, 17))]


@pytest.mark.parametrize("size", SIZES)
def test_the_output_has_the_size_of_the_input(network: TransformerNet, size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert network(torch.rand(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize(("height", "width"), [(7, 8), (8, 7), (1, 1), (100, 3)])
def test_under_eight_pixels_is_an_error(network: TransformerNet, height: int, width: int) -> None:
    message = f"expected images of at least 8 x 8 px, got {width} x {height} px: enlarge the image first"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        network(torch.rand(1, 3, height, width))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 4, 8, 8), (1, 8, 8, 3)])
def test_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    message = f"expected images of shape (N, 3, H, W), got {shape}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_input(torch.rand(shape))


@torch.no_grad()
def test_each_image_of_a_batch_is_painted_as_if_alone(network: TransformerNet) -> None:
    images = torch.rand(3, 3, 17, 22)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_order_in_a_batch_changes_nothing(network: TransformerNet) -> None:
    images = torch.rand(3, 3, 16, 20)
    torch.testing.assert_close(network(images.roll(1, dims=0)), network(images).roll(1, dims=0), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_plain_image_gets_no_frame(network: TransformerNet) -> None:
    painted = network(torch.full((1, 3, 24, 24), 0.3))
    torch.testing.assert_close(painted, painted[..., 12:13, 12:13].expand_as(painted), atol=1e-4, rtol=0)


def plain(layer: ConvLayer, *, upsample: bool = False) -> nn.Module:
    """The layer as the paper would write it, with the same weights, padded by reflection."""
    norm = (
        nn.InstanceNorm2d(layer.conv.out_channels, affine=True)
        if isinstance(layer.norm, InstanceNorm)
        else nn.Identity()
    )
    norm.load_state_dict(layer.norm.state_dict())
    padding = nn.ReflectionPad2d(layer.conv.kernel_size[0] // 2)
    assert layer.conv.padding == (0, 0)
    start = [nn.Upsample(scale_factor=2)] if upsample else []
    return nn.Sequential(*start, padding, layer.conv, norm, copy.deepcopy(layer.relu))


class PlainBlock(nn.Module):
    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.layers = nn.Sequential(plain(block.first), plain(block.second))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.layers(x)
        return added


def plain_network(network: TransformerNet) -> nn.Module:
    layers: list[nn.Module] = []
    for layer in network.layers:
        if isinstance(layer, ResidualBlock):
            layers.append(PlainBlock(layer))
        else:
            (convolution,) = layer if isinstance(layer, nn.Sequential) else [layer]
            assert isinstance(convolution, ConvLayer)
            layers.append(plain(convolution, upsample=isinstance(convolution, UpsampleConvLayer)))
    return nn.Sequential(*layers)


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (60, 44)])
def test_it_is_the_function_of_plain_layers_padded_by_reflection(
    network: TransformerNet, size: tuple[int, int]
) -> None:
    for values in network.parameters():
        values.data.add_(0.1 * torch.randn_like(values))
    expected = plain_network(copy.deepcopy(network)).double()
    network.double()
    images, others = (torch.rand(2, 3, *size).double().requires_grad_() for _ in range(2))
    others.data.copy_(images)
    painted, plainly = network(images), expected(others - 0.5) + 0.5
    torch.testing.assert_close(painted, plainly)
    for output in (painted, plainly):
        output.square().sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad, others.grad)
    for values, plain_values in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(values.grad, plain_values.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalisation_keeps_channels_last_and_calculates_with_float32(dtype: torch.dtype) -> None:
    norm = InstanceNorm(5, affine=True)
    nn.init.uniform_(norm.weight)
    nn.init.normal_(norm.bias)
    features = (3 + torch.randn(2, 5, 60, 70)).to(dtype).contiguous(memory_format=torch.channels_last)
    normalised = norm(features)
    assert normalised.dtype == dtype
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    expected = F.instance_norm(features.float(), weight=norm.weight, bias=norm.bias).to(dtype)
    torch.testing.assert_close(normalised, expected, atol=1e-5, rtol=torch.finfo(dtype).eps)


@torch.no_grad()
def test_upsampling_repeats_the_nearest_value() -> None:
    layer = UpsampleConvLayer(2, 2, kernel=3)
    layer.norm = nn.Identity()
    layer.conv.weight.zero_()
    nn.init.zeros_(layer.get_parameter("conv.bias"))
    layer.conv.weight[[0, 1], [0, 1], 1, 1] = 1  # the convolution lets everything pass
    features = torch.rand(1, 2, 3, 5)
    expected = features.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    torch.testing.assert_close(layer(features), expected)
