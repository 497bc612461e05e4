"""Starts compared: what is trained, what is judged, and what is not trained again."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from impasto.style_file import load_style, save_style
from impasto.transformer import TransformerNet
from scripts import compare_starts
from tests.test_training import TINY


@pytest.fixture
def words(tmp_path: Path, slim_weights: Path) -> list[str]:
    (tmp_path / "photos").mkdir()
    Image.effect_noise((260, 270), 60).convert("RGB").save(tmp_path / "photos" / "noise.png")
    options = [word for word in TINY if not word.startswith("budget.")]
    options += ["budget.image_size=32", "budget.small_size=32", "budget.batch_size=1"]
    options += [f"loss_network.weights={slim_weights}"]
    paths = ["--work", str(tmp_path), "--json", str(tmp_path / "totals.json"), "--plot", str(tmp_path / "plot.png")]
    judge = ["--photos", str(tmp_path / "photos"), "--loss-network", "vgg16_slim"]
    steps = ["--steps", "1", "--scratch-steps", "1", "2"]
    return [*options, "--styles", "mosaic", "--starts", "base", "scratch", *steps, *judge, *paths]


def test_every_start_is_trained_once_and_judged(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_starts.py", *words])
    assert compare_starts.main() == 0
    totals = json.loads((tmp_path / "totals.json").read_text())["totals"]["mosaic"]
    assert {(start, *by_steps) for start, by_steps in totals.items()} == {("base", "1"), ("scratch", "1", "2")}
    assert totals["scratch"]["2"] != totals["scratch"]["1"]
    seconds = json.loads((tmp_path / "totals.json").read_text())["seconds_per_step"]
    last = f"{'mosaic':16} {'scratch':16} {2:6} {2 * seconds:8.0f} {totals['scratch']['2']:8.3f}"
    assert capsys.readouterr().out.splitlines()[-1] == last
    assert 0 < seconds < 60
    (run,) = tmp_path.glob("mosaic_scratch_2_*")
    assert load_style(run).metadata["init"] == "scratch"
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.size == (770, 462)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")}
    monkeypatch.setattr(sys, "argv", ["compare_starts.py", *words])  # Hydra had it
    assert compare_starts.main() == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")} == stamps
    monkeypatch.setattr(sys, "argv", ["compare_starts.py", "budget.optimizer=adam", *words])
    assert compare_starts.main() == 0
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 2 * len(stamps)


def test_runs_from_other_weights_are_other_runs(
    tmp_path: Path, network: TransformerNet, metadata: dict[str, Any]
) -> None:
    seen = []
    for number in range(2):
        torch.nn.init.constant_(next(network.parameters()), number)
        save_style(tmp_path / "a.safetensors", network, metadata=metadata)
        seen.append(tuple(compare_starts.marks(str(tmp_path / "a.safetensors"), [])))
    assert len({*seen, tuple(compare_starts.marks("base", ["network.width=16"]))}) == 3
    assert compare_starts.marks("scratch", []) == []


def test_a_training_that_fails_ends_it(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [word for word in words if not word.startswith("data.generated")]
    monkeypatch.setattr(sys, "argv", ["compare_starts.py", "data.root=nowhere", "data=folder", *own])
    with pytest.raises(SystemExit, match=r"^2$"):
        compare_starts.main()
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: expected a folder")
