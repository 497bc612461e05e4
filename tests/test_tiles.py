"""Bands with the statistics of the whole picture give the picture of the whole."""

import re
import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from impasto.painting import tiles
from impasto.painting.arithmetic import rewrite
from impasto.painting.stylizer import Stylizer
from impasto.painting.tiles import paint_in_bands
from impasto.style_file import SHIPPED, load_style
from impasto.transformer import TransformerNet


def in_bands(network: TransformerNet, image: Tensor, *, band: int) -> Tensor:
    height, width = image.shape[-2:]
    pieces = list(
        paint_in_bands(network, lambda top, bottom: image[..., top:bottom, :], height=height, width=width, band=band)
    )
    assert [top for top, _ in pieces] == list(range(0, height, band))
    return torch.cat([rows for _, rows in pieces], dim=-2)


def uneven(height: int, width: int) -> Tensor:
    """A picture whose top and bottom have nothing in common: dark and smooth, bright and rough."""
    torch.manual_seed(1)
    ramp = torch.linspace(0, 1, height)[:, None]
    return (0.1 + 0.5 * ramp + 0.4 * ramp * torch.rand(1, 3, height, width)).clamp(0, 1)


@pytest.mark.parametrize("size", [(8, 8), (9, 61), (57, 41), (100, 30), (81, 8)])
@pytest.mark.parametrize("band", [8, 12, 32, 400])
def test_bands_give_what_the_whole_gives(
    strong: TransformerNet, size: tuple[int, int], band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "_STORED", torch.float32)
    image = uneven(*size)
    torch.testing.assert_close(in_bands(strong, image, band=band), strong(image), atol=1e-3, rtol=1e-3)


def test_features_kept_in_16_bits_change_little(strong: TransformerNet) -> None:
    image = uneven(200, 160)
    difference = (in_bands(strong, image, band=32).clamp(0, 1) - strong(image).clamp(0, 1)).abs() * 255
    assert difference.mean() < 0.2
    assert difference.max() < 4


def test_bands_of_the_rewritten_network_give_what_the_whole_gives() -> None:
    network = rewrite(load_style(SHIPPED / "mosaic.safetensors").network)
    image = uneven(200, 160)
    difference = (in_bands(network, image, band=32).clamp(0, 1) - network(image).clamp(0, 1)).abs() * 255
    assert difference.mean() < 0.5
    assert difference.max() < 8


def test_bands_alone_would_not(strong: TransformerNet) -> None:
    image = uneven(64, 64)
    alone = torch.cat([strong(image[..., :32, :]), strong(image[..., 32:, :])], dim=-2)
    assert (alone - strong(image)).abs().max() * 255 > 16


def test_no_seam_shows(strong: TransformerNet) -> None:
    step = in_bands(rewrite(strong), uneven(256, 64), band=16).diff(dim=-2).abs().mean(dim=(0, 1, 3))
    at_borders = step[15::16]
    elsewhere = step[torch.arange(len(step)) % 16 != 15]
    assert at_borders.mean() == pytest.approx(elsewhere.mean().item(), rel=0.1)


def test_a_full_disk_is_named_and_where_to_turn(strong: TransformerNet) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            in_bands(strong, uneven(400, 80), band=16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == tempfile.gettempdir()
    assert caught.value.__notes__ == ["large pictures take temporary files there: set TMPDIR to a disk with more room"]


def test_the_same_picture_gives_the_same_painting(strong: TransformerNet) -> None:
    image = uneven(40, 40)
    assert torch.equal(in_bands(strong, image, band=8), in_bands(strong, image, band=8))


def test_untrained_weights_beyond_16_bits_give_no_nan(strong: TransformerNet) -> None:
    for parameter in strong.parameters():
        parameter.mul_(1e4)
    assert torch.isfinite(in_bands(strong, uneven(40, 40), band=8)).all()


@pytest.mark.parametrize("band", [0, 4, 9])
def test_another_band_is_an_error(network: TransformerNet, band: int) -> None:
    with pytest.raises(ValueError, match=rf"^expected a band of 8, 12, 16 \.\.\. rows, got {band}$"):
        in_bands(network, torch.rand(1, 3, 16, 16), band=band)


def test_the_stylizer_takes_bands_where_the_memory_is_short(style_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stylizer = Stylizer(load_style(style_path), device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (200, 100, 3), np.uint8)
    whole = stylizer(pixels)
    row = 36 * 4 * 100  # bytes, width of the network, width of the picture
    monkeypatch.setattr(Stylizer, "_free", lambda *_: 80 * row)
    heights = [len(rows) for _, rows in stylizer._paint_rows(pixels, stylizer._band(pixels, None))]
    assert heights == [64, 64, 64, 8]
    assert np.abs(stylizer(pixels).astype(int) - whole).max() <= 1
    monkeypatch.setattr(Stylizer, "_free", lambda *_: 20 * row)
    message = (
        "expected an image that fits the memory of cpu, got 100 x 200 px: "
        "at least 0.1 GB more is needed, or a larger stroke scale"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        stylizer(pixels)
