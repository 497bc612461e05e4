"""The COCO downloader, against a small server on this machine."""

import errno
import hashlib
import io
import os
import random
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts import download_coco as coco

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "download_coco.py"
PATH = "/zips/val2017.zip"
TAG = '"first"'


def photo(number: int) -> bytes:
    return random.Random(number).randbytes(200_000)


PHOTOS = {f"val2017/{number:012d}.jpg": photo(number) for number in range(5)}


def make_zip(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


ZIP = make_zip(PHOTOS)


def table(content: bytes, *, unpacked: int = 1_000_000) -> dict[str, coco.Archive]:
    """A table of archives with one entry, whose sum is that of ``content``."""
    return {"val2017": coco.Archive(PATH[1:], hashlib.md5(content).hexdigest(), "val2017", unpacked)}


def nothing() -> None:
    """Do not wait."""


@dataclass
class Mirror:
    """What the server has, how it behaves, and what it was asked."""

    files: dict[str, bytes]
    etag: str | None = TAG
    ranges: bool = True
    if_range: bool = True
    shift: int = 0  # starts a range this much too early
    breaks_after: int | None = None
    before_breaking: Callable[[], None] = nothing
    resets: bool = False  # breaks without a word of farewell
    tells_size: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # method, Range
    answered: list[int] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    mirror: Mirror

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        mirror = self.mirror
        mirror.asked.append((self.command, self.headers["Range"]))
        content = mirror.files.get(self.path)
        if content is None:
            self.start(404, {"Content-Length": "0"})
            return
        start = self.first_byte()
        if start >= len(content):
            self.start(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return
        rest = content[start:]
        size = {"Content-Length": str(len(rest))} if mirror.tells_size else {}
        span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        self.start(206 if start else 200, size | span | ({"ETag": mirror.etag} if mirror.etag else {}))
        if body:
            self.send(rest)

    def first_byte(self) -> int:
        mirror = self.mirror
        changed = mirror.if_range and self.headers["If-Range"] not in (None, mirror.etag)
        if self.headers["Range"] is None or not mirror.ranges or changed:
            return 0
        return int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) - mirror.shift

    def start(self, status: int, headers: dict[str, str]) -> None:
        self.mirror.answered.append(status)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, content: bytes) -> None:
        self.wfile.write(content[: self.mirror.breaks_after])
        if self.mirror.breaks_after is not None:
            self.mirror.before_breaking()
        if self.mirror.resets:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror({PATH: ZIP})
    with ThreadingHTTPServer(("127.0.0.1", 0), type("MirrorHandler", (Handler,), {"mirror": mirror})) as server:
        mirror.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield mirror
        server.shutdown()
        thread.join()


def download(to: Path, mirror: Mirror, *options: str, archives: dict[str, coco.Archive] | None = None) -> int:
    arguments = ["val2017", "--to", str(to), "--base-url", mirror.url, *options]
    return coco.main(arguments, archives=table(ZIP) if archives is None else archives)


def leave_part(to: Path, content: bytes, *, etag: str | None = TAG) -> None:
    (to / "val2017.zip.part").write_bytes(content)
    if etag is not None:
        (to / "val2017.zip.part.etag").write_text(etag)


