"""Hundreds of damaged or odd pictures and clips: each is painted at its size or answered with one line."""

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from impasto.cli import main
from impasto.images import ANIMATED_SUFFIXES, IMAGE_SUFFIXES
from impasto.painting.outputs import Job, plan_jobs
from tests.clip_files import Clip, frames, picture, write_clip

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".avif": "AVIF",
    ".jp2": "JPEG2000",
    ".ppm": "PPM",
    ".tga": "TGA",
}


def whole_files(rng: np.random.Generator) -> dict[str, bytes]:
    picture = Image.fromarray(rng.integers(0, 256, (17, 23, 3), np.uint8))
    files = {}
    for suffix, name in FORMATS.items():
        data = io.BytesIO()
        picture.save(data, name)
        files[suffix] = data.getvalue()
    return files


def damaged(data: bytes, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    for share in (0.02, 0.1, 0.4, 0.9, 0.99):
        yield f"cut{share}", data[: max(1, int(len(data) * share))]
    for number in range(8):
        flipped = bytearray(data)
        # Half of them in the header, where sizes and offsets stand.
        for place in rng.integers(0, 64 if number % 2 else len(data), 1 + number):
            flipped[place % len(data)] ^= 1 << int(rng.integers(8))
        yield f"flip{number}", bytes(flipped)
    wild = bytearray(data)
    wild[12:28] = rng.bytes(16)
    yield "wild", bytes(wild)
    yield "twice", data + data
    yield "tail", data[: len(data) // 2] + rng.bytes(len(data) // 2)
    yield "head", data[:8] + rng.bytes(200)


def png(width: int, height: int, *, depth: int = 8, colours: int = 2, body: bytes = b"") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(body)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def odd(rng: np.random.Generator) -> dict[str, bytes]:
    files = {f"named{suffix}": b"a letter, not a picture" for suffix in sorted(IMAGE_SUFFIXES)}
    files |= {f"noise{suffix}": rng.bytes(500) for suffix in sorted(IMAGE_SUFFIXES)}
    files |= {f"empty{suffix}": b"" for suffix in sorted(IMAGE_SUFFIXES)}
    files |= {
        "bomb.png": png(60_000, 60_000, body=bytes(1000)),
        "huge.png": png(2**31 - 1, 2**31 - 1),
        "zero.png": png(0, 5),
        "deep.png": png(9, 9, depth=16, body=bytes(9 * 55)),
        "deep_short.png": png(9, 9, depth=16, body=bytes(9)),
        "gray_deep.png": png(9, 9, depth=16, colours=0, body=bytes(9 * 19)),
        "line.png": png(1, 1, body=bytes(4)),
        "bad_depth.png": png(9, 9, depth=7, body=bytes(99)),
        "bomb.bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        "bomb.ppm": b"P6 99999 99999 255\n",
        "endless.tif": b"II*\0\x08\0\0\0\x01\0" + bytes(12) + b"\x08\0\0\0",
        "program.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n",
    }
    return files


@pytest.fixture
def corpus(style_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    files = odd(rng)
    for suffix, data in whole_files(rng).items():
        files[f"whole{suffix}"] = data
        files |= {f"{suffix[1:]}_{name}{suffix}": piece for name, piece in damaged(data, rng)}
    folder = style_path.parents[2]
    (folder / "photos").mkdir()
    for name, data in files.items():
        (folder / "photos" / name).write_bytes(data)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # restored afterwards
    return folder / "photos"


def test_each_is_painted_at_its_size_or_named(corpus: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = sorted(path.name for path in corpus.iterdir())
    assert len(names) >= 200
    words = ["--model", "runs/zigzag", "--device", "cpu", "--max-pixels", "1000000", "--output", "out"]
    assert main(["stylize", *words, *(f"photos/{name}" for name in names)]) == 1
    printed = capfd.readouterr()
    *errors, summary = printed.err.splitlines()
    painted = [Path(line) for line in printed.out.splitlines()]
    assert all(line.startswith("error: expected ") for line in errors)
    assert len(painted) + len(errors) == len(names)
    assert summary == f"error: {len(errors)} of {len(names)} pictures could not be painted; the others are done"
    assert {path.name for path in Path("out").iterdir()} == {path.name for path in painted}
    jobs = plan_jobs([f"photos/{name}" for name in names], output="out", style_name="zigzag")
    sources = {job.target: job.source for job in jobs}
    assert {corpus / f"whole{suffix}" for suffix in FORMATS} <= {corpus.parent / sources[path] for path in painted}
    for target in painted:
        source = sources[target]
        with Image.open(source) as before, Image.open(target) as after:
            turned = before.getexif().get(0x0112, 1) > 4
            assert after.size == (before.size[::-1] if turned else before.size)


SIMPLE = Clip(codec="mpeg4", times=range(8), time_base=Fraction(1, 10))
CLIPS = {
    ".mp4": Clip(has_sound=True),
    ".mkv": Clip(codec="mjpeg", pix_fmt="yuvj420p", has_sound=True),
    ".webm": Clip(codec="libvpx-vp9"),
    ".mov": Clip(codec="mjpeg", pix_fmt="yuvj420p", options={"movflags": "faststart"}, rotation=90),
    ".avi": SIMPLE,
    ".m4v": SIMPLE,
    ".gif": None,
    ".webp": None,
}
EXTREMES = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1", b"\0\1\0\0", b"\xff\xff\0\0"]


def whole_clip(path: Path, clip: Clip | None) -> bytes:
    if clip is not None:
        return write_clip(path, clip).read_bytes()
    images = [Image.fromarray(picture(3 * number, (32, 24))) for number in range(8)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=50)
    return path.read_bytes()


def wild(data: bytes, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Sizes, rates, times and offsets of headers, which stand at the beginning or at the end, at their extremes."""
    for number in range(6):
        changed = bytearray(data)
        for place in rng.integers(0, min(800, len(data) - 4), 1 + number):
            start = place if number % 2 else len(data) - 4 - place
            changed[start : start + 4] = EXTREMES[rng.integers(len(EXTREMES))]
        yield f"wild{number}", bytes(changed)


def seen_size(path: Path) -> tuple[int, int]:
    """Width and height of the first picture that a file gives, as seen."""
    if path.suffix in ANIMATED_SUFFIXES:
        with Image.open(path) as image:
            return image.size
    with av.open(str(path), metadata_errors="replace") as clip:
        for packet in clip.demux(video=0):
            with suppress(av.FFmpegError):
                for frame in packet.decode():
                    is_turned = frame.rotation in (-90, 90)
                    return (frame.height, frame.width) if is_turned else (frame.width, frame.height)
    raise AssertionError(f"no frame in {path}")


@pytest.fixture
def clips(style_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What is to be painted of the folder ``clips``."""
    monkeypatch.chdir(style_path.parents[2])
    Path("clips").mkdir()
    rng = np.random.default_rng(0)
    for suffix, clip in CLIPS.items():
        data = whole_clip(Path(f"clips/{suffix[1:]}_whole{suffix}"), clip)
        for name, piece in [*damaged(data, rng), *wild(data, rng)]:
            Path(f"clips/{suffix[1:]}_{name}{suffix}").write_bytes(piece)
    return plan_jobs(["clips"], output="out/", style_name="zigzag")


def test_each_clip_is_painted_at_its_size_or_named(clips: list[Job]) -> None:
    assert len(clips) == len(CLIPS) * 24
    words = ["stylize", "--model", "runs/zigzag", "--device", "cpu", "--max-pixels", "1000000", "--output", "out/"]
    done = subprocess.run(
        [sys.executable, "-m", "impasto", *words, "clips"], capture_output=True, text=True, timeout=300, check=False
    )
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    *errors, summary = [line for line in done.stderr.splitlines() if line not in warnings]
    assert all(line.startswith("error: expected ") for line in errors)
    known = ("passed over ", " cannot hold, and leaves out: ", " frames that its header says: it may be cut off")
    assert all(any(each in line for each in known) for line in warnings)
    assert done.returncode == 1
    assert summary == f"error: {len(errors)} of {len(clips)} pictures could not be painted; the others are done"
    painted = set(done.stdout.splitlines())
    assert len(painted) + len(errors) == len(clips)
    for name in os.listdir("out"):
        assert f"out/{name}" in painted or any(repr(f"out/{name}") in line for line in errors), name
    sources = {str(job.target): job.source for job in clips}
    assert {f"clips/{suffix[1:]}_whole{suffix}" for suffix in CLIPS} <= {str(sources[path]) for path in painted}
    for path in painted:
        if Path(path).suffix in ANIMATED_SUFFIXES | IMAGE_SUFFIXES:
            assert seen_size(Path(path)) == seen_size(sources[path])
        else:
            sizes = {(frame.width, frame.height) for frame in frames(Path(path))}
            assert sizes == {seen_size(sources[path])}, path
