"""Shipping puts a style into the package at half the size, and only one whose picture comes along."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from impasto.style_file import load_style, save_style
from impasto.transformer import TransformerNet
from scripts import ship_styles


def test_it_is_the_style_in_half_precision(
    tmp_path: Path, network: TransformerNet, metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship_styles, "SHIPPED", tmp_path)
    save_style(tmp_path / "run" / "a.safetensors", network, metadata={**metadata, "style": "mosaic"})
    path = ship_styles.ship(tmp_path / "run")
    assert path == tmp_path / "mosaic.safetensors"
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    shipped, trained = load_style(path), load_style(tmp_path / "run")
    assert shipped.metadata == trained.metadata
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(shipped.network(image), trained.network(image), atol=0.02, rtol=0)


def test_a_style_of_another_picture_under_a_built_in_name(
    tmp_path: Path, network: TransformerNet, metadata: dict[str, Any]
) -> None:
    save_style(tmp_path / "a.safetensors", network, metadata={**metadata, "style": "mosaic", "picture": None})
    with pytest.raises(ValueError, match=r"^expected a style whose picture comes with impasto, got 'mosaic' in"):
        ship_styles.ship(tmp_path / "a.safetensors")


def test_a_style_whose_picture_does_not_come_along(style_path: Path) -> None:
    message = f"expected a style whose picture comes with impasto, got 'zigzag' in {str(style_path)!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ship_styles.ship(style_path)
