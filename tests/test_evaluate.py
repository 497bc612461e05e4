"""The judge: what it measures is the loss of the training, on the photos it is given."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from impasto.learning.features import load_loss_network
from impasto.style_file import load_style, save_style
from impasto.transformer import TransformerNet
from scripts import evaluate


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        noise = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(number))
        Image.fromarray((noise * 255).byte().permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def report(
    photos: Path, style_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    words = [str(style_path), "--photos", str(photos), "--count", "2", "--size", "32", "--loss-network", "vgg16_slim"]
    words += ["--picture", str(photos / "0.png"), "--versus", str(style_path), "--json", str(tmp_path / "report.json")]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words])
    assert evaluate.main() == 0
    assert "photos unchanged" in capsys.readouterr().out
    contents: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    return contents


def find(report: dict[str, Any], **wanted: str) -> list[dict[str, Any]]:
    return [row for row in report["rows"] if all(row[key] == value for key, value in wanted.items())]


def test_every_photo_is_judged_on_both_scales(report: dict[str, Any], style_path: Path) -> None:
    assert report["photos"] == ["0.png", "1.png"]
    for scale in evaluate.SCALES:
        for painter in (evaluate.UNCHANGED, str(style_path)):
            assert [row["photo"] for row in find(report, scale=scale, painter=painter)] == ["0.png", "1.png"]


def test_an_unchanged_photo_has_no_content_loss_and_a_painted_one_has(report: dict[str, Any], style_path: Path) -> None:
    assert all(row["content"] == 0 < row["style_loss"] for row in find(report, painter=evaluate.UNCHANGED))
    assert all(row["content"] > 0 for row in find(report, painter=str(style_path)))


def test_the_total_is_the_sum_of_its_terms_and_the_mean_that_of_the_photos(report: dict[str, Any]) -> None:
    for row in report["rows"] + report["means"]:
        assert row["total"] == pytest.approx(row["content"] + row["style_loss"] + row["tv"], rel=1e-5)
    for mean in report["means"]:
        rows = find(report, scale=mean["scale"], painter=mean["painter"])
        assert mean["total"] == pytest.approx(sum(row["total"] for row in rows) / len(rows))


def test_the_balanced_content_loss_is_the_change_of_the_features_over_their_size(
    report: dict[str, Any], photos: Path, style_path: Path
) -> None:
    photo = evaluate.read_photos(photos, count=2, size=32)["1.png"]
    network = load_loss_network()

    def features(image: Tensor) -> Tensor:
        maps: dict[str, Tensor] = network(image, ["relu3_3"])
        return maps["relu3_3"]

    with torch.no_grad():
        before, after = features(photo), features(load_style(style_path).network(photo).clamp(0, 1))
    expected = float((after - before).square().mean() / before.square().mean())
    (row, *_) = find(report, scale="balanced", painter=str(style_path), photo="1.png")
    assert row["content"] == pytest.approx(expected, rel=1e-4)


def test_a_style_learned_from_another_picture_than_its_name_says(
    tmp_path: Path, photos: Path, network: TransformerNet, metadata: dict[str, Any]
) -> None:
    for name, picture, where in (("mosaic", "watercolour.jpg", "watercolour.jpg"), ("x", "mosaic.jpg", "mosaic.jpg")):
        save_style(tmp_path / "a.safetensors", network, metadata={**metadata, "style": name, "picture": picture})
        assert evaluate.own_picture(load_style(tmp_path / "a.safetensors")).name == where


@pytest.mark.parametrize("facts", [{"style": "mosaic", "picture": None}, {"style": "x", "picture": None}, {}])
def test_a_style_whose_picture_does_not_come_along(
    tmp_path: Path,
    photos: Path,
    network: TransformerNet,
    metadata: dict[str, Any],
    *,
    facts: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "a.safetensors"
    save_style(path, network, metadata=metadata | facts)
    words = [str(path), "--photos", str(photos), "--size", "32", "--loss-network", "vgg16_slim"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words])
    assert evaluate.main() == 2
    name = facts.get("style", "zigzag")
    message = f"expected a style whose picture comes with impasto, got {name!r}: evaluate.py takes it as --picture"
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {message}"


def test_files_of_one_style_with_two_marks(tmp_path: Path, network: TransformerNet, metadata: dict[str, Any]) -> None:
    paths = []
    for size in (32, 64):
        paths.append(tmp_path / f"{size}.safetensors")
        save_style(paths[-1], network, metadata={**metadata, "style_size": size})
    with pytest.raises(ValueError, match=r"^expected files of 'zigzag' of one picture at one style.size, got two: "):
        evaluate.with_styles(paths)
    save_style(paths[1], network, metadata={**metadata, "style_size": 32, "picture": "zigzag.jpg"})
    assert evaluate.with_styles(paths) == paths, "older files do not name their picture"


def test_folders_without_a_style(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"^expected style files or run folders, got none that holds a style: train"):
        evaluate.with_styles([tmp_path / "a", tmp_path / "b"])


def test_a_photo_that_would_have_to_be_enlarged(photos: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^expected photos of 41 px or more, got 48 x 40 px in '.*0.png': leave it out$"
    ):
        evaluate.read_photos(photos, count=1, size=41)


@pytest.mark.parametrize(("count", "names"), [(1, "0"), (2, "01"), (3, "012"), (16, "012"), (0, "012")])
def test_where_there_are_fewer_photos_than_asked_for_all_are_taken(photos: Path, count: int, names: str) -> None:
    assert list(evaluate.read_photos(photos, count=count, size=32)) == [f"{name}.png" for name in names]


def test_a_folder_without_photos(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^expected photos in '.*', found none: name a folder of photos$"):
        evaluate.read_photos(tmp_path, count=4, size=32)
