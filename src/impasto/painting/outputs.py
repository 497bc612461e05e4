"""Which pictures are painted, to which file each goes, and which partial clips may be continued."""

import glob
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, count, takewhile
from pathlib import Path

from impasto.files import check_place
from impasto.images import (
    ANIMATED_SUFFIXES,
    IMAGE_SUFFIXES,
    WRITABLE_SUFFIXES,
    check_writable,
    find_images,
    is_animated,
)
from impasto.painting.painter import Look, Painter

DEFAULT_FOLDER = "painted"
WRITABLE_CLIPS = frozenset({".m4v", ".mkv", ".mov", ".mp4", ".webm"})
"""Endings, in lower case, of the video files that are written."""
# Without .ts, which most often is a program.
CLIP_SUFFIXES = WRITABLE_CLIPS | {".3gp", ".avi", ".flv", ".m2ts", ".mpeg", ".mpg", ".mts", ".ogv", ".wmv"}
"""Endings, in lower case, of the files that count as video."""
_PAINTED_SUFFIXES = IMAGE_SUFFIXES | CLIP_SUFFIXES
_MARK = "impasto "
_BEGINNINGS = (b"GIF8", b"RIFF", b"\x1aE\xdf\xa3")  # of a GIF, a WebP, and Matroska or WebM; of MP4 and MOV see below
_SLASH = "name a folder, with a slash at the end if it has a dot in its name"


@dataclass(frozen=True)
class Job:
    """One picture or clip to paint: read ``source``, write ``target``."""

    source: Path
    target: Path
    is_clip: bool = False


@dataclass(frozen=True)
class ClipOptions:
    """How clips are written: the command's options of these names."""

    quality: int = 95
    strip: bool = False
    resume: bool = False
    smooth: bool = False


def plan_jobs(inputs: Sequence[str], *, output: str | None, style_name: str) -> list[Job]:
    """Return what to paint and where to: no source is overwritten, no two pictures share a target.

    Each input is a picture, a video, a folder (searched with its subfolders) or a glob pattern; folders and patterns
    leave out what former runs painted. ``output`` is a file, for one picture only, or a folder; without it the folder
    ``painted``. In a folder the name is ``<photo>_<style>`` with the photo's suffix, or .png (of a video .mp4) where
    that format cannot be written, and subfolders are as among the photos; a file of that name from a former run is
    replaced. An animated GIF or WebP is a clip, unless ``output`` is a file of another kind.

    Raises:
        FileNotFoundError: a folder holds no images, or a pattern fits none.
        ValueError: an empty name, or the output is a file for several pictures, one of the sources, or of an unknown
            format.
    """
    if "" in (*inputs, output):
        raise ValueError("expected the name of a file or folder, got an empty word: a dot is the current folder")
    sources = _find_sources(inputs, output=output, style_name=style_name)
    if output is None or _is_folder(output):
        return _plan_folder(sources, folder=_folder_of(output), style_name=style_name)
    return _plan_file(list(sources), target=Path(output))


def find_folder(output: str | None) -> Path:
    """Return the folder for pictures that are named elsewhere.

    Raises:
        ValueError: the output is a file, or a folder that cannot be written.
    """
    if output is not None and not _is_folder(output):
        raise ValueError(f"expected a folder as output, got the file {output!r}: {_SLASH}")
    check_place(_folder_of(output))
    return _folder_of(output)


def check_places(jobs: Sequence[Job]) -> None:
    """Raise ValueError where a result's folder cannot be written: known before the painting, not after it."""
    for folder in {job.target.parent for job in jobs}:
        check_place(folder)


def partial_path(target: Path) -> Path:
    """Return where the painted part of a clip is until the whole is done."""
    return target.with_name(f"{target.stem}.partial{target.suffix}")


def mark_of(painter: Painter, job: Job, look: Look, options: ClipOptions) -> str:
    """Return what a partial clip must say of its making to be continued."""
    made = hashlib.sha256(painter.weights())
    size = os.path.getsize(job.source) if os.path.isfile(job.source) else 0
    made.update(repr((replace(look, memory=None), replace(options, resume=False), size)).encode())
    return f"{_MARK}{made.hexdigest()[:16]}"


def is_our_part(found: str | None, mark: str, path: Path, *, resume: bool) -> bool:
    """Return whether the partial clip at ``path`` may be continued: it says ``mark``, or is none, which says None.

    Raises:
        ValueError: it may not, and is to be continued with ``resume``; or it is no partial clip but a file of others.
    """
    if found == mark or (found is None and _begins_like_a_clip(path)):
        return True
    if resume and found is not None:
        raise ValueError(
            f"expected a partial clip of the same source, style and options, got another in {str(path)!r}: "
            "remove it, or run without --resume"
        )
    if found is None or not found.startswith(_MARK):
        raise ValueError(
            f"expected to write the part that is painted to {str(path)!r}, found another program's file there: "
            "rename it, or choose another output"
        )
    return False


