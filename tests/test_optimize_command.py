"""``impasto optimize`` and ``impasto features`` write what they were asked for, and say in a line what is wrong."""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.cli import main
from impasto.commands.features import write_best
from impasto.commands.optimize import read_mask
from impasto.commands.record import Record
from impasto.images import read_image
from impasto.learning.config import read_preset
from impasto.learning.losses import LossOptions, LossTerms
from impasto.learning.optimization import Step

HAS_SLIM = "It has relu1_2, relu2_2, relu3_3, relu4_3"
OPTIONS = LossOptions(**read_preset("loss", "balanced"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slim_weights: Path) -> Path:
    """A current folder with a photo, a style picture, and weights of a loss network."""
    monkeypatch.chdir(tmp_path)
    for name, size in (("a.png", (40, 32)), ("style.png", (48, 48)), ("small.png", (20, 16))):
        pixels = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(name)
    Image.new("L", (40, 32), "white").save("white.png")
    os.symlink(slim_weights, "slim.safetensors")
    return tmp_path


def optimize(*words: str) -> int:
    common = ["--size", "16", "--iterations", "3"] if not any(word.startswith("--scales") for word in words) else []
    judge = ["--weights", "slim.safetensors", "--device", "cpu"]
    return main(["optimize", "a.png", *common, "--style", "style.png", "--style-size", "16", *judge, *words])


class TestOptimize:
    def test_it_writes_the_result_and_a_record(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert optimize("--every", "2") == 0
        assert capsys.readouterr().out == "painted/a_style_optimized.png\n"
        assert read_image(Path("painted/a_style_optimized.png")).shape == (1, 3, 16, 20)
        record = sorted(os.listdir("runs/a_style_optimized"))
        assert record[:2] == ["0000.png", "0002.png"]
        assert record[2].startswith("events.out.tfevents")

    def test_an_earlier_record_is_kept(self, folder: Path) -> None:
        Path("runs/a_style_optimized").mkdir(parents=True)
        assert optimize("--output", "x.png") == 0
        assert sorted(os.listdir("runs")) == ["a_style_optimized", "a_style_optimized-1"]
        assert read_image(Path("x.png")).shape == (1, 3, 16, 20)

    def test_a_name_that_is_no_utf_8(self, folder: Path) -> None:
        os.symlink("style.png", os.fsdecode(b"caf\xe9.png"))
        assert optimize("--style", os.fsdecode(b"caf\xe9.png"), "-o", "x.png") == 0
        assert os.listdir("runs") == ["a_style_caf?_optimized"]

    @pytest.mark.parametrize("start", ["content", "white", "noise"])
    def test_every_start_and_option_works_together(self, folder: Path, start: str) -> None:
        words = [
            "--start",
            start,
            "--style",
            "mosaic",
            "--share=2",
            "--share=1",
            "--mask=white.png",
            "--mask=white.png",
        ]
        layers = ["--content-layers", "relu2_2=0.5,relu3_3", "--style-layers=relu1_2", "--tv-weight=0"]
        scales = ["--scales", "8:1", "--scales", "16:2"]
        assert optimize(*words, *layers, *scales, "--optimizer=adam", "--keep-colors", "--output=x.png") == 0
        assert read_image(Path("x.png")).shape == (1, 3, 16, 20)

    def test_it_begins_with_a_networks_painting(self, folder: Path, style_path: Path) -> None:
        assert optimize("--start", str(style_path), "--every=1", "--log-dir=log", "--output=x.png") == 0
        assert not torch.equal(read_image(Path("log/0000.png")), read_image(Path("log/0003.png")))

    def test_where_a_mask_is_transparent_it_is_black(self, folder: Path) -> None:
        pixels = np.full((32, 40, 4), 255, np.uint8)
        pixels[:, 20:, 3] = 0
        Image.fromarray(pixels).save("cut_out.png")
        mask = read_mask(Path("cut_out.png"), read_image(Path("a.png")))
        assert mask.shape == (1, 1, 32, 40)
        assert (mask[..., :20] == 1).all()
        assert (mask[..., 20:] == 0).all()

    def test_the_current_folder_as_log(self, folder: Path) -> None:
        assert optimize("--log-dir", ".", "-o", "x.png") == 0
        assert folder.with_name(f"{folder.name}-1").is_dir()

    def test_gatys_needs_a_full_network(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert optimize("--objective", "gatys") == 2
        advice = f"take vgg16 or vgg19 as the loss network, or another layer. {HAS_SLIM}"
        assert capsys.readouterr() == ("", f"error: the loss network has no layer 'conv4_2': {advice}\n")


KNOWN = (
    "embroidery, ink_hatching, mosaic, pointillism, stained_glass, starry_swirls, thick_oil, watercolour, "
    "weeping_woman, woodblock_wave"
)
OPTIMIZE_HELP = "see impasto optimize --help"
TOO_SMALL = "take larger images or a shallower layer"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--style", "mosic"],
            f"expected a picture or a style ({KNOWN}), found nothing at 'mosic': did you mean 'mosaic'?",
        ),
        (
            ["--start", "nois"],
            "expected --start content, white, noise or a trained style, got 'nois': did you mean 'noise'?",
        ),
        (
            ["--mask", "small.png"],
            "expected a mask of the photo's size, 40 x 32 px, got 20 x 16 px in 'small.png': scale the mask",
        ),
        (["--mask", "a.png", "--mask", "a.png"], "expected --mask once for each of 1 styles, got 2: give it to all"),
        (["--share", "0"], "expected a --share above 0, got none: the greater a share, the more of the style"),
        (
            ["--content-layers", "relu3_4"],
            f"the loss network has no layer 'relu3_4': take vgg19 as the loss network, or another layer. {HAS_SLIM}",
        ),
        (["--style-layers", "rleu3_3"], f"the loss network has no layer 'rleu3_3': did you mean 'relu3_3'? {HAS_SLIM}"),
        (
            ["--size", "4"],
            f"expected images of at least 8 x 8 px for the layer relu4_3, got 5 x 4 px: {TOO_SMALL}",
        ),
        (
            ["--scales", "8:1", "--size", "8"],
            "expected --scales, or --size and --iterations, got both: leave one out",
        ),
        (
            ["--objective", "gatys", "--scaling", "paper"],
            "expected --scaling with --objective johnson alone, got gatys: leave one out",
        ),
        (["--share", "-1"], "argument --share: expected a number of 0 or more, got '-1': see impasto optimize --help"),
        *(
            (
                [f"--learning-rate={rate}"],
                f"argument --learning-rate: expected a number above 0, got {rate!r}: {OPTIMIZE_HELP}",
            )
            for rate in ("0", "-1", "nan", "fast")
        ),
        (
            ["--scales", "8"],
            "argument --scales: expected SIZE:ITERATIONS, such as 256:100, got '8': see impasto optimize --help",
        ),
        (
            ["--iterations", "0"],
            "argument --iterations: expected a whole number of 1 or more, got '0': see impasto optimize --help",
        ),
        (
            ["--output", "style.png"],
            "expected an output other than a style or mask, got 'style.png': choose another name",
        ),
        (
            ["--mask", "white.png", "--output", "./white.png"],
            "expected an output other than a style or mask, got 'white.png': choose another name",
        ),
        (
            ["--seed", str(2**63)],
            f"argument --seed: expected a whole number of 0 or more and below 2^63, got '{2**63}': {OPTIMIZE_HELP}",
        ),
        (["--output", "a.png"], "expected an output other than the picture itself, got 'a.png': choose another name"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    folder: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(os.listdir())
    assert optimize(*words) == 2
    assert capsys.readouterr() == ("", f"error: {expected}\n")
    assert sorted(os.listdir()) == before


def test_a_photo_far_longer_than_wide(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (2000, 1)).save("thin.png")
    assert main(["optimize", "thin.png", "--style", "style.png", "--weights=slim.safetensors", "--device=cpu"]) == 2
    assert "long side is at most 50 times the short one, got 2000 x 1 px in 'thin.png'" in capsys.readouterr().err
    assert not Path("painted").exists()


@pytest.mark.parametrize("name", ["b.gif", "b.mp4"])
def test_a_clip_is_no_photo(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save("b.gif", save_all=True, append_images=frames[1:])
    Path("b.mp4").touch()
    words = ["--style", "style.png", "--size=16", "--iterations=1", "--weights=slim.safetensors", "--device=cpu"]
    assert main(["optimize", name, *words]) == 2
    advice = "give one of its frames (of a GIF or WebP, -o with a .png takes the first)"
    assert capsys.readouterr() == ("", f"error: expected a photo, got the clip {name!r}: {advice}\n")
    assert not Path("runs").exists()


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError()])
def test_too_little_memory_is_one_line(
    folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, seed: int) -> None:
        raise error

    monkeypatch.setattr("impasto.learning.optimization.start_noise", fail)
    assert optimize("--start", "noise") == 2
    expected = "error: expected memory for pictures of that size, got too little: make them smaller\n"
    assert capsys.readouterr() == ("", expected)
    assert not Path("runs").exists()


def test_a_misspelt_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "a.png", "--itterations=3"]) == 2
    assert capsys.readouterr().err.endswith("got '--itterations': did you mean '--iterations'?\n")


