"""Models of PyTorch's own fast_neural_style example, made into style files that paint the same.

That example's network is built as ours is, but for its range: 0 to 255 comes in and goes out, where ours takes [0, 1]
less 0.5 and gives [0, 1] less 0.5. The first and the last convolution take the difference in, which is exact but for
the rounding of float32: for reflection padding leaves a constant a constant.
"""

from pathlib import Path

import torch
from torch import Tensor

from impasto.metadata import FORMAT_VERSION, LARGEST_WIDTH, StyleFileError
from impasto.style_file import save_style
from impasto.torch_files import read_torch_file
from impasto.transformer import TransformerNet

Weights = dict[str, Tensor]

# Of the example's norms, which once kept statistics and never used them.
_STALE = ("running_mean", "running_var", "num_batches_tracked")
_BLOCKS = range(1, 6)
_PLACES = {
    **{f"{kind}{number}": f"layers.{number - 1}" for number in (1, 2, 3) for kind in ("conv", "in")},
    **{f"res{block}.{kind}1": f"layers.{block + 2}.first" for block in _BLOCKS for kind in ("conv", "in")},
    **{f"res{block}.{kind}2": f"layers.{block + 2}.second" for block in _BLOCKS for kind in ("conv", "in")},
    "deconv1": "layers.8.layer",
    "in4": "layers.8.layer",
    "deconv2": "layers.9.layer",
    "in5": "layers.9.layer",
    "deconv3": "layers.10",
}
"""Modules of the example's network, and where each stands in ours."""
_FIRST, _LAST = "layers.0.conv", "layers.10.conv"


def import_model(source: Path, target: Path) -> None:
    """Write the style file of a model of PyTorch's fast_neural_style example; its name is the target's.

    Raises:
        FileNotFoundError: there is no such file.
        StyleFileError: the file holds something else than that example's weights, or no finite ones.
        ValueError: the target does not end in .safetensors.
        OSError: the disk is full, or the folder cannot be written.
    """
    if target.suffix != ".safetensors":
        raise ValueError(f"expected a file ending in .safetensors to write, got {str(target)!r}: choose another name")
    weights = _rename(source, _read(source))
    width = len(weights[f"{_FIRST}.bias"])
    network = TransformerNet(width)
    network.load_state_dict(_rescale(weights))
    metadata = {"format_version": FORMAT_VERSION, "style": target.stem, "width": width, "imported_from": source.name}
    save_style(target, network, metadata=metadata)


def _read(path: Path) -> Weights:
    """Return the tensors of a file, without executing anything."""
    if not path.is_file():
        raise FileNotFoundError(f"expected a model file, found none at {str(path)!r}: check the path")
    state = read_torch_file(path, error=StyleFileError, advice="copy it again, or save the network's state_dict()")
    if not isinstance(state, dict):
        raise _foreign(path, f"a {type(state).__name__}")
    named = {key: value for key, value in state.items() if isinstance(key, str)}
    return {key: value for key, value in named.items() if not key.endswith(_STALE)}


def _rename(path: Path, state: Weights) -> Weights:
    """Return the weights by our names; raises StyleFileError unless all are there, and no other."""
    weights = {_our_name(key): value for key, value in state.items()}
    first = weights.get(f"{_FIRST}.bias")
    if not isinstance(first, Tensor) or first.ndim != 1 or not 1 <= len(first) <= LARGEST_WIDTH:
        raise _foreign(path, "no weight 'conv1.conv2d.bias' of one to 256 channels")
    with torch.device("meta"):
        expected = {key: value.shape for key, value in TransformerNet(len(first)).state_dict().items()}
    for key in sorted(expected.keys() | weights.keys()):
        shape = getattr(weights.get(key), "shape", None)
        if shape is None or shape != expected.get(key):
            raise _foreign(path, f"{key!r} of shape {None if shape is None else tuple(shape)}")
    return weights


def _our_name(key: str) -> str:
    """Return ours of a name of the example's such as ``res1.conv2.conv2d.weight``; others stay as they are."""
    module, _, parameter = key.rpartition(".")
    place = _PLACES.get(module.removesuffix(".conv2d"))
    if place is None:
        return key
    return f"{place}.{'conv' if module.endswith('.conv2d') else 'norm'}.{parameter}"


def _rescale(weights: Weights) -> Weights:
    """Return the weights for images in [0, 1] less 0.5, of weights for 0 to 255."""
    weights = {key: value.double() for key, value in weights.items()}
    first, last = weights[f"{_FIRST}.weight"], weights[f"{_LAST}.weight"]
    weights[f"{_FIRST}.bias"] = weights[f"{_FIRST}.bias"] + 127.5 * first.sum(dim=(1, 2, 3))
    weights[f"{_FIRST}.weight"] = 255 * first
    weights[f"{_LAST}.bias"] = weights[f"{_LAST}.bias"] / 255 - 0.5
    weights[f"{_LAST}.weight"] = last / 255
    return weights


def _foreign(path: Path, what: str) -> StyleFileError:
    return StyleFileError(
        f"expected the weights of PyTorch's fast_neural_style example, got {what} in {str(path)!r}: "
        "other networks cannot be imported"
    )
