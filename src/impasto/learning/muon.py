"""Muon: the optimizer whose steps turn a layer's weights alike in every direction.

Source: Jordan et al. 2024, *Muon: An optimizer for hidden layers in neural networks*.
Differs: the steps of Newton and Schulz in float32 and for all layers of one shape at once, where torch.optim.Muon takes
bfloat16 and each by itself: without processor instructions for bfloat16 that takes over ten times as long.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_MOMENTUM = 0.95
_STEPS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)  # of x, x³, x⁵: singular values of 0.01 to 1 come to 0.68 to 1.14 in five steps
_SIZE = 2.0


class Muon(torch.optim.Adam):
    """Adam, but for the weights of convolutions between features, which follow their orthogonalised momentum.

    A step moves those by twice the learning rate in the root mean square, and all others as Adam does: biases, norms,
    and the convolutions from and to the three colours, of which the last is not normalised.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step and return what ``closure`` returns; it computes the gradients."""
        loss = closure() if closure is not None else None
        gradients: dict[Tensor, Tensor | None] = {}
        for group in self.param_groups:
            matrices = [each for each in group["params"] if each.grad is not None and _is_between_features(each)]
            self._move(matrices, rate=group["lr"])
            gradients |= {each: each.grad for each in matrices}
        for each in gradients:
            each.grad = None  # Adam leaves alone what has none
        super().step()
        for each, gradient in gradients.items():
            each.grad = gradient
        return loss

    @torch.no_grad()
    def _move(self, matrices: Sequence[Tensor], *, rate: float) -> None:
        alike: dict[torch.Size, list[Tensor]] = {}
        for weight in matrices:
            alike.setdefault(weight.shape, []).append(weight)
        for weights in alike.values():
            directions = orthogonalise(torch.stack([self._follow(weight).flatten(1) for weight in weights]))
            length = _SIZE * rate * max(directions.shape[1:]) ** 0.5
            for weight, direction in zip(weights, directions, strict=True):
                weight.sub_(direction.view_as(weight), alpha=length)

    def _follow(self, weight: Tensor) -> Tensor:
        """Move a weight's momentum towards its gradient and return where it will be next (Nesterov)."""
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if not state:
            # Under Adam's names: it loads no state without its count of steps.
            state.update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(weight))
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - _MOMENTUM)
        return gradient.lerp(state["exp_avg"], _MOMENTUM)


def _is_between_features(parameter: Tensor) -> bool:
    return parameter.ndim == 4 and 3 not in parameter.shape[:2]


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return matrices (N, R, C) with the same singular vectors and singular values of about 1, 0.68 to 1.14."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    linear, cubic, quintic = _QUINTIC
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    for _ in range(_STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=cubic, alpha=quintic), x, beta=linear)
    return x.mT if is_tall else x
