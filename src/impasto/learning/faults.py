"""What happens where the numbers break: the step is skipped, after several the training goes back, at last it ends."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from impasto.learning.module import StyleModule
from impasto.learning.snapshot import Snapshot
from impasto.learning.stopping import Stopped

IN_A_ROW = 5
"""Steps skipped in a row after which the training goes back."""

RETURNS = 3
"""How often it goes back, each time with half the learning rate, before it gives up."""

GOOD_EVERY = 50
"""Steps between two states to go back to."""

_log = logging.getLogger(__name__)


class GuardNumbers(Callback):
    """Counts the steps that the module skipped, goes back to the last good state after several, and ends hopeless runs.

    ``good`` are the tensors of a resumed run's last good state; ``name_photos`` gives the names of a step's photos.
    """

    def __init__(self, *, name_photos: Callable[[int], Sequence[str]], good: Sequence[Tensor] = ()) -> None:
        self.name_photos = name_photos
        self._good = Snapshot(good)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the state at the start of a run."""
        if not self._good.tensors:
            self._good.take(trainer, _ours(pl_module))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        """Count the step; after several skipped ones go back.

        Raises:
            Stopped: the training went back often enough; says which term, layer and photos broke the last step.
        """
        module = _ours(pl_module)
        if module.broken is None:
            module.faults = replace(module.faults, in_a_row=0)
            if trainer.global_step % GOOD_EVERY == 0:
                self._good.take(trainer, module)
        else:
            faults = module.faults
            module.faults = replace(faults, skipped=faults.skipped + 1, in_a_row=faults.in_a_row + 1)
            _log.warning("skipped step %d: %s", trainer.global_step, module.broken)
            if module.faults.in_a_row == IN_A_ROW:
                self._go_back(trainer, module, batch)
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined] # Lightning sets it late
            module.log("train/skipped_steps", float(module.faults.skipped), batch_size=1)

    def _go_back(self, trainer: Trainer, module: StyleModule, batch: Tensor) -> None:
        faults = module.faults
        if faults.returns == RETURNS:
            raise Stopped(
                f"the numbers broke {IN_A_ROW} steps in a row, and did so after {RETURNS} returns to an earlier state, "
                f"each with half the learning rate: {diagnose(module, batch, self.name_photos(trainer.global_step))}; "
                "begin again with a lower budget.learning_rate, loss.style_weight or style.strength",
                status=1,
            )
        self._good.put_back_tensors(trainer, module)
        module.faults = replace(faults, in_a_row=0, returns=faults.returns + 1)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] /= 2  # for the next step; the schedule halves the later ones
        _log.warning(
            "went back to an earlier state, with half the learning rate (%d of %d)", faults.returns + 1, RETURNS
        )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the state to go back to."""
        checkpoint["good"] = self._good.tensors


def _ours(module: LightningModule) -> StyleModule:
    assert isinstance(module, StyleModule)
    return module


# ---- diagnosis --------------------------------------------------------------------------------------------------


def diagnose(module: StyleModule, batch: Tensor, names: Sequence[str]) -> str:
    """Return what broke the step on a batch (N, 3, H, W): the loss terms, the first layer, and the photos."""
    parts = [module.broken or "nothing"]
    if layer := find_broken_layer(module, batch):
        parts.append(f"first in {layer}")
    if names:
        broken = [name for name, photo in zip(names, batch, strict=True) if find_broken_layer(module, photo[None])]
        parts.append(f"with {', '.join(broken or names)}")
        if flat := [name for name, photo in zip(names, batch, strict=True) if (photo == photo[:, :1, :1]).all()]:
            parts.append(f"where all is of one colour, which has no gradient, in {', '.join(flat)}: leave it out")
    return ", ".join(parts)


def find_broken_layer(module: StyleModule, batch: Tensor) -> str | None:
    """Return the first layer that gives NaN or infinity for a batch, or None where none does."""
    if not torch.isfinite(batch).all():
        return "the photos themselves"
    networks = {"transformer": module.transformer, "loss network": module.judge[0]}
    names = {layer: f"{name} of the {place}" for place, net in networks.items() for name, layer in net.named_modules()}
    found: list[str] = []

    def note(layer: nn.Module, images: object, output: object) -> None:
        if layer in names and isinstance(output, Tensor) and not torch.isfinite(output).all():
            found.append(names[layer])

    with register_module_forward_hook(note), torch.no_grad():
        module.step_terms(batch)
    return found[0] if found else None
