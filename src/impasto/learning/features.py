"""The loss network: a frozen VGG that turns an image into feature maps, by layer name.

Layers are named as in the papers: ``conv3_2`` is the second convolution of the third block, ``relu3_2`` what follows
it, ``pool3`` the pooling that ends the block. Nothing is computed beyond the deepest layer asked for.

Source: Simonyan, Zisserman 2015, *Very Deep Convolutional Networks*; ``vgg16_slim`` is that network with fewer
channels, made by ``scripts/compress_loss_network.py``.
"""

import difflib
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Self
from urllib.error import URLError

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.torch_files import LARGEST, read_torch_file

VGG_CHANNELS = {
    "vgg16": ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    "vgg19": ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}
"""Channels of every convolution, block by block."""

POOLING: dict[str, nn.Module] = {"max": nn.MaxPool2d(2), "average": nn.AvgPool2d(2)}
"""What ends a block; VGG was trained with the maximum."""

SLIM_NAME = "vgg16_slim"
SLIM_FILE = Path(str(resources.files("impasto.assets"))) / "vgg16_slim.safetensors"
SLIM_CHANNELS = ((32, 32), (48, 96), (96, 96, 192), (224, 224, 448))
SLIM_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
"""The compressed network: four blocks, and the layers it is calibrated at.

These layers are wide and the others narrow: what a layer loses by being narrow is lost where it is read, and hardly
matters further on (``scripts/measure_widths.py``).
"""


@dataclass(frozen=True)
class Pretrained:
    """A published set of weights: where it is, and the input it was trained on, ``(image - mean) / std``."""

    url: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def file_name(self) -> str:
        """The name under which torch's hub cache keeps it; the eight digits begin its SHA-256."""
        return self.url.rpartition("/")[2]

    @property
    def hash_prefix(self) -> str:
        """The first eight hexadecimal digits of its SHA-256."""
        return self.file_name.removesuffix(".pth").rpartition("-")[2]


_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CAFFE = {"mean": (0.48235, 0.45882, 0.40784), "std": (1 / 255, 1 / 255, 1 / 255)}
_SERVER = "https://download.pytorch.org/models/"

PRETRAINED = {
    ("vgg16", "IMAGENET1K_FEATURES"): Pretrained(_SERVER + "vgg16_features-amdegroot-88682ab5.pth", **_CAFFE),
    ("vgg16", "IMAGENET1K_V1"): Pretrained(_SERVER + "vgg16-397923af.pth", **_IMAGENET),
    ("vgg19", "IMAGENET1K_V1"): Pretrained(_SERVER + "vgg19-dcbb9e9d.pth", **_IMAGENET),
}
"""torchvision's weights by network and name, each with its own input scale."""


class LossNetworkFileError(ValueError):
    """A weights file that is missing, damaged, or not of the network asked for."""