def assert_complete(to: Path) -> None:
    assert sorted(os.listdir(to)) == ["val2017", "val2017.zip"]
    assert (to / "val2017.zip").read_bytes() == ZIP
    assert sorted(os.listdir(to / "val2017")) == [".complete", *(Path(name).name for name in PHOTOS)]
    assert {name: (to / name).read_bytes() for name in PHOTOS} == PHOTOS


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_photos_are_downloaded_and_unpacked_and_the_sizes_told_first(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "new" / "coco"
    assert download(to, mirror) == 0
    assert_complete(to)
    printed = capsys.readouterr()
    assert printed.err == ""
    licence, sizes, disk, end = printed.out.splitlines()
    assert licence == coco.LICENCE
    assert sizes == "val2017: 1.00MB of 1.00MB to download, 1.00MB once unpacked"
    assert re.fullmatch(r"together 2\.00MB of disk, free [\d.]+[MGTP]B", disk)
    assert end == f"val2017: unpacked in {str(to / 'val2017')!r}"


@pytest.mark.parametrize("names", [[], ["val2017", "val2017"]])
def test_val2017_is_the_default_and_a_name_said_twice_is_brought_once(
    tmp_path: Path, mirror: Mirror, names: list[str]
) -> None:
    mirror.files = {f"/mirror{PATH}": ZIP}
    arguments = [*names, "--to", str(tmp_path), "--base-url", f"{mirror.url}/mirror/"]
    assert coco.main(arguments, archives=table(ZIP)) == 0
    assert mirror.asked == [("HEAD", None), ("GET", None)]
    assert_complete(tmp_path)


def test_the_table_names_the_published_files() -> None:
    assert {name: (archive.path, archive.md5) for name, archive in coco.ARCHIVES.items()} == {
        "train2017": ("zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2"),
        "val2017": ("zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80"),
        "train2014": ("zips/train2014.zip", "0da8c0bd3d6becc4dcb32757491aca88"),
        "annotations2017": ("annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c"),
    }


def test_a_second_run_downloads_nothing_and_mends_what_is_missing(tmp_path: Path, mirror: Mirror) -> None:
    assert download(tmp_path, mirror) == 0
    mirror.asked.clear()
    lost, cut, kept = (tmp_path / name for name in list(PHOTOS)[:3])
    lost.unlink()
    cut.write_bytes(b"half")
    os.utime(kept, (1, 1))
    assert download(tmp_path, mirror) == 0
    assert_complete(tmp_path)
    assert kept.stat().st_mtime == 1
    assert mirror.asked == []


def test_a_zip_put_there_by_hand_needs_no_server(tmp_path: Path, mirror: Mirror) -> None:
    (tmp_path / "val2017.zip").write_bytes(ZIP)
    assert download(tmp_path, mirror) == 0
    assert_complete(tmp_path)
    assert mirror.asked == []


def test_the_zip_is_removed_on_request_and_not_downloaded_again_for_it(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download(tmp_path, mirror, "--remove-zip") == 0
    assert os.listdir(tmp_path) == ["val2017"]
    mirror.asked.clear()
    assert download(tmp_path, mirror) == 0
    assert mirror.asked == []
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"val2017: already unpacked in {str(tmp_path / 'val2017')!r}"


def test_the_home_folder_is_found(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download(Path("~/coco"), mirror) == 0
    assert (tmp_path / "coco" / "val2017").is_dir()


def test_a_broken_connection_is_told_and_the_next_run_asks_for_the_rest(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.breaks_after = 600_000
    assert download(tmp_path, mirror) == 2
    assert error_of(capsys) == (
        f"error: the connection to {mirror.url}{PATH} broke after 600kB of 1.00MB: the same command goes on from here\n"
    )
    assert (tmp_path / "val2017.zip.part").read_bytes() == ZIP[:600_000]
    mirror.breaks_after = None
    assert download(tmp_path, mirror) == 0
    assert mirror.asked[-1] == ("GET", "bytes=600000-")
    assert mirror.answered[-1] == 206
    assert_complete(tmp_path)
    assert "val2017: 401kB of 1.00MB to download, 1.00MB once unpacked" in capsys.readouterr().out.splitlines()


def test_a_connection_reset_is_a_broken_one(tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    mirror.breaks_after, mirror.resets = 600_000, True
    assert download(tmp_path, mirror) == 2
    assert re.fullmatch(
        rf"error: the connection to {mirror.url}{PATH} broke after [\d.]+k?B of 1\.00MB: "
        "the same command goes on from here\n",
        error_of(capsys),
    )
    mirror.breaks_after, mirror.resets = None, False
    assert download(tmp_path, mirror) == 0
    assert_complete(tmp_path)


def test_ctrl_c_says_that_it_goes_on_and_the_next_run_does(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "val2017.zip.part"

    def press_ctrl_c() -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not (part.exists() and part.stat().st_size):
            time.sleep(0.005)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.2)  # the connection stays open meanwhile

    mirror.breaks_after, mirror.before_breaking = 900_000, press_ctrl_c
    assert download(tmp_path, mirror) == 130
    assert error_of(capsys) == "interrupted: the same command goes on from here\n"
    have = part.stat().st_size
    assert 0 < have < len(ZIP)
    mirror.breaks_after = None
    assert download(tmp_path, mirror) == 0
    assert mirror.asked[-1] == ("GET", f"bytes={have}-")
    assert_complete(tmp_path)


def test_a_part_that_is_whole_already_is_only_checked(tmp_path: Path, mirror: Mirror) -> None:
    leave_part(tmp_path, ZIP)
    assert download(tmp_path, mirror) == 0
    assert [method for method, _ in mirror.asked] == ["HEAD"]
    assert_complete(tmp_path)


# What is left of an older version must not survive in any of these, so the part holds other bytes than the zip.
STALE = b"x" * 500_000


def test_a_changed_etag_starts_over(tmp_path: Path, mirror: Mirror) -> None:
    leave_part(tmp_path, STALE, etag='"older"')
    assert download(tmp_path, mirror) == 0
    assert mirror.asked[1:] == [("GET", "bytes=500000-")]
    assert mirror.answered[-1] == 200
    assert_complete(tmp_path)


def test_a_changed_etag_starts_over_where_the_server_ignores_if_range(tmp_path: Path, mirror: Mirror) -> None:
    mirror.if_range = False
    leave_part(tmp_path, STALE, etag='"older"')
    assert download(tmp_path, mirror) == 0
    assert mirror.asked[1:] == [("GET", "bytes=500000-"), ("GET", None)]
    assert_complete(tmp_path)


def test_starting_over_keeps_the_new_etag(tmp_path: Path, mirror: Mirror) -> None:
    leave_part(tmp_path, STALE, etag='"older"')
    mirror.breaks_after = 600_000
    assert download(tmp_path, mirror) == 2
    assert (tmp_path / "val2017.zip.part.etag").read_text() == TAG
    assert (tmp_path / "val2017.zip.part").read_bytes() == ZIP[:600_000]


def test_a_server_without_range_starts_over(tmp_path: Path, mirror: Mirror) -> None:
    mirror.ranges = False
    leave_part(tmp_path, STALE)
    assert download(tmp_path, mirror) == 0
    assert mirror.answered[-1] == 200
    assert_complete(tmp_path)


def test_a_range_other_than_the_one_asked_for_starts_over(tmp_path: Path, mirror: Mirror) -> None:
    mirror.shift = 7
    leave_part(tmp_path, ZIP[:500_000])
    assert download(tmp_path, mirror) == 0
    assert mirror.answered[-2:] == [206, 200]
    assert_complete(tmp_path)


def test_a_part_longer_than_the_file_starts_over(tmp_path: Path, mirror: Mirror) -> None:
    leave_part(tmp_path, ZIP + b"more")
    assert download(tmp_path, mirror) == 0
    assert mirror.answered[-2:] == [416, 200]
    assert_complete(tmp_path)


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_etag_it_goes_on_all_the_same(tmp_path: Path, mirror: Mirror, etag: str | None) -> None:
    mirror.etag = etag
    mirror.breaks_after = 600_000
    assert download(tmp_path, mirror) == 2
    assert os.listdir(tmp_path) == ["val2017.zip.part"]
    mirror.breaks_after = None
    assert download(tmp_path, mirror) == 0
    assert mirror.answered[-1] == 206
    assert_complete(tmp_path)


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_damaged_zip_is_named_and_removed_and_the_next_run_starts_clean(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str], by_hand: bool
) -> None:
    damaged = ZIP[:1000] + b"damage" + ZIP[1006:]
    name = "val2017.zip" if by_hand else "val2017.zip.part"
    if by_hand:
        (tmp_path / name).write_bytes(damaged)
    else:
        mirror.files[PATH] = damaged
    assert download(tmp_path, mirror) == 2
    assert error_of(capsys) == (
        f"error: {str(tmp_path / name)!r} was damaged (expected the MD5 sum {hashlib.md5(ZIP).hexdigest()}, got "
        f"{hashlib.md5(damaged).hexdigest()}) and has been removed: run again to download it anew\n"
    )
    assert os.listdir(tmp_path) == []
    mirror.files[PATH] = ZIP
    assert download(tmp_path, mirror) == 0
    assert_complete(tmp_path)


def test_a_photo_whose_crc_is_wrong_is_not_unpacked(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content = list(PHOTOS.items())[1]
    bad = ZIP.replace(content[:100], b"y" * 100)
    mirror.files[PATH] = bad
    assert download(tmp_path, mirror, archives=table(bad)) == 2
    assert error_of(capsys) == (
        f"error: {str(tmp_path / 'val2017.zip')!r} was damaged (Bad CRC-32 for file {name!r}) "
        "and has been removed: run again to download it anew\n"
    )
    assert os.listdir(tmp_path) == ["val2017"]
    assert os.listdir(tmp_path / "val2017") == [Path(next(iter(PHOTOS))).name]


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    mirror.files[PATH] = b"<html>"
    assert download(tmp_path, mirror, archives=table(b"<html>")) == 2
    assert error_of(capsys) == (
        f"error: {str(tmp_path / 'val2017.zip')!r} was damaged (File is not a zip file) "
        "and has been removed: run again to download it anew\n"
    )


@pytest.mark.parametrize("name", ["../escaped.jpg", "val2017/../../escaped.jpg", "/escaped.jpg", "elsewhere/a.jpg"])
def test_a_member_outside_the_folder_is_refused_and_nothing_unpacked(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    bad = make_zip(PHOTOS | {name: b"bad"})
    mirror.files[PATH] = bad
    to = tmp_path / "inside"
    assert download(to, mirror, archives=table(bad)) == 2
    assert error_of(capsys) == (
        f"error: expected only files below 'val2017' in {str(to / 'val2017.zip')!r}, got {name!r}: "
        "nothing was unpacked; remove this zip\n"
    )
    assert os.listdir(tmp_path) == ["inside"]
    assert os.listdir(to) == ["val2017.zip"]


def test_folders_and_empty_files_of_a_zip_are_made(tmp_path: Path, mirror: Mirror) -> None:
    content = make_zip({"val2017/": b"", "val2017/deeper/": b"", "val2017/empty.txt": b""})
    mirror.files[PATH] = content
    assert download(tmp_path, mirror, archives=table(content)) == 0
    assert sorted(os.listdir(tmp_path / "val2017")) == [".complete", "deeper", "empty.txt"]


def test_too_little_disk_is_told_before_anything_is_downloaded(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "coco"
    assert download(to, mirror, archives=table(ZIP, unpacked=10**21)) == 2
    assert re.fullmatch(
        rf"error: expected 1\.00ZB free on the disk of {re.escape(repr(str(to)))}, found [\d.]+[MGTP]B: free some, or "
        r"choose a folder on another disk with --to\n",
        error_of(capsys),
    )
    assert [method for method, _ in mirror.asked] == ["HEAD"]
    assert not to.exists()


def test_too_little_disk_for_the_photos_is_told_before_anything_is_unpacked(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "val2017.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("val2017/0.jpg", b"small")
        archive.filelist[0].file_size = 10**18
    assert download(tmp_path, mirror, archives=table(path.read_bytes())) == 2
    assert re.fullmatch(
        rf"error: expected 1\.00EB free on the disk of {re.escape(repr(str(tmp_path)))}, found [\d.]+[MGTP]B: free "
        r"some, or choose a folder on another disk with --to\n",
        error_of(capsys),
    )
    assert os.listdir(tmp_path) == ["val2017.zip"]


def test_a_full_disk_is_told_and_the_next_run_goes_on(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, limits[1]))
    try:
        assert download(tmp_path, mirror) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error_of(capsys) == (
        "error: no space left to write (File too large): free some, the same command goes on from here\n"
    )
    assert download(tmp_path, mirror) == 0
    assert mirror.answered[-1] == 206
    assert_complete(tmp_path)


def test_offline_says_where_to_put_the_zip_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:  # bound, and nobody listens
        unused.bind(("127.0.0.1", 0))
        closed = Mirror({}, url=f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert download(tmp_path, closed) == 2
    assert error_of(capsys) == (
        f"error: could not reach {closed.url}{PATH} ([Errno {errno.ECONNREFUSED}] Connection refused): "
        f"check the connection, or put the zip at {str(tmp_path / 'val2017.zip')!r} by hand, and run again\n"
    )


def test_a_server_that_speaks_no_http_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def babble() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"220 mail\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        stranger = Mirror({}, url=f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert download(tmp_path, stranger) == 2
        thread.join()
    assert error_of(capsys) == (
        f"error: could not reach {stranger.url}{PATH} (220 mail): check the connection, "
        f"or put the zip at {str(tmp_path / 'val2017.zip')!r} by hand, and run again\n"
    )


def test_a_server_without_the_file_is_told(tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    mirror.files.clear()
    assert download(tmp_path, mirror) == 2
    assert error_of(capsys) == (
        f"error: expected a file at {mirror.url}{PATH}, the server answered 404 Not Found: choose another --base-url, "
        f"or put the zip at {str(tmp_path / 'val2017.zip')!r} by hand, and run again\n"
    )


def test_a_server_that_does_not_tell_the_size_is_refused(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.tells_size = False
    assert download(tmp_path, mirror) == 2
    assert error_of(capsys) == (
        f"error: expected the size of {mirror.url}{PATH}, the server does not tell it: choose another --base-url\n"
    )


KNOWN = "There are: train2017, val2017, train2014, annotations2017"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vall2017", "--to", "x"], f"expected a part of COCO, got 'vall2017'; did you mean 'val2017'? {KNOWN}"),
        (["birds", "--to", "x"], f"expected a part of COCO, got 'birds'; {KNOWN}"),
        (["val2017"], "the following arguments are required: --to: see download_coco.py --help"),
        (
            ["--to", "x", "--base-url", "file:///x"],
            "expected --base-url to start with http:// or https://, got 'file:///x'",
        ),
        (
            ["--to", str(SCRIPT)],
            f"expected a folder for --to, got the file {str(SCRIPT)!r}: choose another name",
        ),
    ],
)
def test_a_wrong_word_on_the_command_line_gets_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    command = [sys.executable, str(SCRIPT), *arguments]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (2, "", f"error: {message}\n")
    assert os.listdir(tmp_path) == []
