"""The command ``impasto`` as a program; ``python -m impasto`` is the same."""

import os
import signal
from collections.abc import Sequence
from typing import NoReturn


def start(words: Sequence[str] | None = None) -> NoReturn:
    """Run the command with these words, or those of the command line, and end the program with its exit status.

    While its parts are imported, and once it is done, Ctrl-C ends the program without a word.
    """
    # Who starts a program in the background asks it not to listen.
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listens:
        signal.signal(signal.SIGINT, _end)
    from impasto.cli import main

    if listens:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    status = main(words)
    if listens:
        signal.signal(signal.SIGINT, _end)
    raise SystemExit(status)


def _end(*_: object) -> NoReturn:
    os._exit(130)


if __name__ == "__main__":
    start()
