"""The style file: a trained network's weights and plain metadata, loaded without executing anything.

A style file is a safetensors file of weights, float32 or float16, with the keys of ``TransformerNet.state_dict()``, and
one metadata field ``impasto`` that holds JSON. Files made elsewhere are checked before use.
"""

import difflib
import json
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from impasto.files import written_whole
from impasto.metadata import METADATA_FIELD, StyleFileError, check_metadata, foreign, parse_metadata
from impasto.torch_files import read_torch_file
from impasto.transformer import TransformerNet

SHIPPED = Path(str(resources.files("impasto.assets"))) / "trained"
"""The folder of the trained styles that come with impasto, ``NAME.safetensors``."""
_AVERAGE = "average."
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Of weights, by their names in safetensors files."""

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Style:
    """A trained style: ``network`` on the CPU, in eval mode, without gradients, and the ``metadata`` of its making."""

    network: TransformerNet
    metadata: dict[str, Any]

    @property
    def name(self) -> str:
        """The style's name, fit to be part of a file name."""
        return str(self.metadata["style"])


def save_style(
    path: Path, network: TransformerNet, *, metadata: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Write a style file, whole or not at all; the metadata are plain JSON values.

    Raises:
        StyleFileError: what was to be written could not be loaded again.
        TypeError: a value of the metadata is not plain.
        OSError: the disk is full, or the folder cannot be written.
    """
    check_metadata(path, metadata)
    state = network.state_dict().items()
    weights = {key: value.detach().to("cpu", dtype, memory_format=torch.contiguous_format) for key, value in state}
    _check_shapes(path, _shapes(weights), width=metadata["width"])
    _check_finite(path, weights)
    data = save(weights, metadata={METADATA_FIELD: json.dumps(dict(metadata))})
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def load_style(path: Path) -> Style:
    """Return the style of a style file, a Lightning checkpoint (.ckpt, its averaged weights) or a run folder.

    A run folder gives its one style file, or before there is one its last checkpoint. Where nothing has that path, it
    may be the bare name of a style that comes with impasto.

    Raises:
        FileNotFoundError: nothing is there, or the run folder holds no style.
        StyleFileError: the file is no style file, is damaged, or does not fit its own description.
    """
    if not path.exists():
        path = _find_shipped(path)
    if path.is_dir():
        path = _find_in_run(path)
    return _load_checkpoint(path) if path.suffix == ".ckpt" else _load_style_file(path)


def _find_shipped(name: Path) -> Path:
    path = SHIPPED / f"{name}.safetensors"
    if len(name.parts) == 1 and path.is_file():
        return path
    closest = _closest(name)
    advice = "check the path" if closest is None else f"did you mean {str(closest)!r}?"
    raise FileNotFoundError(
        f"expected a style's name, a style file, a checkpoint or a run folder, found nothing at {str(name)!r}: {advice}"
    )


def _closest(path: Path) -> Path | None:
    """Return what has a similar name: shipped, among the runs of the current folder, or beside the path."""
    if not path.parent.exists():
        return _closest(path.parent)
    shipped = [Path(entry.stem) for entry in _styles_in(SHIPPED)]
    entries = [*shipped, *_styles_in(Path("runs")), *_styles_in(path.parent)]
    by_name = {entry.name: entry for entry in entries}
    matches = difflib.get_close_matches(path.name, by_name, n=1)
    return by_name[matches[0]] if matches else None


def _styles_in(folder: Path) -> Iterable[Path]:
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    return [entry for entry in entries if entry.is_dir() or entry.suffix in {".safetensors", ".ckpt"}]


def _find_in_run(folder: Path) -> Path:
    found = sorted(folder.glob("[!.]*.safetensors"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise StyleFileError(f"expected one style file in {str(folder)!r}, got {names}: name the one to use")
    if found:
        return found[0]
    checkpoint = folder / "last.ckpt"
    if not checkpoint.is_file():
        raise FileNotFoundError(
            f"expected a style file or last.ckpt in the run folder {str(folder)!r}, found neither: "
            "name the folder of a run that was trained"
        )
    return checkpoint


def _load_style_file(path: Path) -> Style:
    with path.open("rb") as stream:
        begin = stream.read(9)
    if begin[8:] != b"{":  # eight bytes of length, then JSON
        raise StyleFileError(
            f"expected a style file, got something else in {str(path)!r}: "
            "give a .safetensors file that impasto has trained, a .ckpt checkpoint or a run folder"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = parse_metadata(path, file.metadata())
            # From the header alone, before any tensor takes memory.
            parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            shapes = {key: tuple(part.get_shape()) for key, part in parts.items() if part.get_dtype() in _DTYPES}
            _check_shapes(path, shapes, width=metadata["width"])
            return _build(path, metadata, {key: file.get_tensor(key) for key in shapes})
    except SafetensorError as error:
        raise StyleFileError(
            f"expected a whole style file, got a damaged one in {str(path)!r}: copy it again or train the style again"
        ) from error


def _load_checkpoint(path: Path) -> Style:
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise foreign(path)
    metadata = check_metadata(path, checkpoint.get(METADATA_FIELD))
    state = checkpoint["state_dict"].items()
    weights = {
        key.removeprefix(_AVERAGE): value for key, value in state if isinstance(key, str) and key.startswith(_AVERAGE)
    }
    _check_shapes(path, _shapes(weights), width=metadata["width"])
    return _build(path, metadata, weights)


def read_checkpoint(path: Path) -> object:
    """Return what a checkpoint holds, on the CPU; raises StyleFileError as read_torch_file does."""
    return read_torch_file(path, error=StyleFileError, advice="give an earlier checkpoint or train the style again")


def _shapes(weights: Mapping[str, object]) -> Shapes:
    return {
        key: tuple(value.shape)
        for key, value in weights.items()
        if isinstance(value, Tensor) and value.dtype in _DTYPES.values()
    }


def _check_shapes(path: Path, shapes: Shapes, *, width: int) -> None:
    """Raise StyleFileError unless the keys and shapes are those of TransformerNet(width)."""
    expected = _shapes(_empty_network(width).state_dict())
    wrong = sorted(key for key in expected.keys() | shapes.keys() if expected.get(key) != shapes.get(key))
    if wrong:
        key = wrong[0]
        raise StyleFileError(
            f"expected the weights of a network of width {width} in {str(path)!r}, got {len(wrong)} that differ, "
            f"the first {reprlib.repr(key)} ({expected.get(key, 'not expected')}, got {shapes.get(key, 'none')}): "
            "train the style again"
        )


def _check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    for key, value in weights.items():
        if not torch.isfinite(value).all():
            raise StyleFileError(
                f"expected finite weights in {str(path)!r}, got NaN or infinity in {key!r}: train the style again"
            )


def _empty_network(width: int) -> TransformerNet:
    # No memory and no random numbers are spent on weights that are replaced.
    with torch.device("meta"):
        return TransformerNet(width)


def _build(path: Path, metadata: dict[str, Any], weights: Mapping[str, Tensor]) -> Style:
    _check_finite(path, weights)
    network = _empty_network(metadata["width"])
    network.load_state_dict({key: value.float() for key, value in weights.items()}, assign=True)
    return Style(network.eval().requires_grad_(False), metadata)
