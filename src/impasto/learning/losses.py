"""The perceptual loss: content, style and total variation, and their weighted sum.

Pure functions on feature maps and Gram matrices, in float32 whatever the autocast: the style loss is a small
difference of large numbers, which half precision rounds away or overflows.

Source: Johnson, Alahi, Fei-Fei 2016, equations 2 to 4; Gatys, Ecker, Bethge 2015.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Scaling = Literal["balanced", "paper", "gatys"]

_POSITIONS = 2**14  # of features, which are multiplied at a time


def gram_matrix(features: Tensor) -> Tensor:
    """Return the Gram matrices (N, C, C) of feature maps (N, C, H, W), divided by C·H·W (equation 3), in float32."""
    with torch.autocast(features.device.type, enabled=False):
        return _Gram.apply(features)


class _Gram(torch.autograd.Function):
    """ψψᵀ/(C·H·W), whose backward is one product with the symmetrised gradient instead of autograd's two.

    Positions come first, (H·W, C), so that channels-last features are read without a copy. The product is divided and
    not the features: in float32 it cannot overflow, and a pass over the features is saved.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        flat = _positions_first(features)
        if not features.is_cuda:
            grams = _multiply_in_parts(flat)
        elif features.dtype is torch.float32:
            grams = torch.bmm(flat.mT, flat)
        else:
            grams = torch.bmm(flat.mT, flat, out_dtype=torch.float32)
        return grams / features[0].numel()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        spread = torch.empty_like(features, memory_format=torch.channels_last)
        symmetrised = (gradient + gradient.mT) / features[0].numel()
        if features.dtype is torch.bfloat16:  # has the range of float32; of float16's, little would be left
            symmetrised = symmetrised.bfloat16()
        whole = _positions_first(features), symmetrised, _positions_first(spread)
        with torch.autocast(features.device.type, enabled=False):
            for flat, each, written in [whole] if features.is_cuda else zip(*whole, strict=True):
                for read, write in zip(flat.split(_POSITIONS, -2), written.split(_POSITIONS, -2), strict=True):
                    write.copy_(read.to(each) @ each)
        return spread


def _positions_first(features: Tensor) -> Tensor:
    """Return (N, H·W, C), a view where channels are last."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _multiply_in_parts(flat: Tensor) -> Tensor:
    """Return the products (N, C, C) in float32, computed from a part of one image at a time.

    On a CPU the batched product of such long, narrow matrices is several times slower, and what it takes of memory as
    well.
    """
    grams = flat.new_zeros(len(flat), flat.shape[2], flat.shape[2], dtype=torch.float32)
    for gram, image in zip(grams, flat, strict=True):
        for part in map(Tensor.float, image.split(_POSITIONS)):
            gram.add_(part.mT @ part)
    return grams


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference over all entries, C·H·W of them per image (equation 2), in float32."""
    return _MeanSquaredDifference.apply(features, target.expand_as(features))


