"""The command paints what it is given, and answers bad input with one line and a status."""

import io
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import impasto
from impasto.cli import main
from impasto.painting import batch
from impasto.painting.painter import Painter
from impasto.painting.pictures import read_picture

ROOT = Path(__file__).parents[1]
HEAVY = [
    "torch",
    "torchvision",
    "pytorch_lightning",
    "lightning",
    "hydra",
    "omegaconf",
    "tensorboard",
    "skimage",
    "cv2",
    "pygame",
]


def noise(path: Path, *, mode: str = "RGB", size: tuple[int, int] = (13, 11), **options: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def stylize(*words: object) -> int:
    return main(["stylize", "--model", "runs/zigzag", "--device", "cpu", *map(str, words)])


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed on stderr, one line, and nothing on stdout."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err.rstrip("\n")


class TestStylize:
    def test_a_photo_is_painted_at_its_size_and_its_path_is_printed(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        noise(folder / "a.jpg")
        assert stylize("a.jpg") == 0
        printed = capsys.readouterr()
        assert (printed.out, printed.err) == ("painted/a_zigzag.jpg\n", "")
        with Image.open("painted/a_zigzag.jpg") as painted:
            assert (painted.format, painted.size) == ("JPEG", (13, 11))

    @pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I;16", "RGBA", "LA", "F"])
    def test_every_kind_of_picture(self, folder: Path, mode: str) -> None:
        if mode == "I;16":
            Image.fromarray(np.linspace(0, 65535, 143).astype(np.uint16).reshape(11, 13)).save("a.tif")
        else:
            noise(folder / "a.tif", mode=mode)
        assert stylize("a.tif") == 0
        picture = read_picture(Path("painted/a_zigzag.tif"))
        assert picture.pixels.shape == (11, 13, 3)
        assert picture.pixels.std() > 2
        assert picture.pixels.dtype == (np.uint16 if mode == "I;16" else np.uint8)
        assert (picture.alpha is not None) == (mode in ("RGBA", "LA"))

    @pytest.mark.usefixtures("folder")
    def test_alpha_is_attached_again(self) -> None:
        alpha = Image.linear_gradient("L").resize((13, 11))
        picture = Image.new("RGB", (13, 11), "red")
        picture.putalpha(alpha)
        picture.save("a.png")
        assert stylize("a.png") == 0
        with Image.open("painted/a_zigzag.png") as painted:
            assert painted.mode == "RGBA"
            assert painted.getchannel("A").tobytes() == alpha.tobytes()

    @pytest.mark.usefixtures("folder")
    def test_hidden_colours_do_not_show(self) -> None:
        for name, colour in (("a.png", (255, 0, 0)), ("b.png", (0, 255, 0))):
            picture = Image.new("RGBA", (16, 16), (*colour, 0))
            picture.paste((9, 9, 9, 255), (0, 0, 8, 16))
            picture.save(name)
        assert stylize("a.png", "b.png") == 0
        assert Path("painted/a_zigzag.png").read_bytes() == Path("painted/b_zigzag.png").read_bytes()

    def test_orientation_is_applied_and_not_written_again(self, folder: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        noise(folder / "a.jpg", exif=exif)
        assert stylize("a.jpg") == 0
        with Image.open("painted/a_zigzag.jpg") as painted:
            assert painted.size == (11, 13)
            assert 0x0112 not in painted.getexif()

    def test_output_file_and_quality(self, folder: Path) -> None:
        noise(folder / "a.png", size=(64, 64))
        assert stylize("a.png", "-o", "new/x.jpg", "--quality", 1) == 0
        assert stylize("a.png", "--output", "new/y.jpg", "--quality=100") == 0
        assert Path("new/x.jpg").stat().st_size < Path("new/y.jpg").stat().st_size / 2

    def test_a_folder_a_pattern_and_a_file(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("photos/a.png", "photos/b.jpg", "c1.png", "c2.png", "d.gif"):
            noise(folder / name)
        assert stylize("photos", "c?.png", "d.gif", "--output", "out") == 0
        expected = ["a_zigzag.png", "b_zigzag.jpg", "c1_zigzag.png", "c2_zigzag.png", "d_zigzag.png"]
        assert sorted(os.listdir("out")) == expected
        assert capsys.readouterr().out.splitlines() == [f"out/{name}" for name in expected]

    def test_a_home_folder_is_found_where_the_shell_leaves_it(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("HOME", str(folder))
        noise(folder / "photos/a.png")
        noise(folder / "photos/~b.png")
        monkeypatch.chdir(folder / "photos")
        assert main(["stylize", "--model=~/runs/zigzag", "~/photos/*.png", "--output=~/out"]) == 0
        assert main(["stylize", "--model=~/runs/zigzag", "~b.png", "-o~/out/b.png"]) == 0
        assert sorted(os.listdir(folder / "out")) == ["a_zigzag.png", "b.png", "~b_zigzag.png"]
        capsys.readouterr()
        assert main(["check", "~/photos"]) == 0
        assert capsys.readouterr().err.endswith("2 photos, all can be read\n")
        (folder / "styles/style").mkdir(parents=True)
        (folder / "styles/style/mine.yaml").write_text("nmae: mine")
        assert main(["train", "--config-dir=~/styles", "style=mine", "style.name=mine", "style.image=~/a.png"]) == 2
        expected = "error: there is no option 'style.nmae': did you mean 'style.name'? see --help\n"
        assert capsys.readouterr().err == expected

    @pytest.mark.parametrize(
        "words",
        [["a.png", "--strength", "1", "b.png"], ["--", "a.png", "b.png"], ["a.png", "--strength", "1", "--", "b.png"]],
    )
    def test_options_may_stand_anywhere_among_photos(
        self, folder: Path, words: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("a.png", "b.png"):
            noise(folder / name)
        assert stylize(*words) == 0
        assert capsys.readouterr().out.splitlines() == ["painted/a_zigzag.png", "painted/b_zigzag.png"]

    def test_a_former_output_is_replaced(self, folder: Path) -> None:
        noise(folder / "a.png")
        assert stylize("a.png") == 0
        noise(folder / "a.png", size=(20, 20))
        assert stylize("a.png") == 0
        assert os.listdir("painted") == ["a_zigzag.png"]
        assert read_picture(Path("painted/a_zigzag.png")).pixels.shape == (20, 20, 3)

    def test_broken_pictures_among_several_are_named_and_passed_over(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("a.png", "c.png"):
            noise(folder / name)
        Path("b.png").touch()
        noise(folder / "small.png", size=(9, 7))
        assert stylize("a.png", "b.png", "small.png", "missing.png", "c.png") == 1
        printed = capsys.readouterr()
        assert printed.out.splitlines() == [f"painted/{name}_zigzag.png" for name in ("a", "small", "c")]
        assert printed.err.splitlines() == [
            "error: expected an image file, got zero bytes in 'b.png': copy it again",
            "error: expected an image file, found nothing at 'missing.png': check the path",
            "error: 2 of 5 pictures could not be painted; the others are done",
        ]

    @pytest.mark.parametrize("place", ["read_picture", "write_picture", "paint"])
    @pytest.mark.parametrize(
        "lack",
        [MemoryError("Unable to allocate 275. MiB"), cv2.error("(-4:Insufficient memory) Failed to allocate 9 bytes")],
    )
    def test_one_that_does_not_fit_the_memory_is_named_and_passed_over(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        *,
        place: str,
        lack: Any,
    ) -> None:
        for name in ("a.png", "b.png", "c.png"):
            noise(folder / name)
        names = iter(("a.png", "b.png", "c.png"))
        where = Painter if place == "paint" else batch
        work = getattr(where, place)

        def fail(*arguments: Any, **options: Any) -> Any:
            if next(names) == "b.png":
                raise lack
            return work(*arguments, **options)

        monkeypatch.setattr(where, place, fail)
        assert stylize("a.png", "b.png", "c.png") == 1
        printed = capsys.readouterr()
        assert printed.out.splitlines() == [f"painted/{name}_zigzag.png" for name in ("a", "c")]
        told = "error: expected an image that fits the memory, got a larger one in 'b.png': make it smaller"
        assert printed.err.splitlines()[0] == told

    def test_one_that_may_not_be_reached_is_named_and_passed_over(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out_of_reach = f"{'x' * 300}.png"  # for root, who may go anywhere, too
        noise(folder / "a.png")
        assert stylize(out_of_reach, "a.png") == 1
        printed = capsys.readouterr()
        assert printed.out == "painted/a_zigzag.png\n"
        assert printed.err.splitlines()[0] == (
            f"error: expected an image file that may be read, got 'File name too long' from {out_of_reach!r}: "
            "check the file"
        )

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
    def test_a_pattern_in_a_folder_that_may_not_be_entered(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("a.png", "photos/b.png"):
            noise(folder / name)
        (folder / "photos").chmod(0o600)
        try:
            assert stylize("photos/*.png", "a.png") == 1
        finally:
            (folder / "photos").chmod(0o700)
        printed = capsys.readouterr()
        assert printed.out == "painted/a_zigzag.png\n"
        assert printed.err.splitlines()[0] == (
            "error: expected an image file that may be read, got 'Permission denied' from 'photos/b.png': "
            "check the file"
        )

    def test_a_link_to_itself_among_several(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        noise(folder / "photos/a.png")
        os.symlink("loop.png", "photos/loop.png")
        assert stylize("photos") == 1
        printed = capsys.readouterr()
        assert printed.out == "painted/a_zigzag.png\n"
        expected = "error: expected an image file, found nothing at 'photos/loop.png': check the path"
        assert printed.err.splitlines()[0] == expected

    def test_names_that_are_no_utf_8_are_printed_as_their_bytes(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in (b"caf\xe9", b"z"):
            noise(folder / "photos" / os.fsdecode(name + b".png"))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
        assert stylize("photos") == 0
        sys.stdout.seek(0)
        assert sys.stdout.buffer.read() == b"painted/caf\xe9_zigzag.png\npainted/z_zigzag.png\n"

    @pytest.mark.parametrize("options", [[], ["--resume"]])
    def test_a_name_too_long_for_its_result(
        self, folder: Path, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        long = "b" * 250
        for name in ("a", long, "c"):
            noise(folder / "photos" / f"{name}.png")
        assert stylize("photos", *options) == 1
        printed = capsys.readouterr()
        assert printed.out.splitlines() == ["painted/a_zigzag.png", "painted/c_zigzag.png"]
        assert printed.err.splitlines()[0] == f"error: File name too long: 'painted/{long}_zigzag.png'"

    @pytest.mark.parametrize("size", [(1, 1), (1, 30), (7, 9)])
    def test_a_tiny_picture(self, folder: Path, size: tuple[int, int]) -> None:
        noise(folder / "a.png", size=size)
        assert stylize("a.png") == 0
        with Image.open("painted/a_zigzag.png") as painted:
            assert painted.size == size

    def test_the_look_is_as_asked_for(self, folder: Path) -> None:
        noise(folder / "a.png")
        original = read_picture(Path("a.png")).pixels
        looks: list[list[object]] = [[], ["--strength", 0], ["--keep-colors"], ["--stroke-scale=2", "--memory", "8GB"]]
        painted = []
        for words in looks:
            assert stylize("a.png", *words) == 0
            painted.append(read_picture(Path("painted/a_zigzag.png")).pixels)
        assert np.array_equal(painted[1], original)
        assert len({pixels.tobytes() for pixels in painted}) == len(looks)

    def test_resume_paints_what_is_missing(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("a.png", "b.png"):
            noise(folder / name)
        assert stylize("a.png") == 0
        before = Path("painted/a_zigzag.png").stat().st_mtime_ns
        for expected in (["painted/b_zigzag.png"], []):
            capsys.readouterr()
            assert stylize("a.png", "b.png", "--resume") == 0
            printed = capsys.readouterr()
            assert printed.out.splitlines() == expected
            assert printed.err == f"skipped {2 - len(expected)} of 2 pictures that are painted already\n"
        assert Path("painted/a_zigzag.png").stat().st_mtime_ns == before

    def test_a_broken_one_of_several_is_so_again_with_resume(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        noise(folder / "a.png")
        Path("b.png").touch()
        for words in ([], ["--resume"]):
            assert stylize("a.png", "b.png", *words) == 1
            told = "error: 1 of 2 pictures could not be painted; the others are done"
            assert capsys.readouterr().err.splitlines()[-1] == told

    def test_what_the_camera_noted_is_kept_or_stripped(self, folder: Path) -> None:
        exif = Image.Exif()
        exif[0x010F] = "a maker"
        noise(folder / "a.jpg", exif=exif)
        for words, expected in ([], "a maker"), (["--strip"], None):
            assert stylize("a.jpg", *words) == 0
            with Image.open("painted/a_zigzag.jpg") as painted:
                assert painted.getexif().get(0x010F) == expected

    def test_a_larger_picture_than_allowed(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # restored afterwards
        noise(folder / "a.png")
        assert stylize("a.png", "--max-pixels", 100) == 2
        assert error(capsys) == (
            "error: expected an image of at most 100 px, got more in 'a.png': make it smaller, or raise the limit"
        )


class TestBadInput:
    @pytest.mark.usefixtures("folder")
    def test_a_single_broken_picture(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("a.png").touch()
        assert stylize("a.png") == 2
        assert error(capsys) == "error: expected an image file, got zero bytes in 'a.png': copy it again"
        assert not Path("painted").exists()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--strength", "2"], "expected a strength of 0 to 1.5, got 2.0"),
            (
                ["--model", ""],
                (
                    "argument --model: expected a style, got an empty word: a dot is the current folder: "
                    "see impasto stylize --help"
                ),
            ),
            (
                ["--stroke-scale", "x"],
                "argument --stroke-scale: expected a number, got 'x': see impasto stylize --help",
            ),
            (
                ["--memory", "4 apples"],
                (
                    "argument --memory: expected a size with its unit, such as 4GB or 500MB, got '4 apples': "
                    "see impasto stylize --help"
                ),
            ),
            (
                ["--memory", "4"],
                (
                    "argument --memory: expected a size with its unit, such as 4GB or 500MB, got '4': "
                    "see impasto stylize --help"
                ),
            ),
            (
                ["--memory", "9" * 309 + "B"],
                f"argument --memory: expected a size of fewer digits, got '{'9' * 309}B': see impasto stylize --help",
            ),
            (
                ["--max-pixels", "0"],
                "argument --max-pixels: expected a whole number of 1 or more, got '0': see impasto stylize --help",
            ),
        ],
    )
    @pytest.mark.usefixtures("folder")
    def test_an_option_out_of_range(self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert stylize("a.png", *words) == 2
        assert error(capsys) == f"error: {message}"

    @pytest.mark.usefixtures("folder")
    def test_a_model_that_is_not_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["stylize", "--model", "zigzig", "a.png"]) == 2
        assert error(capsys) == (
            "error: expected a style's name, a style file, a checkpoint or a run folder, found nothing at 'zigzig': "
            "did you mean 'runs/zigzag'?"
        )

    @pytest.mark.usefixtures("folder")
    def test_an_onnx_file_that_is_not_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("a.onnx", "A.ONNX"):
            assert main(["stylize", "--model", name, "a.png"]) == 2
            assert error(capsys) == f"error: expected an ONNX file, found none at {name!r}: check the path"

    def test_a_misspelt_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["stilize", "a.png"]) == 2
        assert error(capsys) == (
            "error: expected a command (train, stylize, optimize, features, export, import, check), got 'stilize': "
            "did you mean 'stylize'?"
        )

    def test_no_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 2
        assert error(capsys) == (
            "error: expected a command (train, stylize, optimize, features, export, import, check), got none: "
            "see impasto --help"
        )

    def test_a_misspelt_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["stylize", "--modle=x", "a.png"]) == 2
        assert error(capsys) == (
            "error: expected an option (--model, --camera, --output, --strength, --keep-colors, --stroke-scale, "
            "--smooth, --quality, --strip, --resume, --memory, --max-pixels, --device, --help), "
            "got '--modle': did you mean '--model'?"
        )

    @pytest.mark.parametrize("name", ["-dash.png", "--dash.png"])
    def test_a_photo_that_is_named_like_an_option(
        self, folder: Path, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        noise(folder / name)
        for words in ([name], [name, "--output", "x.png"]):
            assert stylize(*words) == 2
            expected = f"error: expected an option, got the file '{name}', whose name begins like one: write './{name}'"
            assert error(capsys) == expected
        assert stylize(f"./{name}", "-o", "x.png") == 0

    def test_no_model(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["stylize", "a.png"]) == 2
        assert error(capsys) == "error: the following arguments are required: --model: see impasto stylize --help"

    @pytest.mark.parametrize("quality", ["0", "101", "-1", "9.5", "best"])
    def test_a_quality_out_of_range(self, quality: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["stylize", "--model", "x", f"--quality={quality}", "a.png"]) == 2
        assert error(capsys) == (
            f"error: argument --quality: expected a whole number of 1 to 100, got {quality!r}: "
            "see impasto stylize --help"
        )

    def test_an_unknown_device(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        noise(folder / "a.png")
        assert stylize("a.png", "--device", "gpu") == 2
        expected = r"error: expected auto or a device of this machine \([a-z, ]+\), got 'gpu': choose again"
        assert re.fullmatch(expected, error(capsys))

    def test_an_output_that_would_replace_the_photo(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = noise(folder / "a.png").read_bytes()
        assert stylize("a.png", "--output", "a.png") == 2
        expected = "error: expected an output other than the picture itself, got 'a.png': choose another name"
        assert error(capsys) == expected
        assert Path("a.png").read_bytes() == before

    @pytest.mark.parametrize("output", ["text/x.png", "text/painted/"])
    def test_a_folder_that_cannot_be_written_is_told_before_anything_is_painted(
        self, folder: Path, output: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("text").write_text("no folder")
        Path("a.png").touch()  # not even read
        assert stylize("a.png", "-o", output) == 2
        place = str(Path(output if output.endswith("/") else "text"))
        expected = f"error: expected a folder that can be written, got 'Not a directory' for {place!r}: choose another"
        assert error(capsys) == expected

    def test_an_output_that_is_no_file_of_a_known_kind(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        noise(folder / "a.png")
        assert stylize("a.png", "-o", "my.folder") == 2
        assert error(capsys).endswith(
            ", got 'my.folder': choose another ending, for example .png, or write 'my.folder/' if it is a folder"
        )
        assert stylize("a.png", "-o", "my.folder/") == 0
        assert os.listdir("my.folder") == ["a_zigzag.png"]

    def test_a_full_disk(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        noise(folder / "a.png", size=(64, 64))
        noise(folder / "b.png", size=(64, 64))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            assert stylize("a.png", "b.png") == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert error(capsys) == (
            "error: no space left to write 'painted/a_zigzag.png' (File too large): free some and run again; "
            "no half-written file is left"
        )
        assert os.listdir("painted") == []


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)


def imported_by(code: str, *, cwd: Path) -> set[str]:
    """The heavy packages that a fresh interpreter has imported after the code."""
    done = run(sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return set(HEAVY) & set(done.stdout.splitlines()[-1].split())


class TestLight:
    @pytest.mark.parametrize(
        "words",
        [
            ["--help"],
            ["--version"],
            *([each, "--help"] for each in ("stylize", "optimize", "features", "export", "import")),
        ],
    )
    def test_help_answers_without_torch(self, words: list[str], tmp_path: Path) -> None:
        code = f"from impasto.cli import main\ntry: main({words!r})\nexcept SystemExit as end: assert end.code == 0"
        assert imported_by(code, cwd=tmp_path) == set()

    def test_painting_needs_torch_alone(self, folder: Path) -> None:
        noise(folder / "a.png")
        code = "from impasto.cli import main; assert main(['stylize', '--model', 'runs/zigzag', 'a.png']) == 0"
        assert imported_by(code, cwd=folder) == {"torch"}

    def test_the_options_of_a_training_are_checked_before_anything_heavy_is_imported(self, tmp_path: Path) -> None:
        code = "from impasto.cli import main; assert main(['train', 'style=none']) == 2"
        assert imported_by(code, cwd=tmp_path) <= {"hydra", "omegaconf"}
        code = "from impasto.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass"
        assert imported_by(code, cwd=tmp_path) <= {"hydra", "omegaconf"}


INTERRUPT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "impasto.commands":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""
"""A module that Python imports when it starts: Ctrl-C comes while the command is imported."""


class TestEntryPoints:
    @pytest.mark.parametrize(
        "words", [["-m", "impasto", "stylize"], [str(ROOT / "stylize.py")]], ids=["module", "script"]
    )
    def test_they_are_the_same_command(self, folder: Path, words: list[str]) -> None:
        noise(folder / "a.png")
        done = run(sys.executable, *words, "--model", "runs/zigzag", "a.png", cwd=folder)
        assert (done.returncode, done.stdout, done.stderr) == (0, "painted/a_zigzag.png\n", "")

    @pytest.mark.parametrize("words", [["-m", "impasto", "train"], [str(ROOT / "train.py")]], ids=["module", "script"])
    def test_training_is_the_same_command_too(self, tmp_path: Path, words: list[str]) -> None:
        done = run(sys.executable, *words, "style=mosaic", "budget.steps=0", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "error: expected budget.steps of 1 or more, got 0\n"
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("words", [["-m", "impasto"], [str(ROOT / "train.py")], [str(ROOT / "stylize.py")]])
    def test_ctrl_c_at_the_start_ends_without_a_word(self, tmp_path: Path, words: list[str]) -> None:
        (tmp_path / "sitecustomize.py").write_text(INTERRUPT)
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "")

    def test_the_exit_status_reaches_the_shell(self, tmp_path: Path) -> None:
        done = run(sys.executable, str(ROOT / "stylize.py"), "--model", "none", "a.png", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "error: expected a style's name, a style file, a checkpoint or a run folder, "
            "found nothing at 'none': check the path\n"
        )


def test_ctrl_c_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "model")  # reading it waits until the signal
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    threading.Timer(0.2, signal.pthread_kill, [main_thread, signal.SIGINT]).start()
    assert main(["stylize", "--model", str(tmp_path / "model"), "a.png"]) == 130
    assert error(capsys) == "interrupted; files already written are whole"


def test_help_names_every_command_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["--help"], ("train", "stylize", "optimize", "features", "export", "import")),
        (
            ["stylize", "--help"],
            ("PHOTO", "--model", "--strength", "--keep-colors", "--memory", "--resume", "--device"),
        ),
    ):
        with pytest.raises(SystemExit, match=r"^0$"):
            main(words)
        printed = capsys.readouterr().out
        assert all(word in printed for word in expected)


@pytest.mark.parametrize("words", [["--version"], ["train", "style=mosaic", "--version"]])
def test_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(words)
    assert capsys.readouterr().out == f"impasto {impasto.__version__}\n"
