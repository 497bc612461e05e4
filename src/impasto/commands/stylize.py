"""``impasto stylize``: paints photos and clips, or what a camera sees. Nothing heavy is imported before it is used."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto.commands.stopping import signals_as_interrupts
from impasto.commands.words import Options, one_line, whole_number

if TYPE_CHECKING:
    from impasto.painting.outputs import Job
    from impasto.painting.painter import Look, Painter

SUMMARY = "paint photos, for example: impasto stylize --model runs/weeping_woman photo.jpg"
DESCRIPTION = "Paint photos in a trained style; each result has the size of its photo."

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a number, got {word!r}") from error


def _style(word: str) -> str:
    if not word:
        raise argparse.ArgumentTypeError("expected a style, got an empty word: a dot is the current folder")
    return word


def _bytes(word: str) -> int:
    number = word.upper().rstrip("BKMGT")
    unit = word.upper().removeprefix(number)
    if unit not in _UNITS or not number.replace(".", "", 1).isdecimal():
        raise argparse.ArgumentTypeError(f"expected a size with its unit, such as 4GB or 500MB, got {word!r}")
    try:
        return int(float(number) * _UNITS[unit])
    except OverflowError as error:
        raise argparse.ArgumentTypeError(f"expected a size of fewer digits, got {word!r}") from error


def _quality(word: str) -> int:
    if not (word.isdecimal() and 1 <= int(word) <= 100):
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 to 100, got {word!r}")
    return int(word)


OPTIONS: Options = {
    "photos": {"nargs": "*", "metavar": "PHOTO", "help": "picture, video, folder, or quoted pattern such as '*.jpg'"},
    "--model": {
        "required": True,
        "type": _style,
        "metavar": "STYLE",
        "help": "style that comes along, run folder, style file, checkpoint or ONNX file",
    },
    "--camera": {
        "metavar": "SOURCE",
        "help": "instead of photos, a live window: number of a camera, or a stream's address",
    },
    "--output": {"metavar": "PATH", "help": "file (for one photo) or folder; default: the folder painted"},
    "--strength": {
        "type": _number,
        "default": 1.0,
        "metavar": "0..1.5",
        "help": "0: the photo, 1: the painting (default)",
    },
    "--keep-colors": {"action": "store_true", "help": "lightness of the painting, colours of the photo"},
    "--stroke-scale": {
        "type": _number,
        "metavar": "0.1..10",
        "help": "2: strokes twice as large; default: 1, and larger in pictures beyond full HD",
    },
    "--smooth": {"action": "store_true", "help": "steadier video: blend each frame with the one before, moved along"},
    "--quality": {
        "type": _quality,
        "default": 95,
        "metavar": "1..100",
        "help": "of JPEG, WebP, AVIF and video; default: 95",
    },
    "--strip": {"action": "store_true", "help": "leave out what the camera noted (EXIF, tags of video)"},
    "--resume": {"action": "store_true", "help": "skip what is painted already, continue a video or animation"},
    "--memory": {
        "type": _bytes,
        "metavar": "SIZE",
        "help": "for large pictures, such as 4GB; default: half of what is free",
    },
    "--max-pixels": {
        "type": whole_number,
        "default": 200_000_000,
        "metavar": "N",
        "help": "refuse larger files; default: 200000000",
    },
    "--device": {"default": "auto", "metavar": "{auto,cpu,cuda,mps}", "help": "where to compute; default: auto"},
}


def run(arguments: argparse.Namespace) -> int:
    """Paint the photos, print where the results are, and return the exit status."""
    from impasto.images import limit_pixels
    from impasto.painting.batch import paint_all, paint_clips
    from impasto.painting.outputs import ClipOptions, check_places, plan_jobs
    from impasto.painting.painter import Look

    if bool(arguments.photos) == (arguments.camera is not None):
        came = "both" if arguments.photos else "none"
        raise ValueError(f"expected photos or --camera, got {came}: see impasto stylize --help")
    if arguments.camera is not None and (arguments.resume or arguments.strip):
        option = "--resume" if arguments.resume else "--strip"
        raise ValueError(f"expected photos with {option}, got --camera: leave one out")
    look = Look(arguments.strength, arguments.keep_colors, arguments.stroke_scale, arguments.memory)
    limit_pixels(arguments.max_pixels)
    painter = _load(Path(arguments.model), device=arguments.device)
    if arguments.camera is not None:
        return _show(arguments, painter, look)
    planned = plan_jobs(arguments.photos, output=arguments.output, style_name=painter.name)
    jobs = _without_done(planned) if arguments.resume else planned
    check_places(jobs)
    options = ClipOptions(arguments.quality, arguments.strip, arguments.resume, arguments.smooth)
    pictures = [job for job in jobs if not job.is_clip]
    clips = [job for job in jobs if job.is_clip]
    with signals_as_interrupts(), _frame_bars(len(planned)) as show:
        painted = paint_all(painter, pictures, look=look, quality=options.quality, strip=options.strip)
        filmed = paint_clips(painter, clips, look=look, options=options, progress=show, warn=_warn)
        return _report(chain(painted, filmed), count=len(planned), done=len(planned) - len(jobs))


def _show(arguments: argparse.Namespace, painter: "Painter", look: "Look") -> int:
    from impasto.painting.outputs import find_folder

    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it greets where only paths are printed
    from impasto.painting.camera import paint_camera

    tell = partial(print, flush=True)
    folder = find_folder(arguments.output)
    with signals_as_interrupts():
        paint_camera(painter, arguments.camera, look, folder=folder, is_smooth=arguments.smooth, saved=tell)
    return 0


@contextmanager
def _frame_bars(files: int) -> Iterator[Callable[[Path, int, int | None], None]]:
    """Yield what shows how many frames of a clip are done: a bar, below that of files if there are several."""
    from tqdm import tqdm

    line = int(files > 1)
    bars: dict[Path, Any] = {}
    with ExitStack() as shown:

        def show(source: Path, done: int, total: int | None) -> None:
            if source not in bars:
                shown.close()  # that of the clip before
                bar = tqdm(desc=source.name, total=total, unit="frame", position=line, leave=False, disable=None)
                bars[source] = shown.enter_context(bar)
            bars[source].update(done - bars[source].n)

        yield show


def _warn(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(f"warning: {line}", file=sys.stderr)


def _load(model: Path, *, device: str) -> "Painter":
    if model.suffix.lower() == ".onnx":
        from impasto.painting.onnx_runtime import OnnxPainter

        return OnnxPainter(model, device=device)
    from impasto.painting.stylizer import Stylizer

    return Stylizer.load(model, device=device)


def _without_done(jobs: Sequence["Job"]) -> list["Job"]:
    from impasto.painting.outputs import partial_path

    def is_done(job: "Job") -> bool:
        # Path.exists() raises where the name is too long. A part beside a result is of a later, interrupted run.
        return os.path.exists(job.target) and not (job.is_clip and os.path.exists(partial_path(job.target)))

    left = [job for job in jobs if not is_done(job)]
    if len(left) < len(jobs):
        print(f"skipped {len(jobs) - len(left)} of {len(jobs)} pictures that are painted already", file=sys.stderr)
    return left


def _report(outcomes: Iterable[tuple["Job", Exception | None]], *, count: int, done: int) -> int:
    """Print each result's path or error and return the exit status; of the pictures ``done`` were painted before."""
    from tqdm import tqdm

    failed = 0
    # None: no bar where nobody looks.
    for job, error in tqdm(outcomes, initial=done, total=count, unit="picture", disable=None if count > 1 else True):
        if error is None:
            tqdm.write(str(job.target))
        elif count == 1:
            raise error
        else:
            failed += 1
            tqdm.write(f"error: {one_line(error)}", file=sys.stderr)
    if failed:
        print(f"error: {failed} of {count} pictures could not be painted; the others are done", file=sys.stderr)
    return 1 if failed else 0
