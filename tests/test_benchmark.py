"""The benchmark: its plain step computes the same losses, and its figures belong together."""

import json
import sys
from pathlib import Path

import pytest
import torch

from impasto.learning.losses import gram_matrix
from scripts import benchmark


def test_the_plain_gram_matrix_is_ours() -> None:
    features = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(benchmark.plain_gram(features), gram_matrix(features))


def test_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--batch=2", "--size=32", "--width=4", "--precision=fp32", "--device=cpu", "--rounds=3", "--json"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words, str(tmp_path / "report.json")])
    assert benchmark.main() == 0
    (timing,) = json.loads((tmp_path / "report.json").read_text())["timings"]
    least, most = timing["spread"]
    assert 0 < least <= timing["ratio"] <= most
    assert timing["images_per_second"] == pytest.approx(2 / timing["seconds"])
    assert timing["plain_peak_mib"] > timing["peak_mib"] > 100
    assert f"{timing['ratio']:.2f}" in capsys.readouterr().out
