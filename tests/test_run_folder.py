"""A run's folder: one training at a time, earlier runs kept, and the state on disk whatever happens."""

import fcntl
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from impasto.learning.features import LossNetwork
from impasto.learning.losses import LossOptions, PerceptualLoss
from impasto.learning.module import StyleModule
from impasto.learning.run_folder import SaveState, locked, new_run_dir
from impasto.transformer import TransformerNet

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
file.write("process 12 on elsewhere")
file.flush()
print("held", flush=True)
sys.stdin.read()
"""
TRY = """
import fcntl, sys
file = open(sys.argv[1], "a+")
try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    file.seek(0)
    print(file.read())
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A run folder that another process holds."""
    (tmp_path / "config.yaml").write_text("seed: 0\nsave_every: 1min\n")
    command = [sys.executable, "-c", HOLD, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield tmp_path
        holder.kill()


class TestLock:
    def test_a_second_training_is_refused_and_told_of_the_first(self, held: Path) -> None:
        message = (
            f"expected a run folder that is free, got {str(held)!r}, into which process 12 on elsewhere is training: "
            "wait for its end or stop it, or choose another folder with run_dir=DIR"
        )
        for hold in (locked, new_run_dir):
            with pytest.raises(ValueError, match=f"^{re.escape(message)}$"), hold(held):
                pass
        assert sorted(os.listdir(held)) == [".lock", "config.yaml"]

    def test_others_see_who_holds_it(self, tmp_path: Path) -> None:
        with locked(tmp_path):
            said = subprocess.run(
                [sys.executable, "-c", TRY, str(tmp_path / ".lock")], capture_output=True, text=True, check=True
            )
        assert said.stdout == f"process {os.getpid()} on {socket.gethostname()}\n"

    def test_the_lock_of_a_process_that_is_gone_does_not_count(self, tmp_path: Path) -> None:
        (tmp_path / ".lock").write_text("process 12 on elsewhere, which was killed long ago")
        with locked(tmp_path):
            assert (tmp_path / ".lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"
        assert os.listdir(tmp_path) == []

    def test_the_lock_of_another_that_took_the_place_meanwhile_stays(self, tmp_path: Path) -> None:
        with locked(tmp_path):
            (tmp_path / ".lock").unlink()
            (tmp_path / ".lock").write_text("another's")
        assert (tmp_path / ".lock").read_text() == "another's"

    def test_a_lock_that_was_taken_away_while_it_was_opened_is_not_enough(self, tmp_path: Path) -> None:
        with (tmp_path / ".lock").open("a+") as gone:
            fcntl.lockf(gone, fcntl.LOCK_EX)
            (tmp_path / ".lock").unlink()
            with locked(tmp_path):
                assert (tmp_path / ".lock").read_text() != ""


def new(path: Path) -> Path:
    with new_run_dir(path):
        pass
    return path


class TestNewRunDir:
    def test_a_new_folder_is_made(self, tmp_path: Path) -> None:
        assert list(new(tmp_path / "a" / "b").iterdir()) == []

    def test_an_empty_folder_is_used(self, tmp_path: Path) -> None:
        assert list(new(tmp_path).iterdir()) == []

    def test_earlier_runs_are_kept_under_the_next_free_numbers(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for number in range(3):
            (new(tmp_path / "run") / "config.yaml").write_text(f"seed: {number}\nsave_every: 1min\n")
        kept = {path.name: (path / "config.yaml").read_text() for path in tmp_path.iterdir()}
        assert {name: text[6] for name, text in kept.items()} == {"run": "2", "run-1": "0", "run-2": "1"}
        assert all(os.listdir(path) == ["config.yaml"] for path in tmp_path.iterdir())
        run = tmp_path / "run"
        assert capsys.readouterr().out == "".join(f"the run that was at {run} is now {run}-{i}\n" for i in (1, 2))

    def interrupted(self, run: Path, *, saved: bool) -> None:
        with new_run_dir(run):
            (run / "config.yaml").write_text("seed: 2\nsave_every: 1min\n")
            if saved:
                (run / "last.ckpt").touch()
            raise KeyboardInterrupt

    @pytest.mark.parametrize(("saved", "expected"), [(False, {"run": "1"}), (True, {"run": "2", "run-1": "1"})])
    def test_a_run_that_ends_before_it_saves_gives_the_earlier_one_its_place_back(
        self, tmp_path: Path, *, saved: bool, expected: dict[str, str]
    ) -> None:
        run = new(tmp_path / "run")
        (run / "config.yaml").write_text("seed: 1\nsave_every: 1min\n")
        with pytest.raises(KeyboardInterrupt) as stop:
            self.interrupted(run, saved=saved)
        assert {path.name: (path / "config.yaml").read_text()[6] for path in tmp_path.iterdir()} == expected
        assert getattr(stop.value, "__notes__", []) == ([] if saved else [f"the run that was at {run} is there again"])

    def test_a_run_that_came_in_between_is_left_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = new(tmp_path / "run")
        (run / "config.yaml").write_text("seed: 1\nsave_every: 1min\n")
        make = Path.mkdir

        def make_and_train(path: Path, **options: Any) -> None:
            make(path, **options)
            (path / "config.yaml").write_text("seed: 2\nsave_every: 1min\n")
            raise ValueError("another is training")

        monkeypatch.setattr(Path, "mkdir", make_and_train)
        with pytest.raises(ValueError, match=r"^another is training$"):
            new(run)
        assert {path.name: (path / "config.yaml").read_text()[6] for path in tmp_path.iterdir()} == {
            "run": "2",
            "run-1": "1",
        }

    def test_the_current_folder_is_not_renamed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = new(tmp_path / "run")
        (run / "config.yaml").write_text("seed: 0\nsave_every: 1min\n")
        monkeypatch.chdir(run)
        for name in (".", "..//run"):
            with pytest.raises(ValueError, match=r"^expected a run folder other than the current one and those around"):
                new(Path(name))
        assert sorted(os.listdir(tmp_path)) == ["run"]

    def test_what_a_run_leaves_that_is_killed_at_once_is_no_obstacle(self, tmp_path: Path) -> None:
        for name in (".0123456789abcdef.yaml", ".lock"):
            (tmp_path / name).touch()
        assert list(new(tmp_path).iterdir()) == []

    @pytest.mark.parametrize("name", ["file", "folder", "project"])
    def test_something_else_is_refused(self, tmp_path: Path, name: str) -> None:
        paths = ("file", "folder/thesis.txt", "project/config.yaml", "project/main.c")
        for path in paths:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text("mine")
        message = (
            f"expected a new folder or one of an earlier run, got something else at {str(tmp_path / name)!r}: "
            "choose another with run_dir=DIR"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            new(tmp_path / name)
        assert all((tmp_path / path).read_text() == "mine" for path in paths)


# ---- the state on disk ------------------------------------------------------------------------------------------


class Watch(Callback):
    """Keeps the weights after every step and the step that is saved by then; may fail or take time by its own clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.weights: list[Tensor] = []
        self.saved: list[int | None] = []
        self.errors: dict[int, BaseException] = {}
        self.now, self.seconds = 0.0, 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.now += self.seconds
        if trainer.global_step in self.errors:
            raise self.errors[trainer.global_step]
        self.weights.append(weights_of(pl_module.state_dict()))
        self.saved.append(saved_step(self.path) if self.path.exists() else None)


