"""A run that was stopped and gone on with ends as the run that never was, to the last bit."""

import re
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.cli import main
from impasto.learning import command, training
from impasto.learning.callbacks import Throughput
from impasto.style_file import load_style
from tests.curves import curves

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

ONE_STEP = "max_time=0.001s"
"""The least time limit: each command takes a single step."""


@dataclass(frozen=True)
class Train:
    """The command with tiny settings; its run folder is the first word."""

    weights: Path

    def __call__(self, run_dir: str, *words: str) -> int:
        tiny = (
            *("style=custom", "style.name=mine", "style.image=style.png", "style.size=32", "network.width=4"),
            *("data=folder", "data.root=photos", "precision=fp32", "device=cpu", "seed=3"),
            *("budget.steps=5", "budget.image_size=40", "budget.batch_size=2", "budget.previews=2", "save_every=0s"),
            *("budget.small_size=32", "budget.small_share=0.6"),
            "loss.stability=2",  # draws numbers of its own in every step
        )
        return main(["train", f"loss_network.weights={self.weights}", f"run_dir={run_dir}", *tiny, *words])


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory, slim_weights: Path) -> Iterator[Train]:
    top = tmp_path_factory.mktemp("resuming")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        patch.setattr(sys, "argv", ["train.py"])
        patch.setattr(threading, "excepthook", threading.excepthook)  # given back at the end
        draw(Path("style.png"), seed=100)
        Path("photos").mkdir()
        for number in range(7):
            draw(Path(f"photos/{number}.png"), seed=number)
        yield Train(slim_weights)


def change(path: Path, **parts: Any) -> None:
    torch.save(torch.load(path, weights_only=True) | parts, path)


UNFIT = (
    "expected a checkpoint of the run in 'spoilt', got one whose parts do not fit its network: "
    "leave out resume=true to begin anew"
)


def draw(path: Path, *, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 44, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def whole(train: Train) -> Path:
    """The run that was never stopped."""
    assert train("whole") == 0
    return Path("whole")


@pytest.fixture(scope="module")
def in_pieces(train: Train) -> Path:
    """The same run, stopped after every step, with another number of loader workers now and then."""
    assert train("pieces", ONE_STEP) == 0
    for number in range(2, 6):
        workers = "data.workers=1" if number == 3 else "data.workers=0"
        assert load_style(Path("pieces/last.ckpt")).metadata["steps"] == number - 1
        assert train("pieces", "resume=true", ONE_STEP, workers) == 0
    return Path("pieces")


@pytest.fixture(scope="module")
def third(train: Train) -> bytes:
    """The checkpoint of the same run after three steps."""
    assert train("third", ONE_STEP) == 0
    for _ in range(2):
        assert train("third", "resume=true", ONE_STEP) == 0
    return Path("third/last.ckpt").read_bytes()


def state(run_dir: Path) -> dict[str, Any]:
    """What a checkpoint holds of the training itself."""
    checkpoint = torch.load(run_dir / "last.ckpt", weights_only=True)
    return {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "facts")}


def assert_same(ours: object, theirs: object) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


class TestExactness:
    def test_weights_optimizer_average_and_schedule(self, whole: Path, in_pieces: Path) -> None:
        ours, theirs = state(in_pieces), state(whole)
        assert ours.pop("facts") == theirs.pop("facts")
        assert ours.pop("lr_schedulers")[0]["last_epoch"] == theirs.pop("lr_schedulers")[0]["last_epoch"] == 5
        assert_same(ours, theirs)

    def test_the_style_file_to_the_byte(self, whole: Path, in_pieces: Path) -> None:
        for name in ("mine.safetensors", "contact_sheet.png"):
            assert (in_pieces / name).read_bytes() == (whole / name).read_bytes()

    def test_the_curves_have_neither_gap_nor_overlap(self, whole: Path, in_pieces: Path) -> None:
        ours, theirs = curves(in_pieces), curves(whole)
        assert [step for step, _ in theirs["val/loss"]] == [2, 4]
        assert [step for step, _ in theirs["train/loss"]] == [5]
        assert [step for step, _ in theirs["previews"]] == [2, 4, 5]
        assert ours == theirs

    def test_what_was_logged_beyond_the_saved_state_is_taken_away(
        self, train: Train, whole: Path, third: bytes
    ) -> None:
        assert train("beyond") == 0
        # Killed while it wrote: the curves are at step 5, the state is at step 3.
        Path("beyond/last.ckpt").write_bytes(third)
        assert train("beyond", "resume=true") == 0
        assert curves(Path("beyond")) == curves(whole)

    def test_in_bf16_which_auto_keeps(self, train: Train) -> None:
        few = ("precision=bf16", "budget.steps=2")
        assert train("rough", *few) == 0
        assert train("rough pieces", *few, ONE_STEP) == 0
        assert train("rough pieces", *few, "precision=auto", "resume=true") == 0
        assert_same(state(Path("rough pieces"))["state_dict"], state(Path("rough"))["state_dict"])
        ours, theirs = (Path(name, "mine.safetensors").read_bytes() for name in ("rough pieces", "rough"))
        assert ours == theirs


