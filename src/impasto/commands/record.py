"""What is kept of an optimisation while it runs: a progress bar, TensorBoard, pictures, and the best one on disk."""

import signal
import sys
import threading
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from impasto.commands.stopping import signals_as_interrupts
from impasto.files import leave_disk_errors_to_the_main_thread
from impasto.images import resize, write_image
from impasto.learning.losses import LossOptions
from impasto.learning.optimization import Step
from impasto.painting.blending import keep_colors


class Record:
    """Writes the best picture so far to ``target`` every ``every`` iterations, when it is stopped, and at the end.

    Curves, and a picture at each of these times, go to ``log_dir``, or a numbered folder beside it where it exists.
    With ``colours``, the photo, its colours are kept.
    """

    def __init__(
        self, target: Path, log_dir: Path, options: LossOptions, *, every: int, colours: Tensor | None = None
    ) -> None:
        self.target, self.options, self.every, self.colours = target, options, every, colours
        if not log_dir.name:  # "." has none to number
            log_dir = log_dir.absolute()
        numbered = (log_dir.with_name(f"{log_dir.name}-{number}") for number in count(1))
        self.folder = next(path for path in chain([log_dir], numbered) if not path.exists())

    @signals_as_interrupts()
    def follow(self, steps: Iterator[Step], *, total: int) -> int:
        """Take the steps, say where the result is, and return the exit status: 130 when Ctrl-C ended it, and so on."""
        latest = next(steps)  # bad input shows here, before anything is written
        threading.excepthook = leave_disk_errors_to_the_main_thread
        # Ctrl-C in the midst of a hand-over leaves TensorBoard's thread asleep for as long, and its end waits for that.
        writer = SummaryWriter(str(self.folder), flush_secs=1)
        status = 0
        try:
            with tqdm(total=total, disable=None) as bar:
                for step in chain([latest], steps):
                    latest = step
                    self._note(step, writer, bar)
        except KeyboardInterrupt as stop:
            print(f"interrupted at iteration {latest.iteration}; the best picture so far is kept", file=sys.stderr)
            status = 128 + (stop.args[0] if stop.args else signal.SIGINT)
        finally:
            write_image(self.target, self._finish(latest))
            writer.close()
        print(self.target)
        return status

    def _note(self, step: Step, writer: SummaryWriter, bar: "tqdm[None]") -> None:
        terms = self.options.weighted(step.terms)
        for name, value in terms.items():
            writer.add_scalar(f"optimize/{'loss' if name == 'total' else name}", value, step.iteration)
        bar.set_postfix({name: f"{value:.4g}" for name, value in terms.items()}, refresh=False)
        bar.update()
        if step.notice is not None:
            tqdm.write(step.notice, file=sys.stderr)
        if step.iteration % self.every == 0:
            picture = self._finish(step)
            write_image(self.target, picture)
            write_image(self.folder / f"{step.iteration:04}.png", picture)
            writer.add_image("picture", picture[0], step.iteration)

    def _finish(self, step: Step) -> Tensor:
        picture = step.best.cpu()
        if self.colours is None:
            return picture
        return keep_colors(resize(self.colours, short_side=min(picture.shape[-2:])), picture)
