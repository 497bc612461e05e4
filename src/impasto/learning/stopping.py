"""How a training ends early: a signal or the time limit ends it between two steps, an error wherever it happens."""

import math
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from impasto.memory import is_out_of_memory
from impasto.photo_folder import PhotoError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """The training ended early; ``status`` is the exit status to end with, ``steps`` those of the state on disk."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status, self.steps = status, 0


class Stops(Callback):
    """Raises Stopped between two steps where a signal asked for it or the time is up.

    A signal in the midst of a step waits for its end, so that nothing is left half done. ``deadline`` is a time of
    ``time.perf_counter``; one step is taken even after it, so that a run that is resumed again and again gets on.
    """

    def __init__(self, *, deadline: float = math.inf) -> None:
        self.deadline = deadline
        self._signal: int | None = None
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals; Lightning gives them back to who listened before."""
        self._first_step = trainer.global_step
        # Who starts a program in the background, or with nohup, asks it not to listen.
        _set({number: self._note for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN})

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Tensor, batch_idx: int) -> None:
        """Stop here if that was asked for."""
        # Of a loader worker that died PyTorch tells by an error wherever the program is by then, in the midst of a save
        # as well. It also looks for dead workers when it waits for photos: that is enough.
        _set({signal.SIGCHLD: signal.SIG_DFL})
        self.check(trainer)

    def check(self, trainer: Trainer) -> None:
        """Raise Stopped if a signal came or the time is up."""
        if self._signal is not None:
            raise Stopped(signal.Signals(self._signal).name, status=128 + self._signal)
        if time.perf_counter() >= self.deadline and self._first_step < trainer.global_step < trainer.max_steps:
            raise Stopped("max_time is over", status=0)


def ignore_signals() -> None:
    """Let what was stopped come to its end undisturbed: whoever is impatient presses Ctrl-C once more."""
    _set(dict.fromkeys(SIGNALS, signal.SIG_IGN))


@contextmanager
def signals_given_back() -> Iterator[None]:
    """Whoever listens to signals before listens to them again afterwards."""
    listeners = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        _set(listeners)


def _set(listeners: Mapping[signal.Signals, Any]) -> None:
    """Set who listens to signals, which the main thread alone may do."""
    if threading.current_thread() is threading.main_thread():
        for number, listener in listeners.items():
            signal.signal(number, listener)


def fit(trainer: Trainer, *arguments: Any, stops: Stops, **named: Any) -> None:
    """Train to the end.

    Raises:
        Stopped: a signal, the time limit or an error ended it; the error's traceback was printed.
        PhotoError, OSError: the photos or the disk failed.
        MemoryError, RuntimeError: the memory did not suffice.
    """
    try:
        trainer.fit(*arguments, **named)
        stops.check(trainer)
    except (Stopped, PhotoError):
        raise
    except SystemExit as error:  # what Lightning makes of Ctrl-C before the first step
        raise Stopped("SIGINT", status=128 + signal.SIGINT) from error
    except Exception as error:
        # A connection is that to a loader worker, which has died.
        if is_out_of_memory(error) or (isinstance(error, OSError) and not isinstance(error, ConnectionError)):
            raise
        traceback.print_exc()
        if isinstance(error, EOFError):  # the same lost connection, seen while a photo was handed over
            error = ConnectionResetError("a loader worker is gone")
        raise Stopped(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", status=1) from error
