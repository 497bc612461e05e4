"""A training of many steps uses at its end what it used near its beginning: memory, open files, time, disk per step."""

import gc
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from pytorch_lightning import Callback

from tests import processes

ROOT = Path(__file__).parents[1]
EVERY = 100
"""Steps between two readings."""

Readings = dict[str, list[float]]
"""Everything that was read, in the order of the steps, by name."""


class Gauge(Callback):
    """Adds a line to gauge.jsonl every few steps: what the process holds, and the processor time it has used."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % EVERY == 0:
            process = psutil.Process()
            # TensorBoard's thread opens its file for every write: nothing may wait for it while files are counted.
            trainer.logger.experiment.flush()
            reading = {
                "step": trainer.global_step,
                "seconds": time.process_time(),
                "memory": process.memory_info().rss,
                "files": process.num_fds(),
                "threads": process.num_threads(),
                "events": sum(path.stat().st_size for path in Path("run").glob("events.out.tfevents.*")),
                "objects": count_objects(),
            }
            with Path("gauge.jsonl").open("a") as file:
                file.write(json.dumps(reading) + "\n")


def count_objects() -> int:
    """Python's containers, to which tensors belong."""
    gc.collect()
    return len(gc.get_objects())


@pytest.fixture
def train(tmp_path: Path, slim_weights: Path) -> Callable[..., Readings]:
    """The command, where a package is installed that adds the gauge to all trainings of Lightning."""
    package = tmp_path / "gauge-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: gauge\nVersion: 1\n")
    (package / "entry_points.txt").write_text(f"[pytorch_lightning.callbacks_factory]\ngauge = {__name__}:Gauge\n")
    (tmp_path / "photos").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (36, 36, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{number}.png")

    def run(*words: str) -> Readings:
        tiny = (
            *("style=custom", "style.name=mine", "style.image=photos/0.png", "style.size=32", "network.width=4"),
            *("data=folder", "data.root=photos", "precision=fp32", "device=cpu", "run_dir=run"),
            *("budget.image_size=32", "budget.batch_size=1", f"loss_network.weights={slim_weights}"),
        )
        code = f"import runpy, sys, torch; torch.set_num_threads(1); sys.path.insert(0, {str(tmp_path)!r}); "
        code += f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
        done = processes.run("-c", code, *tiny, *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in (tmp_path / "gauge.jsonl").read_text().splitlines()]
        return {name: [row[name] for row in rows] for name in rows[0]}

    return run


def differences(values: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(values)]


def test_a_step_leaves_nothing_behind(train: Callable[..., Readings]) -> None:
    readings = train("budget.steps=400", "budget.previews=100", "save_every=1s", "data.workers=1")
    # After 200 steps all has happened once: a preview, a validation, a save.
    (_, before, _, after) = readings["objects"]
    assert after - before < 50
    assert min(readings["memory"][2:]) < 1.02 * min(readings["memory"][:2])
    assert len(set(readings["files"])) == len(set(readings["threads"])) == 1


@pytest.mark.slow
def test_twenty_thousand_steps(train: Callable[..., Readings]) -> None:
    readings = train("budget.steps=20000", "budget.previews=1000")
    later = {name: values[9:] for name, values in readings.items()}
    assert (later["step"][0], later["step"][-1], len(later["step"])) == (1000, 20_000, 191)
    assert max(later["memory"][-10:]) < 1.02 * later["memory"][0]
    assert len(set(later["files"])) == len(set(later["threads"])) == 1
    # Curves alone, a hundred steps before the end, and what each thousand steps add with a sheet of previews.
    assert differences(later["events"])[-2] < 100 * EVERY
    from_the_midst = differences(later["events"][5::10])
    assert max(from_the_midst) < 1.1 * min(from_the_midst)
    # Of the processor, by the quickest hundred steps: other programs slow down the others.
    seconds = differences(later["seconds"])
    assert min(seconds[-40:]) < 1.25 * min(seconds[:40])
