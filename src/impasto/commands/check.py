"""``impasto check``: which photos of a folder training would pass over. Nothing heavy is imported before it is used."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from impasto.commands.words import Options

SUMMARY = "find the damaged photos of a folder before training, for example: impasto check photos"
DESCRIPTION = """Read every picture of a folder and its subfolders as training does, and print those that cannot be
read: the name within the folder, a tab, and the reason, as training lists them in skipped.txt. The exit status is 0
where all are sound, 1 where some are damaged."""

OPTIONS: Options = {"folder": {"metavar": "DIR", "help": "folder of photos, such as data.root of a training"}}


def run(arguments: argparse.Namespace) -> int:
    """Print the damaged photos and how many there are, and return the exit status."""
    from tqdm import tqdm

    from impasto.photo_folder import counted, find_photos, to_line

    folder = Path(arguments.folder)
    photos, damaged = find_photos(folder), 0
    for photo, reason in _read_all(photos):
        if reason is not None:
            damaged += 1
            tqdm.write(to_line(os.path.relpath(photo, folder), reason))
    sound = "all can be read" if damaged == 0 else f"{damaged:,} cannot be read"
    print(f"{counted(len(photos), 'photo')}, {sound}", file=sys.stderr)
    return 0 if damaged == 0 else 1


def _read_all(photos: Sequence[Path]) -> Iterator[tuple[Path, str | None]]:
    """Yield each photo and why it cannot be read, or None, in their order."""
    import warnings
    from multiprocessing.pool import ThreadPool

    from tqdm import tqdm

    from impasto.photo_folder import find_damage

    # Each reading silences Pillow's warnings for a moment, which in threads works only where all are silenced anyway.
    with warnings.catch_warnings(action="ignore"), ThreadPool(os.cpu_count()) as pool:  # decoding frees Python's lock
        reasons = pool.imap(find_damage, photos, chunksize=8)
        yield from zip(photos, tqdm(reasons, total=len(photos), unit="photo", disable=None), strict=True)
