"""Photos of every kind of damage: training goes on without them and lists each once, as ``impasto check`` does."""

import contextlib
import io
import os
import re
import statistics
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.cli import main
from impasto.learning.photos import PhotoDataModule, hold_out
from impasto.photo_folder import find_damage, find_photos, to_bytes, to_line, write_list
from impasto.torch_files import read_torch_file

workers_may_fork = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

CUT = "expected a whole image file, got a damaged one in {!r}: copy it again"
EMPTY = "expected an image file, got zero bytes in {!r}: copy it again"
OTHER = "expected an image file, got something else in {!r}: give a JPEG, PNG, WebP or TIFF"
GONE = "expected an image file, found nothing at {!r}: check the path"
LARGE = "expected an image of at most 178,956,970 px, got more in {!r}: make it smaller, or raise the limit"

THIN = "expected a photo of at least 2 x 2 px, got SIZE px in {!r}: leave it out"


def noise(path: Path, *, mode: str = "RGB", size: tuple[int, int] = (36, 33), **options: Any) -> None:
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


def cut(path: Path) -> None:
    noise(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def claim_many_pixels(path: Path) -> None:
    noise(path)
    content = bytearray(path.read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


def text(path: Path) -> None:
    path.write_text("not a picture")


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut.jpg": (cut, CUT),
    "cut.png": (cut, CUT),
    "cut.webp": (cut, CUT),
    "cut.tif": (cut, CUT),
    "empty.jpg": (Path.touch, EMPTY),
    "text.jpg": (text, OTHER),
    "deep/er/text.PNG": (text, OTHER),
    "bytes.jpg": (lambda path: path.write_bytes(b"\xff\xd8" + bytes(range(256))), OTHER),
    "bomb.png": (claim_many_pixels, LARGE),
    "1x1.jpg": (lambda path: noise(path, size=(1, 1)), THIN.replace("SIZE", "1 x 1")),
    "30000x1.jpg": (lambda path: noise(path, size=(30_000, 1)), THIN.replace("SIZE", "30000 x 1")),
    "1x30000.png": (lambda path: noise(path, size=(1, 30_000)), THIN.replace("SIZE", "1 x 30000")),
    "loop.jpg": (lambda path: path.symlink_to(path.name), GONE),
    "loop to and fro.jpg": (lambda path: path.symlink_to("deep/../loop to and fro.jpg"), GONE),
    "dangling.jpg": (lambda path: path.symlink_to("nothing.jpg"), GONE),
    "pipe.jpg": (os.mkfifo, EMPTY),  # whoever opens one waits for ever
    "a\nb\tc.jpg": (text, OTHER),
    os.fsdecode(b"b\xe4r.jpg"): (text, OTHER),
}


def animate(path: Path) -> None:
    frames = [Image.linear_gradient("L").resize((36, 33)).rotate(angle) for angle in (0, 90, 180)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def deep_gray(path: Path) -> None:
    Image.fromarray(np.linspace(0, 65535, 36 * 33).astype(np.uint16).reshape(33, 36)).save(path)


ODD: dict[str, Callable[[Path], object]] = {
    "2x2.jpg": lambda path: noise(path, size=(2, 2)),
    "30000x2.jpg": lambda path: noise(path, size=(30_000, 2)),
    "cmyk.jpg": lambda path: noise(path, mode="CMYK"),
    "gray.jpg": lambda path: noise(path, mode="L"),
    "palette.png": lambda path: noise(path, mode="P"),
    "alpha.png": lambda path: noise(path, mode="RGBA"),
    "16 bits.png": deep_gray,
    "16 bits.tif": deep_gray,
    "animated.gif": animate,
    "animated.webp": animate,
    "a png.jpg": lambda path: noise(path, format="PNG"),
    os.fsdecode(b"\xfcber.jpg"): noise,
}
"""Pictures that are trained on as any other."""


def fill(folder: Path, count: int, *, damaged: int) -> dict[str, str]:
    """Fill a folder with so many photos, some of them damaged in every way; return these and their reasons."""
    folder.mkdir()
    for name, make in ODD.items():
        make(folder / name)
    (folder / "itself").symlink_to(".", target_is_directory=True)
    (folder / "round").symlink_to("round", target_is_directory=True)
    reasons = {}
    for number, (name, (make, reason)) in enumerate(islice(cycle(DAMAGED.items()), damaged)):
        path = folder / f"{number // len(DAMAGED)}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        reasons[os.path.relpath(path, folder)] = reason.format(str(path))
    noise(folder / "0000.jpg")
    for number in range(1, count - len(ODD) - len(reasons)):
        os.link(folder / "0000.jpg", folder / f"{number:04}.jpg")
    return reasons


def expected_list(reasons: dict[str, str]) -> bytes:
    lines = [to_line(name, reasons[name]) for name in sorted(reasons, key=Path)]
    return to_bytes("".join(f"{line}\n" for line in lines))


@dataclass(frozen=True)
class Train:
    """The command with tiny settings, in a folder of its own; eight steps show every photo."""

    weights: Path

    def __call__(self, run_dir: str, *words: str) -> int:
        tiny = (
            *("style=mosaic", "style.size=32", "network.width=4", "precision=fp32", "device=cpu", "seed=3"),
            *("data=folder", "data.root=photos", "budget.image_size=32", "budget.batch_size=15", "budget.steps=8"),
            *("budget.previews=8", f"loss_network.weights={self.weights}", f"run_dir={run_dir}"),
        )
        return main(["train", *tiny, *words])


@pytest.fixture
def train(tmp_path: Path, slim_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # given back at the end
    return Train(slim_weights)


class RemovesBeforeTheFirstStep(io.StringIO):
    """Where a command prints; when it has said what it will do, and so found its photos, one of them is removed."""

    def __init__(self, photo: Path) -> None:
        super().__init__()
        self.photo = photo

    def write(self, words: str) -> int:
        if "run folder" in words:
            self.photo.unlink()
        return super().write(words)


@workers_may_fork
def test_each_is_listed_once_by_training_and_by_check(
    train: Train, capsysbinary: pytest.CaptureFixture[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    reasons = fill(Path("photos"), 120, damaged=len(DAMAGED))
    assert main(["check", "photos"]) == 1
    printed = capsysbinary.readouterr()
    assert printed.out == expected_list(reasons)
    assert printed.err == b"120 photos, 18 cannot be read\n"

    assert train("pieces", "max_time=0.001s", "data.workers=1") == 0
    first = Path("pieces/skipped.txt").read_bytes().splitlines()
    assert 0 < len(first) < len(reasons), "that would be all at once"
    named = [words for words in caplog.messages if words.startswith("skipped photo ")]
    assert len(named) == len(set(named)) == min(5, len(first))
    assert train("pieces", "resume=true", "data.workers=2") == 0
    assert Path("pieces/skipped.txt").read_bytes() == expected_list(reasons)
    line = b"\nskipped        18 photos that cannot be read, listed in pieces/skipped.txt\n"
    assert line in capsysbinary.readouterr().out

    files, _ = hold_out(find_photos(Path("photos")), seed=3)
    looked_at = files[:: len(files) // 16][:16]
    removed = next(path for path in files if path not in looked_at and path.stem.isdecimal())
    with contextlib.redirect_stdout(RemovesBeforeTheFirstStep(removed)):
        assert train("whole") == 0
    gone = {removed.name: GONE.format(str(removed))}
    assert Path("whole/skipped.txt").read_bytes() == expected_list({**reasons, **gone})


class TestCheck:
    def test_sound_photos_of_any_kind(self, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        for name, make in ODD.items():
            make(tmp_path / name)
        assert main(["check", str(tmp_path)]) == 0
        assert capsysbinary.readouterr() == (b"", b"12 photos, all can be read\n")

    def test_a_single_photo(self, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        noise(tmp_path / "a.png")
        assert main(["check", str(tmp_path)]) == 0
        assert capsysbinary.readouterr() == (b"", b"1 photo, all can be read\n")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
    def test_a_photo_that_may_not_be_read(self, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        noise(tmp_path / "a.png")
        (tmp_path / "a.png").chmod(0)
        assert main(["check", str(tmp_path)]) == 1
        path = str(tmp_path / "a.png")
        reason = f"expected an image file that may be read, got 'Permission denied' from {path!r}: check the file"
        assert capsysbinary.readouterr() == (f"a.png\t{reason}\n".encode(), b"1 photo, 1 cannot be read\n")

    def test_bad_input_is_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        noise(Path("a.png"))
        Path("empty").mkdir()
        for name, problem in {
            "none": "expected a folder of images, found none at 'none': check the path",
            "a.png": "expected a folder of photos, got the file 'a.png': name the folder it is in",
            "empty": "expected photos in 'empty', found no image file: name another folder",
        }.items():
            assert main(["check", name]) == 2
            assert capsys.readouterr() == ("", f"error: {problem}\n")
        assert main(["check", "--output", "x", "."]) == 2
        problem = "expected an option (--help), got '--output': see impasto --help"
        assert capsys.readouterr() == ("", f"error: {problem}\n")

    def test_needs_no_torch(self, tmp_path: Path) -> None:
        noise(tmp_path / "a.png")
        program = (
            "import sys; from impasto.cli import main; status = main(['check', sys.argv[1]]); "
            "assert 'torch' not in sys.modules; sys.exit(status)"
        )
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"1 photo, all can be read\n")


def test_a_photo_is_judged_alike_at_every_size(tmp_path: Path) -> None:
    """Training decodes a JPEG no smaller than it needs, ``check`` as small as can be."""
    from impasto.images import ImageFileError, decode_photo  # noqa: PLC0415

    path = tmp_path / "a.jpg"
    noise(path, size=(160, 120))
    whole = path.read_bytes()
    for end in (*range(2, len(whole), 499), len(whole) - 2, len(whole)):
        path.write_bytes(whole[:end])
        reason = find_damage(path)
        assert (reason is None) == (end == len(whole)), end
        if reason is not None:
            with pytest.raises(ImageFileError, match=f"^{re.escape(reason)}$"):
                decode_photo(path, at_least=160)


def test_the_list_is_sorted_and_keeps_every_byte_of_the_names(tmp_path: Path) -> None:
    names = [os.fsdecode(b"\xe4.jpg"), "ä.jpg", "a\n\x1b[31m.jpg", "a/b.jpg", "a.jpg"]
    write_list(tmp_path / "skipped.txt", dict.fromkeys(names, "why"))
    expected = ["a/b.jpg\twhy", "a\\n\\x1b[31m.jpg\twhy", "a.jpg\twhy", "ä.jpg\twhy"]
    lines = (tmp_path / "skipped.txt").read_bytes().split(b"\n")
    assert lines == [*(line.encode() for line in expected), b"\xe4.jpg\twhy", b""]


def test_a_checkpoint_with_very_many_of_them_is_read_again(tmp_path: Path) -> None:
    module = PhotoDataModule(source="samples", image_size=32)
    module.skipped = {f"\udce4{number}.jpg": "why" for number in range(60_000)}
    torch.save({"photos": module.state_dict()}, tmp_path / "a.ckpt")
    kept: Any = read_torch_file(tmp_path / "a.ckpt", error=ValueError, advice="")
    for state in (kept["photos"], {"skipped": module.skipped}):  # earlier versions kept it so
        other = PhotoDataModule(source="samples", image_size=32)
        other.load_state_dict(state)
        assert other.skipped == module.skipped


def test_the_contact_sheet_of_a_run_is_no_photo(tmp_path: Path) -> None:
    for folder in ("runs/mosaic", "holidays"):
        (tmp_path / folder).mkdir(parents=True)
        noise(tmp_path / folder / "contact_sheet.png")
    (tmp_path / "runs/mosaic/config.yaml").touch()
    assert find_photos(tmp_path) == [tmp_path / "holidays/contact_sheet.png"]


@pytest.mark.slow
def test_ten_thousand_photos_are_shown_at_full_rate(tmp_path: Path) -> None:
    reasons = fill(tmp_path / "damaged", 10_000, damaged=500)
    (tmp_path / "sound").mkdir()
    noise(tmp_path / "sound/0000.jpg")
    for number in range(1, 10_000):
        os.link(tmp_path / "sound/0000.jpg", tmp_path / f"sound/{number:04}.jpg")
    modules, ratios = [], []
    for name in ("sound", "damaged"):
        modules.append(PhotoDataModule(source="folder", root=tmp_path / name, image_size=32, batch_size=50))
        modules[-1].setup("fit")
    loaders = [iter(module.train_dataloader()) for module in modules]
    for _ in range(20):
        seconds = []
        for module, loader in zip(modules, loaders, strict=True):
            began = time.process_time()  # of this process alone, whatever else the machine does
            for batch in islice(loader, 10):
                module.on_before_batch_transfer(batch, 0)
            seconds.append(time.process_time() - began)
        ratios.append(seconds[0] / seconds[1])
    assert statistics.median(ratios) >= 0.9, ratios
    assert modules[1].skipped == reasons
    assert modules[0].skipped == {}
