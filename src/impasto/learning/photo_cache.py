"""Decoded photos on disk: each is decoded once, and mapped into memory by every worker and every later run.

The cache fills as photos are first needed. All of COCO's 118,287 decoded are 109 GB: to decode them beforehand would
put off the first step by many minutes, and a short training never needs most of them. Every photo has a file of its
own, written whole or not at all. A single packed file would save a tenth of a millisecond a crop, and would need an
index, a lock between writers, and a way to give back the place of photos that have changed.
"""

import hashlib
import logging
import mmap
import os
import shutil
import struct
import time
from contextlib import suppress
from pathlib import Path

import PIL
import torch
from torch import Tensor

from impasto.files import written_whole

MADE_WITH = f"format 1, Pillow {PIL.__version__}, torch {torch.__version__}"
"""What decoded photos depend on besides the photos: another Pillow may decode to other bytes."""

SPARE = 2**30
"""Bytes left free on the disk for all else: a checkpoint that found no room would end the training."""

_MARKER = "photo_cache.txt"
_TITLE = "decoded photos, kept by impasto"
_HEADER = struct.Struct("<8sqqQQ")  # magic, size and time of the photo, height, width; planes of R, G and B follow
_MAGIC = b"impasto\0"
_ABANDONED = 3600  # seconds after which a temporary file is that of a program that was killed
_log = logging.getLogger(__name__)

State = tuple[int, int]
"""Size and time of change of a photo's file, in bytes and ns."""


class PhotoCache:
    """The photos of the folder ``photos``, decoded for the limit ``at_least``, in files of the folder ``folder``.

    ``trouble`` says why photos are no longer written, or is None; those that are there are still read.
    """

    def __init__(self, folder: Path, *, photos: Path, at_least: int, spare: int = SPARE) -> None:
        self.folder, self.photos, self.at_least, self.spare = folder, photos, at_least, spare
        self.trouble: str | None = None

    def read(self, photo: Path) -> Tensor | None:
        """Return the pixels (3, H, W) kept of a photo as it is now, mapped, or None: changes to them stay in memory."""
        state = state_of(photo)
        try:
            with self._place(photo).open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError):  # an empty file cannot be mapped
            return None
        if state is None or len(content) <= _HEADER.size:
            return None
        *made_of, height, width = _HEADER.unpack_from(content)
        if made_of != [_MAGIC, *state] or len(content) != _HEADER.size + 3 * height * width:
            return None
        return torch.frombuffer(content, dtype=torch.uint8, offset=_HEADER.size).view(3, height, width)

    def keep(self, photo: Path, pixels: Tensor, *, of: State | None) -> bool:
        """Write the pixels of a photo that was ``of`` that state before it was decoded; return whether it is done."""
        if self.trouble is not None or of is None:
            return False
        _, height, width = pixels.shape
        try:
            if shutil.disk_usage(self.folder).free < self.spare + pixels.numel():
                self._give_up(f"less than {self.spare / 2**30:g} GiB would be free")
                return False
            with written_whole(self._place(photo)) as temporary:
                temporary.write_bytes(_HEADER.pack(_MAGIC, *of, height, width) + pixels.numpy().tobytes())
        except (OSError, ValueError) as error:
            self._give_up(getattr(error, "strerror", None) or str(error))
            return False
        return True

    def _give_up(self, reason: str) -> None:
        self.trouble = (
            f"decoded photos are no longer written into {str(self.folder)!r} ({reason}): "
            "those not in it are decoded again whenever they do not fit in memory"
        )

    def _place(self, photo: Path) -> Path:
        name = os.fsencode(os.path.relpath(photo, self.photos))
        digest = hashlib.sha256(name + f"\0{self.at_least}".encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:34]}.pixels"


def state_of(photo: Path) -> State | None:
    """Return the state of a photo's file, or None where there is none."""
    try:
        found = photo.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def open_cache(folder: Path, *, photos: Path, at_least: int) -> PhotoCache | None:
    """Return the cache in a folder, made if need be; warns and returns None where it belongs to other photos.

    Raises:
        ValueError: there is something else, or the folder cannot be written.
    """
    ours = MADE_WITH, str(photos.resolve())
    try:
        theirs = _read_marker(folder)
        if theirs is None or (theirs[0] == MADE_WITH and not Path(theirs[1]).exists()):  # the photos were moved
            with written_whole(folder / _MARKER) as temporary:
                temporary.write_bytes(os.fsencode("\n".join([_TITLE, *ours])))
            theirs = ours
    except OSError as error:
        raise ValueError(
            f"expected a folder to keep decoded photos in, got {str(folder)!r} ({error.strerror}): "
            "choose another with data.cache=DIR"
        ) from error
    if theirs != ours:
        _log.warning(
            "expected decoded photos of %r (%s) in %r, got those of %r (%s): they are not used, and photos are decoded "
            "again whenever they do not fit in memory; choose another folder with data.cache=DIR, or remove this one",
            *(ours[1], ours[0], str(folder), theirs[1], theirs[0]),
        )
        return None
    _remove_abandoned(folder)
    return PhotoCache(folder, photos=photos, at_least=at_least)


def _read_marker(folder: Path) -> tuple[str, str] | None:
    """Return what a cache was made with and of which photos, or None where there is none yet."""
    if not folder.exists():
        return None
    # A run that was killed in its first moment leaves no more than hidden files.
    if folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir()):
        return None
    marker = folder / _MARKER
    title, _, rest = os.fsdecode(marker.read_bytes() if marker.is_file() else b"").partition("\n")
    made_with, _, photos = rest.partition("\n")
    if title != _TITLE or not photos:
        raise ValueError(
            f"expected a new folder or one of decoded photos, got something else at {str(folder)!r}: "
            "choose another with data.cache=DIR"
        )
    return made_with, photos


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of programs that were killed, not those of a training that goes on beside this one."""
    for path in folder.glob("??/.*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()
