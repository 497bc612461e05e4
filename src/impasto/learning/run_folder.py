"""A run's folder: who may write into it, what an earlier run left there, and the state that is saved in it."""

import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from impasto.files import check_place, hold, remove_leftovers, written_whole
from impasto.learning.module import Faults, StyleModule
from impasto.learning.snapshot import Snapshot
from impasto.photo_folder import CONFIG
from impasto.style_file import read_checkpoint

CHECKPOINT = "last.ckpt"
_LOCK = ".lock"
_NEEDED = {
    "state_dict": dict,
    "optimizer_states": list,
    "global_step": int,
    "facts": dict,
    "faults": dict,
    "good": list,
}

Facts = dict[str, Any]
"""What a resumed run shares with its beginning: options by name, and fingerprints of what is read from files."""

FINGERPRINT = "sha256:"
"""Begins a fact that is a fingerprint."""


def locked(run_dir: Path) -> AbstractContextManager[None]:
    """Keep other trainings out of an existing run folder; the lock ends with this process, however that ends.

    Raises:
        ValueError: another one is in it; names its process and host.
    """
    return hold(
        run_dir / _LOCK,
        refuse=lambda holder: (
            f"expected a run folder that is free, got {str(run_dir)!r}, into which {holder} is training: "
            "wait for its end or stop it, or choose another folder with run_dir=DIR"
        ),
    )


def check_run_dir(run_dir: Path) -> None:
    """Raise ValueError where new_run_dir would not do, as far as that is seen without writing."""
    check_place(run_dir)
    if run_dir.exists():
        _check_ours(run_dir)
        if any(run_dir.iterdir()):
            check_place(run_dir.parent)  # where the earlier run is renamed


