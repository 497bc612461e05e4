"""Many pictures and clips: while one picture is painted, the next is decoded and the one before is encoded."""

import errno
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

from impasto.images import ANIMATED_SUFFIXES
from impasto.memory import is_out_of_memory
from impasto.painting.outputs import ClipOptions, Job
from impasto.painting.painter import Look, Painter
from impasto.painting.pictures import Picture, read_picture, write_picture

_ONE_PICTURES = (ValueError, FileNotFoundError)  # errors that leave hope for the other pictures
_NO_VIDEO = "expected the package av, which reads and writes video, found none: pip install 'impasto[video]'"


def paint_all(
    painter: Painter, jobs: Sequence[Job], *, look: Look, quality: int = 95, strip: bool = False
) -> Iterator[tuple[Job, Exception | None]]:
    """Yield each job in order when its result is written, with the error where there is none.

    At most three pictures are in memory. ``strip`` leaves out what the camera noted.

    Raises:
        OSError: the disk is full, or the folder cannot be written: no other picture would fare better.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        reads = (reader.submit(read_picture, job.source) for job in jobs)
        reading = deque(islice(reads, 1))
        last: tuple[Job, Future[None]] | None = None
        for job in jobs:
            reading.extend(islice(reads, 1))  # the next, while this one is painted
            painted = _attempt(painter, job, reading.popleft(), look=look)
            if last is not None:
                yield _outcome(*last)
            last = job, writer.submit(_write, job, painted, quality=quality, strip=strip)
            del painted  # the writer lets go of it when it is written
        if last is not None:
            yield _outcome(*last)


def _attempt(painter: Painter, job: Job, reading: Future[Picture], *, look: Look) -> Picture | Exception:
    try:
        picture = reading.result()
    except Exception as error:
        return _if_one_pictures(error, job)
    try:
        return Picture(painter.paint(picture.pixels, look), picture.alpha, picture.exif)
    except ValueError as error:
        return ValueError(f"{error} ({str(job.source)!r})")
    except Exception as error:
        return _if_one_pictures(error, job)


def _write(job: Job, painted: Picture | Exception, *, quality: int, strip: bool) -> None:
    if isinstance(painted, Exception):
        raise painted
    write_picture(job.target, Picture(painted.pixels, painted.alpha, None if strip else painted.exif), quality=quality)


def _outcome(job: Job, written: Future[None]) -> tuple[Job, Exception | None]:
    try:
        written.result()
    except Exception as error:
        return job, _if_one_pictures(error, job)
    return job, None


def _if_one_pictures(error: Exception, job: Job) -> Exception:
    """Return an error that leaves hope for the other pictures; raise any other."""
    if is_out_of_memory(error):
        source = str(job.source)
        told = ValueError(f"expected an image that fits the memory, got a larger one in {source!r}: make it smaller")
        for note in getattr(error, "__notes__", []):
            told.add_note(note)
        return told
    if isinstance(error, _ONE_PICTURES) or getattr(error, "errno", None) == errno.ENAMETOOLONG:
        return error
    raise error


def paint_clips(
    painter: Painter,
    jobs: Sequence[Job],
    *,
    look: Look,
    options: ClipOptions,
    progress: Callable[[Path, int, int | None], None] = lambda *_: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[Job, Exception | None]]:
    """Yield each clip's job when its result is written, with the error where there is none.

    ``progress`` is told of the source, how many of its frames are done, and of how many where that is known. Raises
    as paint_all does.
    """
    for job in jobs:
        tell = partial(progress, job.source)
        try:
            if job.target.suffix.lower() in ANIMATED_SUFFIXES:
                from impasto.painting.animations import paint_animation  # with OpenCV, which takes its time

                paint_animation(painter, job, look, options, progress=tell)
            else:
                from impasto.painting.video import paint_clip  # with the extra for it

                paint_clip(painter, job, look, options, progress=tell, warn=warn)
        except ModuleNotFoundError as error:
            if error.name != "av":
                raise
            yield job, ValueError(_NO_VIDEO)
        except Exception as error:
            yield job, _if_one_pictures(error, job)
        else:
            yield job, None
