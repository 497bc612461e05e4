"""Trainings that are stopped, crash or are killed: what was learned is on disk, and the exit status tells."""

import contextlib
import errno
import multiprocessing
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback

from impasto.cli import main
from impasto.style_file import load_style
from tests import processes
from tests.curves import curves

END = 100_000
"""Steps that no test waits for."""

SECONDS = 30
"""The most that is called seconds, on a machine that has much else to do; a second or two on one that has not."""

PATIENCE = 120  # seconds
"""Seconds after which something hangs, however busy the machine."""


@dataclass(frozen=True)
class Place:
    """A folder with a style picture and photos, and a server that starts trainings in it at once."""

    folder: Path
    weights: Path
    server: ForkServerContext

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def checkpoint(self) -> Path:
        return self.run_dir / "last.ckpt"

    @property
    def log(self) -> str:
        log = self.folder / "log.txt"
        return log.read_text() if log.exists() else ""

    def shown(self) -> int:
        """The steps that were finished when the progress bar was last drawn."""
        drawn = re.findall(r"Epoch 0:[^|]*\|[^|]*\| (\d+)/(\d+) \[", self.log)
        return END - int(drawn[-1][1]) + int(drawn[-1][0]) if drawn else 0

    def steps(self) -> int:
        """The steps of the state on disk."""
        step = torch.load(self.checkpoint, weights_only=True)["global_step"]
        assert isinstance(step, int)
        return step

    def words(self, *more: str) -> list[str]:
        return [
            *("train", "style=custom", "style.name=mine", "style.image=style.png", "style.size=32", "network.width=4"),
            *("data=folder", "data.root=photos", "precision=fp32", "device=cpu", "run_dir=run"),
            *("budget.image_size=32", "budget.batch_size=1", "budget.previews=50", "budget.decay=false"),
            *(f"loss_network.weights={self.weights}", f"budget.steps={END}", *more),
        ]

    def start(self, *more: str) -> BaseProcess:
        process = self.server.Process(target=train, args=(self.folder, self.words(*more)))
        process.start()
        return process

    @contextlib.contextmanager
    def started(self, *more: str) -> Iterator[BaseProcess]:
        """A training that has taken a few steps."""
        process = self.start(*more)
        try:
            wait_for(lambda: self.shown() > 2 or not process.is_alive())
            assert process.is_alive(), self.log
            yield process
            process.join(PATIENCE)
            assert not process.is_alive()
        finally:
            process.kill()


def train(folder: Path, words: Sequence[str]) -> None:
    """Run a command in a process and a group of its own, its output in log.txt."""
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # of loader workers, as in a program that was not served
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.argv = ["train.py"]
    sys.exit(main(list(words)))


