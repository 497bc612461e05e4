"""Which pictures are painted, and to which file each goes."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from impasto.images import IMAGE_SUFFIXES, WRITABLE_SUFFIXES, check_writable, find_images

DEFAULT_FOLDER = "painted"


@dataclass(frozen=True)
class Job:
    """One picture to paint: read ``source``, write ``target``."""

    source: Path
    target: Path


def plan_jobs(inputs: Sequence[str], *, output: str | None, style_name: str) -> list[Job]:
    """Return what to paint and where to: no source is overwritten, no two pictures share a target.

    Each input is a picture, a folder (searched with its subfolders) or a glob pattern. ``output`` is a file, for one
    picture only, or a folder; without it the folder ``painted``. In a folder the name is ``<photo>_<style>`` with the
    photo's suffix, or .png where that format cannot be written; a file of that name from a former run is replaced.

    Raises:
        FileNotFoundError: a folder holds no images, or a pattern fits none.
        ValueError: the output is a file for several pictures, one of the sources, or of an unknown format.
    """
    folder = DEFAULT_FOLDER if output is None else output
    sources = _find_sources(inputs, output=Path(folder))
    if output is None or _is_folder(output):
        return _plan_folder(sources, folder=Path(folder), style_name=style_name)
    return _plan_file(sources, target=Path(output))


def _find_sources(inputs: Sequence[str], *, output: Path) -> list[Path]:
    found: dict[Path, Path] = {}  # by real path: a picture named twice is painted once
    for text in inputs:
        for path in _expand(text, output=output):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _expand(text: str, *, output: Path) -> list[Path]:
    """Return the pictures an input stands for; a missing file stands for itself, and is missed when it is read."""
    path = Path(text)
    if path.is_dir():
        return _in_folder(path, output=output)
    if path.exists() or not glob.has_magic(text):
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
    images = [match for match in matches if match.suffix.lower() in IMAGE_SUFFIXES and match.is_file()]
    if not images:
        raise FileNotFoundError(f"expected a pattern that fits images, found none for {text!r}: check the path")
    return images


def _in_folder(folder: Path, *, output: Path) -> list[Path]:
    images = find_images(folder)
    if folder.resolve() in output.resolve().parents:
        # Painted pictures of a former run are no photos.
        images = [image for image in images if output.resolve() not in image.resolve().parents]
    if not images:
        raise FileNotFoundError(f"expected images in the folder {str(folder)!r}, found none: check the path")
    return images


def _is_folder(output: str) -> bool:
    path = Path(output)
    if path.is_file():
        return False
    return path.is_dir() or not path.suffix or output.endswith(("/", os.sep))


def _plan_file(sources: Sequence[Path], *, target: Path) -> list[Job]:
    if len(sources) > 1:
        raise ValueError(
            f"expected a folder as output of {len(sources)} pictures, got the file {str(target)!r}: "
            "name a folder, with a slash at the end if it has a dot in its name"
        )
    check_writable(target)
    if target.resolve() == sources[0].resolve():
        raise ValueError(f"expected an output other than the picture itself, got {str(target)!r}: choose another name")
    return [Job(sources[0], target)]


def _plan_folder(sources: Sequence[Path], *, folder: Path, style_name: str) -> list[Job]:
    taken = {_key(source) for source in sources}
    jobs = []
    for source in sources:
        target = _free_target(folder / f"{source.stem}_{style_name}{_target_suffix(source)}", taken)
        taken.add(_key(target))
        jobs.append(Job(source, target))
    return jobs


def _target_suffix(source: Path) -> str:
    return source.suffix if source.suffix.lower() in WRITABLE_SUFFIXES else ".png"


def _free_target(target: Path, taken: set[str]) -> Path:
    numbered = (target.with_name(f"{target.stem}-{number}{target.suffix}") for number in count(2))
    return target if _key(target) not in taken else next(path for path in numbered if _key(path) not in taken)


def _key(path: Path) -> str:
    # Some file systems take a.png and A.png for one file.
    return str(path.resolve()).casefold()


__all__ = ["DEFAULT_FOLDER", "Job", "plan_jobs"]
