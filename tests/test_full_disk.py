"""A disk that fills up: what was there stays, nothing half-written is left, and one line says where and what to do.

The disk is a tmpfs of a few hundred KB in a namespace of its own, which on most Linux systems needs no rights.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impasto.painting.clips import FormerClip
from impasto.style_file import load_style
from tests.clip_files import Clip, write_clip

ROOT = Path(__file__).parents[1]
FULL = "(No space left on device): free some and run again;"

HOLD = 'mount -t tmpfs none "$1" && echo mounted && exec "$2" -c "from tests.processes import serve; serve()"'
MOUNT = """
import subprocess, sys
sys.exit(subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sys.argv[1]}k", "none", "disk"]).returncode)
"""
GROW = 'import subprocess, sys; sys.exit(subprocess.run(["mount", "-o", "remount,size=10m", "disk"]).returncode)'
UNMOUNT = 'import subprocess, sys; sys.exit(subprocess.run(["umount", "disk"]).returncode)'
RUN_ALL = """
import contextlib, io, json, sys
from impasto.cli import main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = main(words)
    print(json.dumps([status, said.getvalue()]))
"""


@dataclass(frozen=True)
class Namespace:
    """Where disks are that only programs see that run in it: each takes no time to start."""

    process: "subprocess.Popen[str]"

    def run(self, *words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        """Do what ``python WORDS`` does."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(cwd), *words]) + "\n")
        self.process.stdin.flush()
        return subprocess.CompletedProcess(words, *json.loads(self.process.stdout.readline()))


@dataclass(frozen=True)
class Disk:
    """A disk at ``folder / "disk"`` that only programs see that are run by ``run``; others see it at ``seen``."""

    folder: Path
    namespace: Namespace

    @property
    def seen(self) -> Path:
        return Path(f"/proc/{self.namespace.process.pid}/root{self.folder}/disk")

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self.namespace.run(*words, cwd=self.folder)

    def grow(self) -> None:
        assert self.run("-c", GROW).returncode == 0

    def names(self, folder: str = ".") -> list[str]:
        return sorted(re.sub("tfevents.*", "tfevents", path.name) for path in (self.seen / folder).iterdir())


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    if not shutil.which("unshare"):
        pytest.skip("no small disk can be made without unshare")
    tried = str(tmp_path_factory.mktemp("tried"))
    make = ["unshare", "--map-root-user", "--mount", "sh", "-c", HOLD, "sh", tried, sys.executable]
    pipe = subprocess.PIPE
    with (
        (tmp_path_factory.mktemp("said") / "errors").open("w+") as said,
        subprocess.Popen(make, stdin=pipe, stdout=pipe, stderr=said, text=True, cwd=ROOT) as process,
    ):
        assert process.stdout is not None
        if process.stdout.readline() != "mounted\n":
            process.wait()
            said.seek(0)
            pytest.skip(f"no small disk can be made: {said.read().strip()}")
        yield Namespace(process)
        process.kill()


@pytest.fixture
def disk(tmp_path: Path, namespace: Namespace, request: pytest.FixtureRequest) -> Iterator[Disk]:
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path, namespace)
    mounted = disk.run("-c", MOUNT, str(request.param))
    assert mounted.returncode == 0, mounted.stderr
    yield disk
    assert disk.run("-c", UNMOUNT).returncode == 0


