"""The benchmark: its plain step computes the same losses, and its figures belong together."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from impasto.images import read_pixels
from impasto.learning.losses import gram_matrix
from impasto.transformer import TransformerNet
from scripts import benchmark


def test_the_plain_gram_matrix_is_ours() -> None:
    features = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(benchmark.plain_gram(features), gram_matrix(features))


def test_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--batch=2", "--size=32", "--width=4", "--precision=fp32", "--device=cpu", "--rounds=3", "--json"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words, str(tmp_path / "report.json")])
    assert benchmark.main() == 0
    (timing,) = json.loads((tmp_path / "report.json").read_text())["timings"]
    plain = timing["plain"]
    least, most = plain["spread"]
    assert 0 < least <= plain["ratio"] <= most
    assert timing["images_per_second"] == pytest.approx(2 / timing["seconds"])
    assert plain["peak_mib"] > timing["peak_mib"] > 100
    assert f"{plain['ratio']:.2f}" in capsys.readouterr().out


def test_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--batch", "1", "2", "--size=32", "--width=4", "--precision=fp32", "--device=cpu", "--rounds=1"]
    words += ["--alone", "--json", str(tmp_path / "report.json")]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words])
    assert benchmark.main() == 0
    timings = json.loads((tmp_path / "report.json").read_text())["timings"]
    assert [timing["case"]["batch"] for timing in timings] == [1, 2]
    assert all(timing["plain"] is None for timing in timings)
    assert "plain" not in capsys.readouterr().out


def timing(batch: int, peak_mib: float, *, size: int = 256) -> benchmark.Timing:
    case = benchmark.Case(batch, size, 16, "vgg16_slim", "fp32", "cpu")
    return benchmark.Timing(case, seconds=1.0, images_per_second=batch, peak_mib=peak_mib, plain=None)


class TestGrowth:
    def test_what_is_sure_not_to_fit_is_not_tried(self) -> None:
        free = psutil.virtual_memory().available / 2**20
        measured = [timing(1, 1000.0), timing(2, 1100.0)]
        assert benchmark.find_lack(timing(3, 0).case, measured) is None
        lack = benchmark.find_lack(timing(2 + int(free / 100), 0).case, measured)
        assert lack is not None
        assert re.fullmatch(r"not tried: \d+ MiB expected, \d+ MiB free", lack)

    def test_nothing_is_expected_of_one_case_or_of_cases_of_another_kind(self) -> None:
        large = timing(10**6, 0).case
        other = [timing(1, 1000.0), timing(2, 1100.0)]
        assert benchmark.find_lack(large, other[:1]) is None
        assert benchmark.find_lack(replace(large, width=32), other) is None

    def test_the_largest_batch_that_was_measured_and_the_one_that_a_line_tells(self) -> None:
        measured = [timing(1, 1000.0), timing(4, 1300.0), timing(101, 11_000.0), timing(1, 9_000.0, size=1024)]
        assert list(benchmark.describe_largest(measured)) == [
            (
                "256 px, width 16, vgg16_slim, fp32: 8 GB: 4 measured, about 67 by a line; "
                "24 GB: 101 measured, about 219 by a line; 80 GB: 101 measured, about 753 by a line"
            ),
            "1024 px, width 16, vgg16_slim, fp32: 8 GB: none of the measured; 24 GB: 1 measured; 80 GB: 1 measured",
        ]

    def test_a_few_photos_at_a_time(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["train", "--batch=3", "--micro-batch-size", "1", "all", "--size=32", "--width=4", "--precision=fp32"]
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *words, "--device=cpu", "--rounds=1", "--alone"])
        assert benchmark.main() == 0
        _, few, whole, *largest = capsys.readouterr().out.splitlines()
        assert [row.split()[:3] for row in (few, whole)] == [["3", "1", "32"], ["3", "all", "32"]]
        assert re.fullmatch(r"32 px, .*fp32, 1 at a time: 8 GB: 3 measured; 24 GB: .*", largest[0])
        assert re.fullmatch(r"32 px, .*fp32: 8 GB: 3 measured; 24 GB: .*", largest[1])


def test_its_figures_of_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "DIFFERENT", 20)  # the others are links
    words = ["photos", "--count=60", "--size=32", "--workers", "0", "1", "--crops=20", "--rounds=3"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words, "--json", str(tmp_path / "report.json")])
    assert benchmark.main() == 0
    report = json.loads((tmp_path / "report.json").read_text())["photos"]
    assert [figures["workers"] for figures in report] == [0, 1]
    for figures in report:
        rate = figures["crops_per_second"]
        assert 0 < rate["least"] <= rate["median"] <= rate["most"]
        assert figures["first_batch_seconds"] > 0
    assert f"1 workers: {report[1]['crops_per_second']['median']:.0f} crops a second" in capsys.readouterr().out


def test_its_figures_of_photos_that_are_kept_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    words = ["photos", "--count=20", "--size=32", "--workers", "0", "--crops=20", "--rounds=1", "--memory=0"]
    monkeypatch.setattr(
        sys, "argv", ["benchmark.py", *words, "--cache", str(kept), "--json", f"{tmp_path}/report.json"]
    )
    assert benchmark.main() == 0
    assert len(list(kept.glob("*/*.pixels"))) == 20
    report = json.loads((tmp_path / "report.json").read_text())["photos"]
    assert [(figures["workers"], figures["cache"]) for figures in report] == [(0, False), (0, True)]
    writing, plain, cached = capsys.readouterr().out.splitlines()
    assert writing.startswith("writing them: ")
    assert plain.startswith(f"0 workers: {report[0]['crops_per_second']['median']:.0f} crops a second (")
    assert cached.startswith("0 workers with decoded photos on disk: ")


def test_photos_made_have_the_sizes_of_coco(tmp_path: Path) -> None:
    benchmark.make_photos(tmp_path, count=8)
    files = sorted(tmp_path.iterdir())
    sizes = [read_pixels(path, at_least=640).shape[:0:-1] for path in files]
    assert sizes == [*benchmark.COCO_SIZES, *benchmark.COCO_SIZES[:2]]
    assert len({path.read_bytes() for path in files}) == 8


def test_the_plain_network_paints_as_ours_does() -> None:
    plain, ours = benchmark.plain_network(4), TransformerNet(4)
    weights = zip(ours.state_dict(), plain.state_dict().values(), strict=True)
    ours.load_state_dict(dict(weights))
    images = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(images), plain(images - 0.5) + 0.5)


def test_its_figures_of_painting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "stylize",
        "--picture",
        "40",
        "32",
        "--width",
        "8",
        "4",
        "--pictures=2",
        "--rounds=1",
        "--threads=1",
        "--onnx",
    ]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words, "--json", str(tmp_path / "report.json")])
    threads = torch.get_num_threads()
    try:
        assert benchmark.main() == 0
    finally:
        torch.set_num_threads(threads)
    report = json.loads((tmp_path / "report.json").read_text())
    networks = [painting["network"] for painting in report["paintings"]]
    assert networks == ["width 8", "width 8 as ONNX", "width 4", "width 4 as ONNX"]
    for painting in report["paintings"]:
        expected = painting["plain_seconds"]["median"] / painting["seconds"]["median"]
        assert painting["ratio"]["median"] == pytest.approx(expected)
    assert report["command"]["median"] > 0.1
    assert report["folder_seconds"] > 0
    printed = capsys.readouterr().out
    assert f"2 files: {report['folder_seconds']:.2f} s, the network alone {report['network_seconds']:.2f} s" in printed
