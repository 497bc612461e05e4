"""A folder of photos to train on: which files are meant, which of them cannot be read, and the list of these.

Training and ``impasto check`` share this room, so that both name the same files for the same reasons.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from impasto.files import written_whole
from impasto.images import decode_photo, find_images

CONTACT_SHEET = "contact_sheet.png"
"""Name of the picture of a run folder."""

CONFIG = "config.yaml"
"""Name of the file of a run folder with every option."""

UNREADABLE = (ValueError, OSError)
"""What reading a photo raises where that photo is to be passed over."""


class PhotoError(ValueError):
    """A source of photos that cannot be trained on."""

    def __init__(self, message: str) -> None:
        # Out of a loader worker an error comes with its traceback before its own words.
        super().__init__(message.strip().rpartition(f"{__name__}.{PhotoError.__name__}: ")[2])


def find_photos(folder: Path) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted, but for the contact sheets of trainings.

    Raises:
        PhotoError: it is a file, or there is no image.
        FileNotFoundError: there is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise PhotoError(f"expected a folder of photos, got the file {str(folder)!r}: name the folder it is in")
    # A run within the folder would else train on its own sheet, and no longer find the photos that it began with.
    photos = [path for path in find_images(folder) if path.name != CONTACT_SHEET or not path.with_name(CONFIG).exists()]
    if not photos:
        raise PhotoError(f"expected photos in {str(folder)!r}, found no image file: name another folder")
    return photos


def find_damage(photo: Path) -> str | None:
    """Return why a photo cannot be read, or None for a sound one.

    It is decoded as in training, to the last byte, but to the fewest pixels: that changes the time, not the answer.
    """
    try:
        decode_photo(photo, at_least=1)
    except UNREADABLE as error:
        return str(error)
    return None


def counted(number: int, noun: str) -> str:
    """Return how many there are, such as ``1,234 photos``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def to_line(name: str, reason: str) -> str:
    """Return one line of the list: the name within the folder, a tab, the reason.

    Names keep their bytes, also where these are no UTF-8; only control characters are spelt out as Python does.
    """
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: repr(match[0])[1:-1], name) + f"\t{reason}"


def to_bytes(lines: str) -> bytes:
    """Return text with names of files in it as the bytes that those names have on disk."""
    return lines.encode("utf-8", errors="surrogateescape")


def write_list(path: Path, reasons: Mapping[str, str]) -> None:
    """Write the list of the photos that cannot be read, by name, sorted as ``find_photos`` does."""
    with written_whole(path) as temporary:
        names = sorted(reasons, key=Path)
        temporary.write_bytes(to_bytes("".join(to_line(name, reasons[name]) + "\n" for name in names)))