class TestMoreSteps:
    def test_a_finished_run_goes_on_as_one_that_was_longer_from_the_start(self, train: Train) -> None:
        lengthless = ("budget.decay=false", "budget.small_share=0")  # what it does in a step depends on no later one
        assert train("long", *lengthless) == 0
        assert train("short", *lengthless, "budget.steps=3") == 0
        assert train("short", *lengthless, "resume=true") == 0
        assert_same(state(Path("short"))["state_dict"], state(Path("long"))["state_dict"])
        assert Path("short/mine.safetensors").read_bytes() == Path("long/mine.safetensors").read_bytes()

    def test_with_decay_the_rate_rises_again_to_that_of_the_longer_run(self, train: Train, whole: Path) -> None:
        assert train("raised", "budget.steps=3") == 0
        assert train("raised", "resume=true") == 0
        rates = dict(curves(Path("raised"))["train/learning_rate"])
        assert rates[5] == dict(curves(whole)["train/learning_rate"])[5]

    def test_a_run_that_took_all_its_steps_is_only_exported(self, train: Train, whole: Path) -> None:
        expected = (whole / "mine.safetensors").read_bytes()
        (whole / "mine.safetensors").unlink()
        assert train("whole", "resume=true") == 0
        assert (whole / "mine.safetensors").read_bytes() == expected
        assert [step for step, _ in curves(whole)["val/loss"]] == [2, 4]

    def test_what_may_change(self, train: Train, whole: Path) -> None:
        Path("photos").rename("moved photos")
        Path("style.png").rename("moved.png")
        whole.rename("moved run")
        words = ["data.root=moved photos", "style.image=moved.png", "precision=auto", "save_every=2min", "resume=true"]
        words += ["data.cache=kept photos"]
        try:
            assert train("moved run", *words) == 0
        finally:
            Path("moved photos").rename("photos")
            Path("moved.png").rename("style.png")
            Path("moved run").rename("whole")