@contextmanager
def new_run_dir(run_dir: Path) -> Iterator[None]:
    """Hold an empty run folder; the run that was there before is kept under the next free number.

    Where the new one ends in an error before it has saved a state, the run before gets its place back.

    Raises:
        ValueError: another training is in it, or something else than a run of impasto.
    """
    kept = None
    if run_dir.exists():
        _check_ours(run_dir)
        with locked(run_dir):
            kept = _move_away(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    with locked(run_dir):
        try:
            yield
        except BaseException as error:
            if kept is not None and not (run_dir / CHECKPOINT).exists():
                _move_back(kept, run_dir, error)
            raise


def _move_back(kept: Path, run_dir: Path, error: BaseException) -> None:
    with suppress(OSError):  # the error that led here is the one to be told
        shutil.rmtree(run_dir)
        kept.rename(run_dir)
        error.add_note(f"the run that was at {run_dir} is there again")


def _check_ours(run_dir: Path) -> None:
    names = {path.name for path in run_dir.iterdir()} if run_dir.is_dir() else {""}
    # A run that was killed in its first moment leaves no more than hidden files.
    ours = all(name.startswith(".") for name in names)
    if not ours and not (CONFIG in names and b"\nsave_every:" in (run_dir / CONFIG).read_bytes()):
        raise ValueError(
            f"expected a new folder or one of an earlier run, got something else at {str(run_dir)!r}: "
            "choose another with run_dir=DIR"
        )


def _move_away(run_dir: Path) -> Path | None:
    """Rename a run and return where it is now; None where there is none."""
    remove_leftovers(run_dir)
    if {path.name for path in run_dir.iterdir()} == {_LOCK}:
        return None
    if run_dir.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise ValueError(
            f"expected a run folder other than the current one and those around it, got {str(run_dir)!r}, where an "
            "earlier run would have to be renamed: choose another with run_dir=DIR"
        )
    names = (run_dir.with_name(f"{run_dir.name}-{number}") for number in itertools.count(1))
    kept = next(path for path in names if not path.exists())
    run_dir.rename(kept)
    (kept / _LOCK).unlink()
    print(f"the run that was at {run_dir} is now {kept}")
    return kept


# ---- going on with an earlier run -------------------------------------------------------------------------------


@contextmanager
def earlier_run(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Hold a run folder and yield its checkpoint to go on from: plain values and tensors.

    Raises:
        ValueError: another training is in it, or there is no checkpoint, or none that can be gone on from.
    """
    if not (run_dir / CHECKPOINT).is_file():
        raise ValueError(
            f"expected a run to resume in {str(run_dir)!r}, found no {CHECKPOINT}: leave out resume=true to begin anew"
        )
    with locked(run_dir):
        remove_leftovers(run_dir)
        yield _read_earlier(run_dir / CHECKPOINT)


def _read_earlier(path: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(key), _NEEDED[key]) for key in _NEEDED):
        raise ValueError(
            f"expected a run to resume, got a checkpoint of another program or of an earlier impasto in {str(path)!r}: "
            "leave out resume=true to begin anew"
        )
    return checkpoint


def check_same(run_dir: Path, *, began: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError that names every difference between the facts of a run and those to go on with."""
    names = [name for name in sorted(began.keys() | now.keys()) if began.get(name) != now.get(name)]
    if names:
        raise ValueError(
            f"expected what the run in {str(run_dir)!r} began with, to resume it, got "
            f"{', '.join(_describe_change(name, began.get(name), now.get(name)) for name in names)}: "
            "give it as it was, or leave out resume=true to begin anew"
        )


def check_fits(run_dir: Path, earlier: Mapping[str, Any], module: StyleModule) -> None:
    """Raise ValueError unless the weights, the optimizer's state and the last good state are those of such a module."""
    try:
        fits = _has_form_of(module, earlier)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        fits = False
    if not fits:
        raise ValueError(
            f"expected a checkpoint of the run in {str(run_dir)!r}, got one whose parts do not fit its network: "
            "leave out resume=true to begin anew"
        )


def _has_form_of(module: StyleModule, earlier: Mapping[str, Any]) -> bool:
    Faults(**earlier["faults"])
    ours = {key: value.shape for key, value in module.state_dict().items()}
    theirs = {key: value.shape for key, value in earlier["state_dict"].items()}
    (optimizer,) = earlier["optimizer_states"]
    shapes = [each.shape for each in module.transformer.parameters()]
    states = [(shapes[number], value.shape) for number, state in optimizer["state"].items() for value in state.values()]
    (group,) = optimizer["param_groups"]
    changing = [each.shape for each in module.parameters()]
    return (
        ours == theirs
        and all(got in (shape, ()) for shape, got in states)
        and group["params"] == list(range(len(shapes)))
        and all(isinstance(group[name], float) for name in ("lr", "initial_lr"))
        and [each.shape for each in earlier["good"]][: len(changing)] in (changing, [])
    )


def _describe_change(name: str, began: object, now: object) -> str:
    if isinstance(now, str) and now.startswith(FINGERPRINT):
        return f"another content of {name}"
    return f"{name}={now} (it was {began})"


# ---- the state on disk ------------------------------------------------------------------------------------------


class SaveState(Callback):
    """Writes the checkpoint every ``every`` seconds, at the end, and when anything stops the training.

    What is saved is the state between two steps, when all that belongs to a step is logged and the next one has not
    begun: from there a resumed run does what this one would have done. ``facts`` are saved along; ``also`` is called
    after the checkpoint was written. ``saved_step`` is the step of the state on disk.
    """

    def __init__(
        self, path: Path, *, every: float, facts: Mapping[str, Any], also: Callable[[], None] = lambda: None
    ) -> None:
        self.path, self.every, self.facts, self.also = path, every, dict(facts), also
        self._snapshot = Snapshot()
        self._saved_at = time.monotonic()
        self.saved_step: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note where a resumed run begins: its state is on disk, and now all that is written after that too."""
        self.saved_step, self._saved_at = trainer.global_step, time.monotonic()
        if self.saved_step > 0:
            self.also()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Tensor, batch_idx: int) -> None:
        """Keep the state in memory; save it when it is time."""
        assert isinstance(pl_module, StyleModule)
        self._snapshot.take(trainer, pl_module)
        if time.monotonic() - self._saved_at >= self.every:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished state."""
        self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the state after the last finished step, unless the disk itself is what failed."""
        assert isinstance(pl_module, StyleModule)
        # A connection is that to a loader worker.
        if not isinstance(exception, OSError) or isinstance(exception, ConnectionError):
            self._snapshot.put_back(trainer, pl_module)
            self._save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the facts."""
        checkpoint["facts"] = self.facts

    def _save(self, trainer: Trainer) -> None:
        if self.saved_step is not None and trainer.global_step > self.saved_step:
            for logger in trainer.loggers:
                logger.save()  # the curves up to here come first: after a kill there is no gap in them
            with written_whole(self.path) as temporary:
                trainer.save_checkpoint(temporary)
            self.also()
            self.saved_step = trainer.global_step
        self._saved_at = time.monotonic()
