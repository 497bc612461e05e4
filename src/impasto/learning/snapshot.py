"""The state of a training between two steps, kept in memory, and the step that Lightning counts from."""

from collections.abc import Sequence

import torch
from pytorch_lightning import Trainer
from torch import Tensor


class Snapshot:
    """A copy of all that a step changes: weights, the optimizer's state, and the number of steps taken.

    The copies stay where the tensors are, and are taken into the same memory again.
    """

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._step: int | None = None

    def take(self, trainer: Trainer) -> None:
        """Copy the state as it is; where that is broken off, the snapshot counts as not taken."""
        self._step = None
        changing = _what_changes(trainer)
        if len(changing) == len(self.tensors):
            _copy(changing, to=self.tensors)
        else:
            self.tensors = [tensor.detach().clone() for tensor in changing]
        self._step = trainer.global_step

    def put_back(self, trainer: Trainer) -> None:
        """Bring back the state that was copied; without a snapshot nothing changed since, and nothing happens."""
        if self._step is None:
            return
        put_back(trainer, self.tensors)
        count_steps_from(trainer, self._step)


def put_back(trainer: Trainer, tensors: Sequence[Tensor]) -> None:
    """Bring back the tensors of a snapshot."""
    if len(tensors) < len(_what_changes(trainer)):
        trainer.optimizers[0].state.clear()  # there was none before the first step
    _copy(tensors, to=_what_changes(trainer))


def _what_changes(trainer: Trainer) -> list[Tensor]:
    parameters = list(trainer.lightning_module.parameters())
    states = trainer.optimizers[0].state
    return [*parameters, *(value for each in parameters for value in states.get(each, {}).values())]


def _copy(tensors: Sequence[Tensor], *, to: Sequence[Tensor]) -> None:
    with torch.no_grad():
        # Adam counts its steps on the CPU, wherever the weights are; in one place many are copied at once.
        for device in {tensor.device for tensor in to}:
            pairs = [(ours, theirs) for ours, theirs in zip(to, tensors, strict=True) if ours.device == device]
            torch._foreach_copy_([ours for ours, _ in pairs], [theirs for _, theirs in pairs])


def count_steps_from(trainer: Trainer, step: int) -> None:
    """Make Lightning count as if ``step`` steps were taken.

    Lightning's own way back into a loop repeats or leaves out a validation, depending on when the run was stopped.
    """
    loop = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped = step
    for progress in (loop.batch_progress, loop.automatic_optimization.optim_progress.optimizer.step):
        progress.total.ready = progress.total.completed = step


__all__ = ["Snapshot", "count_steps_from", "put_back"]
