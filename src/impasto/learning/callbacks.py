"""What happens beside the training: the progress bar, throughput and previews."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from impasto.images import contact_sheet


class ProgressBar(TQDMProgressBar):
    """Lightning's bar with the last logged losses, which costs no synchronisation of its own.

    It counts the steps of the whole run; Lightning's own counts those since a run was resumed.
    """

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Begin with the steps that were taken before."""
        bar = self.train_progress_bar
        bar.reset(total=trainer.max_steps)
        bar.initial = bar.n = trainer.global_step  # the initial ones do not count for the speed
        bar.set_description(f"Epoch {trainer.current_epoch}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the step that was taken."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, trainer.global_step - 1)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands at the bar's end."""
        names = ("loss", "content", "style")
        logged = trainer.logged_metrics
        return {name: f"{float(logged[f'train/{name}']):.3g}" for name in names if f"train/{name}" in logged}


class EventLogger(TensorBoardLogger):
    """TensorBoard's events alone, without the empty file of hyperparameters that Lightning puts beside them.

    Every value stands at the number of steps that were finished when it was measured. ``purge_step`` of a resumed run,
    the next step, takes away what an earlier one logged beyond the state that it had saved.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row to the curves; Lightning counts steps from 0."""
        super().log_metrics(metrics, step + 1 if step is not None else None)

    def save(self) -> None:
        """Bring what was logged to disk."""
        self.experiment.flush()


class Throughput(Callback):
    """Logs images per second, over the steps between two logs."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._since, self._images = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        """Count the batch; log when Lightning logs."""
        self._images += len(batch)
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined] # Lightning sets it late
            now = time.perf_counter()
            pl_module.log("train/images_per_second", self._images / (now - self._since), batch_size=1)
            self._since, self._images = now, 0


class Previews(Callback):
    """Paints fixed held-out photos every ``every`` steps into TensorBoard, the style picture beside them."""

    def __init__(self, style: Tensor, photos: Sequence[Tensor], *, every: int) -> None:
        self.style, self.photos, self.every = style, list(photos), every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a sheet when it is time."""
        is_time = trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps
        if is_time and isinstance(trainer.logger, TensorBoardLogger):
            trainer.logger.experiment.add_image("previews", self.sheet(pl_module)[0], trainer.global_step)

    def sheet(self, painter: LightningModule, *, height: int = 256) -> Tensor:
        """Return one image (1, 3, H, W): a row of style picture, photo and result for each photo."""
        rows = []
        with torch.inference_mode():
            for photo in self.photos:
                painted = painter(photo.to(painter.device)).float().clamp(0, 1).cpu()
                rows.append([self.style, photo, painted])
        return contact_sheet(rows, height=height)
