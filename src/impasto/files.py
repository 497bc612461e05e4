"""Files written whole or not at all: a full disk or a Ctrl-C never leaves half a file behind."""

import errno
import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def flush_to_disk(path: Path) -> None:
    """Wait until the file is on the disk: a power cut shortly after a rename may leave an empty one otherwise."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def leave_disk_errors_to_the_main_thread(failure: threading.ExceptHookArgs) -> None:
    """Say nothing of a full disk in TensorBoard's writer thread, which raises the error again in the main thread."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)
