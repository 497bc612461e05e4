"""Muon: the optimizer whose steps turn a layer's weights alike in every direction.

Source: Jordan et al. 2024, *Muon: An optimizer for hidden layers in neural networks*.
Differs: the steps of Newton and Schulz in float32 and for all layers in one batch, where torch.optim.Muon takes
bfloat16 and each by itself: without processor instructions for bfloat16 that takes over ten times as long.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from impasto.learning.replays import Replays

_MOMENTUM = 0.95
_STEPS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)  # of x, x³, x⁵: singular values of 0.01 to 1 come to 0.68 to 1.14 in five steps
_SIZE = 2.0


class Muon(torch.optim.Adam):
    """Adam, but for the weights of convolutions between features, which follow their orthogonalised momentum.

    A step moves those by twice the learning rate in the root mean square, and all others as Adam does: biases, norms,
    and the convolutions from and to the three colours, of which the last is not normalised.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._replays = Replays()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state, that of a copy or of a checkpoint: what was recorded is of another one."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._replays = Replays()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step and return what ``closure`` returns; it computes the gradients."""
        loss = closure() if closure is not None else None
        gradients: dict[Tensor, Tensor | None] = {}
        for group in self.param_groups:
            matrices = [each for each in group["params"] if each.grad is not None and _is_between_features(each)]
            if matrices:
                self._move(matrices, rate=group["lr"])
            gradients |= {each: each.grad for each in matrices}
        for each in gradients:
            each.grad = None  # Adam leaves alone what has none
        super().step()
        for each, gradient in gradients.items():
            each.grad = gradient
        return loss

    @torch.no_grad()
    def _move(self, matrices: list[Tensor], *, rate: float) -> None:
        for each in matrices:
            if not self.state[each]:
                # Under Adam's names: it loads no state without its count of steps.
                self.state[each].update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(each))
            self.state[each]["step"] += 1
        gradients = [each.grad for each in matrices if each.grad is not None]
        momenta = [self.state[each]["exp_avg"] for each in matrices]

        def move(rate: Tensor, *gradients: Tensor) -> None:
            torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
            ahead = torch._foreach_lerp(gradients, momenta, _MOMENTUM)  # where they will be next (Nesterov)
            moves = orthogonalise_all([each.flatten(1) for each in ahead])
            torch._foreach_mul_(moves, [_SIZE * max(each.shape) ** 0.5 for each in moves])
            torch._foreach_mul_(moves, rate)
            torch._foreach_sub_(matrices, [each.view_as(weight) for each, weight in zip(moves, matrices, strict=True)])

        rate_there = torch.full((), rate, device=matrices[0].device)
        if rate_there.is_cuda:
            self._replays(move, rate_there, *gradients, uses=[*matrices, *momenta])
        else:
            move(rate_there, *gradients)


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


def orthogonalise_all(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return ``orthogonalise`` of matrices (R, C) of several sizes, in one batch: zeros around them change nothing."""
    is_tall = [each.shape[0] > each.shape[1] for each in matrices]
    wide = [each.mT if tall else each for each, tall in zip(matrices, is_tall, strict=True)]
    batch = wide[0].new_zeros(len(wide), *(max(sizes) for sizes in zip(*(each.shape for each in wide), strict=True)))
    torch._foreach_copy_(_corners(batch, wide), wide)
    found = zip(_corners(orthogonalise(batch), wide), is_tall, strict=True)
    return [(each.mT if tall else each).contiguous() for each, tall in found]


def _corners(batch: Tensor, matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return of each in a batch the part that has the size of a matrix."""
    return [each[: matrix.shape[0], : matrix.shape[1]] for each, matrix in zip(batch, matrices, strict=True)]