def wait_for(condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("waited in vain")


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    return processes.server()


@pytest.fixture
def place(tmp_path: Path, slim_weights: Path, server: ForkServerContext) -> Place:
    (tmp_path / "photos").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (36, 36, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{number}.png")
    (tmp_path / "photos/0.png").rename(tmp_path / "style.png")
    return Place(tmp_path, slim_weights, server)


class TestSignals:
    @pytest.mark.parametrize(
        ("number", "status", "group"),
        [
            (signal.SIGINT, 130, True),  # as a terminal does
            (signal.SIGTERM, 143, False),
            (signal.SIGTERM, 143, True),
            (signal.SIGHUP, 129, False),
        ],
    )
    def test_the_state_is_kept_and_the_next_command_named(
        self, place: Place, number: signal.Signals, status: int, group: bool
    ) -> None:
        workers = "data.workers=1" if group else "data.workers=0"
        with place.started("save_every=1h", workers) as training:
            assert training.pid is not None
            (os.killpg if group else os.kill)(training.pid, number)
            began = time.monotonic()
        assert time.monotonic() < began + SECONDS
        assert training.exitcode == status, place.log
        steps = place.steps()
        assert steps == place.shown()
        style = load_style(place.run_dir / "mine.safetensors")
        assert style.metadata["steps"] == steps
        stopped, paint, go_on = place.log.splitlines()[-3:]
        assert stopped == f"stopped after step {steps} of {END} ({number.name})"
        assert paint == "to paint with what was learned so far: python stylize.py --model run photo.jpg"
        assert re.fullmatch(rf"to go on: python train\.py style=custom .* {workers} resume=true", go_on)
        assert "Traceback" not in place.log
        assert sorted(path.name for path in place.run_dir.iterdir() if "tfevents" not in path.name) == [
            *("config.yaml", "last.ckpt", "mine.safetensors"),
        ]

    def test_a_signal_to_ignore_is_ignored(self, place: Place) -> None:
        process = place.server.Process(target=without_hangup, args=(place.folder, place.words("save_every=0.2s")))
        process.start()
        try:
            wait_for(lambda: place.checkpoint.exists() or not process.is_alive())
            assert process.pid is not None
            os.kill(process.pid, signal.SIGHUP)
            first = place.steps()
            wait_for(lambda: place.steps() > first + 3)
            os.kill(process.pid, signal.SIGTERM)
            process.join(PATIENCE)
            assert process.exitcode == 143, place.log
        finally:
            process.kill()

    def test_before_the_first_step_there_is_nothing_to_go_on_from(self, place: Place) -> None:
        process = place.start()
        try:
            wait_for(lambda: (place.run_dir / "config.yaml").exists() or not process.is_alive())
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
            process.join(PATIENCE)
        finally:
            process.kill()
        assert process.exitcode == 130
        last = place.log.splitlines()[-1]
        if not place.checkpoint.exists():  # the first step may have been finished just before
            assert last in (
                "stopped before the end of the first step (SIGINT): there is nothing to go on from",
                "interrupted; files already written are whole",
            )


def without_hangup(folder: Path, words: Sequence[str]) -> None:
    """Run a command as ``nohup`` does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    train(folder, words)


class TestCrashes:
    def test_a_loader_worker_that_is_killed(self, place: Place) -> None:
        with place.started("save_every=1h", "data.workers=1") as training:
            (worker,) = psutil.Process(training.pid).children()
            worker.kill()
            training.join(PATIENCE)
        assert training.exitcode == 1, place.log
        steps = place.steps()
        assert steps in (place.shown(), place.shown() - 1)  # the news may come before the end of the step that is shown
        assert load_style(place.run_dir).metadata["steps"] == steps
        assert "Traceback" in place.log
        stopped, *_ = place.log.splitlines()[-3:]
        # The other where it was handing over photos.
        lost = r"RuntimeError: DataLoader worker \(pid|ConnectionResetError: "
        assert re.match(rf"stopped after step {steps} of {END} \(({lost})", stopped), stopped

    @pytest.mark.parametrize(
        ("callback", "reason"),
        [
            ("Crash", "ZeroDivisionError: in the midst of it"),
            ("LostWorker", "ConnectionResetError: [Errno 104] it is gone"),
            ("EndedWorker", "ConnectionResetError: a loader worker is gone"),
        ],
    )
    def test_an_exception_in_the_midst_of_a_step(self, place: Place, callback: str, reason: str) -> None:
        words = place.words("save_every=1h", "budget.steps=12", "data.workers=1")
        process = place.server.Process(target=train_with, args=(callback, place.folder, words))
        process.start()
        process.join(PATIENCE)
        assert process.exitcode == 1, place.log
        assert place.steps() == 7
        assert f"stopped after step 7 of 12 ({reason})" in place.log.splitlines()
        again = place.start("budget.steps=12", "resume=true")
        again.join(PATIENCE)
        assert again.exitcode == 0, place.log
        assert place.steps() == 12

    def test_memory_that_does_not_suffice_in_the_midst_is_one_line(self, place: Place) -> None:
        words = place.words("save_every=1h", "budget.steps=12", "budget.batch_size=2")
        process = place.server.Process(target=train_with, args=("Hunger", place.folder, words))
        process.start()
        process.join(PATIENCE)
        assert process.exitcode == 2, place.log
        assert "Traceback" not in place.log
        assert place.log.splitlines()[-1] == (
            "error: expected memory for 2 of 2 photos of 32 px at a time and a style picture of 32 px, got too little: "
            "lower budget.micro_batch_size (which changes no result), budget.batch_size, budget.image_size or "
            "style.size; with resume=true it goes on after step 7"
        )
        again = place.start("budget.steps=12", "budget.batch_size=2", "budget.micro_batch_size=1", "resume=true")
        again.join(PATIENCE)
        assert again.exitcode == 0, place.log
        assert place.steps() == 12


class Hunger(Callback):
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 8:
            torch.empty(2**46)  # more than any machine has: refused at once


class Crash(Callback):
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 8:
            raise ZeroDivisionError("in the midst of it")


class LostWorker(Callback):
    """What is seen where a loader worker is killed while it hands over photos: the signal comes a moment later."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 8:
            (worker,) = psutil.Process().children()
            worker.kill()
            raise ConnectionResetError(errno.ECONNRESET, "it is gone")


class EndedWorker(Callback):
    """The same, where nothing more comes over the connection."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 8:
            (worker,) = psutil.Process().children()
            worker.kill()
            raise EOFError


def train_with(callback: str, folder: Path, words: Sequence[str]) -> None:
    """Run a command where a package is installed that adds a callback to all trainings of Lightning."""
    package = folder / "crash-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: crash\nVersion: 1\n")
    (package / "entry_points.txt").write_text(f"[pytorch_lightning.callbacks_factory]\ncrash = {__name__}:{callback}\n")
    sys.path.insert(0, str(folder))
    train(folder, words)


class TestTwoTrainings:
    def test_the_second_is_refused(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with place.started("save_every=0.2s") as training:
            assert training.pid is not None
            monkeypatch.chdir(place.folder)
            monkeypatch.setattr(sys, "argv", ["train.py"])
            for more in ([], ["resume=true"]):
                assert main(place.words(*more)) == 2
                assert re.fullmatch(
                    rf"error: expected a run folder that is free, got 'run', into which process {training.pid} on .+ "
                    r"is training: wait for its end or stop it, or choose another folder with run_dir=DIR\n",
                    capsys.readouterr().err,
                )
            assert sorted(path.name for path in place.folder.iterdir()) == ["log.txt", "photos", "run", "style.png"]
            os.kill(training.pid, signal.SIGTERM)
        assert training.exitcode == 143, place.log


@pytest.mark.parametrize("count", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_loses_no_more_than_the_interval(place: Place, count: int) -> None:
    """Without an interval: no finished step. Each training begins where the killed one was."""
    moments = random.Random(count)
    began = time.monotonic()
    with place.started("save_every=0s") as first:
        first.kill()
    longest = 2 * (time.monotonic() - began)
    saved = place.steps()
    for _ in range(count):
        training = place.start("save_every=0s", "resume=true")
        training.join(moments.uniform(0, longest))
        training.kill()
        training.join(PATIENCE)
        assert training.exitcode == -signal.SIGKILL, place.log  # it was not refused, nor did it crash
        assert place.steps() >= max(saved, place.shown() - 1)
        saved = place.steps()
        assert load_style(place.checkpoint).metadata["steps"] == saved
        # The style file is written next, or when the training is gone on with.
        assert load_style(place.run_dir / "mine.safetensors").metadata["steps"] in (saved, saved - 1)
    assert_as_never_killed(place, steps=saved + 3, patience=PATIENCE + time.monotonic() - began)


@pytest.mark.parametrize("count", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_after_a_kill_at_any_moment_a_new_training_is_not_refused(place: Place, count: int) -> None:
    moments = random.Random(count)
    for _ in range(count):
        training = place.start("save_every=0s")
        training.join(moments.uniform(0, 6))
        training.kill()
        training.join(PATIENCE)
        assert training.exitcode == -signal.SIGKILL, place.log
    last = place.start("budget.steps=2")
    last.join(PATIENCE)
    assert last.exitcode == 0, place.log


def assert_as_never_killed(place: Place, *, steps: int, patience: float) -> None:
    """One training takes as many steps as all the killed ones together, and may take as long."""
    for run_dir, resume in (("run", "true"), ("whole", "false")):
        training = place.start(f"budget.steps={steps}", f"resume={resume}", f"run_dir={run_dir}")
        training.join(patience)
        assert training.exitcode == 0, place.log
    ours, theirs = (place.folder / name / "mine.safetensors" for name in ("run", "whole"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert curves(ours.parent) == curves(theirs.parent)
    left = [
        sorted(re.sub(r"tfevents.*", "tfevents", path.name) for path in each.parent.iterdir())
        for each in (ours, theirs)
    ]
    assert list(dict.fromkeys(left[0])) == left[1]
