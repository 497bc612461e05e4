"""The state of a training between two steps, kept in memory, and the step that Lightning counts from."""

from collections.abc import Sequence

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from impasto.learning.module import Faults, StyleModule


class Snapshot:
    """A copy of all that a step changes: weights, optimizer, the count of faults and the number of steps taken.

    The copies stay where the tensors are, and are taken into the same memory again. ``tensors`` may be those of an
    earlier snapshot.
    """

    def __init__(self, tensors: Sequence[Tensor] = ()) -> None:
        self.tensors = list(tensors)
        self._counts: tuple[int, Faults] | None = None

    def take(self, trainer: Trainer, module: StyleModule) -> None:
        """Copy the state as it is; where that is broken off, the snapshot counts as not taken."""
        self._counts = None
        changing = _what_changes(trainer, module)
        if len(changing) == len(self.tensors):
            _copy(changing, to=self.tensors)
        else:
            self.tensors = [tensor.detach().clone() for tensor in changing]
        self._counts = trainer.global_step, module.faults

    def put_back(self, trainer: Trainer, module: StyleModule) -> None:
        """Bring back the state that was copied; where no copy was finished nothing has changed since."""
        if self._counts is not None:
            self.put_back_tensors(trainer, module)
            step, module.faults = self._counts
            count_steps_from(trainer, step)

    def put_back_tensors(self, trainer: Trainer, module: StyleModule) -> None:
        """Bring back the weights and the optimizer's state alone."""
        if len(self.tensors) < len(_what_changes(trainer, module)):
            trainer.optimizers[0].state.clear()  # there was none before the first step
        _copy(self.tensors, to=_what_changes(trainer, module))


def _what_changes(trainer: Trainer, module: StyleModule) -> list[Tensor]:
    parameters = [*module.weights, *module.averages]
    states = trainer.optimizers[0].state
    return [*parameters, *(value for each in parameters for value in states.get(each, {}).values())]


def _copy(tensors: Sequence[Tensor], *, to: Sequence[Tensor]) -> None:
    with torch.no_grad():
        # The optimizer counts its steps on the CPU, wherever the weights are; in one place many are copied at once.
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