def steps_until(error: BaseException) -> Iterator[Step]:
    """Two steps, the second the better, then the error."""
    terms = LossTerms(*torch.ones(4))
    yield Step(0, terms, torch.zeros(1, 3, 8, 8), 2.0)
    yield Step(1, terms, torch.ones(1, 3, 8, 8), 1.0, "back to the best picture")
    raise error


def test_ctrl_c_leaves_the_best_picture_so_far(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(Path("x.png"), Path("log"), OPTIONS, every=50)
    assert record.follow(steps_until(KeyboardInterrupt()), total=10) == 130
    printed = capsys.readouterr()
    assert printed.out == "x.png\n"
    assert printed.err == "back to the best picture\ninterrupted at iteration 1; the best picture so far is kept\n"
    assert (read_image(Path("x.png")) == 1).all()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_as_ctrl_c_does(folder: Path, number: signal.Signals) -> None:
    def steps() -> Iterator[Step]:
        yield from itertools.islice(steps_until(ValueError()), 2)
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # a second one does not keep the picture from being written

    before = signal.getsignal(number)
    assert Record(Path("x.png"), Path("log"), OPTIONS, every=50).follow(steps(), total=10) == 128 + number
    assert (read_image(Path("x.png")) == 1).all()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("diverged")])
def test_a_reconstruction_that_ends_early_leaves_the_best_picture_so_far(folder: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write_best(Path("x.png"), steps_until(error), iterations=10)
    assert (read_image(Path("x.png")) == 1).all()


def test_a_descent_that_fails_leaves_the_best_picture_so_far(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^diverged$"):
        Record(Path("x.png"), Path("log"), OPTIONS, every=50).follow(steps_until(ValueError("diverged")), total=10)
    assert (read_image(Path("x.png")) == 1).all()


class TestFeatures:
    def test_it_writes_maps_gram_matrices_and_reconstructions(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--layer=relu1_2", "--layer=relu2_2", "--size=16", "--weights=slim.safetensors", "--device=cpu"]
        wanted = ["--reconstruct=content", "--reconstruct=texture", "--iterations=2"]
        assert main(["features", "a.png", *words, *wanted]) == 0
        assert capsys.readouterr().out == "features/a\n"
        both = [f"relu{i}_2_{kind}" for i in (1, 2) for kind in ("content.png", "gram.npy", "gram.png", "maps.npy")]
        expected = [*both, "relu1_2_maps.png", "relu2_2_maps.png", "relu1_2_relu2_2_texture.png"]
        assert sorted(os.listdir("features/a")) == sorted(expected)
        maps, gram = (np.load(f"features/a/relu2_2_{kind}.npy") for kind in ("maps", "gram"))
        assert (maps.shape, gram.shape) == ((96, 8, 10), (96, 96))
        np.testing.assert_allclose(gram, np.einsum("chw,dhw->cd", maps, maps) / maps.size, rtol=1e-4, atol=1e-5)

    def test_a_misspelt_layer(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["--layer", "rleu3_3", "--weights=slim.safetensors", "--device=cpu"]
        assert main(["features", "a.png", *words]) == 2
        expected = f"error: the loss network has no layer 'rleu3_3': did you mean 'relu3_3'? {HAS_SLIM}\n"
        assert capsys.readouterr() == ("", expected)
        assert not Path("features").exists()

    @pytest.mark.parametrize("kind", ["maps", "gram", "content"])
    def test_a_picture_that_would_be_written_over(
        self, folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name = f"relu1_2_{kind}.png"
        before = Path("a.png").rename(name).read_bytes()
        words = ["--layer=relu1_2", "--size=16", "--weights=slim.safetensors", "--device=cpu", "--output=."]
        assert main(["features", name, *words, "--reconstruct=content", "--iterations=2"]) == 2
        assert capsys.readouterr().err == (
            f"error: expected an output folder in which {name!r} is not written, got that of the picture itself, "
            "'.': choose another\n"
        )
        assert Path(name).read_bytes() == before
        assert not Path("relu1_2_maps.npy").exists()
