"""Downloads COCO's photos to train with: `python scripts/download_coco.py [NAME ...] --to DIR`.

Then `python train.py data=coco data.root=DIR`. Interrupted anywhere, the same command goes on from there.
Exit statuses: 0 done, 2 refused or failed, 130 interrupted.
"""

import argparse
import hashlib
import http.client
import os
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from impasto.commands.words import file_path
from impasto.files import NO_SPACE
from impasto.learning.config import did_you_mean

# Not https: the bucket's name has dots, which Amazon's certificate does not cover. The MD5 sums guard the content.
BASE_URL = "http://images.cocodataset.org"
LICENCE = (
    "COCO's annotations are under CC BY 4.0. Its images are not COCO's own: they belong to their authors, and may be "
    "used under Flickr's terms. See https://cocodataset.org/#termsofuse"
)
CHUNK = 2**18  # bytes
TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class Archive:
    """One of COCO's zips: where it is below the server's address, and what is in it."""

    path: str
    md5: str
    folder: str  # what it unpacks to
    unpacked: int  # bytes on disk, rounded up; the zip itself tells exactly


# COCO publishes no checksums; these are the ones that independent projects agree on.
ARCHIVES: Mapping[str, Archive] = {
    "train2017": Archive("zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", "train2017", 19_800_000_000),
    "val2017": Archive("zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", "val2017", 840_000_000),
    "train2014": Archive("zips/train2014.zip", "0da8c0bd3d6becc4dcb32757491aca88", "train2014", 13_900_000_000),
    "annotations2017": Archive(
        "annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c", "annotations", 850_000_000
    ),
}
DEFAULT_NAME = "val2017"  # 5,000 photos are enough for a good style, at a twentieth of train2017's size


@dataclass(frozen=True)
class Job:
    """One zip to bring from `url` and to unpack below the folder `to`."""

    name: str
    archive: Archive
    url: str
    to: Path

    @property
    def zip(self) -> Path:
        """The finished zip."""
        return self.to / Path(self.archive.path).name

    @property
    def part(self) -> Path:
        """What has come of the zip so far."""
        return self.zip.with_name(f"{self.zip.name}.part")

    @property
    def etag(self) -> Path:
        """Holds the server's name for the version that `part` is a piece of."""
        return self.zip.with_name(f"{self.zip.name}.part.etag")

    @property
    def mark(self) -> Path:
        """Is there once everything is unpacked; inside the folder, for who deletes the photos wants them anew."""
        return self.to / self.archive.folder / ".complete"


def main(arguments: Sequence[str] | None = None, *, archives: Mapping[str, Archive] = ARCHIVES) -> int:
    """Exit status."""
    try:
        _run(arguments, archives)
    except KeyboardInterrupt:
        return _fail("interrupted: the same command goes on from here", status=130)
    except (ValueError, OSError) as error:
        return _fail(f"error: {_one_line(error)}", status=2)
    return 0


