"""Files written whole or not at all, a full disk or a Ctrl-C never leaving half of one; by one program at a time."""

import errno
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk, a quota or a limit that is full."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a hidden temporary path beside ``path``; what is written there replaces ``path`` on a clean exit.

    On any error the temporary file is removed and ``path`` stays as it was. Missing parent folders are created.

    Raises:
        ValueError: ``path`` is a folder, or a device.
        OSError: the disk is full, which then names ``path``, or the folder cannot be written.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"expected a file to write, got the folder or device {str(path)!r}: choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same suffix, for writers choose the format by it; and short, for a name has at most 255 bytes.
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in NO_SPACE:
            error.filename = str(path)  # a write that fails names no file, or a temporary one
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a program that was killed while it wrote into a folder."""
    for path in folder.iterdir():
        if re.fullmatch(r"\.[0-9a-f]{16}(\.\w+)?", path.name):
            path.unlink(missing_ok=True)


def hidden_beside(path: Path, end: str) -> Path:
    """Return a hidden path, the same for the same path: what a killed run left there is written over."""
    return path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}{end}")


@contextmanager
def reserved(path: Path) -> Iterator[None]:
    """Keep other runs from writing ``path`` and what belongs to it; ends with this process, however that ends.

    Missing parent folders are created. Where the system knows no locks, nobody is kept away.

    Raises:
        ValueError: another run has reserved it.
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = hidden_beside(path, "-lock")
    try:
        file = None if fcntl is None else _open_locked(lock, path)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        yield
    finally:
        if file is not None:
            with file, suppress(OSError):
                lock.unlink()


def _open_locked(lock: Path, path: Path) -> IO[bytes]:
    while True:
        file = lock.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise ValueError(
                f"expected a target that no other run is writing, got {str(path)!r}: wait for the end of the other, "
                "or choose another name"
            ) from error
        except OSError:  # a file system without locks
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(lock.stat(), os.fstat(file.fileno())):
                return file
        file.close()  # whoever had it has removed it meanwhile


def flush_to_disk(path: Path) -> None:
    """Wait until the file is on the disk: a power cut shortly after a rename may leave an empty one otherwise."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def leave_disk_errors_to_the_main_thread(failure: threading.ExceptHookArgs) -> None:
    """Say nothing of a full disk in TensorBoard's writer thread, which raises the error again in the main thread."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)