def of_kilobytes(size: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("disk", [size], indirect=True, ids=[f"{size}k"])


class TestTraining:
    """Its checkpoint takes 0.8 MB, the style file 0.1, a preview 0.3 and the contact sheet 0.6."""

    @pytest.fixture(autouse=True)
    def photos(self, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (36, 36, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")

    def train(self, disk: Disk, weights: Path, *more: str) -> "subprocess.CompletedProcess[str]":
        words = [
            *("style=custom", "style.name=mine", "style.image=photos/0.png", "style.size=32", "network.width=4"),
            *("data=folder", "data.root=photos", "precision=fp32", "device=cpu", "run_dir=disk/run"),
            *("budget.image_size=32", "budget.batch_size=1", f"loss_network.weights={weights}"),
        ]
        return disk.run(str(ROOT / "train.py"), *words, *more)

    def assert_refused(self, done: "subprocess.CompletedProcess[str]", line: str) -> None:
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        errors = [each for each in done.stderr.splitlines() if "error" in each]
        assert errors == [f"error: no space left to write {line}"]

    @of_kilobytes(1500)
    def test_at_a_save_in_the_midst_the_one_before_stays(self, disk: Disk, slim_weights: Path) -> None:
        done = self.train(disk, slim_weights, "save_every=0s", "budget.steps=300")
        self.assert_refused(done, f"'disk/run/last.ckpt' {FULL} with resume=true it goes on after step 1")
        assert disk.names("run") == ["config.yaml", "events.out.tfevents", "last.ckpt", "mine.safetensors"]
        for name in ("last.ckpt", "mine.safetensors"):
            assert load_style(disk.seen / "run" / name).metadata["steps"] == 1

    @of_kilobytes(1500)
    def test_at_the_export_the_training_stays_and_is_finished_where_there_is_room(
        self, disk: Disk, slim_weights: Path
    ) -> None:
        done = self.train(disk, slim_weights, "save_every=1h", "budget.steps=2")
        self.assert_refused(done, f"'disk/run/contact_sheet.png' {FULL} with resume=true it goes on after step 2")
        left = ["config.yaml", "events.out.tfevents", "last.ckpt", "mine.safetensors"]
        assert disk.names("run") == left
        assert load_style(disk.seen / "run" / "last.ckpt").metadata["steps"] == 2
        disk.grow()
        done = self.train(disk, slim_weights, "save_every=1h", "budget.steps=2", "resume=true")
        assert done.returncode == 0, done.stderr
        assert disk.names("run") == sorted([*left, "contact_sheet.png"])

    @of_kilobytes(1100)
    def test_in_the_thread_that_writes_the_curves(self, disk: Disk, slim_weights: Path) -> None:
        done = self.train(disk, slim_weights, "save_every=0s", "budget.steps=300", "budget.previews=2")
        self.assert_refused(done, f"'disk/run' {FULL} with resume=true it goes on after step 1")
        assert disk.names("run") == ["config.yaml", "events.out.tfevents", "last.ckpt", "mine.safetensors"]
        assert load_style(disk.seen / "run" / "last.ckpt").metadata["steps"] == 1

    @of_kilobytes(1500)
    def test_no_decoded_photos_are_kept_where_little_would_be_left(
        self, disk: Disk, tmp_path: Path, slim_weights: Path
    ) -> None:
        done = self.train(disk, slim_weights, "budget.steps=2", "data.cache=disk/kept", f"run_dir={tmp_path / 'run'}")
        assert done.returncode == 0, done.stderr
        assert [line for line in done.stderr.splitlines() if "decoded" in line] == [
            (
                "decoded photos are no longer written into 'disk/kept' (less than 1 GiB would be free): "
                "those not in it are decoded again whenever they do not fit in memory"
            )
        ]
        assert disk.names("kept") == ["photo_cache.txt"]


KEEP = """
from pathlib import Path
from impasto.learning.photo_cache import PhotoCache
from impasto.learning.photos import PhotoCrops
cache = PhotoCache(Path("disk/kept"), photos=Path("photos"), at_least=96, spare=0)
crops = PhotoCrops(sorted(Path("photos").iterdir()), size=32, seed=0, cache=cache)
plain = PhotoCrops(sorted(Path("photos").iterdir()), size=32, seed=0)
for number in range(20):
    assert (crops[number] == plain[number]).all()
print(crops.cache.trouble)
"""


@of_kilobytes(60)
def test_decoded_photos_that_have_room_are_kept_whole(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(9):  # 12 KB each when decoded
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    (disk.seen / "kept").mkdir()
    done = disk.run("-c", KEEP)
    assert done.stdout == (
        "decoded photos are no longer written into 'disk/kept' (No space left on device): "
        "those not in it are decoded again whenever they do not fit in memory\n"
    ), done.stderr
    sizes = [path.stat().st_size for path in (disk.seen / "kept").rglob("*") if path.is_file()]
    assert 1 <= len(sizes) < 9
    assert set(sizes) == {40 + 3 * 64 * 64}


def in_one_process(disk: Disk, commands: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    done = disk.run("-c", RUN_ALL, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    return [(status, said) for status, said in map(json.loads, done.stdout.splitlines())]


@of_kilobytes(100)
def test_every_other_writer_leaves_what_was_there(disk: Disk, tmp_path: Path, style_path: Path) -> None:
    style_path.rename(tmp_path / "zigzag.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    frames = [Image.fromarray(np.roll(pixels, 9 * number, axis=1)) for number in range(8)]
    for name in ("a.png", "a.tif", "a.jpg", "a.webp"):
        frames[0].save(tmp_path / name)
    frames[0].resize((256, 256)).save(tmp_path / "large.png")
    for name in ("b.gif", "b.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    paint = ["stylize", "--model", "zigzag.safetensors", "--device", "cpu"]
    writers = {
        "a_.png": [*paint, "a.png"],
        "a_.tif": [*paint, "a.tif"],
        "a_.jpg": [*paint, "large.png"],
        "a_.webp": [*paint, "large.png", "--quality", "100"],
        "b_.gif": [*paint, "b.gif"],
        "b_.webp": [*paint, "b.webp"],
        "style.onnx": ["export", "zigzag.safetensors", "--to", "onnx"],
        "optimized.png": [
            "optimize",
            "a.png",
            "--style",
            "a.jpg",
            "--size",
            "96",
            "--iterations",
            "1",
            "--log-dir",
            "disk/curves",
        ],
    }
    for name in writers:
        (disk.seen / name).write_bytes(b"earlier")
    (disk.seen / "filler").write_bytes(bytes(60_000))
    answers = in_one_process(disk, [[*words, "--output", f"disk/{name}"] for name, words in writers.items()])
    for name, (status, said) in zip(writers, answers, strict=True):
        assert (status, said) == (
            2,
            f"error: no space left to write 'disk/{name}' {FULL} no half-written file is left\n",
        )
        assert (disk.seen / name).read_bytes() == b"earlier"
    assert disk.names() == sorted([*writers, "curves", "filler"])


@of_kilobytes(1000)
def test_the_frames_of_a_clip_stay_that_had_room(disk: Disk, tmp_path: Path, style_path: Path) -> None:
    write_clip(tmp_path / "c.mp4", Clip(size=(256, 192), times=range(0, 100 * 512, 512)))
    (disk.seen / "out.mp4").write_bytes(b"earlier")
    (disk.seen / "filler").write_bytes(bytes(100_000))
    paint = ["stylize", "--model", str(style_path), "c.mp4", "--output", "disk/out.mp4", "--device", "cpu"]
    paint += ["--quality", "80"]
    ((status, said),) = in_one_process(disk, [paint])
    assert status == 2
    done = re.search(
        rf"^error: no space left to write 'disk/out.mp4' {re.escape(FULL)} "
        r"the (\d+) frames done are in 'disk/out.partial.mp4', and --resume continues\n$",
        said,
    )
    assert done is not None, said
    assert count_frames(disk) == int(done[1]) >= 48
    assert disk.names() == ["filler", "out.mp4", "out.partial.mp4"]
    assert (disk.seen / "out.mp4").read_bytes() == b"earlier"
    # Of a run with more bytes for a frame fewer have room: the part stays as it is.
    ((_, said),) = in_one_process(disk, [[*paint, "--quality", "100"]])
    assert f"'disk/out.partial.mp4' still has the {done[1]} frames" in said
    assert count_frames(disk) == int(done[1])
    assert disk.names() == ["filler", "out.mp4", "out.partial.mp4"]


def count_frames(disk: Disk) -> int:
    """How many whole frames the part has."""
    former = FormerClip.find(disk.seen / "out.partial.mp4")
    return 0 if former is None else former.frames
