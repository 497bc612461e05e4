"""What the loss network sees is shown as it is, and pictures made from it come near what they are made from."""

from pathlib import Path

import numpy as np
import torch

from impasto.learning.features import LossNetwork
from impasto.learning.inspection import (
    CELL,
    LABEL,
    draw_gram,
    draw_maps,
    feature_maps,
    reconstruct_content,
    reconstruct_texture,
    save_array,
)

IMAGE = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def test_the_maps_are_those_of_the_network(judge: LossNetwork) -> None:
    maps = feature_maps(judge, IMAGE, "relu2_1")
    assert maps.shape == (8, 8, 12)
    assert torch.equal(maps, judge(IMAGE, ["relu2_1"])["relu2_1"][0])


def test_the_grid_shows_the_strongest_maps_first_from_their_least_to_their_greatest_value() -> None:
    maps = torch.zeros(5, 4, 8)
    maps[3], maps[1, :, 4:] = 9.0, -2.0  # a white map, and one whose right half is black
    grid = draw_maps(maps, title="relu1_1", count=2)
    assert grid.shape == (1, 3, LABEL + LABEL + CELL // 2 + 4, 2 * (CELL + 4))
    first, second = grid[0, :, 2 * LABEL + 2 : -6, : CELL - 2], grid[0, :, 2 * LABEL + 2 : -6, CELL + 4 : -6]
    assert (first == 1).all()
    assert (second[..., : CELL // 2] == 1).all()
    assert (second[..., CELL // 2 :] == 0).all()


def test_the_heat_map_is_black_at_zero_and_white_at_the_greatest_entry() -> None:
    heat = draw_gram(torch.tensor([[4.0, 0.0], [0.0, -1.0]]), title="relu1_1", side=20)
    assert heat.shape == (1, 3, LABEL + 20 + 4, 20 + 4)
    quarters = heat[0, :, LABEL : LABEL + 20, :20].reshape(3, 2, 10, 2, 10)[:, :, 5, :, 5]
    assert quarters[:, 0, 0].tolist() == [1, 1, 1]
    assert quarters[:, 0, 1].tolist() == quarters[:, 1, 0].tolist() == [0, 0, 0]
    assert quarters[:, 1, 1].tolist() == [1, 0.5, 0]  # half the root of the greatest


def test_an_array_is_read_back_as_it_was(tmp_path: Path) -> None:
    save_array(tmp_path / "new" / "a.npy", IMAGE)
    assert np.array_equal(np.load(tmp_path / "new" / "a.npy"), IMAGE.numpy())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.npy"]


def test_content_alone_brings_the_photo_back(judge: LossNetwork) -> None:
    first, *_, last = reconstruct_content(judge, IMAGE, "conv1_1", iterations=40)
    assert last.lowest < 0.5 * first.lowest
    assert (last.best - IMAGE).square().mean() < 0.5 * (first.best - IMAGE).square().mean()


def test_gram_matrices_alone_bring_the_texture_back(judge: LossNetwork) -> None:
    first, *_, last = reconstruct_texture(judge, IMAGE.round(), ["relu1_1", "relu2_1"], iterations=40)
    assert last.lowest < 0.1 * first.lowest
    assert last.terms.content == 0
