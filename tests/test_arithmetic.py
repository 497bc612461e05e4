"""The rewritten network paints what the network paints, but for rounding."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from impasto.painting.arithmetic import measure, normalise, rewrite
from impasto.style_file import SHIPPED, load_style
from impasto.transformer import TransformerNet

STYLES = sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


@pytest.mark.parametrize("size", [(8, 8), (9, 61), (57, 41), (64, 300)])
def test_it_is_the_same_function(strong: TransformerNet, size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    torch.testing.assert_close(rewrite(strong)(image), strong(image), atol=1e-4, rtol=1e-4)


def test_the_network_itself_stays_and_no_random_number_is_spent(strong: TransformerNet) -> None:
    before = {key: value.clone() for key, value in strong.state_dict().items()}
    torch.manual_seed(3)
    rewrite(strong)
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(3))
    assert all(torch.equal(value, before[key]) for key, value in strong.state_dict().items())


def photo() -> Tensor:
    """A picture of 8 bits with edges and a smooth part."""
    torch.manual_seed(0)
    coarse = torch.rand(1, 3, 12, 16)
    image = nn.functional.interpolate(coarse, scale_factor=8) + 0.05 * torch.rand(1, 3, 96, 128)
    image[..., :40, :] = torch.linspace(0.3, 0.7, 128)
    return image.clamp(0, 1).mul(255).round().div(255)


@pytest.mark.parametrize("style", STYLES)
def test_a_photo_looks_the_same_and_a_smooth_picture_stays_smooth(style: str) -> None:
    network = load_style(SHIPPED / f"{style}.safetensors").network
    sky = torch.linspace(0.3, 0.7, 256).expand(1, 3, 128, 256).mul(255).round().div(255)
    down, across = torch.meshgrid(torch.linspace(0, 1, 384), torch.linspace(0, 1, 512), indexing="ij")
    slope = torch.stack([0.2 + 0.5 * across, 0.3 + 0.4 * down, 0.5 + 0.1 * across])[None].mul(255).round().div(255)
    for picture in (photo(), sky, slope):
        difference = (rewrite(network)(picture).clamp(0, 1) - network(picture).clamp(0, 1)).abs() * 255
        assert difference.max() < 1


@pytest.mark.parametrize("style", STYLES)
def test_a_flat_picture_is_painted_flat(style: str) -> None:
    network = rewrite(load_style(Path(style)).network)
    for gray in (0.1, 0.37, 0.9):
        painted = network(torch.full((1, 3, 40, 61), gray))
        assert (painted.amax((2, 3)) - painted.amin((2, 3))).max() * 255 < 0.01


def test_statistics_are_exact_however_large_the_picture() -> None:
    torch.manual_seed(0)
    features = torch.rand(1, 2, 1500, 1500) + torch.tensor([5.0, -0.5])[:, None, None]
    features = (features + torch.linspace(-1, 1, 1500)[:, None]).contiguous(memory_format=torch.channels_last)
    mean, variance = measure(features)
    torch.testing.assert_close(mean, features.double().mean((0, 2, 3)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(variance, features.double().var((0, 2, 3), correction=0), atol=0, rtol=1e-4)


def test_normalised_features_have_the_norms_mean_and_spread() -> None:
    norm = nn.InstanceNorm2d(1, affine=True)
    nn.init.constant_(norm.weight, 3)
    nn.init.constant_(norm.bias, 7)
    features = torch.tensor([[[[0.0, 2, 4, 6]]]])
    expected = 7 + 3 * (features - 3) / 5**0.5
    with torch.no_grad():
        torch.testing.assert_close(normalise(features, norm, *measure(features)), expected)