class TestRefusals:
    """One line that names the difference, exit status 2, and the run stays as it was."""

    def expect(self, train: Train, capsys: pytest.CaptureFixture[str], *words: str, error: str) -> None:
        before = {path: path.read_bytes() for path in Path("whole").iterdir()}
        assert train("whole", "resume=true", *words) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err) == ("", f"error: {error}\n")
        assert {path: path.read_bytes() for path in Path("whole").iterdir()} == before

    def differs(self, difference: str) -> str:
        return (
            f"expected what the run in 'whole' began with, to resume it, got {difference}: "
            "give it as it was, or leave out resume=true to begin anew"
        )

    @pytest.mark.parametrize(
        ("words", "difference"),
        [
            (("network.width=8",), "network.width=8 (it was 4)"),
            (("seed=4",), "seed=4 (it was 3)"),
            (("style.size=33",), "style.size=33 (it was 32)"),
            (("style.image=photos/1.png",), "another content of style.image"),
            (("precision=bf16",), "precision=bf16 (it was fp32)"),
            (("loss.style_layers.relu1_2=0.5", "budget.clip=null"), None),
            (("init=other.safetensors",), "init=other.safetensors (it was scratch)"),
        ],
    )
    def test_other_options(
        self,
        train: Train,
        whole: Path,
        capsys: pytest.CaptureFixture[str],
        words: tuple[str, ...],
        difference: str | None,
    ) -> None:
        several = "budget.clip=None (it was 1.0), loss.style_layers.relu1_2=0.5 (it was 1.0)"
        self.expect(train, capsys, *words, error=self.differs(difference if difference is not None else several))

    def test_another_folder_of_photos(self, train: Train, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
        draw(Path("photos/more.png"), seed=50)
        try:
            self.expect(train, capsys, error=self.differs("another content of data.root"))
        finally:
            Path("photos/more.png").unlink()

    def test_other_photos_of_the_same_names(
        self, train: Train, whole: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("other").mkdir()
        for path in Path("photos").iterdir():
            Image.new("RGB", (44, 40)).save(Path("other", path.name))
        self.expect(train, capsys, "data.root=other", error=self.differs("another content of data.root"))

    def test_other_weights_of_the_loss_network(
        self, train: Train, whole: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ("loss_network.weights=null",)
        self.expect(train, capsys, *words, error=self.differs("another content of loss_network.weights"))

    def test_fewer_steps_than_were_taken(self, train: Train, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
        error = (
            "expected budget.steps of 5 or more to resume the run in 'whole', which has taken as many, got 4: "
            "raise it, or leave out resume=true to begin anew"
        )
        self.expect(train, capsys, "budget.steps=4", error=error)

    def test_nothing_to_resume(self, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
        assert train("nothing", "resume=true") == 2
        error = "expected a run to resume in 'nothing', found no last.ckpt: leave out resume=true to begin anew"
        assert capsys.readouterr().err == f"error: {error}\n"
        assert not Path("nothing").exists()

    @pytest.mark.parametrize(
        ("spoil", "error"),
        [
            (
                lambda path: path.write_bytes(path.read_bytes()[:-100]),
                (
                    "expected a whole file of plain values and tensors, got a damaged one, another kind, or one that "
                    "could run code: 'spoilt/last.ckpt' was not used; give an earlier checkpoint or train the style "
                    "again"
                ),
            ),
            (
                lambda path: torch.save({"state_dict": {}}, path),
                (
                    "expected a run to resume, got a checkpoint of another program or of an earlier impasto in "
                    "'spoilt/last.ckpt': leave out resume=true to begin anew"
                ),
            ),
            (
                lambda path: change(path, facts=[]),
                (
                    "expected a run to resume, got a checkpoint of another program or of an earlier impasto in "
                    "'spoilt/last.ckpt': leave out resume=true to begin anew"
                ),
            ),
            (lambda path: change(path, state_dict={}), UNFIT),
            (lambda path: change(path, optimizer_states=[{"state": {0: {"exp_avg": torch.zeros(9)}}}]), UNFIT),
            (lambda path: change(path, faults={"many": 1}), UNFIT),
        ],
        ids=["damaged", "another program's", "of other types", "other weights", "other momenta", "other counts"],
    )
    def test_a_checkpoint_that_cannot_be_used(
        self,
        train: Train,
        whole: Path,
        capsys: pytest.CaptureFixture[str],
        spoil: Callable[[Path], object],
        error: str,
    ) -> None:
        Path("spoilt").mkdir(exist_ok=True)
        Path("spoilt/last.ckpt").write_bytes((whole / "last.ckpt").read_bytes())
        spoil(Path("spoilt/last.ckpt"))
        assert train("spoilt", "resume=true") == 2
        assert capsys.readouterr().err == f"error: {error}\n"


class TestTimeLimit:
    def test_what_is_said(self, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
        assert train("timed", ONE_STEP, "resume=false") == 0
        *_, stopped, paint, go_on = capsys.readouterr().err.splitlines()
        assert stopped == "stopped after step 1 of 5 (max_time is over)"
        assert paint == "to paint with what was learned so far: python stylize.py --model timed photo.jpg"
        words = go_on.removeprefix("to go on: ").split()
        assert words[:3] == ["python", "train.py", f"loss_network.weights={train.weights}"]
        assert words[-2:] == [ONE_STEP, "resume=true"]
        assert len([word for word in words if word.startswith("resume=")]) == 1
        assert load_style(Path("timed/mine.safetensors")).metadata["steps"] == 1
        capsys.readouterr()
        assert main(["train", *words[2:]]) == 0
        assert load_style(Path("timed/mine.safetensors")).metadata["steps"] == 2
        assert re.findall(r"Epoch 0:[^|]*\|[^|]*\| (\d+/\d+) \[", capsys.readouterr().out)[-1] == "2/5"

    @pytest.mark.parametrize(
        ("program", "begin"),
        [("/bin/impasto", "impasto"), ("/a/impasto/__main__.py", "python -m impasto"), ("b/train.py", "python b/")],
    )
    def test_what_to_type_begins_as_the_command_did(
        self,
        train: Train,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        program: str,
        begin: str,
    ) -> None:
        monkeypatch.setattr(sys, "argv", [program])
        assert train("begun", ONE_STEP, "resume=false") == 0
        *_, paint, go_on = capsys.readouterr().err.splitlines()
        words, ending = (begin, ".py") if begin.endswith("/") else (f"{begin} ", "")
        expected = f"{words}stylize{ending} --model begun photo.jpg"
        assert paint == f"to paint with what was learned so far: {expected}"
        assert go_on.startswith(f"to go on: {words}train{ending} ")

    @pytest.mark.parametrize("name", ["max_time", "save_every"])
    @pytest.mark.parametrize("duration", ["90", "5 min", "-1s", "soon", "1d"])
    def test_other_durations(self, train: Train, capsys: pytest.CaptureFixture[str], name: str, duration: str) -> None:
        assert train("never", f"{name}={duration}") == 2
        expected = f"error: expected {name} such as 90s, 15min or 2h, got {duration!r}\n"
        assert capsys.readouterr().err == expected


def test_a_second_ctrl_c_does_not_keep_the_next_command_from_being_said(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = training.describe_stop

    def describe_to_an_impatient_user(*arguments: Any, **named: Any) -> str:
        signal.raise_signal(signal.SIGINT)
        return describe(*arguments, **named)

    monkeypatch.setattr(training, "describe_stop", describe_to_an_impatient_user)
    listener = signal.getsignal(signal.SIGINT)
    assert train("twice", ONE_STEP) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("to go on: ")
    assert signal.getsignal(signal.SIGINT) is listener


def test_a_run_that_is_stopped_before_its_first_step_leaves_the_earlier_one_where_it_was(
    train: Train, whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, "again")
    before = sorted(Path("again").iterdir())
    monkeypatch.setattr(Throughput, "on_train_start", lambda *_: signal.raise_signal(signal.SIGINT))
    assert train("again") == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "stopped before the end of the first step (SIGINT): there is nothing to go on from; "
        "the run that was at again is there again"
    )
    assert sorted(Path("again").iterdir()) == before
    assert not Path("again-1").exists()


def test_a_sweep_that_is_stopped_names_the_commands_that_are_left(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Throughput, "on_train_start", lambda *_: signal.raise_signal(signal.SIGINT))
    assert train("others ${budget.average} ${seed}", "--multirun", "budget.average=-1,0.5,0.6", "seed=1,2") == 130
    said = capsys.readouterr().err
    assert said.endswith("error: expected budget.average of 0 or more and below 1, got -1.0\n")
    lines = [line for line in said.splitlines() if line.startswith("not trained yet: ")]
    assert [re.findall(r"budget\.average=\S+|seed=\S+|--multirun", line) for line in lines] == [
        ["seed=1", "budget.average=0.5"],
        ["seed=1", "budget.average=0.6"],
        ["seed=2", "budget.average=-1"],
        ["seed=2", "budget.average=0.5"],
        ["seed=2", "budget.average=0.6"],
    ]
    monkeypatch.undo()
    assert main(["train", *shlex.split(lines[1])[5:], ONE_STEP]) == 0
    assert Path("others 0.6 1/mine.safetensors").exists()


def test_a_second_ctrl_c_does_not_keep_those_of_a_sweep_from_being_said(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = command._commands_left

    def find_for_an_impatient_user(words: Sequence[str]) -> list[str]:
        signal.raise_signal(signal.SIGINT)
        return find(words)

    monkeypatch.setattr(command, "_commands_left", find_for_an_impatient_user)
    monkeypatch.setattr(Throughput, "on_train_start", lambda *_: signal.raise_signal(signal.SIGINT))
    listener = signal.getsignal(signal.SIGINT)
    assert train("impatient ${seed}", "--multirun", "seed=1,2") == 130
    lines = capsys.readouterr().err.splitlines()[-2:]
    assert [re.findall(r"^not trained yet: .* (seed=\S+)", line) for line in lines] == [["seed=1"], ["seed=2"]]
    assert signal.getsignal(signal.SIGINT) is listener


def test_a_sweep_names_the_command_for_each_training(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("sweep ${budget.average}", "--multirun", "budget.average=0.5,0.6", ONE_STEP) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("to go on: ")]
    assert [re.findall(r"budget\.average=\S+|--multirun|resume=\S+", line) for line in lines] == [
        ["budget.average=0.5", "resume=true"],
        ["budget.average=0.6", "resume=true"],
    ]
