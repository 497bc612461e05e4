"""The command ``impasto``: starts the two wings, and turns errors into one line and an exit status.

Exit statuses: 0 done, 1 some of several pictures failed or are damaged, 2 bad input, 130 interrupted. Nothing heavy is
imported before a subcommand needs it.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import impasto
from impasto.commands import check, export, features, import_model, optimize, stylize
from impasto.commands.words import advice, status_of

COMMANDS: dict[str, Any] = {
    "stylize": stylize,
    "optimize": optimize,
    "features": features,
    "export": export,
    "import": import_model,
    "check": check,
}
"""Modules with SUMMARY, DESCRIPTION, OPTIONS and run(arguments); ``train`` has options of Hydra's."""

_HELP = "see impasto --help"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these words, or those of the command line, and return its exit status."""
    words = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names that are no UTF-8 are printed as their bytes
    return status_of(lambda: _run(words))


def _run(words: Sequence[str]) -> int:
    known = ["train", *COMMANDS]
    if not words:
        raise ValueError(f"expected a command ({', '.join(known)}), got none: see impasto --help")
    command, *rest = map(_expand_home, words)
    if command == "train" and "--version" in rest:  # Hydra would answer with its own
        command = "--version"
    if command == "train":
        from impasto.learning.command import main as train

        return train(rest)
    if command in ("-h", "--help", "--version"):
        _parsers()[""].parse_args([command])  # which ends the program
    if command not in COMMANDS:
        raise ValueError(
            f"expected a command ({', '.join(known)}), got {command!r}: {advice(command, known, otherwise=_HELP)}"
        )
    module = COMMANDS[command]
    if "--" in rest:  # which Python 3.11 cannot have beside options between photos
        end = rest.index("--")
        rest = rest[:end] + [f"./{word}" if word.startswith("-") else word for word in rest[end + 1 :]]
    _check_options(rest, [*(name for name in module.OPTIONS if name.startswith("--")), "--help"])
    return module.run(_parsers()[command].parse_intermixed_args(rest))


def _expand_home(word: str) -> str:
    """Return a word with the home folder for a ``~`` at its start, or behind its option, where shells leave it."""
    if word.startswith("-o~"):
        return "-o" + os.path.expanduser(word[2:])
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return option + equals + os.path.expanduser(value)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave the printing to main."""
        raise ValueError(f"{message}: see {self.prog} --help")


def _parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command, and under no name that of the program."""
    parser = _Parser(prog="impasto", description="Train a painting style, then paint any photo in one pass.")
    parser.add_argument("--version", action="version", version=f"impasto {impasto.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    # Only for the list in --help: its words never come here.
    commands.add_parser("train", add_help=False, help="train a style, for example: impasto train style=weeping_woman")
    for name, module in COMMANDS.items():
        own = commands.add_parser(name, help=module.SUMMARY, description=module.DESCRIPTION, allow_abbrev=False)
        for option, how in module.OPTIONS.items():
            own.add_argument(*(["-o"] if option == "--output" else []), option, **how)
    return {"": parser, **commands.choices}


def _check_options(words: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError that names the closest option for a misspelt one, or says how a file of such a name is given."""
    for word in words:
        if word.startswith("-") and word not in (*known, "-o", "-h") and os.path.exists(word):
            raise ValueError(f"expected an option, got the file {word!r}, whose name begins like one: write './{word}'")
        option = word.split("=")[0]
        if option.startswith("--") and option not in known:
            raise ValueError(
                f"expected an option ({', '.join(known)}), got {option!r}: {advice(option, known, otherwise=_HELP)}"
            )
