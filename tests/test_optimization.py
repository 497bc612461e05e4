"""A descent lowers its objective from wherever it starts, keeps the best, and survives what is not finite."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.learning.features import LossNetwork
from impasto.learning.losses import LossOptions, LossTerms, content_loss, gram_matrix, style_loss, total_variation
from impasto.learning.optimization import (
    Objective,
    Scale,
    Step,
    StyleTarget,
    descend,
    paint,
    start_noise,
)
from impasto.transformer import TransformerNet

OPTIONS = LossOptions({"relu2_1": 1.0}, {"relu1_1": 1.0, "relu2_1": 2.0}, 1.0, 5.0, 0.1, "balanced")


def noise(seed: int, height: int = 16, width: int = 20) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


PHOTO, STYLE, OTHER_STYLE = noise(0), noise(1, 12, 12).round(), noise(2, 12, 12) ** 4
NETWORK = TransformerNet(4)
STARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "content": torch.clone,
    "white": torch.ones_like,
    "noise": partial(start_noise, seed=3),
    "painting": lambda photo: NETWORK(photo).detach().clamp(0, 1),
}


def near(target: float) -> Callable[[Tensor], LossTerms]:
    """An objective whose only term is the squared distance from a plain picture."""
    zero = torch.zeros(())

    def objective(picture: Tensor) -> LossTerms:
        total = (picture - target).square().sum()
        return LossTerms(total, zero, zero, total)

    return objective


class TestObjective:
    def test_it_is_the_sum_of_the_losses_that_training_uses(self, judge: LossNetwork) -> None:
        options = replace(OPTIONS, scaling="paper")
        picture = noise(4)
        terms = Objective(judge, PHOTO, [StyleTarget(STYLE)], options)(picture)
        layers = ["relu1_1", "relu2_1"]
        after, photo, style = (judge(image, layers) for image in (picture, PHOTO, STYLE))
        content = content_loss(after["relu2_1"], photo["relu2_1"])
        distances = [style_loss(gram_matrix(after[name]), gram_matrix(style[name])) for name in layers]
        torch.testing.assert_close(terms.content, content)
        torch.testing.assert_close(terms.style, distances[0] + 2 * distances[1])
        torch.testing.assert_close(terms.tv, total_variation(picture))
        torch.testing.assert_close(terms.total, terms.content + 5 * terms.style + 0.1 * terms.tv)
        assert options.weighted(terms) == pytest.approx(
            {"content": float(content), "style": 5 * float(terms.style), "tv": 0.1 * float(terms.tv)}
            | {"total": float(terms.total)}
        )

    def test_several_styles_are_the_weighted_mean_of_each_alone(self, judge: LossNetwork) -> None:
        both = Objective(judge, PHOTO, [StyleTarget(STYLE, 3.0), StyleTarget(OTHER_STYLE, 1.0)], OPTIONS)
        one, two = (Objective(judge, PHOTO, [StyleTarget(style)], OPTIONS) for style in (STYLE, OTHER_STYLE))
        picture = noise(4)
        expected = 0.75 * one(picture).style + 0.25 * two(picture).style
        torch.testing.assert_close(both(picture).style, expected)
        torch.testing.assert_close(both(picture).content, one(picture).content)

    def test_a_white_mask_is_none(self, judge: LossNetwork) -> None:
        plain, masked = (
            Objective(judge, PHOTO, [StyleTarget(STYLE, mask=mask)], OPTIONS) for mask in (None, torch.ones(1, 1, 9, 9))
        )
        torch.testing.assert_close(vars(masked(noise(4))), vars(plain(noise(4))))

    def test_a_style_pulls_under_its_mask_alone(self, judge: LossNetwork) -> None:
        mask = torch.zeros(1, 1, 16, 20)
        mask[..., :10] = 1
        objective = Objective(judge, PHOTO, [StyleTarget(STYLE, mask=mask)], OPTIONS)
        picture = noise(4).requires_grad_()
        (gradient,) = torch.autograd.grad(objective(picture).style, picture)
        assert gradient[..., :9].abs().max() > 0
        assert gradient[..., 13:].abs().max() == 0  # beyond what the convolutions see across the edge

    def test_a_masked_half_is_compared_as_if_it_were_the_whole(self, judge: LossNetwork) -> None:
        mask = torch.zeros(1, 1, 16, 20)
        mask[..., :10] = 1
        halves = noise(4).clone()
        halves[..., 10:] = halves[..., :10]
        options = replace(OPTIONS, style_layers={"conv1_1": 1.0})
        masked = Objective(judge, PHOTO, [StyleTarget(STYLE, mask=mask)], options)(halves)
        whole = Objective(judge, PHOTO, [StyleTarget(STYLE)], options)(halves)
        torch.testing.assert_close(2 * masked.style, whole.style, rtol=0.2, atol=0)  # it is half of the photo

    def test_a_mask_pulls_as_hard_whether_or_not_the_rest_has_a_style(self, judge: LossNetwork) -> None:
        left = torch.zeros(1, 1, 16, 20)
        left[..., :5] = 1
        gradients = []
        nothing = StyleTarget(OTHER_STYLE, weight=0.0, mask=1 - left)
        for others in ([], [StyleTarget(OTHER_STYLE, mask=1 - left)], [nothing]):
            picture = noise(4).requires_grad_()
            objective = Objective(judge, PHOTO, [StyleTarget(STYLE, mask=left), *others], OPTIONS)
            gradients.append(torch.autograd.grad(objective(picture).style, picture)[0])
        alone, *both = gradients
        assert alone[..., :1].abs().max() > 0
        for beside in both:  # beyond what the convolutions see across the edge
            torch.testing.assert_close(alone[..., :1], beside[..., :1])

    def test_the_photo_pulls_as_hard_under_a_mask(self, judge: LossNetwork) -> None:
        terms = Objective(judge, PHOTO, [StyleTarget(STYLE, mask=torch.full((1, 1, 16, 20), 0.25))], OPTIONS)(noise(4))
        plain = Objective(judge, PHOTO, [StyleTarget(STYLE)], OPTIONS)(noise(4))
        torch.testing.assert_close((terms.content, terms.tv), (plain.content, plain.tv))
        torch.testing.assert_close(terms.style, 0.25 * plain.style)
        torch.testing.assert_close(terms.total, plain.total - OPTIONS.style_weight * 0.75 * plain.style)

    def test_two_masks_weigh_by_their_areas(self, judge: LossNetwork) -> None:
        left = torch.zeros(1, 1, 16, 20)
        left[..., :5] = 1
        targets = [StyleTarget(STYLE, mask=left), StyleTarget(OTHER_STYLE, mask=1 - left)]
        assert [part.share for part in Objective(judge, PHOTO, targets, OPTIONS).parts] == [0.25, 0.75]

    def test_a_black_mask(self, judge: LossNetwork) -> None:
        with pytest.raises(ValueError, match=r".") as caught:
            Objective(judge, PHOTO, [StyleTarget(STYLE, mask=torch.zeros(1, 1, 16, 20))], OPTIONS)
        expected = "expected a mask that is white where its style goes, got one that is black all over"
        assert str(caught.value) == expected


class TestDescend:
    @pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
    @pytest.mark.parametrize("start", STARTS)
    def test_it_lowers_its_own_objective_from_each_start(self, judge: LossNetwork, start: str, optimizer: str) -> None:
        objective = Objective(judge, PHOTO, [StyleTarget(STYLE)], OPTIONS)
        steps = list(descend(objective, STARTS[start](PHOTO), iterations=15, optimizer=optimizer))
        assert [step.iteration for step in steps] == list(range(16))
        torch.testing.assert_close(vars(steps[0].terms), vars(objective(STARTS[start](PHOTO))))
        assert steps[-1].lowest < 0.8 * steps[0].lowest
        assert all(step.notice is None for step in steps)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_a_gpu_descends_as_a_cpu_does(self, judge: LossNetwork) -> None:
        runs = []
        for device in ("cpu", "cuda"):
            network = copy.deepcopy(judge).to(device)
            objective = Objective(network, PHOTO.to(device), [StyleTarget(STYLE)], OPTIONS)
            steps = list(descend(objective, PHOTO.to(device), iterations=10))
            runs.append([float(step.terms.total) for step in steps])
            assert float(objective(steps[-1].best).total) == pytest.approx(steps[-1].lowest, rel=1e-3)
        assert runs[1] == pytest.approx(runs[0], rel=0.05)

    @pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
    def test_an_objective_of_a_network_whose_channels_are_last(self, judge: LossNetwork, optimizer: str) -> None:
        network, zero = copy.deepcopy(judge).to(memory_format=torch.channels_last), torch.zeros(())

        def objective(picture: Tensor) -> LossTerms:
            total = network(picture, ["relu1_1"])["relu1_1"].square().mean()
            return LossTerms(total, zero, zero, total)

        steps = list(descend(objective, PHOTO, iterations=5, optimizer=optimizer))
        assert steps[-1].lowest < steps[0].lowest

    def test_the_best_picture_is_the_one_with_the_lowest_objective(self, judge: LossNetwork) -> None:
        objective = Objective(judge, PHOTO, [StyleTarget(STYLE)], OPTIONS)
        steps = list(descend(objective, PHOTO, iterations=8, optimizer="adam", learning_rate=0.5))
        totals = [float(step.terms.total) for step in steps]
        assert totals != sorted(totals, reverse=True)  # a step so large goes up as well
        assert [step.lowest for step in steps] == [min(totals[: i + 1]) for i in range(9)]
        for step in steps:
            assert float(objective(step.best).total) == pytest.approx(step.lowest)

    def test_it_finds_a_minimum_and_stays_within_the_range(self) -> None:
        for target, expected in ((0.25, 0.25), (3.0, 1.0), (-1.0, 0.0)):
            *_, last = descend(near(target), PHOTO, iterations=10)
            torch.testing.assert_close(last.best, torch.full_like(PHOTO, expected))

    @pytest.mark.parametrize("scale", [1e-6, 1e12])
    @pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
    def test_the_objectives_scale_does_not_matter(self, judge: LossNetwork, optimizer: str, scale: float) -> None:
        objective = Objective(judge, PHOTO, [StyleTarget(STYLE)], OPTIONS)

        def scaled(picture: Tensor) -> LossTerms:
            return LossTerms(*(scale * value for value in vars(objective(picture)).values()))

        *_, plain = descend(objective, PHOTO, iterations=3, optimizer=optimizer)
        *_, other = descend(scaled, PHOTO, iterations=3, optimizer=optimizer)
        assert other.lowest == pytest.approx(scale * plain.lowest, rel=1e-3)
        assert plain.lowest < objective(PHOTO).total

    def test_the_start_is_left_as_it_is(self) -> None:
        start = PHOTO.clone()
        list(descend(near(0.5), start, iterations=3))
        assert torch.equal(start, PHOTO)

    def test_an_unknown_optimizer(self) -> None:
        with pytest.raises(ValueError, match=r"^expected an optimizer out of lbfgs, adam, got 'sgd'$"):
            next(descend(near(0.5), PHOTO, iterations=1, optimizer="sgd"))


class TestNotFinite:
    def broken(self, *, at: set[int], factor: float = math.nan) -> Callable[[Tensor], LossTerms]:
        """An objective that is not a number, or far too large, at these calls."""
        calls = iter(range(10_000))

        def objective(picture: Tensor) -> LossTerms:
            terms = near(0.5)(picture)
            return replace(terms, total=terms.total * (factor if next(calls) in at else 1.0))

        return objective

    def test_it_goes_back_to_the_best_picture_with_a_smaller_step_and_says_so(self) -> None:
        steps = list(descend(self.broken(at={3}), PHOTO, iterations=12, optimizer="adam", learning_rate=0.04))
        expected = "the objective was nan at iteration 3: back to the best picture, step 0.01"
        assert [step.notice for step in steps if step.notice is not None] == [expected]
        assert torch.equal(steps[3].best, steps[2].best)
        assert float(steps[4].terms.total) == pytest.approx(steps[2].lowest)
        assert steps[-1].lowest < steps[2].lowest
        assert steps[-1].best.isfinite().all()

    @pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
    def test_a_jump_up_is_taken_back_without_a_word(self, optimizer: str) -> None:
        steps = list(descend(self.broken(at={1}, factor=1000.0), PHOTO, iterations=6, optimizer=optimizer))
        assert torch.equal(steps[1].best, PHOTO)
        assert float(steps[2].terms.total) == steps[0].lowest
        assert steps[-1].lowest < steps[0].lowest
        assert all(step.notice is None for step in steps)

    def test_adam_gets_on_where_its_whole_step_is_too_long(self) -> None:
        target = PHOTO.clamp(0.1, 0.9)

        def objective(picture: Tensor) -> LossTerms:
            total = 1 + 1e5 * (picture - target).square().mean()
            return LossTerms(total, total, total, total)

        start = target + 1e-2 * (noise(5) - 0.5)
        steps = list(descend(objective, start, iterations=60, optimizer="adam"))
        assert steps[-1].lowest - 1 < 0.5 * (steps[0].lowest - 1)
        assert steps[-1].lowest < steps[30].lowest < steps[0].lowest

    def test_an_infinite_objective_at_the_start(self) -> None:
        with pytest.raises(ValueError, match=r"^expected a finite objective, got inf at iteration 0: "):
            next(descend(self.broken(at={0}, factor=math.inf), PHOTO, iterations=5))

    @pytest.mark.parametrize(("first", "iteration"), [(0, 0), (2, 6)])
    def test_it_gives_up_at_the_start_or_when_no_step_is_small_enough(self, first: int, iteration: int) -> None:
        with pytest.raises(ValueError, match=r".") as caught:
            list(descend(self.broken(at=set(range(first, 100))), PHOTO, iterations=50))
        assert str(caught.value) == (
            f"expected a finite objective, got nan at iteration {iteration}: "
            "lower the weights of the terms, or begin with a smaller step"
        )


class TestPaint:
    def paint(self, judge: LossNetwork, *scales: Scale) -> list[Step]:
        styles = [StyleTarget(STYLE, mask=torch.ones(1, 1, 16, 20))]
        return list(paint(judge, PHOTO, styles, OPTIONS, start=torch.clone, scales=scales))

    def test_each_scale_has_its_size_and_iterations(self, judge: LossNetwork) -> None:
        steps = self.paint(judge, Scale(8, 2), Scale(16, 3))
        assert [step.iteration for step in steps] == [0, 1, 2, 3, 4, 5, 6]
        sizes = [tuple(step.best.shape) for step in steps]
        assert sizes == [(1, 3, 8, 10)] * 3 + [(1, 3, 16, 20)] * 4

    def test_a_scale_begins_with_what_the_one_before_has_reached(self, judge: LossNetwork) -> None:
        steps = self.paint(judge, Scale(8, 6), Scale(16, 1))
        enlarged = F.interpolate(steps[6].best, size=(16, 20), mode="bicubic", antialias=True).clamp(0, 1)
        assert torch.equal(steps[7].best, enlarged)

    def test_the_style_shrinks_with_the_scale(self, judge: LossNetwork) -> None:
        with pytest.raises(ValueError, match=r"^expected images of at least 2 x 2 px for the layer relu2_1, got 1 x 1"):
            self.paint(judge, Scale(2, 1), Scale(24, 1))


def test_noise_depends_on_its_seed_alone() -> None:
    assert torch.equal(start_noise(PHOTO, seed=1), start_noise(0 * PHOTO, seed=1))
    assert not torch.equal(start_noise(PHOTO, seed=1), start_noise(PHOTO, seed=2))
    assert start_noise(PHOTO, seed=1).shape == PHOTO.shape
