"""The slow way: the pixels of one picture are the unknowns, and descend the losses that a network is trained with.

Source: Gatys, Ecker, Bethge 2015, *A Neural Algorithm of Artistic Style*.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.images import resize, resize_to
from impasto.learning.features import LossNetwork
from impasto.learning.losses import LossOptions, LossTerms, PerceptualLoss, gram_matrix
from impasto.learning.replays import Replays

OPTIMIZERS = {"lbfgs": 1.0, "adam": 0.03}
"""The optimizers by name, and the step each begins with."""

HISTORY = 20
"""Steps that L-BFGS remembers. 100 came out no better, and at 1024 px they fill 2.5 GB."""

FIRST_STEP = 0.01
"""Mean size of a pixel's first step by L-BFGS."""

JUMP = 2.0
"""Times the lowest objective so far, above which a step went too far: the descent goes back to the best picture."""

SMALLEST_STEP = 1e-3
"""Part of the full step below which an objective that is still not finite is given up."""


@dataclass(frozen=True)
class StyleTarget:
    """A style picture (1, 3, H, W), its weight among several, and where it goes: ``mask`` (1, 1, H, W) in [0, 1].

    The mask has the photo's aspect; without one the style goes everywhere.
    """

    picture: Tensor
    weight: float = 1.0
    mask: Tensor | None = None


@dataclass(frozen=True)
class _Part:
    """One style's loss, its part of the style term, and by layer what features are multiplied by to see its mask."""

    loss: PerceptualLoss
    share: float
    windows: Mapping[str, Tensor]

    def select(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: x * self.windows[name] if name in self.windows else x for name, x in features.items()}


class Objective:
    """What a picture (1, 3, H, W) of the photo's size costs: the perceptual loss, its style term shared by the styles.

    A masked style is compared with the features under its mask alone, in a Gram matrix that is divided by the mask's
    area. It counts by weight times area, and all together by the area that they cover, so that the pixels there are
    pulled, on average, as hard as without masks.
    """

    def __init__(
        self, network: LossNetwork, photo: Tensor, styles: Sequence[StyleTarget], options: LossOptions
    ) -> None:
        self.network, self.options = network, options
        self.layers = list(dict.fromkeys((*options.content_layers, *options.style_layers)))
        with torch.no_grad():
            features = network(photo, self.layers)
            self.content_features = {name: features[name] for name in options.content_layers}
            self.content_sizes = PerceptualLoss({}, options).content_sizes(self.content_features)
            sizes = {name: features[name].shape[-2:] for name in options.style_layers}
            self.parts = [_make_part(network, style, options, sizes) for style in styles]
        self.parts = self.parts or [_Part(PerceptualLoss({}, options), 1.0, {})]
        total = sum(part.share for part in self.parts)
        self.parts = [replace(part, share=_covered(styles) * part.share / total) for part in self.parts]

    def __call__(self, picture: Tensor) -> LossTerms:
        """Return the terms before their weights, and their weighted sum."""
        features = self.network(picture, self.layers)
        terms = [
            part.loss(
                *(picture, features, self.content_features),
                style_features=part.select(features),
                content_sizes=self.content_sizes,
            )
            for part in self.parts
        ]
        style = torch.stack([part.share * each.style for part, each in zip(self.parts, terms, strict=True)]).sum()
        content, tv, weights = terms[0].content, terms[0].tv, self.options
        total = weights.content_weight * content + weights.style_weight * style + weights.tv_weight * tv
        return LossTerms(content, style, tv, total)


def _covered(styles: Sequence[StyleTarget]) -> float:
    """Return the part of the photo where there is a style."""
    masks = [style.mask for style in styles if style.weight > 0]
    somewhere = [mask for mask in masks if mask is not None]
    everywhere = len(somewhere) < len(masks) or not masks
    return 1.0 if everywhere else float(torch.stack(somewhere).sum(0).clamp(max=1).mean())


def _make_part(
    network: LossNetwork, style: StyleTarget, options: LossOptions, sizes: Mapping[str, torch.Size]
) -> _Part:
    features = network(style.picture.to(network.mean), options.style_layers)
    loss = PerceptualLoss({name: gram_matrix(x) for name, x in features.items()}, options)
    if style.mask is None:
        return _Part(loss, style.weight, {})
    mask = style.mask.to(network.mean)
    if not mask.max() > 0:
        raise ValueError("expected a mask that is white where its style goes, got one that is black all over")
    smaller = {name: F.interpolate(mask, size=tuple(size), mode="area") for name, size in sizes.items()}
    windows = {name: (each / each.mean()).sqrt() for name, each in smaller.items()}
    return _Part(loss, style.weight * float(mask.mean()), windows)


@dataclass(frozen=True)
class Step:
    """Where a descent stands: ``terms`` of the picture after so many iterations, and the best picture so far.

    ``notice`` says what was done about an objective that was not finite.
    """

    iteration: int
    terms: LossTerms
    best: Tensor
    lowest: float
    notice: str | None = None


