"""ONNX files as models: onnxruntime paints, and torch need not be there."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from impasto.metadata import StyleFileError, parse_metadata
from impasto.painting.painter import Painter, add_grain
from impasto.painting.pictures import Pixels

_BYTES = 34  # that a pixel takes, times the network's width: measured 30
_DEVICES = ("auto", "cpu")
_QUIET = 4  # of onnxruntime's levels; what goes wrong comes as an error as well


class OnnxPainter(Painter):
    """Paints as the style does that ``impasto export`` wrote, on the CPU, a picture as a whole.

    Raises:
        FileNotFoundError: there is no such file.
        StyleFileError: the file is no ONNX file, is damaged, or was not exported by impasto.
        ValueError: the device is another than auto and cpu.
    """

    def __init__(self, path: Path, *, device: str = "auto") -> None:
        if device not in _DEVICES:
            raise ValueError(
                f"expected the device auto or cpu for an ONNX file, got {device!r}: give the style file for others"
            )
        self.path = path
        self.session = _open(path)
        metadata = parse_metadata(path, self.session.get_modelmeta().custom_metadata_map)
        _check_ends(path, self.session)
        self.name = str(metadata["style"])
        self.width = int(metadata["width"])

    def weights(self) -> bytes:
        """Return the bytes of the whole file."""
        return self.path.read_bytes()

    def _paint_whole(self, pixels: Pixels, memory: int | None) -> Pixels:
        self._check_memory(pixels, memory)
        full = 1 if pixels.dtype == np.float32 else np.iinfo(pixels.dtype).max
        image = np.ascontiguousarray(add_grain(pixels).transpose(2, 0, 1)[None], np.float32) / np.float32(full)
        try:
            (painted,) = self.session.run(None, {"image": image})
        except Exception as error:  # onnxruntime has a type for each of many reasons, and no common one.
            raise _damaged(self.path) from error
        if painted.shape != image.shape:
            raise _damaged(self.path)
        array: Pixels = (painted[0].transpose(1, 2, 0).clip(0, 1) * np.float32(full)).astype(np.float32)
        return array if full == 1 else np.rint(array).astype(pixels.dtype)

    def _check_memory(self, pixels: Pixels, memory: int | None) -> None:
        height, width = pixels.shape[:2]
        needed = _BYTES * self.width * height * width
        if needed > self._room(memory):
            raise ValueError(
                f"expected an image that fits the memory, got {width} x {height} px, for which an ONNX file takes "
                f"{needed / 1e9:.1f} GB more: give the style file, which paints large pictures in bands"
            )


def _open(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"expected an ONNX file, found none at {str(path)!r}: check the path")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a type for each of many reasons, and no common one.
        raise _damaged(path) from error


def _check_ends(path: Path, session: Any) -> None:
    ends = [(end.name, end.type, end.shape[1:2]) for end in (*session.get_inputs(), *session.get_outputs())]
    if ends != [("image", "tensor(float)", [3]), ("painted", "tensor(float)", [3])]:
        raise _damaged(path)


def _damaged(path: Path) -> StyleFileError:
    return StyleFileError(
        f"expected a whole ONNX file that impasto has exported, got a damaged or other one in {str(path)!r}: "
        "export the style again"
    )