class _MeanSquaredDifference(torch.autograd.Function):
    """On a CPU one image at a time, so that of what is float32 no more is in memory; autograd would keep all of it."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(features, target)
        sums = [difference.square_().sum() for difference in _differences(features, target)]
        return torch.stack(sums).sum() / features.numel()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        features, target = ctx.saved_tensors
        spread = torch.empty_like(features)
        for written, difference in zip(_parts(spread), _differences(features, target), strict=True):
            written.copy_(difference.mul_(2 * gradient / features.numel()))
        return spread, -spread if ctx.needs_input_grad[1] else None


def _differences(features: Tensor, target: Tensor) -> Iterator[Tensor]:
    for one, other in zip(_parts(features), _parts(target), strict=True):
        yield one.float() - other.float()


def _parts(images: Tensor) -> Sequence[Tensor]:
    """Return what is worked on at a time."""
    return [images] if images.is_cuda else list(images)


def style_loss(gram: Tensor, target: Tensor) -> Tensor:
    """Return the squared Frobenius distance, summed over the C² entries (equation 4), averaged over the N images.

    ``target`` has the shape (1, C, C) or (N, C, C).
    """
    return (gram - target).square().sum((1, 2)).mean()


def total_variation(images: Tensor) -> Tensor:
    """Return the squared differences of vertical and horizontal neighbours, summed, averaged over the N images."""
    images = images.float()
    vertical = (images[..., 1:, :] - images[..., :-1, :]).square().sum()
    horizontal = (images[..., :, 1:] - images[..., :, :-1]).square().sum()
    return (vertical + horizontal) / len(images)


@dataclass(frozen=True)
class LossTerms:
    """The three terms before their weights, each a scalar, and ``total``, their weighted sum."""

    content: Tensor
    style: Tensor
    tv: Tensor
    total: Tensor


@dataclass(frozen=True)
class LossOptions:
    """What PerceptualLoss is told besides the style: layers with their weights, weights of the terms, scaling."""

    content_layers: Mapping[str, float]
    style_layers: Mapping[str, float]
    content_weight: float
    style_weight: float
    tv_weight: float
    scaling: Scaling

    def weighted(self, terms: LossTerms) -> dict[str, float]:
        """Return the terms times their weights, and their sum as ``total``."""
        weights = {"content": self.content_weight, "style": self.style_weight, "tv": self.tv_weight, "total": 1.0}
        return {name: weight * float(getattr(terms, name)) for name, weight in weights.items()}


class PerceptualLoss(nn.Module):
    """Weighted sum of content loss, style loss and total variation against one style's Gram matrices.

    The layers of the options have weights within their term, which is 0 without any. Three scalings:

    - ``paper``: raw values. Content: sum over layers of weight · mean squared difference. Style: sum over layers of
      weight · squared Frobenius distance (a sum over entries). Total variation: a sum over pixels.
    - ``balanced``: each layer is divided by the size of its target, content by the mean square of the target features,
      style by the squared norm of the target Gram matrix, and layers are averaged; total variation by the number of
      values. One set of weights then serves every style and every loss network.
    - ``gatys``: as ``paper``, but content is half the sum of squared differences, and style the sum of (G - A)² /
      (4 C² (H·W)²) of undivided Gram matrices G and A, which is a quarter of the distance of the divided ones.

    Source: Gatys, Ecker, Bethge 2015, equations 1 and 4.
    Differs: the style picture may have another number of positions than the photo; each Gram matrix is divided by its
    own.
    """

    def __init__(self, style_grams: Mapping[str, Tensor], options: LossOptions) -> None:
        super().__init__()
        # Constants, but parameters: they follow the module to its device.
        self.style_grams = nn.ParameterDict({name: nn.Parameter(gram, False) for name, gram in style_grams.items()})
        self.content_layers, self.style_layers = options.content_layers, options.style_layers
        self.content_weight, self.style_weight = options.content_weight, options.style_weight
        self.tv_weight, self.scaling = options.tv_weight, options.scaling

    def forward(
        self,
        stylized: Tensor,
        features: Mapping[str, Tensor],
        content_features: Mapping[str, Tensor],
        *,
        style_features: Mapping[str, Tensor] | None = None,
        content_sizes: Mapping[str, Tensor | float] | None = None,
    ) -> LossTerms:
        """Return the terms for stylized images (N, 3, H, W), their features, and those of the photos.

        ``style_features`` are compared with the style in place of ``features``: those of a part of the image.
        ``content_sizes`` are those of the batch that these images are a part of.
        """
        sizes = self.content_sizes(content_features) if content_sizes is None else content_sizes
        content = self._content(features, content_features, sizes)
        style = self._style(features if style_features is None else style_features)
        tv = total_variation(stylized)
        if self.scaling == "balanced":
            tv = tv / stylized[0].numel()
        total = self.content_weight * content + self.style_weight * style + self.tv_weight * tv
        return LossTerms(content, style, tv, total)

    def content_sizes(self, targets: Mapping[str, Tensor]) -> dict[str, Tensor | float]:
        """Return what each layer's content loss is divided by, a mean over the N photos."""
        sizes: dict[str, Tensor | float] = dict.fromkeys(self.content_layers, 1.0)
        for name in self.content_layers:
            if self.scaling == "balanced":
                sizes[name] = content_loss(targets[name], targets[name].new_zeros(()))
            elif self.scaling == "gatys":
                sizes[name] = 2 / targets[name][0].numel()
        return sizes

    def _content(
        self, features: Mapping[str, Tensor], targets: Mapping[str, Tensor], sizes: Mapping[str, Tensor | float]
    ) -> Tensor:
        losses = [
            weight * content_loss(features[name], targets[name]) / sizes[name]
            for name, weight in self.content_layers.items()
        ]
        return self._combine(losses, self.content_layers)

    def _style(self, features: Mapping[str, Tensor]) -> Tensor:
        losses = []
        for name, weight in self.style_layers.items():
            target = self.style_grams[name]
            size: Tensor | float = 4.0 if self.scaling == "gatys" else 1.0
            if self.scaling == "balanced":
                size = target.square().sum()
            losses.append(weight * style_loss(gram_matrix(features[name]), target) / size)
        return self._combine(losses, self.style_layers)

    def _combine(self, losses: list[Tensor], weights: Mapping[str, float]) -> Tensor:
        if not losses:
            return torch.zeros(())
        total = torch.stack(losses).sum()
        return total / sum(weights.values()) if self.scaling == "balanced" else total
