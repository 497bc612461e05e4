"""An ONNX file as a model paints what the style paints, also where there is no torch."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from impasto.cli import main
from impasto.metadata import StyleFileError
from impasto.painting.export import export_onnx
from impasto.painting.onnx_runtime import OnnxPainter
from impasto.painting.painter import SMALLEST, Look
from impasto.painting.stylizer import Stylizer
from impasto.style_file import load_style
from impasto.transformer import MINIMUM_SIZE

LOOKS = [Look(), Look(stroke_scale=2), Look(strength=0.5), Look(keep_colors=True)]


@pytest.fixture
def model(style_path: Path, tmp_path: Path) -> Path:
    path = tmp_path / "zigzag.onnx"
    export_onnx(load_style(style_path), path)
    return path


def pixels(dtype: str, *, size: tuple[int, int] = (21, 35)) -> Any:
    values = np.random.default_rng(0).random((*size, 3), np.float32)
    return values.astype(dtype) if dtype.startswith("f") else (values * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_it_paints_as_the_style_does(model: Path, style_path: Path, dtype: str, look: Look) -> None:
    photo = pixels(dtype)
    stylizer = Stylizer.load(style_path, device="cpu")
    ours, expected = OnnxPainter(model).paint(photo, look), stylizer.paint(photo, look)
    assert ours.dtype == photo.dtype
    step = {"uint8": 1, "uint16": 8}.get(dtype, 1e-4)
    assert np.abs(ours.astype(np.float64) - expected).max() <= step


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (7, 9)])
def test_a_tiny_picture(model: Path, size: tuple[int, int]) -> None:
    assert SMALLEST == MINIMUM_SIZE
    assert OnnxPainter(model).paint(pixels("uint8", size=size), Look()).shape == (*size, 3)


def test_the_command_paints_without_torch(model: Path, tmp_path: Path) -> None:
    Image.fromarray(pixels("uint8")).save(tmp_path / "a.png")
    code = "import sys; sys.modules.update(torch=None, safetensors=None); from impasto.cli import main; "
    code += "sys.exit(main(['stylize', '--model', 'zigzag.onnx', *sys.argv[1:]]))"
    words = [sys.executable, "-W", "error", "-c", code, "a.png"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "painted/a_zigzag.png\n", "")
    with Image.open(tmp_path / "painted" / "a_zigzag.png") as painted:
        assert painted.size == (35, 21)
        assert np.asarray(painted).std() > 2
    done = subprocess.run([*words, "--strength=0.5"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: expected the package torch, found none: pip install torch\n")


class TestBadInput:
    def refuse(self, path: Path, message: str, *, error: type[Exception] = StyleFileError, **options: str) -> None:
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            OnnxPainter(path, **options)

    def damaged(self, path: Path) -> str:
        return (
            f"expected a whole ONNX file that impasto has exported, got a damaged or other one in {str(path)!r}: "
            "export the style again"
        )

    def test_nothing_is_there(self, tmp_path: Path) -> None:
        message = f"expected an ONNX file, found none at {str(tmp_path / 'a.onnx')!r}: check the path"
        self.refuse(tmp_path / "a.onnx", message, error=FileNotFoundError)

    def test_damaged_files(self, model: Path) -> None:
        whole = model.read_bytes()
        for data in (b"", b"not ONNX", whole[:100], whole[: len(whole) // 2], bytes(500)):
            model.write_bytes(data)
            with pytest.raises(StyleFileError, match=r"^expected a (whole ONNX file|file that impasto has trained)"):
                OnnxPainter(model)
        model.write_bytes(b"not ONNX")
        self.refuse(model, self.damaged(model))

    def test_the_model_of_another_program(self, model: Path) -> None:
        loaded = onnx.load(model)
        del loaded.metadata_props[:]
        onnx.save(loaded, model)
        self.refuse(
            model,
            f"expected a file that impasto has trained, got one without impasto's metadata: {str(model)!r}; "
            "train the style with impasto",
        )

    def test_our_metadata_on_another_network(self, tmp_path: Path, metadata: dict[str, Any]) -> None:
        path = tmp_path / "a.onnx"
        sizes: list[list[str | int | None]] = [[1, 3, 8, 8], ["n", 3, "h", "w"], ["n", 3, "a", "b"]]
        for name, size in zip(("x", "image"), sizes, strict=False):
            ends = [
                helper.make_tensor_value_info(end, TensorProto.FLOAT, shape)
                for end, shape in ((name, size), ("painted", sizes[-1]))
            ]
            nodes = [helper.make_node("GlobalMaxPool", [name], ["painted"])]
            graph = helper.make_graph(nodes, "a", ends[:1], ends[1:])
            made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
            helper.set_model_props(made, {"impasto": json.dumps(metadata)})
            onnx.save(made, path)
            with pytest.raises(StyleFileError, match=f"^{re.escape(self.damaged(path))}$"):
                OnnxPainter(path).paint(pixels("uint8"), Look())

    @pytest.mark.parametrize("place", ["../weights.bin", "{folder}/weights.bin"])
    def test_weights_outside_of_its_folder(self, model: Path, place: str) -> None:
        """ONNX files may name another file that holds their weights."""
        loaded = onnx.load(model)
        weights = next(each for each in loaded.graph.initializer if len(each.raw_data) > 500)
        (model.parent.parent / "weights.bin").write_bytes(weights.raw_data)
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=place.format(folder=model.parent.parent))
        model.write_bytes(loaded.SerializeToString())
        self.refuse(model, self.damaged(model))

    def test_a_graph_that_fails_when_it_paints(self, model: Path) -> None:
        loaded = onnx.load(model)
        loaded.graph.initializer.add().CopyFrom(numpy_helper.from_array(np.array([10**6] * 3), "sides"))
        loaded.graph.node[-1].output[0] = "almost"
        loaded.graph.node.add().CopyFrom(helper.make_node("ConstantOfShape", ["sides"], ["huge"]))
        loaded.graph.node.add().CopyFrom(helper.make_node("Add", ["almost", "huge"], ["painted"]))
        model.write_bytes(loaded.SerializeToString())
        with pytest.raises(StyleFileError, match=f"^{re.escape(self.damaged(model))}$"):
            OnnxPainter(model).paint(pixels("uint8"), Look())

    def test_another_device(self, model: Path) -> None:
        message = "expected the device auto or cpu for an ONNX file, got 'cuda': give the style file for others"
        self.refuse(model, message, error=ValueError, device="cuda")

    def test_too_little_memory(self, model: Path) -> None:
        message = (
            "expected an image that fits the memory, got 35 x 21 px, for which an ONNX file takes 0.0 GB more: "
            "give the style file, which paints large pictures in bands"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            OnnxPainter(model).paint(pixels("uint8"), Look(memory=1))

    def test_no_onnxruntime(
        self, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "impasto.painting.onnx_runtime")
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        assert main(["stylize", "--model", str(model), "a.png"]) == 2
        expected = "error: expected the package onnxruntime, found none: pip install 'impasto[export]'\n"
        assert capsys.readouterr().err == expected