class LossNetwork(nn.Module):
    """Frozen feature extractor: images (N, 3, H, W) in [0, 1] to feature maps (N, C, H', W') by layer name.

    ``calibrated`` names the layers of a compressed network whose features pass a matrix (C, C) that puts content and
    Gram losses on the original network's scale; such a network gives these layers only. Without it, any layer is given
    as it is.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        channels: tuple[tuple[int, ...], ...],
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        calibrated: tuple[str, ...] = (),
        pooling: str = "max",
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.pooling = pooling
        self.order = layer_names(channels)
        self.layers = calibrated or self.order
        self.convolutions = nn.ModuleDict()
        in_channels = 3
        for name in self.order:
            if name.startswith("conv"):
                out_channels = channels_of(name, channels)
                self.convolutions[name] = nn.Conv2d(in_channels, out_channels, 3, padding=1)
                in_channels = out_channels
        self.calibrations = nn.ParameterDict({name: torch.eye(channels_of(name, channels)) for name in calibrated})
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Return the network in evaluation mode, whatever is asked: it is never trained."""
        return super().train(False)

    def forward(self, images: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """Return the feature maps of the named layers, shallowest first; nothing deeper is computed.

        Raises:
            ValueError: a layer the network does not have, no layer at all, or images too small for the deepest one.
        """
        self.check_layers(layers)
        self._check_size(images, layers)
        features: dict[str, Tensor] = {}
        x = (images - self.mean) / self.std
        for previous, name in zip(("", *self.order), self.order, strict=False):
            x = self._apply_layer(x, name, keep_input=previous in layers)
            if name in layers:
                matrix = self.calibrations.get(name)
                features[name] = x if matrix is None else F.conv2d(x, matrix[:, :, None, None])
            if len(features) == len(set(layers)):
                break
        return features

    def check_layers(self, layers: Collection[str]) -> None:
        """Raise ValueError, naming the closest match, unless the network has every one of these layers."""
        if not layers:
            known = ", ".join(self.layers)
            raise ValueError(f"expected at least one layer of the loss network, got none: choose from {known}")
        for name in layers:
            if name not in self.layers:
                raise ValueError(
                    f"the loss network has no layer {name!r}: {self._advice(name)}It has {', '.join(self.layers)}"
                )

    def _advice(self, name: str) -> str:
        owners = [network for network, channels in VGG_CHANNELS.items() if name in layer_names(channels)]
        if owners and self.layers != self.order:
            return f"take {' or '.join(owners)} as the loss network, or another layer. "
        close = difflib.get_close_matches(name, self.layers, n=1)
        return f"did you mean {close[0]!r}? " if close else ""

    def _check_size(self, images: Tensor, layers: Collection[str]) -> None:
        """Raise ValueError unless something is left of the images after the poolings up to the deepest layer."""
        deepest = max(layers, key=self.order.index)
        least = 2 ** (block_of(deepest) - (not deepest.startswith("pool")))
        height, width = images.shape[-2:]
        if min(height, width) < least:
            raise ValueError(
                f"expected images of at least {least} x {least} px for the layer {deepest}, got {width} x {height} px: "
                "take larger images or a shallower layer"
            )

    def _apply_layer(self, x: Tensor, name: str, *, keep_input: bool) -> Tensor:
        if name.startswith("conv"):
            return self.convolutions[name](x)
        if name.startswith("relu"):
            return F.relu(x, inplace=not keep_input)
        return POOLING[self.pooling](x)


def layer_names(channels: tuple[tuple[int, ...], ...]) -> tuple[str, ...]:
    """Return the names of all layers in order: conv1_1, relu1_1, conv1_2, relu1_2, pool1, conv2_1, ..."""
    names: list[str] = []
    for block, convolutions in enumerate(channels, start=1):
        for index in range(1, len(convolutions) + 1):
            names += [f"conv{block}_{index}", f"relu{block}_{index}"]
        names.append(f"pool{block}")
    return tuple(names)


def block_of(name: str) -> int:
    """Return the number of the block, from 1, that a layer belongs to."""
    return int(name[4])


def channels_of(name: str, channels: tuple[tuple[int, ...], ...]) -> int:
    """Return the channels of a convolution, or of what follows it, such as ``relu3_2``."""
    return channels[block_of(name) - 1][int(name[6]) - 1]


def load_loss_network(
    name: str = SLIM_NAME,
    *,
    weights: Path | None = None,
    pretrained: str | None = None,
    pooling: str = "max",
    blocks: int = 5,
) -> LossNetwork:
    """Return a frozen loss network with its weights.

    ``vgg16_slim`` comes with the package. ``vgg16`` and ``vgg19`` take torchvision's ``pretrained`` weights, looked for
    at ``weights``, then in torch's hub cache, then downloaded. They may end after fewer ``blocks``, and pool by
    ``average`` as Gatys et al. do.

    Raises:
        ValueError: an unknown network or pooling, or weights that the network does not have.
        LossNetworkFileError: the file is missing, damaged, or of another network.
    """
    if pooling not in POOLING or (name == SLIM_NAME and pooling != "max"):
        raise ValueError(
            f"expected pooling by max, or with vgg16 and vgg19 by average, got {pooling!r} with {name}: choose again"
        )
    if name == SLIM_NAME:
        if pretrained is not None:
            raise ValueError(f"expected no loss_network.pretrained for {SLIM_NAME}, got {pretrained!r}: leave it out")
        caffe, path = PRETRAINED["vgg16", "IMAGENET1K_FEATURES"], weights if weights is not None else SLIM_FILE
        network = LossNetwork(SLIM_CHANNELS, mean=caffe.mean, std=caffe.std, calibrated=SLIM_LAYERS)
        _load_convolutions(network, read_weights(path), path=path)
        return network
    if name not in VGG_CHANNELS:
        raise ValueError(f"expected a loss network out of {SLIM_NAME}, vgg16, vgg19, got {name!r}")
    source = find_pretrained(name, pretrained)
    network = LossNetwork(VGG_CHANNELS[name][:blocks], mean=source.mean, std=source.std, pooling=pooling)
    path = weights if weights is not None else fetch(source)
    tensors = read_weights(path)
    if name == "vgg16":
        _check_training_run(tensors, source, path=path)
    _load_convolutions(network, _torchvision_names(tensors, network.order), path=path)
    return network


def find_pretrained(name: str, pretrained: str | None) -> Pretrained:
    """Return the published weights of a network: the named ones, or the first in the list."""
    known = [key for network, key in PRETRAINED if network == name]
    if pretrained is not None and pretrained not in known:
        raise ValueError(f"expected pretrained weights out of {', '.join(known)} for {name}, got {pretrained!r}")
    return PRETRAINED[name, pretrained if pretrained is not None else known[0]]


def fetch(source: Pretrained) -> Path:
    """Return the path of published weights in torch's hub cache, downloading them with a progress bar if missing.

    Raises:
        LossNetworkFileError: no download is possible; says what to put where.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / source.file_name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(source.url, str(path), hash_prefix=source.hash_prefix)
        except (URLError, RuntimeError, OSError) as error:
            raise LossNetworkFileError(
                f"could not download the loss network ({error}): get {source.url}, put it at {str(path)!r} or name its "
                "place (loss_network.weights=PATH in training, --weights PATH elsewhere), or take the loss network "
                f"{SLIM_NAME}, which needs no download"
            ) from error
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` or ``.pth`` file, without executing anything in it.

    Raises:
        LossNetworkFileError: there is no such file, its SHA-256 does not begin as its name says, or it is damaged.
    """
    if not path.is_file():
        raise LossNetworkFileError(f"expected the weights of a loss network at {str(path)!r}, found no file there")
    _check_hash(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    tensors = read_torch_file(path, error=LossNetworkFileError, advice="fetch it again")
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise LossNetworkFileError(f"expected a state dict of tensors at {str(path)!r}, got something else")
    return dict(tensors)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.stat().st_size > LARGEST:
            raise safetensors.SafetensorError("too large")
        return safetensors.torch.load_file(path)
    except PermissionError:
        raise
    except Exception as error:  # Damaged bytes bring the reader to errors of several types.
        raise LossNetworkFileError(
            f"expected the weights of a loss network at {str(path)!r}, got a damaged or foreign file: fetch it again"
        ) from error


def _check_hash(path: Path) -> None:
    """Raise unless a file with a published name has the SHA-256 that it names."""
    begin = next((each.hash_prefix for each in PRETRAINED.values() if each.file_name == path.name), None)
    if begin is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(begin):
        raise LossNetworkFileError(
            f"expected a file whose SHA-256 begins with {begin} at {str(path)!r}, got {digest[:8]}: "
            "it is damaged, delete it and fetch it again"
        )


def _check_training_run(tensors: Mapping[str, Tensor], source: Pretrained, *, path: Path) -> None:
    """Raise where VGG-16's classifier shows that the file holds torchvision's other weights, of another input scale.

    ``IMAGENET1K_FEATURES`` has no valid values there. A file without the classifier is taken at its word.
    """
    classifier = tensors.get("classifier.6.bias")
    if classifier is None or path.name == source.file_name:
        return
    found = "IMAGENET1K_V1" if bool(classifier.isfinite().all()) else "IMAGENET1K_FEATURES"
    if PRETRAINED["vgg16", found] != source:
        raise LossNetworkFileError(
            f"expected other weights at {str(path)!r}, got VGG-16's {found}, which have another input scale: "
            f"add loss_network.pretrained={found} in training, --pretrained {found} elsewhere"
        )


def _torchvision_names(tensors: Mapping[str, Tensor], order: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors under our names: torchvision counts layers, ``features.N`` is the N-th of the order."""
    return {
        f"convolutions.{name}.{kind}": tensors[key]
        for index, name in enumerate(order)
        for kind in ("weight", "bias")
        if (key := f"features.{index}.{kind}") in tensors
    }


def _load_convolutions(network: LossNetwork, tensors: Mapping[str, Tensor], *, path: Path) -> None:
    expected = network.state_dict()
    for name, value in expected.items():
        got = tuple(tensors[name].shape) if name in tensors else "nothing"
        if got != tuple(value.shape):
            raise LossNetworkFileError(
                f"expected {name} of shape {tuple(value.shape)} in {str(path)!r}, got {got}: "
                "these are not the weights of this loss network"
            )
    network.load_state_dict({name: tensors[name].float() for name in expected})
