"""Beside the training: what is shown and counted, with a painter that has one weight."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.utils.data import DataLoader

from impasto.learning.callbacks import EventLogger, Previews, ProgressBar, Throughput

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Painter(LightningModule):
    """Paints the negative, three times as strong; every step adds 1 to its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.steps_taken = nn.Parameter(torch.zeros(()))
        self.seconds = 0.0

    def forward(self, images: Tensor) -> Tensor:
        return 0.5 - 3 * (images - 0.5)

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        time.sleep(self.seconds)
        self.log_dict({"train/loss": 1234.5, "train/content": 0.25, "train/style": 1e-5, "train/other": 1.0})
        return -self.steps_taken

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def fit(painter: Painter, *callbacks: Callback, steps: int, folder: Path | None = None) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=1,
        callbacks=list(callbacks),
        log_every_n_steps=2,
        logger=EventLogger(folder, name="", version="", default_hp_metric=False) if folder is not None else False,
        enable_checkpointing=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
    )
    batches: Any = [torch.zeros(3, 3, 8, 8)] * steps
    trainer.fit(painter, DataLoader(batches, batch_size=None))
    return trainer


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


class TestThroughput:
    def test_images_per_second_since_the_last_log(self, tmp_path: Path) -> None:
        painter = Painter()
        painter.seconds = 0.05
        fit(painter, Throughput(), steps=5, folder=tmp_path)
        logged = events(tmp_path).Scalars("train/images_per_second")
        assert len(logged) == 2  # after the second and the fourth step
        assert all(5 < each.value <= 3 / 0.05 for each in logged)


class TestPreviews:
    def photos(self, count: int) -> list[Tensor]:
        return list(torch.rand(count, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))

    def test_each_row_is_style_photo_and_result(self) -> None:
        style, *photos = self.photos(3)
        sheet = Previews(style, photos, every=1).sheet(Painter(), height=64)
        gap, side = 2, 64
        assert sheet.shape == (1, 3, 3 * gap + 2 * side, 4 * gap + 3 * side)
        for row, photo in enumerate(photos):
            painted = Painter()(photo).clamp(0, 1)
            for column, picture in enumerate((style, photo, painted)):
                top, left = gap + row * (gap + side), gap + column * (gap + side)
                there = sheet[..., top : top + side, left : left + side]
                torch.testing.assert_close(there, picture, atol=1e-3, rtol=0)

    def test_no_gradient_is_kept_and_the_photos_stay(self) -> None:
        style, photo = self.photos(2)
        before = photo.clone()
        sheet = Previews(style, [photo], every=1).sheet(Painter())
        assert not sheet.requires_grad
        assert torch.equal(photo, before)

    @pytest.mark.parametrize(("every", "steps", "expected"), [(2, 5, [2, 4, 5]), (2, 4, [2, 4]), (9, 3, [3])])
    def test_they_come_every_few_steps_and_at_the_end(
        self, tmp_path: Path, every: int, steps: int, expected: Sequence[int]
    ) -> None:
        style, photo = self.photos(2)
        fit(Painter(), Previews(style, [photo], every=every), steps=steps, folder=tmp_path)
        assert [each.step for each in events(tmp_path).Images("previews")] == expected

    def test_without_tensorboard_there_are_none(self) -> None:
        style, photo = self.photos(2)
        fit(Painter(), Previews(style, [photo], every=1), steps=1)


class TestEventLogger:
    def test_it_writes_events_and_nothing_else(self, tmp_path: Path) -> None:
        fit(Painter(), steps=2, folder=tmp_path / "run")
        (only,) = (tmp_path / "run").iterdir()
        assert only.name.startswith("events.out.tfevents.")
        assert [(each.step, each.value) for each in events(tmp_path / "run").Scalars("train/loss")] == [(2, 1234.5)]


def test_the_progress_bar_ends_with_the_last_losses() -> None:
    bar, painter = ProgressBar(), Painter()
    trainer = fit(painter, bar, steps=2)
    assert bar.get_metrics(trainer, painter) == {"loss": "1.23e+03", "content": "0.25", "style": "1e-05"}