def descend(
    objective: Callable[[Tensor], LossTerms],
    start: Tensor,
    *,
    iterations: int,
    optimizer: str = "lbfgs",
    learning_rate: float | None = None,
) -> Iterator[Step]:
    """Yield the start and what there is after every iteration, each of which judges one picture, clipped to [0, 1].

    On a GPU the objective has to do the same at every call, since what it does is recorded.
    An objective that jumps up or is not finite sends the descent back to the best picture, with a quarter of the step,
    which then doubles with every iteration until it is whole again; Adam's only half as large.

    Raises:
        ValueError: an unknown optimizer, or an objective that is not finite from the start or whatever the step.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"expected an optimizer out of {', '.join(OPTIMIZERS)}, got {optimizer!r}")
    rate = first = most = OPTIMIZERS[optimizer] if learning_rate is None else learning_rate
    pixels = start.detach().clamp(0, 1).contiguous().requires_grad_()  # L-BFGS takes no other
    replays = Replays()
    stepper = _Stepper(optimizer, pixels, rate, replays)
    best, lowest = pixels.detach().clone(), math.inf
    for iteration in range(iterations + 1):
        before, notice = pixels.detach().clone(), None
        terms = stepper.step(objective)
        total = float(terms.total)
        if math.isfinite(total) and total <= JUMP * lowest:
            stepper.rate = rate = min(most, 2 * rate)
            if total < lowest:
                best, lowest = before, total
        else:  # too far, or not a number
            rate /= 4
            if optimizer == "adam":  # its step has one size whatever the gradient's: the same one would jump again
                most /= 2
            if not math.isfinite(total):
                if lowest == math.inf or rate < SMALLEST_STEP * first:
                    raise ValueError(
                        f"expected a finite objective, got {total} at iteration {iteration}: "
                        "lower the weights of the terms, or begin with a smaller step"
                    )
                notice = f"the objective was {total} at iteration {iteration}: back to the best picture, step {rate:g}"
            pixels = best.clone().requires_grad_()
            stepper = _Stepper(optimizer, pixels, rate, replays)
        yield Step(iteration, terms, best, lowest, notice)


class _Stepper:
    """Moves pixels (1, 3, H, W), whatever the objective's scale: the gradient's mean size begins as FIRST_STEP.

    L-BFGS's own first step would move all pixels together by 1, which is lost in rounding.
    """

    def __init__(self, name: str, pixels: Tensor, rate: float, replays: Replays) -> None:
        self.pixels, self.rate, self.scale, self.first = pixels, rate, 0.0, 1.0
        self.replays = replays
        self.optimizer: torch.optim.Optimizer
        if name == "adam":
            self.optimizer = torch.optim.Adam([pixels], lr=rate)
        else:
            # A fixed step: clipping between the steps came out better than a line search, which it misleads.
            self.optimizer = torch.optim.LBFGS(
                [pixels], lr=rate, max_iter=1, history_size=HISTORY, tolerance_grad=0, tolerance_change=0
            )
            self.first = max(1.0, FIRST_STEP * pixels.numel())  # what L-BFGS will divide its first step by

    def step(self, objective: Callable[[Tensor], LossTerms]) -> LossTerms:
        """Move the pixels by one step, and return the terms of the picture before it."""
        judged: list[LossTerms] = []

        def judge() -> float:
            terms, gradient = self._judge(objective)
            judged.append(terms)
            self.scale = self.scale or FIRST_STEP / max(float(gradient.abs().mean()), 1e-30)
            self.pixels.grad = self.scale * gradient.contiguous()  # L-BFGS takes no other
            return self.scale * float(terms.total)

        self.optimizer.param_groups[0]["lr"] = self.rate * self.first
        self.optimizer.step(judge)
        self.first = 1.0
        with torch.no_grad():
            self.pixels.clamp_(0, 1)
        return judged[0]

    def _judge(self, objective: Callable[[Tensor], LossTerms]) -> tuple[LossTerms, Tensor]:
        """Return the terms of the picture and the gradient by its pixels."""

        def judge(pixels: Tensor) -> tuple[LossTerms, Tensor]:
            pixels = pixels.detach().requires_grad_()
            terms = objective(pixels)
            (gradient,) = torch.autograd.grad(terms.total, pixels)
            return LossTerms(*(value.detach() for value in vars(terms).values())), gradient

        if not self.pixels.is_cuda:
            return judge(self.pixels)
        terms, gradient = self.replays(judge, self.pixels.detach(), uses=[])
        return LossTerms(*(value.clone() for value in vars(terms).values())), gradient


@dataclass(frozen=True)
class Scale:
    """One level of a coarse-to-fine pyramid: the short side in px, and the iterations spent there."""

    short_side: int
    iterations: int


def paint(
    network: LossNetwork,
    photo: Tensor,
    styles: Sequence[StyleTarget],
    options: LossOptions,
    *,
    start: Callable[[Tensor], Tensor],
    scales: Sequence[Scale],
    optimizer: str = "lbfgs",
    learning_rate: float | None = None,
) -> Iterator[Step]:
    """Yield the steps of a descent through the scales, counted on; each scale begins with the best of the one before.

    ``start`` makes the first picture from the photo at the first scale. The style pictures have the size that they
    are shown in at the last scale, and are smaller before in proportion.
    """
    done, picture = 0, None
    for scale in scales:
        smaller = resize(photo, short_side=scale.short_side).to(network.mean)
        picture = start(smaller) if picture is None else resize_to(picture, *smaller.shape[-2:])
        shown = [_shrink(style, scale.short_side / scales[-1].short_side) for style in styles]
        objective = Objective(network, smaller, shown, options)
        for step in descend(
            objective, picture, iterations=scale.iterations, optimizer=optimizer, learning_rate=learning_rate
        ):
            yield replace(step, iteration=done + step.iteration)
            picture = step.best
        done += scale.iterations + 1  # each scale judges what it begins with


def _shrink(style: StyleTarget, factor: float) -> StyleTarget:
    return replace(style, picture=resize(style.picture, short_side=round(min(style.picture.shape[-2:]) * factor)))


def start_noise(photo: Tensor, *, seed: int) -> Tensor:
    """Return uniform noise of the photo's size, the same on every device."""
    return torch.rand(photo.shape, generator=torch.Generator().manual_seed(seed)).to(photo)
