"""The comparison measures every style file, photo and start once, and sums up what it measured."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from impasto.learning.config import read_preset
from impasto.learning.features import VGG_CHANNELS, channels_of, layer_names
from impasto.style_file import save_style
from impasto.transformer import TransformerNet
from scripts import compare_with_optimization as comparison


@pytest.fixture
def words(tmp_path: Path, network: TransformerNet, metadata: dict[str, Any], slim_weights: Path) -> list[str]:
    """The command line of a tiny comparison, judged by random networks."""
    for name, steps in (("quick", read_preset("budget", "quick")["steps"]), ("short", 3)):
        facts = {**metadata, "style": "mosaic", "steps": steps, "batch_size": 2, "style_size": 32}
        with torch.no_grad():
            next(network.parameters()).mul_(1.5)
        save_style(tmp_path / "runs" / name / "mosaic.safetensors", network, metadata=facts)
    (tmp_path / "photos").mkdir()
    for number in range(2):
        noise = torch.rand(40, 48, 3, generator=torch.Generator().manual_seed(number))
        Image.fromarray((noise * 255).byte().numpy()).save(tmp_path / "photos" / f"{number}.png")
    torch.manual_seed(0)
    order, tensors, before = layer_names(VGG_CHANNELS["vgg19"][:3]), {}, 3
    for index, layer in enumerate(order):
        if layer.startswith("conv"):
            channels = channels_of(layer, VGG_CHANNELS["vgg19"])
            tensors[f"features.{index}.weight"] = torch.randn(channels, before, 3, 3) * (2 / (9 * before)) ** 0.5
            tensors[f"features.{index}.bias"], before = torch.zeros(channels), channels
    torch.save(tensors, tmp_path / "vgg19.pth")
    given = ["--photos", "photos", "--loss-network", "vgg16_slim", "--weights", str(slim_weights)]
    given += ["--judge-weights", "vgg19.pth", "--count", "2", "--sizes", "32", "--iterations", "12", "--device", "cpu"]
    return ["runs/quick", "runs/short", *given, "--to", "out"]


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_with_optimization.py", *words])
    assert comparison.main() == 0


def test_it_measures_everything_once_and_reports(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(words, monkeypatch)
    cells = sorted(Path("out/cells").glob("*.json"))
    assert len(cells) == 2 * (2 + 2)  # photos, times starts and style files
    assert capsys.readouterr().out.rstrip() == Path("out/comparison.md").read_text().rstrip()
    assert Path("out/strip_mosaic_32.jpg").is_file()
    rows = json.loads(Path("out/comparison.json").read_text())["rows"]
    assert [(row["style"], row["size"], row["budget"]) for row in rows] == [
        ("mosaic", 32, "quick"),
        ("mosaic", 32, "3 steps of 2"),
    ]
    for row in rows:
        own = [json.loads(path.read_text()) for path in cells]
        painted = [each["painted"]["objective"] for each in own if each.get("budget") == row["budget"]]
        assert row["objective"] == pytest.approx(sum(painted) / 2)
        assert row["photo"]["objective"][0] == pytest.approx(row["unchanged"])
        assert row["photo"]["objective"][-1] < row["unchanged"]
        assert len(row["noise"]["objective"]) == 13
        assert list(row["noise"]["milestones"]) == ["0", "10", "12"]
        assert row["photo"]["milestones"]["0"]["ssim"] == 1
        assert list(row["polish"]) == ["5", "10", "25"]
        assert row["seconds"] > 0
        assert list(row["noise"]["speed_up"]) == ["equal", "100", "300", "500"]
        per_iteration = row["noise"]["seconds_per_iteration"]
        assert row["noise"]["speed_up"]["300"] == pytest.approx(300 * per_iteration / row["seconds"])
    removed = cells.pop()
    removed.unlink()
    written = {path: path.stat().st_mtime_ns for path in cells}
    run(words, monkeypatch)
    assert removed.exists()
    assert {path: path.stat().st_mtime_ns for path in cells} == written


def test_a_style_file_that_has_moved_is_not_measured_again(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(["runs/quick", *words[2:]], monkeypatch)
    written = {path: path.stat().st_mtime_ns for path in Path("out/cells").glob("*.json")}
    Path("runs/quick").rename("runs/moved")
    run(["runs/moved", *words[2:]], monkeypatch)
    assert {path: path.stat().st_mtime_ns for path in Path("out/cells").glob("*.json")} == written
    (row,) = json.loads(Path("out/comparison.json").read_text())["rows"]
    assert row["photos"] == 2


def test_a_record_of_an_optimization_among_the_runs_is_passed_over(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/photo_mosaic_optimized").mkdir()
    run(["runs/photo_mosaic_optimized", *words[1:]], monkeypatch)
    assert "passed over 'runs/photo_mosaic_optimized': expected a style file" in capsys.readouterr().err


def test_bad_input_is_one_line(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare_with_optimization.py", "mosaci", *words[2:]])
    assert comparison.main() == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("found nothing at 'mosaci': did you mean 'mosaic'?")


def test_the_iterations_that_a_level_matches_are_interpolated() -> None:
    assert comparison.match([8.0, 4.0, 2.0], 3.0) == 1.5
    assert comparison.match([8.0, 4.0, 2.0], 4.0) == 1
    assert comparison.match([8.0, 4.0, 2.0], 9.0) == 0
    assert comparison.match([8.0, 4.0, 2.0], 1.0) is None


def test_what_is_done_between_the_steps_is_not_timed() -> None:
    timed = comparison.timed(iter("abc"))
    assert next(timed) == ("a", 0.0)
    assert [step for step, seconds in timed if 0 < seconds < 1] == ["b", "c"]


def test_the_parts_of_a_markdown_table() -> None:
    assert comparison.table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"


def test_style_files_of_one_style_with_two_objectives(
    tmp_path: Path, network: TransformerNet, metadata: dict[str, Any]
) -> None:
    paths = []
    for weight in (1.0, 2.0):
        facts = {**metadata, "style": "mosaic", "batch_size": 2, "style_weight": weight}
        paths.append(tmp_path / f"{weight}.safetensors")
        save_style(paths[-1], network, metadata=facts)
    with pytest.raises(
        ValueError, match=r"^expected one objective for all files of mosaic, got two: compare them apart$"
    ):
        comparison.check_painters([comparison.read_painter(path) for path in paths])


def test_another_objective_than_that_of_the_training(
    tmp_path: Path, network: TransformerNet, metadata: dict[str, Any]
) -> None:
    path = tmp_path / "style.safetensors"
    save_style(path, network, metadata={**metadata, "style": "mosaic", "batch_size": 2, "style_weight": 2.0})
    assert comparison.read_painter(path).options.style_weight == 2.0
    layers = {"content_layers": {"relu2_2": 1.0}, "style_layers": {"relu1_2": 0.5}}
    save_style(path, network, metadata={**metadata, "style": "mosaic", "batch_size": 2, **layers})
    options = comparison.read_painter(path).options
    assert {name: getattr(options, name) for name in layers} == layers
    paper = comparison.read_painter(path, loss="paper").options
    assert (paper.scaling, paper.style_weight) == ("paper", read_preset("loss", "paper")["style_weight"])