def _run(arguments: Sequence[str] | None, archives: Mapping[str, Archive]) -> None:
    options = _parser(archives).parse_args(arguments)
    jobs = _plan(options.names or [DEFAULT_NAME], archives, base_url=options.base_url, to=options.to)
    print(LICENCE)
    sizes = {job: _ask_size(job) for job in jobs if not job.zip.exists() and not job.mark.exists()}
    announce(sizes, to=options.to)
    options.to.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        if job in sizes:
            download(job, size=sizes[job])
        elif job.zip.exists():
            check_md5(job.zip, job)
        else:
            print(f"{job.name}: already unpacked in {str(job.mark.parent)!r}")
            continue
        unpack(job)
        if options.remove_zip:
            job.zip.unlink()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave the printing to main."""
        raise ValueError(f"{message}: see {self.prog} --help")


def _parser(archives: Mapping[str, Archive]) -> argparse.ArgumentParser:
    parser = _Parser(description="Download COCO's photos to train with.", epilog=LICENCE, allow_abbrev=False)
    help_names = f"one or several of {', '.join(archives)}; default: {DEFAULT_NAME}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=help_names)
    parser.add_argument("--to", type=file_path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--base-url", default=BASE_URL, metavar="URL", help=f"a mirror; default: {BASE_URL}")
    parser.add_argument("--remove-zip", action="store_true", help="remove each zip once it is unpacked")
    return parser


def _plan(names: Sequence[str], archives: Mapping[str, Archive], *, base_url: str, to: Path) -> list[Job]:
    if not re.match("https?://", base_url):
        raise ValueError(f"expected --base-url to start with http:// or https://, got {base_url!r}")
    for name in names:
        if name not in archives:
            raise ValueError(_unknown_name(name, archives))
    if to.exists() and not to.is_dir():
        raise ValueError(f"expected a folder for --to, got the file {str(to)!r}: choose another name")
    base = base_url.rstrip("/")
    return [Job(name, archives[name], f"{base}/{archives[name].path}", to) for name in dict.fromkeys(names)]


def _unknown_name(name: str, archives: Mapping[str, Archive]) -> str:
    return f"expected a part of COCO, got {name!r}; {did_you_mean(name, archives)}There are: {', '.join(archives)}"


def announce(sizes: Mapping[Job, int], *, to: Path) -> None:
    """Print how much will be downloaded and written; `sizes` are those of the whole zips, in bytes.

    Raises:
        OSError: the disk has too little room for all of it.
    """
    needed = 0
    for job, size in sizes.items():
        left = max(size - _size(job.part), 0)
        needed += left + job.archive.unpacked
        print(f"{job.name}: {_text(left)} of {_text(size)} to download, {_text(job.archive.unpacked)} once unpacked")
    if needed:
        print(f"together {_text(needed)} of disk, free {_text(_free(to))}")
    _check_free(needed, to)


def _check_free(needed: int, folder: Path) -> None:
    free = _free(folder)
    if needed > free:
        raise OSError(
            f"expected {_text(needed)} free on the disk of {str(folder)!r}, found {_text(free)}: free some, or choose "
            "a folder on another disk with --to"
        )


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _ask_size(job: Job) -> int:
    with _open(job, method="HEAD") as response:
        length = response.headers["Content-Length"]
    if length is None:
        raise ValueError(f"expected the size of {job.url}, the server does not tell it: choose another --base-url")
    return int(length)


def _open(job: Job, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
    """Return the server's answer.

    Raises:
        HTTPError: 416, the range asked for is not in the file.
        OSError: any other refusal, or no connection.
    """
    by_hand = f"or put the zip at {str(job.zip)!r} by hand, and run again"
    try:
        response: http.client.HTTPResponse = urlopen(
            Request(job.url, method=method, headers=dict(headers or {})), timeout=TIMEOUT
        )
    except HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        message = f"expected a file at {job.url}, the server answered {error.code} {error.reason}"
        raise OSError(f"{message}: choose another --base-url, {by_hand}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = str(error.reason if isinstance(error, URLError) else error).strip()
        raise OSError(f"could not reach {job.url} ({reason}): check the connection, {by_hand}") from error
    return response


def download(job: Job, *, size: int) -> None:
    """Bring the zip of `size` bytes, going on where an earlier run stopped, and give it its name once it is checked.

    Raises:
        OSError: no connection, or it broke.
        ValueError: the zip is damaged.
    """
    if _size(job.part) != size:
        response, start = _open_rest(job, size=size)
        with response:
            _receive(response, job, start=start, size=size)
    check_md5(job.part, job)
    os.replace(job.part, job.zip)
    job.etag.unlink(missing_ok=True)


def _open_rest(job: Job, *, size: int) -> tuple[http.client.HTTPResponse, int]:
    """Return the server's answer and the byte it starts with: 0 where what is here cannot be continued."""
    have = _size(job.part)
    if have > 0:
        etag = job.etag.read_text() if job.etag.exists() else None
        # If-Range: where the file has changed since, all of it comes instead of the rest.
        headers = {"Range": f"bytes={have}-"} | ({"If-Range": etag} if etag is not None else {})
        try:
            response = _open(job, headers=headers)
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                return response, 0
            # Some servers ignore If-Range, or send another range than the one asked for.
            span = f"bytes {have}-{size - 1}/{size}"
            if response.headers["Content-Range"] == span and etag in (None, _etag(response)):
                return response, have
            response.close()
        except HTTPError as error:  # 416: more is here than the server has
            error.close()
    return _open(job), 0