def weights_of(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in state.values()])


def saved_step(path: Path) -> int:
    step = torch.load(path, weights_only=True)["global_step"]
    assert isinstance(step, int)
    return step


@pytest.fixture
def module(judge: LossNetwork, metadata: dict[str, Any]) -> StyleModule:
    torch.manual_seed(0)
    loss = PerceptualLoss(
        {}, LossOptions({"relu1_1": 1.0}, {}, content_weight=1, style_weight=0, tv_weight=1, scaling="paper")
    )
    return StyleModule(TransformerNet(4), judge, loss, steps=5, learning_rate=1e-3, metadata=metadata)


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path / "run" / "last.ckpt")


def fit(module: StyleModule, watch: Watch, *, every: float, facts: dict[str, Any] | None = None, **named: Any) -> None:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[SaveState(watch.path, every=every, facts=facts if facts is not None else {}, **named), watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    batches: Any = [torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    held_out: Any = [torch.zeros(1, 3, 32, 32)]
    trainer.fit(module, DataLoader(batches, batch_size=None), DataLoader(held_out, batch_size=None))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
class TestSaveState:
    def test_after_every_step_and_at_the_end(self, module: StyleModule, watch: Watch) -> None:
        fit(module, watch, every=0.0)
        assert watch.saved == [None, 1, 2, 3, 4]  # at the end of a step that of the one before
        assert saved_step(watch.path) == 5
        assert os.listdir(watch.path.parent) == ["last.ckpt"]

    def test_never_older_than_the_interval_and_a_step(
        self, module: StyleModule, watch: Watch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        watch.seconds = 10
        monkeypatch.setattr("impasto.learning.run_folder.time", SimpleNamespace(monotonic=lambda: watch.now))
        fit(module, watch, every=15)
        assert watch.saved == [None, None, 2, 2, 4]

    def test_a_long_interval_still_saves_the_end(self, module: StyleModule, watch: Watch) -> None:
        fit(module, watch, every=3600.0)
        assert watch.saved == [None] * 5
        assert saved_step(watch.path) == 5

    @pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
    def test_what_breaks_a_step_leaves_the_state_after_the_one_before(
        self, module: StyleModule, watch: Watch, error: BaseException
    ) -> None:
        watch.errors[4] = error
        with pytest.raises(ValueError if isinstance(error, ValueError) else SystemExit):
            fit(module, watch, every=3600.0)
        checkpoint = torch.load(watch.path, weights_only=True)
        assert (checkpoint["global_step"], checkpoint["impasto"]["steps"]) == (3, 3)
        assert torch.equal(weights_of(checkpoint["state_dict"]), watch.weights[2])
        assert all(state["step"] == 3 for state in checkpoint["optimizer_states"][0]["state"].values())

    def test_a_failure_in_the_first_step_leaves_nothing(self, module: StyleModule, watch: Watch) -> None:
        watch.errors[1] = ValueError("broken")
        with pytest.raises(ValueError, match=r"^broken$"):
            fit(module, watch, every=0.0)
        assert not watch.path.exists()

    def test_a_disk_that_fails_is_not_written_to_again(self, module: StyleModule, watch: Watch) -> None:
        watch.errors[4] = OSError("no space left")
        with pytest.raises(OSError, match=r"^no space left$"):
            fit(module, watch, every=3600.0)
        assert not watch.path.exists()

    def test_the_facts_are_saved_along_and_others_are_called(self, module: StyleModule, watch: Watch) -> None:
        called: list[int] = []
        fit(module, watch, every=0.0, facts={"seed": 1}, also=lambda: called.append(saved_step(watch.path)))
        assert torch.load(watch.path, weights_only=True)["facts"] == {"seed": 1}
        assert called == [1, 2, 3, 4, 5]
