"""Files written whole or not at all, a full disk or a Ctrl-C never leaving half of one; by one program at a time."""

import errno
import hashlib
import os
import re
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})

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
        if error.errno in NO_SPACE or error.filename == str(temporary):
            error.filename = str(path)  # a write that fails names no file, or a temporary one
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Raise ValueError unless files can be written into the folder ``path``, which need not exist; leaves nothing."""
    nearest = next((each for each in (path, *path.parents) if os.path.exists(each)), path)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        raise ValueError(
            f"expected a folder that can be written, got {error.strerror!r} for {str(path)!r}: choose another"
        ) from error


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

    Missing parent folders are created. Where the system or the disk knows no locks, nobody is kept away.

    Raises:
        ValueError: another run has reserved it; says which.
        OSError: the folder cannot be written.
    """

    def refuse(holder: str) -> str:
        return (
            f"expected a target that no other run is writing, got {str(path)!r}, which {holder} is writing: wait "
            "for its end, or choose another name"
        )

    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(hold(hidden_beside(path, "-lock"), refuse=refuse))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                error.filename = str(path)
                raise
        yield


@contextmanager
def hold(lock: Path, *, refuse: Callable[[str], str]) -> Iterator[None]:
    """Hold a lock file, which is removed afterwards; the lock ends with this process, however that ends.

    Raises:
        ValueError: another process holds it; ``refuse`` makes the message of that process and its host.
        OSError: the system or the disk knows no locks, or the folder cannot be written.
    """
    with _open_locked(lock, refuse) as file:
        with suppress(OSError):  # on a full disk it is held all the same
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        try:
            yield
        finally:
            with suppress(OSError):
                if _is_at(lock, file):
                    lock.unlink()


def _open_locked(lock: Path, refuse: Callable[[str], str]) -> IO[bytes]:
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(lock))
    while True:
        file = lock.open("ab+", buffering=0)
        try:
            # Of the process, not of the open file: loader workers that outlive it do not hold it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(lock, file):
                return file
            file.close()  # whoever held it has removed it meanwhile, or moved the folder
        except OSError as error:
            file.seek(0)
            holder = file.read().decode(errors="replace") or "another process"
            file.close()
            if error.errno in _NO_LOCKS:
                lock.unlink(missing_ok=True)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise ValueError(refuse(holder)) from error


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def flush_to_disk(path: Path) -> None:
    """Wait until the file is on the disk: a power cut shortly after a rename may leave an empty one otherwise."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def leave_disk_errors_to_the_main_thread(failure: threading.ExceptHookArgs) -> None:
    """Say nothing of a full disk in TensorBoard's writer thread, which raises the error again in the main thread."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)
