"""An exported style paints in onnxruntime what it paints in torch, at any size; a file that does not is not left."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from impasto.cli import main
from impasto.painting.export import LIMIT, build_model, export_onnx
from impasto.style_file import Style, load_style, save_style
from impasto.transformer import TransformerNet

ODD_SIZES = [(8, 8), (8, 9), (9, 8), (11, 13), (15, 31), (33, 17), (50, 41), (37, 64), (101, 33), (63, 97)]
Session = Any


@pytest.fixture
def style(tmp_path: Path, network: TransformerNet, metadata: dict[str, Any]) -> Style:
    """A style of 16-bit weights, as those that come along, with the contrast of a trained one."""
    with torch.no_grad():
        network.layers[-1].get_parameter("conv.weight").mul_(3)
    save_style(tmp_path / "contrast.safetensors", network, metadata=metadata, dtype=torch.float16)
    return load_style(tmp_path / "contrast.safetensors")


def session(path: Path) -> Session:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("half", [False, True])
def test_it_paints_as_torch_does_at_ten_odd_sizes(tmp_path: Path, style: Style, *, half: bool) -> None:
    path = tmp_path / "a.onnx"
    assert export_onnx(style, path, half=half) < LIMIT
    paint = session(path)
    for height, width in ODD_SIZES:
        image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        (painted,) = paint.run(None, {"image": image.numpy()})
        assert painted.shape == image.shape
        assert painted.std() > 0.1
        assert np.abs(painted - style.network(image).numpy()).max() < 1 / 255


def test_any_number_of_pictures_at_once(tmp_path: Path, style: Style) -> None:
    export_onnx(style, tmp_path / "a.onnx")
    paint, images = session(tmp_path / "a.onnx"), np.random.default_rng(0).random((3, 3, 10, 13), np.float32)
    (together,) = paint.run(None, {"image": images})
    alone = [paint.run(None, {"image": image[None]})[0] for image in images]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)


def test_the_metadata_travel_along_and_no_path_does(tmp_path: Path, style: Style) -> None:
    export_onnx(style, tmp_path / "a.onnx")
    fields = session(tmp_path / "a.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(fields["impasto"]) == style.metadata
    assert str(Path.home()).encode() not in (tmp_path / "a.onnx").read_bytes()
    assert b".py" not in (tmp_path / "a.onnx").read_bytes()


def test_half_is_half_the_size_and_normalises_in_float32(style: Style) -> None:
    whole, half = (build_model(style, half=half) for half in (False, True))
    arrays = {weight.name: weight.data_type for weight in half.graph.initializer}
    assert arrays["layers.0.conv.weight"] != arrays["layers.0.norm.weight"]
    sizes = [sum(len(weight.raw_data) for weight in model.graph.initializer) for model in (half, whole)]
    assert sizes[0] < 0.55 * sizes[1]


def test_what_float16_cannot_hold_is_not_written(tmp_path: Path, style: Style) -> None:
    with torch.no_grad():
        style.network.layers[0].get_parameter("conv.weight").mul_(1e8)  # the normalisation after it takes that back
    export_onnx(style, tmp_path / "a.onnx")
    message = f"expected onnxruntime to paint as torch does, within 8/255, got nan/255: {str(tmp_path / 'b.onnx')!r} "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}was not written$"):
        export_onnx(style, tmp_path / "b.onnx", half=True)
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == ["a.onnx"]


class TestCommand:
    def test_the_file_is_named_for_the_style(
        self, style_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["export", str(style_path), "--to", "onnx"]) == 0
        assert main(["export", str(style_path), "--to=onnx", "--half", "-o", "new/b.onnx"]) == 0
        printed = capsys.readouterr()
        assert printed.out.splitlines() == ["zigzag.onnx", "new/b.onnx"]
        line = r"onnxruntime paints as torch does, within \d\.\d\d\d/255"
        assert all(re.fullmatch(line, said) for said in printed.err.splitlines())
        assert Path("new/b.onnx").stat().st_size < Path("zigzag.onnx").stat().st_size

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--to", "onnx", "--output", "a.pt"], "expected a file ending in .onnx, got 'a.pt': choose another name"),
            (
                ["--to", "onyx"],
                "argument --to: invalid choice: 'onyx' (choose from 'onnx'): see impasto export --help",
            ),
            (
                ["--too", "onnx"],
                "expected an option (--to, --half, --output, --help), got '--too': did you mean '--to'?",
            ),
        ],
    )
    def test_bad_input(
        self, style_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["export", str(style_path), *words]) == 2
        assert capsys.readouterr().err == f"error: {message}\n"

    @pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
    def test_a_missing_package(
        self, style_path: Path, package: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "impasto.painting.export")
        monkeypatch.setitem(sys.modules, package, None)
        assert main(["export", str(style_path), "--to", "onnx"]) == 2
        expected = f"error: expected the package {package}, found none: pip install 'impasto[export]'\n"
        assert capsys.readouterr().err == expected
