"""Files written whole or not at all: a full disk or a Ctrl-C never leaves half a file behind."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a hidden temporary path beside ``path``; what is written there replaces ``path`` on a clean exit.

    On any error the temporary file is removed and ``path`` stays as it was. Missing parent folders are created.

    Raises:
        ValueError: ``path`` is a folder, or a device.
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


__all__ = ["flush_to_disk", "remove_leftovers", "written_whole"]
