"""Files that ``torch.save`` wrote, read without executing anything: plain values and plain tensors, and not too many.

They come from strangers: a file of a few KB must not fill the memory, nor keep whoever prints what is in it busy.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

LARGEST = 8 * 2**30
"""Bytes that a file may have: a checkpoint of the widest network takes half of it."""
_MOST_VALUES = 100_000
_DEEPEST = 20


def read_torch_file(path: Path, *, error: type[ValueError], advice: str) -> object:
    """Return what a file holds, on the CPU; raises ``error``, its message ending with the advice, for no sound file.

    What is small in the file but large when it is written out, such as lists that hold each other, is not sound.

    Raises:
        PermissionError, FileNotFoundError: the file cannot be read.
    """
    refused = error(
        "expected a whole file of plain values and tensors, got a damaged one, another kind, or one that could run "
        f"code: {str(path)!r} was not used; {advice}"
    )
    try:
        _check_sizes(path)
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (PermissionError, FileNotFoundError):
        raise
    except Exception as failure:  # Damaged bytes bring the readers to errors of many types.
        raise refused from failure
    if not _is_plain(content):
        raise refused
    return content


def _check_sizes(path: Path) -> None:
    """Raise BadZipFile, before anything is read, unless the parts fill no more than the file does and are whole."""
    if path.stat().st_size > LARGEST:
        raise zipfile.BadZipFile("too large")
    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":
            return  # files of before 2020: each tensor is as long as what is read of it
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise zipfile.BadZipFile("packed, which torch.save does not do")
        if sum(part.file_size for part in parts) > path.stat().st_size:
            raise zipfile.BadZipFile("parts that share bytes")
        if archive.testzip() is not None:  # compares the checksums
            raise zipfile.BadZipFile("damaged")


def _is_plain(content: object) -> bool:
    """Return whether all values, each counted wherever it appears, are few, not deep, and tensors ordinary ones."""
    left: list[tuple[object, int]] = [(content, 0)]
    for _ in range(_MOST_VALUES):
        if not left:
            return True
        value, depth = left.pop()
        if isinstance(value, Tensor) and not _is_ordinary(value):
            return False
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            if depth == _DEEPEST:
                return False
            left += ((each, depth + 1) for each in value)
            left += ((each, depth + 1) for each in (value.values() if isinstance(value, Mapping) else ()))
    return False


def _is_ordinary(tensor: Tensor) -> bool:
    """Return whether a tensor has its values in memory, one by one, as real numbers."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_complex()
    )
