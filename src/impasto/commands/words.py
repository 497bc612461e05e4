"""Words in and out: what the options of all subcommands are made of, and errors as one line."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from impasto.files import NO_SPACE

Options = Mapping[str, dict[str, Any]]
"""Keyword arguments of ArgumentParser.add_argument by the name of an option, or of a word that stands by itself."""

_PACKAGES = {
    "onnx": "'impasto[export]'",
    "onnxruntime": "'impasto[export]'",
    "pygame": "'impasto[camera]'",
    "torch": "torch",
}
"""What pip installs, for packages that not everybody has."""


def whole_number(word: str) -> int:
    """Return a number of 1 or more."""
    if not (word.isdecimal() and int(word) >= 1):
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {word!r}")
    return int(word)


def natural_number(word: str) -> int:
    """Return a number of 0 or more, that torch takes as a seed."""
    if not (word.isdecimal() and int(word) < 2**63):
        raise argparse.ArgumentTypeError(f"expected a whole number of 0 or more and below 2^63, got {word!r}")
    return int(word)


def file_path(word: str) -> Path:
    """Return a path, below the home folder for a ``~`` that the shell has left; one of nobody's stays as it is."""
    return Path(os.path.expanduser(word))


def advice(word: str, known: Iterable[str], *, otherwise: str = "check the path") -> str:
    """Return the end of an error about a word that none of the known ones is: the closest of them, if any is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise


def status_of(work: Callable[[], int | None]) -> int:
    """Do the work of a program and return its exit status; bad input, a missing package and Ctrl-C are one line."""
    try:
        return work() or 0
    except KeyboardInterrupt as stop:
        print(f"interrupted; {note(stop) or 'files already written are whole'}", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        line = f"expected the package {error.name}, found none: pip install {_PACKAGES[error.name]}"
    except (ValueError, TypeError, OSError) as error:
        line = one_line(error)
    print(f"error: {line}", file=sys.stderr)
    return 2


def one_line(error: Exception) -> str:
    """Return an error with its notes, and of a full disk what is left and what to do."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        left = note(error) or "no half-written file is left"
        place = f" {str(error.filename)!r}" if error.filename else ""
        return f"no space left to write{place} ({error.strerror}): free some and run again; {left}"
    line = " ".join(str(error).splitlines())
    if isinstance(error, OSError) and error.strerror:
        line = f"{error.strerror}: {error.filename!r}" if error.filename else error.strerror
    return f"{line}; {note(error)}" if note(error) else line


def note(error: BaseException) -> str:
    """Return the notes of an error."""
    return "; ".join(getattr(error, "__notes__", []))
