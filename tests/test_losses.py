"""Each loss against a value worked out by hand, an independent slow loop, and its laws."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from impasto.learning.losses import (
    LossOptions,
    PerceptualLoss,
    Scaling,
    content_loss,
    gram_matrix,
    style_loss,
    total_variation,
)

KNOWN_MAPS = torch.tensor(
    [
        [1, 4, 7, 10, 40, 70, 100, 400, 700],
        [2, 5, 8, 20, 50, 80, 200, 500, 800],
        [3, 6, 9, 30, 60, 90, 300, 600, 900],
    ],
    dtype=torch.float32,
).reshape(1, 3, 3, 3)
KNOWN_PRODUCTS = torch.tensor(
    [[[666666, 787878, 909090], [787878, 939393, 1090908], [909090, 1090908, 1272726]]], dtype=torch.float32
)


def slow_gram_matrix(features: Tensor) -> Tensor:
    """Equation 3 written out, one entry after the other."""
    count, channels, height, width = features.shape
    gram = torch.zeros(count, channels, channels, dtype=features.dtype)
    for n in range(count):
        for i in range(channels):
            for j in range(channels):
                for h in range(height):
                    for w in range(width):
                        gram[n, i, j] = gram[n, i, j] + features[n, i, h, w] * features[n, j, h, w]
    return gram / (channels * height * width)


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def others() -> Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))


class TestGramMatrix:
    def test_known_answer(self) -> None:
        torch.testing.assert_close(gram_matrix(KNOWN_MAPS), KNOWN_PRODUCTS / 27)

    def test_it_is_the_slow_loop(self, features: Tensor) -> None:
        torch.testing.assert_close(gram_matrix(features), slow_gram_matrix(features))

    def test_its_gradient_is_that_of_the_slow_loop(self, features: Tensor) -> None:
        features.requires_grad_()
        weights = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1))  # not symmetric
        (fast,) = torch.autograd.grad((weights * gram_matrix(features)).sum(), features)
        (slow,) = torch.autograd.grad((weights * slow_gram_matrix(features)).sum(), features)
        assert fast.abs().min() > 0
        torch.testing.assert_close(fast, slow)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_a_gpu_gives_what_a_cpu_gives(self, dtype: torch.dtype) -> None:
        features = torch.randn(2, 24, 30, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
        target = torch.randn(2, 24, 30, 40, generator=torch.Generator().manual_seed(1)).to(dtype)
        found = []
        for device in ("cpu", "cuda"):
            x = features.to(device).detach().requires_grad_()
            gram, content = gram_matrix(x), content_loss(x, target.to(device))
            assert (gram.dtype, content.dtype) == (torch.float32, torch.float32)
            gradients = torch.autograd.grad(gram[:, 0].sum(), x) + torch.autograd.grad(content, x)
            found.append([each.detach().cpu().float() for each in (gram, content, *gradients)])
        torch.testing.assert_close(*found, rtol=1e-5 if dtype is torch.float32 else 2**-7, atol=1e-7)

    def test_it_is_symmetric_with_the_mean_square_on_its_diagonal(self, features: Tensor) -> None:
        gram = gram_matrix(features)
        torch.testing.assert_close(gram, gram.mT)
        torch.testing.assert_close(gram.diagonal(dim1=1, dim2=2), features.square().mean((2, 3)) / 3)

    @pytest.mark.parametrize("scale", [0.0, 0.5, -3.0, 1e4])
    def test_it_grows_with_the_square_of_the_features(self, features: Tensor, scale: float) -> None:
        scaled = gram_matrix(scale * features)
        torch.testing.assert_close(scaled, scale**2 * gram_matrix(features), rtol=1e-5, atol=1e-6 * scale**2)

    def test_a_batch_is_its_images_one_by_one(self, features: Tensor) -> None:
        alone = torch.cat([gram_matrix(image[None]) for image in features])
        torch.testing.assert_close(gram_matrix(features), alone)

    def test_where_things_stand_does_not_matter(self, features: Tensor) -> None:
        order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
        moved = features.flatten(2)[..., order].reshape(features.shape)
        torch.testing.assert_close(gram_matrix(moved), gram_matrix(features))

    def test_the_memory_format_does_not_matter(self, features: Tensor) -> None:
        moved = features.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(gram_matrix(moved), gram_matrix(features))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_neither_overflows_nor_rounds(self, dtype: torch.dtype) -> None:
        features = torch.full((2, 8, 64, 64), 1e4, dtype=dtype)
        with torch.autocast("cpu", dtype=dtype):
            gram = gram_matrix(features)
        assert gram.dtype == torch.float32
        expected = float(features[0, 0, 0, 0]) ** 2 / 8
        torch.testing.assert_close(gram, torch.full((2, 8, 8), expected), rtol=1e-5, atol=0)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_its_gradient_in_half_precision(self, features: Tensor, dtype: torch.dtype) -> None:
        features = features.to(dtype)
        exact, half = features.float().requires_grad_(), features.requires_grad_()
        gram = gram_matrix(exact)
        (expected,) = torch.autograd.grad(gram.square().sum(), exact)
        with torch.autocast("cpu", dtype=dtype):
            (gradient,) = torch.autograd.grad(gram_matrix(half).square().sum(), half)
        assert gradient.dtype == dtype
        # Every result is rounded once; of bfloat16, before that, every summand: feature times 4 G / (C·H·W).
        bound = expected.detach().abs()
        if dtype is torch.bfloat16:
            bound = bound + torch.einsum("ncd,ndhw->nchw", 4 * gram.detach().abs() / exact[0].numel(), exact.abs())
        assert ((gradient.float() - expected).abs() <= 0.501 * torch.finfo(dtype).eps * bound).all()

    def test_its_gradient_in_half_precision_keeps_what_is_small(self, features: Tensor) -> None:
        half = features.bfloat16().requires_grad_()
        (gradient,) = torch.autograd.grad(gram_matrix(half).square().sum(), half)
        (small,) = torch.autograd.grad(2.0**-60 * gram_matrix(half).square().sum(), half)
        torch.testing.assert_close(small * 2.0**60, gradient, rtol=0, atol=0)


class TestContentLoss:
    def test_by_hand(self) -> None:
        features, target = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
        assert content_loss(features, target) == (0 + 4 + 9 + 16) / 4

    def test_it_is_the_slow_loop(self, features: Tensor, others: Tensor) -> None:
        squares = [(a - b) ** 2 for a, b in zip(features.flatten().tolist(), others.flatten().tolist(), strict=True)]
        assert content_loss(features, others).item() == pytest.approx(sum(squares) / len(squares))

    def test_zero_at_the_target_alone(self, features: Tensor, others: Tensor) -> None:
        assert content_loss(features, features) == 0
        assert content_loss(features, others) > 0

    def test_its_gradient(self, features: Tensor, others: Tensor) -> None:
        features.requires_grad_()
        (gradient,) = torch.autograd.grad(content_loss(features, others), features)
        torch.testing.assert_close(gradient, 2 * (features - others).detach() / features.numel())

    def test_a_batch_is_the_mean_of_its_images(self, features: Tensor, others: Tensor) -> None:
        alone = [content_loss(features[i : i + 1], others[i : i + 1]) for i in range(2)]
        torch.testing.assert_close(content_loss(features, others), torch.stack(alone).mean())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_does_not_overflow(self, dtype: torch.dtype) -> None:
        features = torch.full((1, 2, 4, 4), 1e4, dtype=dtype)
        with torch.autocast("cpu", dtype=dtype):
            loss = content_loss(features, torch.zeros_like(features))
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(float(features.flatten()[0]) ** 2)


class TestStyleLoss:
    def test_it_is_a_sum_over_the_entries(self) -> None:
        gram, target = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
        assert style_loss(gram, target) == 0 + 4 + 9 + 16

    def test_it_is_a_mean_over_the_images(self) -> None:
        gram = torch.stack([torch.full((2, 2), 1.0), torch.full((2, 2), 3.0)])
        assert style_loss(gram, torch.zeros(1, 2, 2)) == (4 * 1 + 4 * 9) / 2

    def test_one_target_serves_a_batch(self, features: Tensor, others: Tensor) -> None:
        gram, target = gram_matrix(features), gram_matrix(others[:1])
        torch.testing.assert_close(style_loss(gram, target), style_loss(gram, target.expand(2, -1, -1)))

    def test_zero_at_the_target_alone(self, features: Tensor, others: Tensor) -> None:
        gram = gram_matrix(features)
        assert style_loss(gram, gram) == 0
        assert style_loss(gram, gram_matrix(others)) > 0

    def test_its_gradient(self, features: Tensor, others: Tensor) -> None:
        gram, target = gram_matrix(features).requires_grad_(), gram_matrix(others[:1])
        (gradient,) = torch.autograd.grad(style_loss(gram, target), gram)
        torch.testing.assert_close(gradient, (gram - target).detach())  # 2 · difference / 2 images


class TestTotalVariation:
    def test_by_hand(self) -> None:
        image = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]]).expand(1, 3, 2, 3)
        vertical, horizontal = 1 + 4 + 16, 1 + 4
        assert total_variation(image) == 3 * (vertical + horizontal)

    @pytest.mark.parametrize(("height", "width"), [(8, 8), (3, 5), (1, 4)])
    def test_a_checkerboard_differs_by_one_at_every_edge(self, height: int, width: int) -> None:
        board = (torch.arange(height)[:, None] + torch.arange(width)) % 2
        edges = (height - 1) * width + height * (width - 1)
        assert total_variation(board.expand(2, 3, height, width)) == 3 * edges

    def test_a_plain_image_has_none(self) -> None:
        assert total_variation(torch.full((2, 3, 5, 7), 0.4)) == 0

    def test_it_is_a_mean_over_the_images(self) -> None:
        images = torch.rand(3, 3, 6, 5)
        alone = torch.stack([total_variation(image[None]) for image in images])
        torch.testing.assert_close(total_variation(images), alone.mean())

    def test_its_gradient(self) -> None:
        image = torch.zeros(1, 3, 3, 3)
        image[0, 1, 1, 1] = 1  # one bright pixel with four dark neighbours
        image.requires_grad_()
        (gradient,) = torch.autograd.grad(total_variation(image), image)
        cross = torch.tensor([[0.0, -2.0, 0.0], [-2.0, 8.0, -2.0], [0.0, -2.0, 0.0]])
        torch.testing.assert_close(gradient[0], torch.stack([0 * cross, cross, 0 * cross]))

    def test_half_precision_does_not_overflow(self) -> None:
        image = torch.zeros(1, 3, 64, 64, dtype=torch.float16)
        image[..., ::2] = 1
        loss = total_variation(image)
        assert (loss.dtype, loss.item()) == (torch.float32, 3 * 64 * 63)  # 12,096 edges; fp16 adds in steps of 8


STYLE = {"a": torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), "b": torch.tensor([[[3.0]]])}
CONTENT_TARGETS = {"a": torch.full((1, 2, 1, 1), 2.0), "b": torch.full((1, 1, 2, 2), 1.0)}
FEATURES = {"a": torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1), "b": torch.full((1, 1, 2, 2), 3.0)}
IMAGE = torch.zeros(1, 3, 2, 2).index_fill(3, torch.tensor([1]), 1.0)  # one edge of height 2, three channels: 6


def perceptual_loss(scaling: Scaling, style: Mapping[str, Tensor] = STYLE, **changes: Any) -> PerceptualLoss:
    options: dict[str, Any] = {
        "content_layers": {"a": 1.0, "b": 0.5},
        "style_layers": {"a": 3.0, "b": 0.25},
        "content_weight": 2.0,
        "style_weight": 10.0,
        "tv_weight": 0.1,
    }
    return PerceptualLoss(style, LossOptions(scaling=scaling, **(options | changes)))


class TestPerceptualLoss:
    def test_paper_is_the_raw_weighted_sum(self) -> None:
        terms = perceptual_loss("paper")(IMAGE, FEATURES, CONTENT_TARGETS)
        assert terms.content.item() == pytest.approx(1.0 * (1 + 1) / 2 + 0.5 * 4)
        # Gram of a: [[1, 3], [3, 9]] / 2, of b: 4 · 9 / 4.
        style_a, style_b = (0.5 - 2) ** 2 + 2 * 1.5**2 + (4.5 - 1) ** 2, (9 - 3) ** 2
        assert terms.style.item() == pytest.approx(3.0 * style_a + 0.25 * style_b)
        assert terms.tv.item() == 6

    def test_balanced_divides_each_layer_by_its_target_and_averages_layers(self) -> None:
        terms = perceptual_loss("balanced")(IMAGE, FEATURES, CONTENT_TARGETS)
        assert terms.content.item() == pytest.approx((1.0 * 1 / 4 + 0.5 * 4 / 1) / 1.5)
        style_a, style_b = (0.5 - 2) ** 2 + 2 * 1.5**2 + (4.5 - 1) ** 2, (9 - 3) ** 2
        assert terms.style.item() == pytest.approx((3.0 * style_a / 5 + 0.25 * style_b / 9) / 3.25)
        assert terms.tv.item() == pytest.approx(6 / 12)

    def test_gatys_is_half_the_squared_differences_and_undivided_gram_matrices_by_hand(self) -> None:
        terms = perceptual_loss("gatys")(IMAGE, FEATURES, CONTENT_TARGETS)
        assert terms.content.item() == pytest.approx(1.0 * (1 + 1) / 2 + 0.5 * (4 * 4) / 2)
        # Undivided, a has [[1, 3], [3, 9]] against twice STYLE, over 4 · 2² · 1²; b 36 against 12, over 4 · 1² · 4².
        style_a, style_b = ((1 - 4) ** 2 + 2 * 3**2 + (9 - 2) ** 2) / 16, (36 - 12) ** 2 / 64
        assert terms.style.item() == pytest.approx(3.0 * style_a + 0.25 * style_b)
        assert terms.tv.item() == 6

    def test_gatys_is_the_slow_loop(self, features: Tensor, others: Tensor) -> None:
        features, others = features[:1], others[:1]
        layers = {"a": 1.0}
        loss = perceptual_loss("gatys", {"a": gram_matrix(others)}, content_layers=layers, style_layers=layers)
        terms = loss(IMAGE, {"a": features}, {"a": others})
        content = sum(
            (a - b) ** 2 / 2 for a, b in zip(features.flatten().tolist(), others.flatten().tolist(), strict=True)
        )
        assert terms.content.item() == pytest.approx(content)
        channels, positions = 3, 4 * 5
        undivided = [channels * positions * slow_gram_matrix(x)[0] for x in (features, others)]
        style = sum(
            (undivided[0][i, j] - undivided[1][i, j]).item() ** 2 for i in range(channels) for j in range(channels)
        )
        assert terms.style.item() == pytest.approx(style / (4 * channels**2 * positions**2), rel=1e-5)

    def test_the_two_papers_scalings_differ_by_known_factors(self, features: Tensor, others: Tensor) -> None:
        layers, grams = {"a": 1.0}, {"a": gram_matrix(others[:1])}
        gatys, johnson = (
            perceptual_loss(scaling, grams, content_layers=layers, style_layers=layers)(
                IMAGE, {"a": features}, {"a": others}
            )
            for scaling in ("gatys", "paper")
        )
        torch.testing.assert_close(gatys.content, johnson.content * (3 * 4 * 5) / 2)
        torch.testing.assert_close(gatys.style, johnson.style / 4)
        assert gatys.tv == johnson.tv

    @pytest.mark.parametrize("scaling", ["paper", "balanced", "gatys"])
    def test_a_term_without_layers_is_zero(self, scaling: Scaling) -> None:
        terms = perceptual_loss(scaling, {}, content_layers={}, style_layers={})(IMAGE, {}, {})
        assert (terms.content, terms.style) == (0, 0)
        torch.testing.assert_close(terms.total, 0.1 * terms.tv)

    def test_style_features_take_the_place_of_the_features_in_the_style_term_alone(self) -> None:
        loss = perceptual_loss("paper")
        plain = loss(IMAGE, FEATURES, CONTENT_TARGETS)
        part = loss(IMAGE, FEATURES, CONTENT_TARGETS, style_features={name: 0 * x for name, x in FEATURES.items()})
        assert part.content == plain.content
        assert part.style.item() == pytest.approx(3.0 * (4 + 1) + 0.25 * 9)

    @pytest.mark.parametrize("scaling", ["paper", "balanced", "gatys"])
    def test_the_total_is_the_weighted_sum(self, scaling: Scaling) -> None:
        terms = perceptual_loss(scaling)(IMAGE, FEATURES, CONTENT_TARGETS)
        expected = 2.0 * terms.content + 10.0 * terms.style + 0.1 * terms.tv
        torch.testing.assert_close(terms.total, expected)
        assert all(value.dtype == torch.float32 and value.shape == () for value in vars(terms).values())

    @pytest.mark.parametrize("scale", [1e-3, 7.0, 1e3])
    def test_balanced_does_not_know_the_features_scale(self, scale: float) -> None:
        loss = perceptual_loss("balanced")
        scaled = perceptual_loss("balanced", {name: scale**2 * gram for name, gram in STYLE.items()})
        before = loss(IMAGE, FEATURES, CONTENT_TARGETS)
        after = scaled(
            IMAGE,
            {name: scale * value for name, value in FEATURES.items()},
            {name: scale * value for name, value in CONTENT_TARGETS.items()},
        )
        torch.testing.assert_close(after.content, before.content)
        torch.testing.assert_close(after.style, before.style)

    @pytest.mark.parametrize("scale", [0.5, 7.0])
    def test_paper_grows_with_the_features_scale(self, scale: float) -> None:
        scaled = perceptual_loss("paper", {name: scale**2 * gram for name, gram in STYLE.items()})
        before = perceptual_loss("paper")(IMAGE, FEATURES, CONTENT_TARGETS)
        after = scaled(
            IMAGE,
            {name: scale * value for name, value in FEATURES.items()},
            {name: scale * value for name, value in CONTENT_TARGETS.items()},
        )
        torch.testing.assert_close(after.content, scale**2 * before.content)
        torch.testing.assert_close(after.style, scale**4 * before.style)

    @pytest.mark.parametrize("scaling", ["paper", "balanced", "gatys"])
    def test_layers_that_are_not_named_do_not_count(self, scaling: Scaling) -> None:
        one: dict[str, Any] = {"content_layers": {"b": 1.0}, "style_layers": {"b": 1.0}}
        terms = perceptual_loss(scaling, **one)(IMAGE, FEATURES, CONTENT_TARGETS)
        broken = {**FEATURES, "a": torch.full((1, 2, 1, 1), math.nan)}
        again = perceptual_loss(scaling, **one)(IMAGE, broken, {"b": CONTENT_TARGETS["b"]})
        assert (terms.content, terms.style) == (again.content, again.style)

    @pytest.mark.parametrize("scaling", ["paper", "balanced", "gatys"])
    def test_zero_at_both_targets(self, scaling: Scaling, features: Tensor) -> None:
        layers = {"a": 1.0}
        loss = perceptual_loss(scaling, {"a": gram_matrix(features)}, content_layers=layers, style_layers=layers)
        terms = loss(torch.full((2, 3, 8, 8), 0.5), {"a": features}, {"a": features})
        assert [value.item() for value in vars(terms).values()] == [0, 0, 0, 0]

    @pytest.mark.parametrize("scaling", ["paper", "balanced", "gatys"])
    def test_a_batch_of_one_photo_twice_has_the_loss_of_one(self, scaling: Scaling) -> None:
        loss = perceptual_loss(scaling)
        twice = [{name: torch.cat([x, x]) for name, x in each.items()} for each in (FEATURES, CONTENT_TARGETS)]
        one, two = loss(IMAGE, FEATURES, CONTENT_TARGETS), loss(torch.cat([IMAGE, IMAGE]), *twice)
        for name, value in vars(one).items():
            torch.testing.assert_close(getattr(two, name), value)

    def test_its_targets_follow_it_to_a_device_and_are_not_trained(self) -> None:
        loss = perceptual_loss("balanced").to("meta")
        assert {gram.device.type for gram in loss.style_grams.values()} == {"meta"}
        assert not any(parameter.requires_grad for parameter in loss.parameters())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scaling", ["paper", "balanced", "gatys"])
    def test_it_is_float32_and_finite_in_half_precision(self, scaling: Scaling, dtype: torch.dtype) -> None:
        large = torch.full((1, 2, 32, 32), 1e4, dtype=dtype)
        layers = {"a": 1.0}
        loss = perceptual_loss(scaling, {"a": STYLE["a"]}, content_layers=layers, style_layers=layers)
        with torch.autocast("cpu", dtype=dtype):
            terms = loss(torch.rand(1, 3, 32, 32, dtype=dtype), {"a": large}, {"a": 0.5 * large})
        assert {value.dtype for value in vars(terms).values()} == {torch.float32}
        assert all(torch.isfinite(value) for value in vars(terms).values())