def _receive(response: http.client.HTTPResponse, job: Job, *, start: int, size: int) -> None:
    with job.part.open("ab") as file, _bar(f"{job.name}: downloading", size, start=start) as bar:
        file.truncate(start)
        if start == 0:
            # Only now: beside the bytes of an older version the new tag would be a lie.
            job.etag.unlink(missing_ok=True)
            if (etag := _etag(response)) is not None:
                job.etag.write_text(etag)
        for chunk in _chunks(response):
            file.write(chunk)
            bar.update(len(chunk))
    if _size(job.part) < size:
        got = f"{_text(_size(job.part))} of {_text(size)}"
        raise OSError(f"the connection to {job.url} broke after {got}: the same command goes on from here")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield what comes until the end or until the connection breaks: the number of bytes tells which."""
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException):
        return


def _etag(response: http.client.HTTPResponse) -> str | None:
    etag = response.headers["ETag"]
    # A weak one promises the same meaning, not the same bytes.
    return None if etag is None or etag.startswith("W/") else str(etag)


def check_md5(path: Path, job: Job) -> None:
    """Read the whole file.

    Raises:
        ValueError: it is not the one that `job` is about; it has been removed.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, _bar(f"{job.name}: checking", _size(path)) as bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != job.archive.md5:
        expected = f"expected the MD5 sum {job.archive.md5}, got {digest.hexdigest()}"
        _refuse(path, job, reason=expected)


def _refuse(path: Path, job: Job, *, reason: str) -> NoReturn:
    path.unlink()
    job.etag.unlink(missing_ok=True)
    raise ValueError(f"{str(path)!r} was damaged ({reason}) and has been removed: run again to download it anew")


def unpack(job: Job) -> None:
    """Unpack what is not there yet; each file is checked by its CRC and appears whole or not at all.

    Raises:
        ValueError: the zip is damaged, and has been removed; or it would write outside the folder.
        OSError: the disk has too little room.
    """
    try:
        with zipfile.ZipFile(job.zip) as archive:
            members = archive.infolist()
            _check_names(members, job)
            missing = [member for member in members if not _is_there(member, job.to / member.filename)]
            _check_free(sum(member.file_size for member in missing), job.to)
            for member in tqdm(missing, desc=f"{job.name}: unpacking", unit="file", disable=None):
                _extract(archive, member, job.to / member.filename)
    except (zipfile.BadZipFile, zlib.error) as error:
        _refuse(job.zip, job, reason=str(error))
    job.mark.parent.mkdir(exist_ok=True)
    job.mark.touch()
    print(f"{job.name}: unpacked in {str(job.mark.parent)!r}")


def _check_names(members: Sequence[zipfile.ZipInfo], job: Job) -> None:
    for member in members:
        parts = member.filename.split("/")
        if parts[0] != job.archive.folder or ".." in parts:
            raise ValueError(
                f"expected only files below {job.archive.folder!r} in {str(job.zip)!r}, got {member.filename!r}: "
                "nothing was unpacked; remove this zip"
            )


def _is_there(member: zipfile.ZipInfo, path: Path) -> bool:
    return path.exists() and (member.is_dir() or path.stat().st_size == member.file_size)


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, so that a training that starts meanwhile does not take it for a photo.
    temporary = target.with_name(f".{target.name}.part")
    try:
        with archive.open(member) as source, temporary.open("wb") as file:
            shutil.copyfileobj(source, file)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _bar(description: str, size: int, *, start: int = 0) -> tqdm:
    # disable=None: no bar where nobody looks
    return tqdm(desc=description, total=size, initial=start, unit="B", unit_scale=True, disable=None)


def _size(path: Path) -> int:
    """Bytes; 0 for a missing file."""
    return path.stat().st_size if path.exists() else 0


def _text(size: int) -> str:
    return f"{tqdm.format_sizeof(size)}B"


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return f"no space left to write ({error.strerror}): free some, the same command goes on from here"
    return " ".join(str(error).splitlines())


def _fail(line: str, *, status: int) -> int:
    print(line, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
