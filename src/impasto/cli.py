"""The command ``impasto``: starts the two wings, and turns errors into one line and an exit status.

Exit statuses: 0 done, 1 some of several pictures failed, 2 bad input, 130 interrupted. Nothing heavy is imported before
a subcommand needs it.
"""

import argparse
import difflib
import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import impasto
from impasto.commands import features, optimize

if TYPE_CHECKING:
    from impasto.painting.outputs import Job
    from impasto.painting.stylizer import Stylizer

COMMANDS = ("train", "stylize", "optimize", "features")
_STYLIZE_OPTIONS = ("--model", "--output", "--quality", "--device", "--help")
_MODULES = {"optimize": optimize, "features": features}
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def main(argv: list[str] | None = None) -> int:
    """Run the command with these words, or those of the command line, and return its exit status."""
    words = sys.argv[1:] if argv is None else argv
    try:
        return _run(words)
    except KeyboardInterrupt:
        return _fail("interrupted; files already written are whole", status=130)
    except (ValueError, TypeError, OSError) as error:
        return _fail(f"error: {_one_line(error)}", status=2)


def _run(words: Sequence[str]) -> int:
    if not words:
        raise ValueError(f"expected a command ({', '.join(COMMANDS)}), got none: see impasto --help")
    command, *rest = words
    if command == "train":
        from impasto.learning.command import main as train

        return train(rest)
    if command in _MODULES:
        _check_options(rest, (*_MODULES[command].OPTIONS, "--help"))
        run = optimize.run if command == "optimize" else features.run
        return run(_parser().parse_args(words))
    if command != "stylize" and not command.startswith("-"):
        raise ValueError(f"expected a command ({', '.join(COMMANDS)}), got {command!r}: {_advice(command, COMMANDS)}")
    _check_options(rest, _STYLIZE_OPTIONS)
    return _stylize(_parser().parse_args(words))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave the printing to main."""
        raise ValueError(f"{message}: see {self.prog} --help")


def _parser() -> _Parser:
    parser = _Parser(prog="impasto", description="Train a painting style, then paint any photo in one pass.")
    parser.add_argument("--version", action="version", version=f"impasto {impasto.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    # Only for the list in --help: its words never come here.
    commands.add_parser("train", add_help=False, help="train a style, for example: impasto train style=weeping_woman")
    stylize = commands.add_parser(
        "stylize",
        help="paint photos, for example: impasto stylize --model runs/weeping_woman photo.jpg",
        description="Paint photos in a trained style; each result has the size of its photo.",
        allow_abbrev=False,
    )
    _add_stylize_options(stylize)
    for module in _MODULES.values():
        module.add_parser(commands)
    return parser


def _add_stylize_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="picture, folder, or quoted pattern such as '*.jpg'")
    parser.add_argument("--model", required=True, help="style file, checkpoint (.ckpt) or run folder", metavar="PATH")
    parser.add_argument("--output", metavar="PATH", help="file (for one photo) or folder; default: the folder painted")
    parser.add_argument(
        "--quality", type=_quality, default=95, metavar="1..100", help="of JPEG, WebP and AVIF files; default: 95"
    )
    parser.add_argument(
        "--device", default="auto", metavar="{auto,cpu,cuda,mps}", help="where to compute; default: auto"
    )


def _quality(word: str) -> int:
    if not (word.isdecimal() and 1 <= int(word) <= 100):
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 to 100, got {word!r}")
    return int(word)


def _check_options(words: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError that names the closest option for a misspelt one."""
    for word in words:
        if word == "--":
            return
        option = word.split("=")[0]
        if option.startswith("--") and option not in known:
            raise ValueError(f"expected an option ({', '.join(known)}), got {option!r}: {_advice(option, known)}")


def _stylize(arguments: argparse.Namespace) -> int:
    from impasto.painting.outputs import plan_jobs
    from impasto.painting.stylizer import Stylizer
    from impasto.style_file import load_style

    style = load_style(Path(arguments.model))
    jobs = plan_jobs(arguments.photos, output=arguments.output, style_name=style.name)
    stylizer = Stylizer(style, device=arguments.device)
    if len(jobs) > 1:
        return _paint_several(stylizer, jobs, quality=arguments.quality)
    _paint(stylizer, jobs[0], quality=arguments.quality)
    print(jobs[0].target)
    return 0


def _paint_several(stylizer: "Stylizer", jobs: Sequence["Job"], *, quality: int) -> int:
    """Paint what can be painted; a picture that cannot is named and passed over."""
    from tqdm import tqdm

    failed = 0
    for job in tqdm(jobs, unit="picture", disable=None):  # None: no bar where nobody looks
        try:
            _paint(stylizer, job, quality=quality)
            tqdm.write(str(job.target))
        except (ValueError, FileNotFoundError) as error:
            failed += 1
            tqdm.write(f"error: {_one_line(error)}", file=sys.stderr)
    if failed:
        return _fail(f"error: {failed} of {len(jobs)} pictures could not be painted; the others are done", status=1)
    return 0


def _paint(stylizer: "Stylizer", job: "Job", *, quality: int) -> None:
    from impasto.images import read_picture, write_image

    picture = read_picture(job.source)
    try:
        painted = stylizer(picture.image)
    except ValueError as error:
        raise ValueError(f"{error} ({str(job.source)!r})") from error
    write_image(job.target, painted, alpha=picture.alpha, quality=quality)


def _advice(word: str, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {matches[0]!r}?" if matches else "see impasto --help"


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return f"no space left to write ({error.strerror}): free some and run again; no half-written file is left"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename!r}" if error.filename else error.strerror
    return " ".join(str(error).splitlines())


def _fail(line: str, *, status: int) -> int:
    print(line, file=sys.stderr)
    return status


__all__ = ["main"]
