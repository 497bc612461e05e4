"""Styles for other runtimes: one ONNX file of network and metadata, kept only if it paints as torch does.

The graph is written node by node, for the network is small: nothing is traced, and no path of the maker's machine
travels along. Where onnxruntime then paints otherwise than torch, no file is left.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from impasto.files import written_whole
from impasto.metadata import METADATA_FIELD
from impasto.style_file import Style
from impasto.transformer import ConvLayer, ResidualBlock, TransformerNet, UpsampleConvLayer

OPSET = 17
"""Of 2022: runtimes since then read it."""
IR_VERSION = 8
SHAPES = ((1, 8, 8), (1, 9, 11), (2, 41, 50), (1, 66, 35))
"""Number, height and width of the pictures that are compared."""
LIMIT = 1 / 255
LIMIT_IN_HALF = 8 / 255


def export_onnx(style: Style, path: Path, *, half: bool = False) -> float:
    """Write a style as an ONNX file, whole or not at all, and return how far it is from torch at most.

    The file maps ``image`` (N, 3, H, W) in [0, 1], float32, of 8 px or more each way, to ``painted`` of the same shape
    and type, about [0, 1]; its metadata are those of the style file, in the field ``impasto``. ``half`` stores and
    computes in float16, all but the normalisation.

    Raises:
        ValueError: the path does not end in .onnx, or onnxruntime paints otherwise than torch.
        OSError: the disk is full, or the folder cannot be written.
    """
    if path.suffix.lower() != ".onnx":
        raise ValueError(f"expected a file ending in .onnx, got {str(path)!r}: choose another name")
    data = build_model(style, half=half).SerializeToString()
    difference, limit = largest_difference(style.network, data), LIMIT_IN_HALF if half else LIMIT
    if not difference <= limit:  # NaN is no agreement either
        raise ValueError(
            f"expected onnxruntime to paint as torch does, within {limit * 255:g}/255, "
            f"got {difference * 255:.1f}/255: {str(path)!r} was not written"
        )
    with written_whole(path) as temporary:
        temporary.write_bytes(data)
    return difference


def build_model(style: Style, *, half: bool) -> onnx.ModelProto:
    """Return the ONNX model of a style; raises onnx.checker.ValidationError if it is none."""
    graph = _Graph(half=half)
    graph.paint(style.network)
    shape: list[str | int | None] = ["number", 3, "height", "width"]
    image, painted = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "painted"))
    model = helper.make_model(
        helper.make_graph(graph.nodes, "impasto", [image], [painted], initializer=graph.weights),
        producer_name="impasto",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, {METADATA_FIELD: json.dumps(style.metadata)})
    onnx.checker.check_model(model)
    return model


def largest_difference(network: TransformerNet, model: bytes) -> float:
    """Return the largest difference of any value between onnxruntime and torch, both on the CPU, over SHAPES."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    differences = []
    for count, height, width in SHAPES:
        images = torch.rand(count, 3, height, width, generator=generator)
        (painted,) = session.run(None, {"image": images.numpy()})
        with torch.inference_mode():
            expected = network(images).numpy()
        differences.append(np.abs(painted.clip(0, 1) - expected.clip(0, 1)).max())
    return float(np.max(differences))


class _Graph:
    """Nodes and weights; each method adds nodes and returns the name of what comes out."""

    def __init__(self, *, half: bool) -> None:
        self.half = half
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.middle = self._constant("middle", np.float32(0.5))
        self.twice = self._constant("twice", np.array([1, 1, 2, 2], np.float32))

    def paint(self, network: TransformerNet) -> None:
        """Add the whole network, from ``image`` to ``painted``."""
        x = self._narrow(self._add("Sub", "image", self.middle))
        for number, module in enumerate(network.layers):
            x = self._module(x, module, f"layers.{number}")
        x = self._add("Add", self._widen(x), self.middle)
        size = self._add("Shape", "image", start=2)
        begin, axes = (self._constant(name, np.array(at)) for name, at in (("begin", [0, 0]), ("axes", [2, 3])))
        self._add("Slice", x, begin, size, axes, output="painted")

    def _module(self, x: str, module: object, name: str) -> str:
        if isinstance(module, ResidualBlock):
            branch = self._layer(x, module.first, f"{name}.first")
            return self._add("Add", x, self._layer(branch, module.second, f"{name}.second"))
        if isinstance(module, nn.Sequential):
            return self._module(x, module[0], f"{name}.layer")
        assert isinstance(module, ConvLayer), "the network has no other modules"
        return self._layer(x, module, name)

    def _layer(self, x: str, layer: ConvLayer, name: str) -> str:
        if isinstance(layer, UpsampleConvLayer):
            how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
            x = self._add("Resize", x, "", self.twice, **how)
        left, right, top, bottom = layer.padding
        pads = self._constant(f"{name}.padding", np.array([0, 0, top, left, 0, 0, bottom, right]))
        x = self._add("Pad", x, pads, mode="reflect")
        weight, bias = (
            self._weight(f"{name}.conv.{which}", value, half=self.half)
            for which, value in layer.conv.named_parameters()
        )
        x = self._add("Conv", x, weight, bias, strides=list(layer.conv.stride))
        x = x if isinstance(layer.norm, nn.Identity) else self._norm(x, layer.norm, f"{name}.norm")
        return x if isinstance(layer.relu, nn.Identity) else self._add("Relu", x)

    def _norm(self, x: str, norm: nn.Module, name: str) -> str:
        # In float16 the variance of a flat picture is lost, and the noise of rounding is what is left.
        scale, shift = (self._weight(f"{name}.{which}", value, half=False) for which, value in norm.named_parameters())
        return self._narrow(self._add("InstanceNormalization", self._widen(x), scale, shift, epsilon=norm.eps))

    def _narrow(self, x: str) -> str:
        return self._add("Cast", x, to=TensorProto.FLOAT16) if self.half else x

    def _widen(self, x: str) -> str:
        return self._add("Cast", x, to=TensorProto.FLOAT) if self.half else x

    def _add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = f"{operator}_{len(self.nodes)}" if output is None else output
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def _weight(self, name: str, value: Tensor, *, half: bool) -> str:
        return self._constant(name, value.to(torch.float16 if half else torch.float32).numpy())

    def _constant(self, name: str, value: NDArray[Any] | np.float32) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name
