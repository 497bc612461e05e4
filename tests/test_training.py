"""The main job from its command line: a style picture and photos in, a run folder with a style out."""

import contextlib
import io
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from impasto.cli import main
from impasto.learning import training
from impasto.learning.config import Precision, TrainConfig
from impasto.learning.photos import PhotoDataModule
from impasto.learning.provenance import find_commit
from impasto.learning.training import base_weights, choose_precision, make_module, measure_losses
from impasto.style_file import SHIPPED, load_style

ROOT = Path(__file__).parents[1]
TINY = (
    *("network.width=4", "budget.steps=6", "budget.image_size=64", "budget.batch_size=2", "budget.previews=3"),
    *("budget.small_size=32", "budget.small_share=0.5", "data.generated=2", "precision=fp32", "device=cpu"),
    "style.size=64",
)
TERMS = ("loss", "content", "style", "tv", "content_unweighted", "style_unweighted", "tv_unweighted")


def picture(path: Path, *, seed: int = 0, size: tuple[int, int] = (96, 80)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    Image.fromarray(pixels).resize(size).save(path)
    return path


@contextlib.contextmanager
def no_network() -> Iterator[None]:
    """Whoever opens a connection fails."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a connection was opened: {arguments}")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto", "bind"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


@dataclass(frozen=True)
class Finished:
    """Two runs of one command: the folders of both and what the second printed."""

    folder: Path
    first: Path
    printed: str
    complained: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, slim_weights: Path) -> Iterator[Finished]:
    top = tmp_path_factory.mktemp("training")
    words = ["train", "style=mosaic", "seed=5", f"loss_network.weights={slim_weights}", *TINY]
    with pytest.MonkeyPatch.context() as patch, no_network():
        patch.chdir(top)
        patch.setattr(sys, "argv", ["train.py"])
        patch.setattr(threading, "excepthook", threading.excepthook)  # given back at the end
        for _ in range(2):
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
                assert main(words) == 0
        yield Finished(top / "runs" / "mosaic", top / "runs" / "mosaic-1", out.getvalue(), err.getvalue())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_training_on_a_gpu(
    tmp_path: Path, slim_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    words = [word for word in TINY if word not in ("device=cpu", "precision=fp32")]
    words += ["device=cuda", "budget.steps=14"]  # enough for either size to be recorded and replayed
    assert main(["train", "style=mosaic", f"loss_network.weights={slim_weights}", *words]) == 0
    assert load_style(tmp_path / "runs" / "mosaic").metadata["steps"] == 14
    assert "steps are slower" not in "".join(capsys.readouterr())


def names_in(folder: Path) -> list[str]:
    """What is in a folder; the names of TensorBoard's files, which hold time and machine, are cut."""
    return sorted(name[:19] if name.startswith("events.out.tfevents") else name for name in os.listdir(folder))


class TestRunFolder:
    def test_what_is_there(self, finished: Finished) -> None:
        expected = ["config.yaml", "contact_sheet.png", "events.out.tfevents", "last.ckpt", "mosaic.safetensors"]
        assert names_in(finished.folder) == expected

    def test_a_second_run_keeps_the_first(self, finished: Finished) -> None:
        assert sorted(os.listdir(finished.folder.parent)) == ["mosaic", "mosaic-1"]
        assert names_in(finished.first) == names_in(finished.folder)
        assert "the run that was at runs/mosaic is now runs/mosaic-1\n" in finished.printed

    def test_the_same_command_gives_the_same_style(self, finished: Finished) -> None:
        for name in ("mosaic.safetensors", "contact_sheet.png", "config.yaml"):
            assert (finished.folder / name).read_bytes() == (finished.first / name).read_bytes()

    def test_the_metadata_are_complete(self, finished: Finished) -> None:
        metadata = load_style(finished.folder / "mosaic.safetensors").metadata
        losses, versions, commit = (metadata.pop(name) for name in ("losses", "versions", "commit"))
        assert metadata == {
            "format_version": 1,
            "style": "mosaic",
            "credit": "Drawn by scripts/draw_styles.py of the impasto project",
            "licence": "MIT",
            "picture": "mosaic.jpg",
            "width": 4,
            "init": "scratch",
            "loss_network": "vgg16_slim",
            "loss": "balanced",
            "content_layers": {"relu3_3": 1.0},
            "style_layers": dict.fromkeys(["relu1_2", "relu2_2", "relu3_3", "relu4_3"], 1.0),
            "content_weight": metadata["content_weight"],
            "style_weight": metadata["style_weight"],
            "tv_weight": metadata["tv_weight"],
            "stability": 0.0,
            "steps": 6,
            "image_size": 64,
            "small_size": 32,
            "small_steps": 3,
            "batch_size": 2,
            "style_size": 64,
            "seed": 5,
        }
        weights = {name: metadata[f"{name}_weight"] for name in ("content", "style", "tv")}
        assert losses.keys() == {*weights, "total"}
        assert losses["total"] == pytest.approx(sum(weight * losses[name] for name, weight in weights.items()))
        assert versions.keys() == {"impasto", "python", "torch", "pytorch_lightning"}
        assert versions["torch"] == str(torch.__version__)
        assert commit == find_commit()

    def test_the_weights_are_trained(self, finished: Finished, slim_weights: Path) -> None:
        module = tiny_module(slim_weights)
        trained = load_style(finished.folder).network
        assert all(torch.isfinite(parameter).all() for parameter in trained.parameters())
        weights = zip(trained.parameters(), module.transformer.parameters(), strict=True)
        assert not any(torch.equal(ours, untrained) for ours, untrained in weights if ours.ndim == 4)

    def test_the_checkpoint_is_the_same_style(self, finished: Finished) -> None:
        style, checkpoint = load_style(finished.folder), load_style(finished.folder / "last.ckpt")
        assert checkpoint.metadata["steps"] == 6
        for ours, theirs in zip(style.network.parameters(), checkpoint.network.parameters(), strict=True):
            assert torch.equal(ours, theirs)

    def test_the_config_is_written_down(self, finished: Finished) -> None:
        written = OmegaConf.load(finished.folder / "config.yaml")
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainConfig), written))
        assert isinstance(config, TrainConfig)
        assert (config.style.name, config.budget.steps, config.seed) == ("mosaic", 6, 5)
        assert config.run_dir == "runs/mosaic"

    def test_the_contact_sheet_shows_more_than_one_photo_beside_its_result(self, finished: Finished) -> None:
        with Image.open(finished.folder / "contact_sheet.png") as sheet:
            assert (sheet.mode, sheet.format) == ("RGB", "PNG")
            assert sheet.height > 2 * 384
            assert sheet.width > 3 * 200
            assert np.asarray(sheet).std() > 20


