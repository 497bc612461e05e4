"""What a style says of itself, in style files, checkpoints and ONNX files alike: plain JSON, checked before use."""

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT_VERSION = 1
LARGEST_WIDTH = 256
METADATA_FIELD = "impasto"
"""Where a file keeps the metadata."""


class StyleFileError(ValueError):
    """A file that is no style file, or not a whole and sound one."""


def parse_metadata(path: Path, fields: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the metadata in the fields of a file; raises StyleFileError as check_metadata does."""
    if not fields or METADATA_FIELD not in fields:
        raise foreign(path)
    try:
        metadata = json.loads(fields[METADATA_FIELD])
    except (ValueError, RecursionError) as error:  # a thousand brackets are deep enough for that
        raise foreign(path) from error
    return check_metadata(path, metadata)


def foreign(path: Path) -> StyleFileError:
    """Return the error of a file without metadata."""
    return StyleFileError(
        f"expected a file that impasto has trained, got one without impasto's metadata: {str(path)!r}; "
        "train the style with impasto"
    )


def check_metadata(path: Path, metadata: object) -> dict[str, Any]:
    """Return the metadata if what is needed to use the style is there and sound."""
    if not isinstance(metadata, Mapping):
        raise foreign(path)
    version, width, name = (metadata.get(key) for key in ("format_version", "width", "style"))
    if type(version) is not int or version != FORMAT_VERSION:
        raise StyleFileError(
            f"expected format_version {FORMAT_VERSION}, got {reprlib.repr(version)} in {str(path)!r}: "
            "use the version of impasto that wrote it, or a newer one"
        )
    if type(width) is not int or not 1 <= width <= LARGEST_WIDTH:
        raise StyleFileError(
            f"expected a width of 1 to {LARGEST_WIDTH}, got {reprlib.repr(width)} in {str(path)!r}: "
            "train the style again"
        )
    size = metadata.get("style_size")
    if size is not None and (type(size) is not int or size < 1):
        raise StyleFileError(
            f"expected a style_size of 1 px or more, got {reprlib.repr(size)} in {str(path)!r}: train the style again"
        )
    # It becomes part of file names, and must not lead to another folder.
    if not isinstance(name, str) or not _fits_file_name(name):
        raise StyleFileError(
            f"expected a style name that can be part of a file name, got {reprlib.repr(name)} in "
            f"{str(path)!r}: rename the style"
        )
    return dict(metadata)


def _fits_file_name(name: str) -> bool:
    return name.isprintable() and name.strip(".") != "" and Path(name).name == name and "\\" not in name