def _begins_like_a_clip(path: Path) -> bool:
    """Return whether there is nothing at ``path``, or what a run that was killed may have left there."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        begin = file.read(8)
        return begin.startswith(_BEGINNINGS) or begin[4:] == b"ftyp" or not begin
    return True


def note_part(error: BaseException, path: Path, *, frames: int, is_ours: bool) -> None:
    """Note with an error what is in the partial clip, if any: of this source, style and options, or of others."""
    if frames and is_ours:
        error.add_note(f"the {frames} frames done are in {str(path)!r}, and --resume continues")
    elif frames:
        error.add_note(
            f"{str(path)!r} still has the {frames} frames that a run with another source, style or options painted"
        )


def _find_sources(inputs: Sequence[str], *, output: str | None, style_name: str) -> dict[Path, Path]:
    """Return every picture with the subfolder in which it was found, below the folder that was named."""
    found: dict[Path, tuple[Path, Path]] = {}  # by real path: a picture named twice is painted once
    for text in inputs:
        root, images = _expand(text, output=output, style_name=style_name)
        for path in images:
            subfolder = path.parent.relative_to(root)
            # What leads up, in a pattern, would lead out of the output.
            found.setdefault(_real(path), (path, Path() if ".." in subfolder.parts else subfolder))
    return dict(found.values())


def _expand(text: str, *, output: str | None, style_name: str) -> tuple[Path, list[Path]]:
    """Return the pictures an input stands for, and the folder to search; a missing file is missed when it is read."""
    path = Path(text)
    if os.path.isdir(path):  # Path.is_dir() raises where a folder may not be entered
        root, images = path, find_images(path, _PAINTED_SUFFIXES)
        expected = f"expected images in the folder {str(path)!r}, found none"
    elif os.path.exists(path) or not glob.has_magic(text):
        return path.parent, [path]
    else:
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        images = [match for match in matches if match.suffix.lower() in _PAINTED_SUFFIXES and not os.path.isdir(match)]
        expected = f"expected a pattern that fits images, found none for {text!r}"
    images = _without_painted(images, root, output=output, style_name=style_name)
    if not images:
        raise FileNotFoundError(f"{expected}: check the path")
    return root, images


def _without_painted(images: list[Path], root: Path, *, output: str | None, style_name: str) -> list[Path]:
    """Return the images under the root that no former run has painted."""
    folder = _real(_folder_of(output))
    if _real(root) in folder.parents:
        return [image for image in images if folder not in _real(image).parents]
    if _real(root) == folder and output is not None:
        # Among the photos only the name tells them. Who names the folder painted wants them painted once more.
        name = re.compile(rf"_{re.escape(style_name)}(-\d+)?(\.partial)?\Z")
        return [image for image in images if name.search(image.stem) is None]
    return images


def _folder_of(output: str | None) -> Path:
    return Path(DEFAULT_FOLDER if output is None else output)


def _is_folder(output: str) -> bool:
    path = Path(output)
    if path.is_file():
        return False
    return path.is_dir() or not path.suffix or output.endswith(("/", os.sep))


def _plan_file(sources: Sequence[Path], *, target: Path) -> list[Job]:
    if len(sources) > 1:
        raise ValueError(
            f"expected a folder as output of {len(sources)} pictures, got the file {str(target)!r}: {_SLASH}"
        )
    try:
        is_clip = _check_kind(sources[0], target)
    except ValueError as error:
        if target.suffix.lower() in _PAINTED_SUFFIXES:
            raise
        raise ValueError(f"{error}, or write {f'{target}/'!r} if it is a folder") from error
    if _real(sources[0]) in map(_real, _written(target, is_clip=is_clip)):
        raise ValueError(f"expected an output other than the picture itself, got {str(target)!r}: choose another name")
    return [Job(sources[0], target, is_clip)]


def _check_kind(source: Path, target: Path) -> bool:
    """Return whether a clip is to be written; raises ValueError for a target of another kind."""
    suffix = target.suffix.lower()
    if source.suffix.lower() in CLIP_SUFFIXES:
        if suffix not in WRITABLE_CLIPS:
            raise ValueError(
                f"expected a video file ending in one of {', '.join(sorted(WRITABLE_CLIPS))}, got {str(target)!r}: "
                "choose another ending, for example .mp4"
            )
        return True
    if suffix in ANIMATED_SUFFIXES and is_animated(source):
        return True
    check_writable(target)
    return False


def _plan_folder(sources: Mapping[Path, Path], *, folder: Path, style_name: str) -> list[Job]:
    taken = {_key(source) for source in sources}
    jobs = []
    for source, subfolder in sources.items():
        suffix, is_clip = _target_kind(source)
        target = _free_target(folder / subfolder / f"{source.stem}_{style_name}{suffix}", taken, is_clip=is_clip)
        taken.update(map(_key, _written(target, is_clip=is_clip)))
        jobs.append(Job(source, target, is_clip))
    return jobs


def _written(target: Path, *, is_clip: bool) -> list[Path]:
    """Return the files that are written for a target."""
    return [target, partial_path(target)] if is_clip else [target]


def _target_kind(source: Path) -> tuple[str, bool]:
    """Return the ending of what is painted from a source, and whether that is a clip."""
    suffix = source.suffix.lower()
    if suffix in CLIP_SUFFIXES:
        return source.suffix if suffix in WRITABLE_CLIPS else ".mp4", True
    is_clip = is_animated(source)
    return source.suffix if is_clip or suffix in WRITABLE_SUFFIXES else ".png", is_clip


def _free_target(target: Path, taken: set[str], *, is_clip: bool) -> Path:
    numbered = (target.with_name(f"{target.stem}-{number}{target.suffix}") for number in count(2))
    return next(
        path for path in chain([target], numbered) if taken.isdisjoint(map(_key, _written(path, is_clip=is_clip)))
    )


def _key(path: Path) -> str:
    # Some file systems take a.png and A.png for one file.
    return str(_real(path)).casefold()


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve() raises an error of its own for a link to itself