@pytest.fixture(scope="module")
def events(finished: Finished) -> EventAccumulator:
    events = EventAccumulator(str(finished.folder))
    events.Reload()
    return events


class TestTensorBoard:
    def test_every_curve_is_there(self, events: EventAccumulator) -> None:
        expected = {f"{stage}/{term}" for stage in ("train", "val") for term in TERMS}
        expected |= {"train/learning_rate", "train/gradient_norm", "train/skipped_steps"}
        expected |= {"train/images_per_second", "epoch"}
        assert set(events.Tags()["scalars"]) == expected

    def test_the_values_are_numbers_at_the_right_steps(self, events: EventAccumulator) -> None:
        for term in TERMS:
            (value,) = events.Scalars(f"train/{term}")
            assert np.isfinite(value.value)
            assert len(events.Scalars(f"val/{term}")) == 2
        assert events.Scalars("train/images_per_second")[0].value > 0

    def test_the_last_validation_is_what_the_style_file_says(
        self, events: EventAccumulator, finished: Finished
    ) -> None:
        losses = load_style(finished.folder).metadata["losses"]
        for term in ("content", "style", "tv"):
            assert events.Scalars(f"val/{term}_unweighted")[-1].value == pytest.approx(losses[term], rel=1e-4)
        assert events.Scalars("val/loss")[-1].value == pytest.approx(losses["total"], rel=1e-4)

    def test_the_pictures_are_there(self, events: EventAccumulator) -> None:
        assert [each.step for each in events.Images("previews")] == [3, 6]


