"""A network that paints a moved, noisy photo alike is told so, and no training asks for it unless it is told to."""

import pytest
import torch
from torch import Tensor

from impasto.learning.stability import Disturbance
from tests.test_module import Watch, fit, make_module


@pytest.fixture
def photos() -> Tensor:
    return torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(1))


def moved(image: Tensor, *, down: int, across: int) -> Tensor:
    """Return an image whose (y, x) is what was at (y - down, x - across), around the edges."""
    height, width = image.shape[-2:]
    rows = [(y - down) % height for y in range(height)]
    columns = [(x - across) % width for x in range(width)]
    return image[..., rows, :][..., columns]


class TestDisturbance:
    def test_a_shift_and_noise(self, photos: Tensor) -> None:
        disturbance = Disturbance.draw(photos, seed=5)
        expected = moved(photos, down=disturbance.down, across=disturbance.across) + disturbance.noise
        assert torch.equal(disturbance(photos), expected)
        assert float(disturbance.noise.std()) == pytest.approx(0.02, rel=0.05)

    def test_the_same_seed_gives_the_same(self, photos: Tensor) -> None:
        first, second, other = (Disturbance.draw(photos, seed=seed)(photos) for seed in (1, 1, 2))
        assert torch.equal(first, second)
        assert not torch.equal(first, other)

    def test_shifts_meet_every_offset_of_a_step(self, photos: Tensor) -> None:
        drawn = [Disturbance.draw(photos, seed=seed) for seed in range(200)]
        assert {each.down % 4 for each in drawn} == {each.across % 4 for each in drawn} == {0, 1, 2, 3}
        assert min(each.down for each in drawn) < 0 < max(each.down for each in drawn)


class TestLoss:
    def test_zero_where_the_painting_moves_along(self, photos: Tensor) -> None:
        disturbance = Disturbance(2, -3, torch.zeros_like(photos))
        assert disturbance.loss(photos, moved(photos, down=2, across=-3)) == 0
        assert disturbance.loss(photos, photos) > 0.05

    def test_by_hand_away_from_the_edges(self, photos: Tensor) -> None:
        disturbed = photos.clone()
        disturbed[0, 1, 20, 30] += 0.5
        disturbed[:, :, :9], disturbed[:, :, -9:], disturbed[..., :9], disturbed[..., -9:] = 7, 7, 7, 7
        inner = 2 * 3 * (40 - 2 * 9) * (56 - 2 * 9)
        loss = Disturbance(0, 0, torch.zeros_like(photos)).loss(photos, disturbed)
        assert loss.item() == pytest.approx(0.25 / inner)

    def test_in_float32(self, photos: Tensor) -> None:
        loss = Disturbance(1, 1, torch.zeros_like(photos)).loss(photos.bfloat16(), photos.bfloat16())
        assert loss.dtype == torch.float32


class TestTraining:
    def test_it_is_part_of_the_total(self, photos: Tensor) -> None:
        watch = Watch()
        fit(make_module(stability=10.0), [photos], watch)
        logged = watch.logged[0]
        assert logged["train/stability_unweighted"] > 0
        assert logged["train/stability"] == pytest.approx(10 * logged["train/stability_unweighted"])
        terms = (logged[f"train/{name}"] for name in ("content", "style", "tv", "stability"))
        assert logged["train/loss"] == pytest.approx(sum(terms))

    def test_a_weight_makes_paintings_steadier(self, photos: Tensor) -> None:
        differences = []
        for weight in (0.0, 100.0):
            module = make_module(stability=weight)
            fit(module, [photos] * 60)
            disturbance = Disturbance.draw(photos, seed=12345)
            with torch.no_grad():
                painted = module.average(photos), module.average(disturbance(photos))
            differences.append(float(disturbance.loss(*painted)))
        assert differences[1] < 0.5 * differences[0]

    def test_each_step_meets_another_disturbance(self, photos: Tensor) -> None:
        watch = Watch()
        fit(make_module(stability=1.0, learning_rate=1e-12), [photos] * 3, watch)
        seen = {round(logged["train/stability_unweighted"], 9) for logged in watch.logged}
        assert len(seen) == 3
