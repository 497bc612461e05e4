"""The network keeps sizes, treats each image alone, and leaves no frame."""

import re

import pytest
import torch
from torch import Tensor, nn

from impasto.transformer import TransformerNet, UpsampleLayer, check_input, count_parameters


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


@torch.no_grad()
def test_every_padding_reflects(network: TransformerNet) -> None:
    images = torch.rand(1, 3, 16, 16)
    seen: list[tuple[Tensor, Tensor]] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.padding == (0, 0)
            module.register_forward_pre_hook(lambda conv, inputs: seen.append((conv.weight, inputs[0])))
    network(images)
    assert len(seen) == 16
    for weight, padded in seen:
        pad = weight.shape[-1] // 2
        torch.testing.assert_close(padded[..., :pad], padded[..., pad + 1 : 2 * pad + 1].flip(-1))
        torch.testing.assert_close(padded[..., :pad, :], padded[..., pad + 1 : 2 * pad + 1, :].flip(-2))


@torch.no_grad()
def test_upsampling_repeats_the_nearest_value() -> None:
    layer = UpsampleLayer(2, 2)
    layer.layer.norm = nn.Identity()
    layer.layer.conv.weight.zero_()
    nn.init.zeros_(layer.layer.get_parameter("conv.bias"))
    layer.layer.conv.weight[[0, 1], [0, 1], 1, 1] = 1  # the convolution lets everything pass
    features = torch.rand(1, 2, 3, 5)
    expected = features.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    torch.testing.assert_close(layer(features), expected)