class TestPrinted:
    def test_what_it_trains_with_is_said_first(self, finished: Finished) -> None:
        for pattern in (
            r"style +mosaic: .+/mosaic\.jpg at 64 px",
            r"photos +\d.*",
            r"transformer +width 4, 28,467 parameters, from scratch",
            r"loss network +vgg16_slim.*",
            r"loss +balanced: content .+, style .+, tv .+",
            r"steps +6 of 2 photos at 64 px, the first 3 at 32 px",
            r"device +cpu, fp32",
            r"expected time +\d.* (s|min)",
            r"run folder +runs/mosaic \(watch it: tensorboard --logdir runs\)",
        ):
            assert re.search(f"^{pattern}$", finished.printed, re.MULTILINE), pattern

    def test_what_came_out_is_said_last(self, finished: Finished) -> None:
        number = r"\d\S*"
        losses = f"content {number}, style {number}, tv {number}, total {number}"
        expected = (
            r"style file +runs/mosaic/mosaic\.safetensors\n"
            r"contact sheet +runs/mosaic/contact_sheet\.png\n"
            rf"final losses +{losses} \(on held-out photos\)\n"
            r"time +\d+ s \(preparation \d+ s, steps and previews \d+ s, results \d+ s\)\n"
            r"next +python stylize\.py --model runs/mosaic photo\.jpg\n"
        )
        assert re.search(f"{expected}$", finished.printed)

    def test_nothing_else_is_complained_about(self, finished: Finished) -> None:
        assert "arning" not in finished.complained + finished.printed
        assert "Tip" not in finished.complained + finished.printed

    def test_the_command_that_it_proposes_paints(self, finished: Finished, tmp_path: Path) -> None:
        photo = picture(tmp_path / "photo.png", size=(40, 24))
        assert (
            main(["stylize", "--model", str(finished.folder), str(photo), "--output", str(tmp_path / "out.png")]) == 0
        )
        with Image.open(tmp_path / "out.png") as painted:
            assert painted.size == (40, 24)


@pytest.fixture
def train(tmp_path: Path, slim_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Train"]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # given back at the end
    with no_network():
        yield Train(slim_weights)


@dataclass(frozen=True)
class Train:
    """The command with tiny settings, in a folder of its own."""

    weights: Path

    def __call__(self, *words: str) -> int:
        tiny = [word for word in TINY if "data=folder" not in words or not word.startswith("data.generated")]
        return main(["train", f"loss_network.weights={self.weights}", *tiny, *words])


class TestOwnPicturesAndPhotos:
    def test_a_sweep_over_two_styles_makes_two_run_folders(self, train: Train) -> None:
        for number in range(8):
            picture(Path(f"my photos/{number}.png"), seed=number)
        words = ("--multirun", "style=mosaic,watercolour", "data=folder", "data.root=my photos", "budget.steps=1")
        assert train(*words) == 0
        for name in ("mosaic", "watercolour"):
            style = load_style(Path("runs", name))
            assert (style.name, style.metadata["steps"]) == (name, 1)

    def test_a_bad_style_in_a_sweep_does_not_stop_the_others(
        self, train: Train, capsys: pytest.CaptureFixture[str]
    ) -> None:
        picture(Path("style/good.png"))
        words = ("--multirun", "style=custom", "+style.image=choice('style/none.png','style/good.png')")
        assert train(*words, "style.name=mine", "budget.steps=1") == 2
        assert load_style(Path("runs/mine")).metadata["steps"] == 1
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: expected an image file, found nothing at ")

    def test_a_picture_and_a_name_of_ones_own(self, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
        picture(Path("my pictures/[a] (1).png"))
        words = ("style=custom", "style.name=my style", "style.image=my pictures/[a] (1).png", "run_dir=out, here")
        assert train(*words, "budget.steps=1", "loss=paper", "precision=auto") == 0
        assert capsys.readouterr().out.endswith("next           python stylize.py --model 'out, here' photo.jpg\n")
        assert load_style(Path("out, here/my style.safetensors")).name == "my style"
        assert load_style(Path("out, here")).metadata["loss"] == "paper"

    @pytest.mark.parametrize(
        ("words", "rights"),
        [
            (('style.credit="Quilt", (c) A. Painter', "style.licence=MIT"), ('"Quilt", (c) A. Painter', "MIT")),
            (("style.name=grandma", "run_dir=runs/weeping_woman"), ("", "")),
            ((), ("", "")),
        ],
        ids=["given", "renamed", "none"],
    )
    def test_the_picture_of_a_built_in_style_is_another_one(
        self, train: Train, words: tuple[str, ...], rights: tuple[str, str]
    ) -> None:
        picture(Path("scan.png"))
        assert train("style.image=scan.png", *words, "budget.steps=1") == 0
        metadata = load_style(Path("runs/weeping_woman")).metadata
        assert (metadata["credit"], metadata["licence"]) == rights, "it is not drawn by us"
        assert metadata["picture"] is None


class TestStart:
    """``init``: the weights to start from."""

    def test_another_style(self, train: Train, style_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert train(f"init={style_path}", "budget.steps=1", "budget.learning_rate=1e-30") == 0
        ours, theirs = (load_style(path).network.state_dict() for path in (Path("runs/weeping_woman"), style_path))
        torch.testing.assert_close(ours, theirs, atol=1e-20, rtol=0)
        assert f"from {style_path}" in capsys.readouterr().out
        assert load_style(Path("runs/weeping_woman")).metadata["init"] == style_path.name, "no path of this machine"

    def test_scratch(self, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
        assert train("budget.steps=1") == 0
        assert "transformer    width 4, 28,467 parameters, from scratch\n" in capsys.readouterr().out

    def test_a_width_without_base_weights(self, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
        assert train("init=base", "budget.steps=1") == 0
        assert ", from scratch (there is no base of this width)\n" in capsys.readouterr().out
        assert load_style(Path("runs/weeping_woman")).metadata["init"] == "scratch"

    def test_a_style_of_another_width(self, train: Train, style_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert train(f"init={style_path}", "network.width=8") == 2
        assert capsys.readouterr().err == (
            "error: expected a style of width 8 to start from, got width 4 with "
            f"init={style_path}: add network.width=4, or init=scratch\n"
        )

    @pytest.mark.parametrize("init", ["scrach", "bsae"])
    def test_a_misspelt_word(self, train: Train, capsys: pytest.CaptureFixture[str], init: str) -> None:
        assert train(f"init={init}") == 2
        meant = {"scrach": "scratch", "bsae": "base"}[init]
        assert capsys.readouterr().err == (
            f"error: expected init of scratch, base or a trained style, got {init!r}: did you mean {meant!r}?\n"
        )

    @pytest.mark.parametrize("path", sorted(SHIPPED.parent.glob("base_*.safetensors")), ids=lambda path: path.stem)
    def test_the_base_weights_that_come_along(self, path: Path) -> None:
        width = int(path.stem.removeprefix("base_"))
        assert base_weights(width) == path
        style = load_style(path)
        assert (style.name, style.metadata["width"]) == ("base", width)
        painted = style.network(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        assert painted.std() > 0.05, "it is a picture, not of one colour"

    def test_a_resumed_run_says_what_it_began_with(self, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
        assert train("init=base", "budget.steps=2") == 0
        grown = Path("base.safetensors")
        Path("runs/weeping_woman/weeping_woman.safetensors").rename(grown)
        monkeypatch.setattr(training, "base_weights", lambda _: grown)
        assert train("init=base", "budget.steps=3", "resume=true") == 0
        assert load_style(Path("runs/weeping_woman")).metadata["init"] == "scratch"

    def test_the_folder_itself(self, train: Train, style_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(style_path.parent)
        assert train("init=.", "budget.steps=1", "run_dir=run") == 0
        assert load_style(Path("run")).metadata["init"] == style_path.parent.name

    def test_nothing_there(self, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
        assert train("init=none") == 2
        error = "expected a style's name, a style file, a checkpoint or a run folder, found nothing at 'none'"
        assert capsys.readouterr().err == f"error: {error}: check the path\n"
        assert not Path("runs").exists()


def test_the_loss_network_that_ships_is_the_default(train: Train) -> None:
    assert train("loss_network.weights=null", "budget.steps=1") == 0
    assert load_style(Path("runs/weeping_woman")).metadata["loss_network"] == "vgg16_slim"


class TestBadInput:
    """One line, exit status 2, and nothing is written or lost."""

    def expect(self, train: Train, capsys: pytest.CaptureFixture[str], *words: str, error: str) -> None:
        before = sorted(Path().rglob("*"))
        assert train(*words) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err) == ("", f"error: {error}\n")
        assert sorted(Path().rglob("*")) == before

    def test_a_style_picture_that_is_not_there(self, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
        error = "expected an image file, found nothing at 'none.jpg': check the path"
        self.expect(train, capsys, "style.image=none.jpg", error=error)

    def test_a_style_picture_that_is_none(self, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
        Path("text.jpg").write_text("no picture")
        assert train("style.image=text.jpg") == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert re.fullmatch(r"error: expected .+'text\.jpg'.*\n", printed.err)
        assert os.listdir() == ["text.jpg"]

    def test_a_style_picture_far_longer_than_wide(self, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
        Image.new("RGB", (2000, 1)).save("thin.png")
        error = (
            "expected a picture whose long side is at most 50 times the short one, got 2000 x 1 px in 'thin.png': "
            "cut a part out of it"
        )
        self.expect(train, capsys, "style.image=thin.png", error=error)

    def test_an_unknown_device(self, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
        assert train("device=gpu") == 2
        expected = r"error: expected auto or a device of this machine \([a-z, ]+\), got 'gpu': choose again\n"
        assert re.fullmatch(expected, capsys.readouterr().err)
        assert os.listdir() == []

    def test_a_layer_that_the_loss_network_does_not_have(
        self, train: Train, capsys: pytest.CaptureFixture[str]
    ) -> None:
        error = (
            "the loss network has no layer 'relu3_2': take vgg16 or vgg19 as the loss network, or another layer. "
            "It has relu1_2, relu2_2, relu3_3, relu4_3"
        )
        self.expect(train, capsys, "+loss.content_layers.relu3_2=1", error=error)

    def test_weights_that_are_not_there(self, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
        error = "expected the weights of a loss network at 'none.pth', found no file there"
        self.expect(train, capsys, "loss_network=vgg19", "loss_network.weights=none.pth", error=error)

    def test_a_folder_that_is_no_run(self, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
        Path("mine").mkdir()
        Path("mine/thesis.txt").write_text("all there is")
        error = (
            "expected a new folder or one of an earlier run, got something else at 'mine': "
            "choose another with run_dir=DIR"
        )
        self.expect(train, capsys, "run_dir=mine", error=error)
        assert Path("mine/thesis.txt").read_text() == "all there is"

    def test_a_run_folder_that_cannot_be_written_is_told_before_the_photos_are_read(
        self, train: Train, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("text").write_text("no folder")
        error = "expected a folder that can be written, got 'Not a directory' for 'text/run': choose another"
        self.expect(train, capsys, "run_dir=text/run", "data=folder", "data.root=none", error=error)

    def test_an_empty_folder_of_photos(self, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
        Path("photos").mkdir()
        error = "expected photos in 'photos', found no image file: name another folder"
        self.expect(train, capsys, "data=folder", "data.root=photos", error=error)


def tiny_config(weights: Path) -> TrainConfig:
    config = TrainConfig()
    config.style.name = "x"
    config.network.width = 4
    config.loss_network.name, config.loss_network.weights = "vgg16_slim", str(weights)
    config.loss.content_weight, config.loss.style_weight, config.loss.tv_weight = 1.0, 2.0, 3.0
    config.style.strength = 0.5
    config.loss.content_layers = {"relu2_2": 1.0, "relu4_3": 0.0}
    config.loss.style_layers = {"relu1_2": 1.0, "relu3_3": 0.0}
    config.budget.steps, config.budget.batch_size, config.budget.image_size = 1, 1, 32
    config.budget.learning_rate = 1e-3
    return config


def tiny_module(weights: Path) -> Any:
    torch.manual_seed(5)
    return make_module(tiny_config(weights), torch.rand(1, 3, 32, 32))


class TestParts:
    def test_strength_multiplies_the_style_weight(self, slim_weights: Path) -> None:
        _, loss = tiny_module(slim_weights).judge
        assert (loss.content_weight, loss.style_weight, loss.tv_weight) == (1.0, 1.0, 3.0)
        assert tiny_module(slim_weights).metadata["style_weight"] == 1.0

    def test_layers_of_weight_zero_are_left_out(self, slim_weights: Path) -> None:
        _, loss = tiny_module(slim_weights).judge
        assert (loss.content_layers, loss.style_layers) == ({"relu2_2": 1.0}, {"relu1_2": 1.0})

    @pytest.mark.parametrize("asked", list(Precision))
    def test_choosing_the_precision_changes_nothing(self, slim_weights: Path, asked: Precision) -> None:
        config, module = tiny_config(slim_weights), tiny_module(slim_weights)
        before = [parameter.detach().clone() for parameter in module.transformer.parameters()]
        config.precision = asked
        chosen = choose_precision(config, module)
        assert chosen in ((Precision.fp32, Precision.bf16) if asked is Precision.auto else (asked,))
        for parameter, old in zip(module.transformer.parameters(), before, strict=True):
            assert torch.equal(parameter, old)
            assert parameter.grad is None

    def test_bf16_on_a_processor_that_imitates_it_is_told(
        self, slim_weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        config, module = tiny_config(slim_weights), tiny_module(slim_weights)
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        for asked, can in ((Precision.bf16, True), (Precision.fp32, False), (Precision.bf16, False)):
            monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda can=can: can)
            config.precision = asked
            assert choose_precision(config, module) is asked
        told = "precision=bf16 on a processor that only imitates it: slower than precision=fp32, or auto"
        assert [record.getMessage() for record in caplog.records] == [told]

    def test_no_option_changes_the_final_losses_of_one_network(self, slim_weights: Path, tmp_path: Path) -> None:
        for number in range(30):  # of which three are held out
            pixels = np.random.default_rng(number).integers(0, 8 * number + 8, (36, 36, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        module, losses = tiny_module(slim_weights), []
        for batch_size in (1, 2, 3):
            photos = PhotoDataModule(source="folder", root=tmp_path, image_size=32, batch_size=batch_size, seed=0)
            photos.setup("fit")
            assert len(photos.held_out) == 3
            losses.append(measure_losses(module, photos))
        assert losses[1:] == losses[:1] * 2

    @pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout of the project")
    def test_the_commit_of_the_checkout(self) -> None:
        assert re.fullmatch("[0-9a-f]{40}", find_commit() or "")


def test_a_full_disk_ends_with_one_line_and_leaves_nothing_half_written(tmp_path: Path, slim_weights: Path) -> None:
    limit = ["sh", "-c", 'ulimit -f 200; exec "$@"', "sh"]  # files of 100 KB at most: the curves are larger
    words = [f"loss_network.weights={slim_weights}", *TINY, "style=mosaic"]
    command = [*limit, sys.executable, str(ROOT / "train.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "error: no space left to write 'runs/mosaic' (File too large): free some and run again; "
        "no half-written file is left"
    )
    assert names_in(tmp_path / "runs" / "mosaic") == ["config.yaml", "events.out.tfevents"]
