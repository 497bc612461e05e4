"""The loss network gives the layers asked for, of the weights asked for, and says what is wrong with a file."""

import hashlib
import json
import math
import os
import re
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import VGG16_Weights, VGG19_Weights  # type: ignore[import-untyped]
from torchvision.models.vgg import make_layers  # type: ignore[import-untyped]

from impasto.learning.features import (
    PRETRAINED,
    SLIM_CHANNELS,
    SLIM_FILE,
    SLIM_LAYERS,
    VGG_CHANNELS,
    LossNetwork,
    LossNetworkFileError,
    Pretrained,
    fetch,
    layer_names,
    load_loss_network,
    read_weights,
)

# torchvision's notation: channels of each convolution, "M" for the pooling that ends a block.
PLANS: dict[str, list[str | int]] = {
    "vgg16": [2, 2, "M", 3, 3, "M", 4, 4, 4, "M", 5, 5, 5, "M", 6, 6, 6, "M"],
    "vgg19": [2, 2, "M", 3, 3, "M", 4, 4, 4, 4, "M", 5, 5, 5, 5, "M", 6, 6, 6, 6, "M"],
}
NAMES = ("vgg16", "vgg19")


def message_of(error: type[Exception], do: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        do()
    assert type(caught.value) is error
    return str(caught.value)


def tiny(name: str = "vgg16") -> LossNetwork:
    """A narrow VGG that takes its input as it is."""
    torch.manual_seed(0)
    channels = tuple((width,) * len(block) for width, block in enumerate(VGG_CHANNELS[name], start=2))
    return LossNetwork(channels, mean=(0.0,) * 3, std=(1.0,) * 3)


def torchvision_twin(network: LossNetwork, plan: list[str | int]) -> nn.Sequential:
    """torchvision's own layers with the network's weights."""
    twin: nn.Sequential = make_layers(plan)
    twin.load_state_dict(dict(zip(twin.state_dict(), network.state_dict().values(), strict=True)))
    return twin


class TestLayers:
    def test_the_names_of_vgg16(self) -> None:
        assert layer_names(VGG_CHANNELS["vgg16"])[:15] == (
            *("conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1"),
            *("conv2_1", "relu2_1", "conv2_2", "relu2_2", "pool2"),
            *("conv3_1", "relu3_1", "conv3_2", "relu3_2", "conv3_3"),
        )
        assert len(layer_names(VGG_CHANNELS["vgg16"])) == 31
        assert layer_names(VGG_CHANNELS["vgg19"])[-5:] == ("conv5_3", "relu5_3", "conv5_4", "relu5_4", "pool5")
        assert len(layer_names(VGG_CHANNELS["vgg19"])) == 37

    @pytest.mark.parametrize("name", NAMES)
    def test_every_layer_has_the_shape_of_its_block(self, name: str) -> None:
        with torch.device("meta"):
            network = LossNetwork(VGG_CHANNELS[name], mean=(0.0,) * 3, std=(1.0,) * 3)
            features = network(torch.empty(2, 3, 75, 64), network.layers)
        assert tuple(features) == layer_names(VGG_CHANNELS[name])
        for layer, value in features.items():
            block = int(layer[4])
            halvings = block if layer.startswith("pool") else block - 1
            assert value.shape == (2, VGG_CHANNELS[name][block - 1][0], 75 >> halvings, 64 >> halvings)

    @pytest.mark.parametrize("name", NAMES)
    @torch.no_grad()
    def test_every_layer_is_that_of_torchvision(self, name: str) -> None:
        network = tiny(name)
        x = images = torch.rand(2, 3, 37, 41)
        features = network(images, network.layers)
        for layer, module in zip(network.layers, torchvision_twin(network, PLANS[name]), strict=True):
            x = module(x.clone())
            torch.testing.assert_close(features[layer], x)

    @torch.no_grad()
    def test_a_layer_does_not_depend_on_what_else_is_asked_for(self) -> None:
        network, images = tiny(), torch.rand(1, 3, 32, 32)
        everything = network(images, network.layers)
        for layer in network.layers:
            torch.testing.assert_close(network(images, [layer])[layer], everything[layer], rtol=0, atol=0)

    @torch.no_grad()
    def test_what_comes_before_the_relu_stays_as_it_is(self) -> None:
        features = tiny()(torch.rand(1, 3, 32, 32), ["conv2_1", "relu2_1", "conv2_2"])
        assert features["conv2_1"].min() < 0
        torch.testing.assert_close(features["conv2_1"].clamp(min=0), features["relu2_1"])

    @torch.no_grad()
    def test_the_input_stays_as_it_is(self) -> None:
        images = torch.rand(1, 3, 16, 16)
        before = images.clone()
        tiny()(images, ["relu2_2"])
        assert torch.equal(images, before)

    def test_nothing_deeper_is_computed(self) -> None:
        network, images = tiny(), torch.rand(1, 3, 16, 16)
        wanted = {"conv1_1": 3 * 2, "relu1_2": 3 * 2 + 2 * 2, "pool1": 3 * 2 + 2 * 2}
        for layer, products in wanted.items():
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(images, [layer])
            assert counter.get_total_flops() == 2 * products * 9 * 16 * 16

    @torch.no_grad()
    def test_a_small_image_is_enough_for_a_shallow_layer(self) -> None:
        assert tiny()(torch.rand(1, 3, 2, 2), ["relu2_2"])["relu2_2"].shape == (1, 3, 1, 1)

    def test_a_misspelt_layer(self) -> None:
        network = LossNetwork(((2,), (2,)), mean=(0.0,) * 3, std=(1.0,) * 3)
        assert message_of(ValueError, lambda: network(torch.rand(1, 3, 8, 8), ["relu1_1", "rleu2_1"])) == (
            "the loss network has no layer 'rleu2_1': did you mean 'relu2_1'? "
            "It has conv1_1, relu1_1, pool1, conv2_1, relu2_1, pool2"
        )

    def test_a_layer_like_no_other(self) -> None:
        network = LossNetwork(((2,),), mean=(0.0,) * 3, std=(1.0,) * 3)
        assert message_of(ValueError, lambda: network.check_layers(["fc6"])) == (
            "the loss network has no layer 'fc6': It has conv1_1, relu1_1, pool1"
        )

    def test_an_image_too_small_for_the_deepest_layer(self) -> None:
        images = torch.rand(1, 3, 3, 8)
        assert tiny()(images, ["relu2_2"])["relu2_2"].shape == (1, 3, 1, 4)
        assert message_of(ValueError, lambda: tiny()(images, ["conv1_1", "pool2"])) == (
            "expected images of at least 4 x 4 px for the layer pool2, got 8 x 3 px: "
            "take larger images or a shallower layer"
        )

    def test_a_layer_that_only_another_network_has(self, slim_weights: Path) -> None:
        network = load_loss_network(weights=slim_weights)
        assert message_of(ValueError, lambda: network.check_layers(["conv4_4"])) == (
            "the loss network has no layer 'conv4_4': take vgg19 as the loss network, or another layer. "
            "It has relu1_2, relu2_2, relu3_3, relu4_3"
        )

    def test_no_layer(self) -> None:
        network = LossNetwork(((2,),), mean=(0.0,) * 3, std=(1.0,) * 3)
        assert message_of(ValueError, lambda: network.check_layers([])) == (
            "expected at least one layer of the loss network, got none: choose from conv1_1, relu1_1, pool1"
        )


class TestFrozen:
    def test_no_weight_is_trained(self) -> None:
        assert not any(parameter.requires_grad for parameter in tiny().parameters())

    def test_it_stays_in_evaluation_mode(self) -> None:
        network = tiny()
        nn.ModuleList([network]).train()
        assert not any(module.training for module in network.modules())

    def test_gradients_reach_the_input_and_no_weight(self) -> None:
        network, images = tiny(), torch.rand(1, 3, 16, 16, requires_grad=True)
        features = network(images, ["relu1_2", "relu2_2"])
        torch.autograd.backward([value.square().sum() for value in features.values()])
        assert images.grad is not None
        assert images.grad.abs().amin() > 0
        assert all(parameter.grad is None for parameter in network.parameters())

    def test_its_gradient_is_that_of_torchvision(self) -> None:
        network, images = tiny(), torch.rand(1, 3, 16, 16, requires_grad=True)
        ours = network(images, ["relu1_1", "relu3_3"])["relu3_3"].square().sum()
        theirs = torchvision_twin(network, PLANS["vgg16"])[:16](images).square().sum()
        torch.testing.assert_close(torch.autograd.grad(ours, images), torch.autograd.grad(theirs, images))


def torchvision_file(path: Path, name: str, pretrained: str | None = None) -> Path:
    """A state dict in torchvision's names and shapes, small on disk: every tensor is one number seen many times.

    The first convolution lets the three input channels pass, so that relu1_1 shows what the network was given. With
    ``pretrained``, it has that file's classifier, or what stands in its place.
    """
    with torch.device("meta"):
        shapes = LossNetwork(VGG_CHANNELS[name], mean=(0.0,) * 3, std=(1.0,) * 3).state_dict()
    numbers = [index for index, layer in enumerate(layer_names(VGG_CHANNELS[name])) if layer.startswith("conv")]
    keys = [f"features.{number}.{kind}" for number in numbers for kind in ("weight", "bias")]
    state = {
        key: torch.tensor(0.125 * (1 + index)).expand(value.shape)
        for index, (key, value) in enumerate(zip(keys, shapes.values(), strict=True))
    }
    state["features.0.weight"], state["features.0.bias"] = torch.zeros(64, 3, 3, 3), torch.zeros(64)
    state["features.0.weight"][range(3), range(3), 1, 1] = 1
    if pretrained is not None:
        state["classifier.6.bias"] = torch.full((1000,), math.nan if pretrained == "IMAGENET1K_FEATURES" else 0.0)
    torch.save(state, path)
    return path


@pytest.fixture(params=NAMES)
def whole_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    return request.param, torchvision_file(tmp_path / "weights.pth", request.param)


class TestWeights:
    def test_every_convolution_gets_its_own(self, whole_file: tuple[str, Path]) -> None:
        name, path = whole_file
        network, state = load_loss_network(name, weights=path), torch.load(path)
        order = layer_names(VGG_CHANNELS[name])
        assert len(network.convolutions) == int(name.removeprefix("vgg")) - 3
        for layer, convolution in network.convolutions.items():
            number = order.index(layer)
            assert torch.equal(convolution.get_parameter("weight"), state[f"features.{number}.weight"])
            assert torch.equal(convolution.get_parameter("bias"), state[f"features.{number}.bias"])

    @torch.no_grad()
    def test_pooling_by_average_and_fewer_blocks(self, tmp_path: Path) -> None:
        path = torchvision_file(tmp_path / "weights.pth", "vgg16")
        networks = [load_loss_network("vgg16", weights=path, pooling=kind, blocks=1) for kind in ("max", "average")]
        assert networks[0].layers[-1] == "pool1"
        images = torch.rand(1, 3, 8, 8)
        features = [network(images, ["relu1_2", "pool1"]) for network in networks]
        assert torch.equal(features[0]["relu1_2"], features[1]["relu1_2"])
        before = features[0]["relu1_2"].unflatten(2, (4, 2)).unflatten(4, (4, 2))
        torch.testing.assert_close(features[0]["pool1"], before.amax((3, 5)))
        torch.testing.assert_close(features[1]["pool1"], before.mean((3, 5)))

    @pytest.mark.parametrize(("name", "pooling"), [("vgg16_slim", "average"), ("vgg19", "mean")])
    def test_pooling_that_is_not_there(self, name: str, pooling: str) -> None:
        assert message_of(ValueError, lambda: load_loss_network(name, pooling=pooling)) == (
            f"expected pooling by max, or with vgg16 and vgg19 by average, got {pooling!r} with {name}: choose again"
        )

    @pytest.mark.parametrize(("name", "pretrained"), [*PRETRAINED, ("vgg16", None), ("vgg19", None)])
    @torch.no_grad()
    def test_each_set_of_weights_gets_the_input_it_was_trained_on(
        self, tmp_path: Path, name: str, pretrained: str | None
    ) -> None:
        path = torchvision_file(tmp_path / "weights.pth", name, pretrained)
        network = load_loss_network(name, weights=path, pretrained=pretrained)
        image = torch.tensor([0.9, 0.6, 0.5]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
        given = network(image, ["relu1_1"])["relu1_1"][0, :3, 2, 2]
        if name == "vgg16" and pretrained in ("IMAGENET1K_FEATURES", None):
            # Caffe's: 0 to 255 with a mean taken off, and no division.
            expected = torch.tensor([0.9 * 255 - 123.0, 0.6 * 255 - 117.0, 0.5 * 255 - 104.0])
            torch.testing.assert_close(given, expected, atol=0.01, rtol=0)
        else:
            expected = torch.tensor([(0.9 - 0.485) / 0.229, (0.6 - 0.456) / 0.224, (0.5 - 0.406) / 0.225])
            torch.testing.assert_close(given, expected)

    @pytest.mark.parametrize(
        ("asked", "got"),
        [
            (None, "IMAGENET1K_V1"),
            ("IMAGENET1K_FEATURES", "IMAGENET1K_V1"),
            ("IMAGENET1K_V1", "IMAGENET1K_FEATURES"),
        ],
    )
    def test_weights_of_the_other_training_run(self, tmp_path: Path, asked: str | None, got: str) -> None:
        path = torchvision_file(tmp_path / "weights.pth", "vgg16", got)
        message = message_of(LossNetworkFileError, lambda: load_loss_network("vgg16", weights=path, pretrained=asked))
        assert message == (
            f"expected other weights at {str(path)!r}, got VGG-16's {got}, which have another input scale: "
            f"add loss_network.pretrained={got} in training, --pretrained {got} elsewhere"
        )

    def test_an_unknown_network(self) -> None:
        assert message_of(ValueError, lambda: load_loss_network("vgg17")) == (
            "expected a loss network out of vgg16_slim, vgg16, vgg19, got 'vgg17'"
        )

    def test_unknown_weights(self) -> None:
        assert message_of(ValueError, lambda: load_loss_network("vgg19", pretrained="IMAGENET1K_FEATURES")) == (
            "expected pretrained weights out of IMAGENET1K_V1 for vgg19, got 'IMAGENET1K_FEATURES'"
        )

    def test_published_weights_of_the_compressed_network(self) -> None:
        assert message_of(ValueError, lambda: load_loss_network("vgg16_slim", pretrained="IMAGENET1K_V1")) == (
            "expected no loss_network.pretrained for vgg16_slim, got 'IMAGENET1K_V1': leave it out"
        )

    def test_another_networks_weights(self, tmp_path: Path) -> None:
        path = torchvision_file(tmp_path / "weights.pth", "vgg16")
        assert message_of(LossNetworkFileError, lambda: load_loss_network("vgg19", weights=path)) == (
            f"expected convolutions.conv3_4.weight of shape (256, 256, 3, 3) in {str(path)!r}, got nothing: "
            "these are not the weights of this loss network"
        )

    def test_another_networks_weights_for_the_compressed_one(self, tmp_path: Path) -> None:
        path = torchvision_file(tmp_path / "weights.pth", "vgg16")
        assert message_of(LossNetworkFileError, lambda: load_loss_network(weights=path)) == (
            f"expected convolutions.conv1_1.weight of shape (32, 3, 3, 3) in {str(path)!r}, got nothing: "
            "these are not the weights of this loss network"
        )

    def test_weights_of_another_shape(self, tmp_path: Path, slim_weights: Path) -> None:
        path, tensors = tmp_path / "weights.safetensors", load_file(slim_weights)
        save_file({**tensors, "convolutions.conv2_1.weight": torch.zeros(48, 33, 3, 3)}, path)
        assert message_of(LossNetworkFileError, lambda: load_loss_network(weights=path)) == (
            f"expected convolutions.conv2_1.weight of shape (48, 32, 3, 3) in {str(path)!r}, got (48, 33, 3, 3): "
            "these are not the weights of this loss network"
        )

    def test_no_file(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.pth", tmp_path):
            assert message_of(LossNetworkFileError, lambda: load_loss_network("vgg16", weights=path)) == (  # noqa: B023
                f"expected the weights of a loss network at {str(path)!r}, found no file there"
            )

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    @pytest.mark.parametrize("kept", [0, 1, 100, 0.5, -1])
    def test_a_truncated_file(self, tmp_path: Path, slim_weights: Path, suffix: str, kept: float) -> None:
        path = tmp_path / f"weights{suffix}"
        if suffix == ".pth":
            torchvision_file(path, "vgg16")
        else:
            path.write_bytes(slim_weights.read_bytes())
        whole = path.read_bytes()
        path.write_bytes(whole[: int(kept * len(whole)) if kept == 0.5 else int(kept)])
        self.expect_damaged(path)

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    @pytest.mark.parametrize("content", [b"<html>404 Not Found</html>\n" * 9, bytes(range(256)) * 4, b"PK\3\4" * 99])
    def test_a_foreign_file(self, tmp_path: Path, suffix: str, content: bytes) -> None:
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(content)
        self.expect_damaged(path)

    def test_bytes_changed_anywhere(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
        whole = path.read_bytes()
        damaged = 0
        for place in range(0, len(whole), 3):
            path.write_bytes(whole[:place] + b"e" + whole[place + 1 :])
            try:
                read_weights(path)
            except LossNetworkFileError:
                damaged += 1
        assert damaged > 20

    def test_a_file_that_would_run_code(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
                return os.mkdir, (str(tmp_path / "ran"),)

        path = tmp_path / "weights.pth"
        torch.save({"features.0.weight": Trap()}, path)
        self.expect_damaged(path)
        assert not (tmp_path / "ran").exists()

    def expect_damaged(self, path: Path) -> None:
        message = (
            f"expected the weights of a loss network at {str(path)!r}, got a damaged or foreign file: fetch it again"
            if path.suffix == ".safetensors"
            else "expected a whole file of plain values and tensors, got a damaged one, another kind, or one that "
            f"could run code: {str(path)!r} was not used; fetch it again"
        )
        assert message_of(LossNetworkFileError, lambda: read_weights(path)) == message

    @pytest.mark.parametrize("content", [torch.zeros(3), {"epoch": 3}, ["a"]])
    def test_something_else_than_weights(self, tmp_path: Path, content: object) -> None:
        path = tmp_path / "weights.pth"
        torch.save(content, path)
        assert message_of(LossNetworkFileError, lambda: read_weights(path)) == (
            f"expected a state dict of tensors at {str(path)!r}, got something else"
        )

    def test_a_hash_in_the_name_must_be_that_of_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "vgg16-397923af.pth"
        path.write_bytes(b"half a download")
        digest = hashlib.sha256(b"half a download").hexdigest()[:8]
        assert message_of(LossNetworkFileError, lambda: read_weights(path)) == (
            f"expected a file whose SHA-256 begins with 397923af at {str(path)!r}, got {digest}: "
            "it is damaged, delete it and fetch it again"
        )

    def test_a_date_in_the_name_is_no_hash(self, tmp_path: Path) -> None:
        path = torchvision_file(tmp_path / "vgg16-20240101.pth", "vgg16")
        assert read_weights(path).keys() >= {"features.0.weight"}

    def test_a_file_with_its_own_hash_in_its_name(self, tmp_path: Path) -> None:
        plain = torchvision_file(tmp_path / "weights.pth", "vgg16")
        digest = hashlib.sha256(plain.read_bytes()).hexdigest()[:8]
        named = plain.rename(tmp_path / f"vgg16-{digest}.pth")
        assert load_loss_network("vgg16", weights=named).layers == layer_names(VGG_CHANNELS["vgg16"])


class Answer(BaseHTTPRequestHandler):
    """Serves the same few bytes under every name."""

    content = b"some weights"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server on this machine."""
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's hub cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def published(url: str) -> Pretrained:
    return Pretrained(url, mean=(0.0,) * 3, std=(1.0,) * 3)


class TestDownload:
    def test_the_published_files(self) -> None:
        assert {source.url for source in PRETRAINED.values()} == {
            "https://download.pytorch.org/models/vgg16_features-amdegroot-88682ab5.pth",
            "https://download.pytorch.org/models/vgg16-397923af.pth",
            "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        }
        assert {source.hash_prefix for source in PRETRAINED.values()} == {"88682ab5", "397923af", "dcbb9e9d"}

    def test_they_are_those_of_torchvision(self) -> None:
        theirs = {("vgg16", weights.name): weights.value for weights in VGG16_Weights}
        theirs[("vgg19", "IMAGENET1K_V1")] = VGG19_Weights.IMAGENET1K_V1.value
        assert {key: source.url for key, source in PRETRAINED.items()} == {
            key: weights.url for key, weights in theirs.items()
        }
        for key, weights in theirs.items():
            preset = weights.transforms.keywords
            assert PRETRAINED[key].mean == tuple(preset.get("mean", (0.485, 0.456, 0.406)))
            assert PRETRAINED[key].std == tuple(preset.get("std", (0.229, 0.224, 0.225)))

    def test_a_file_in_the_cache_is_taken_without_network(self, cache: Path) -> None:
        cache.mkdir(parents=True)
        (cache / "weights-01234567.pth").write_bytes(b"anything")
        source = published("http://nowhere.invalid/models/weights-01234567.pth")
        assert fetch(source) == cache / "weights-01234567.pth"

    @pytest.mark.parametrize(("name", "pretrained"), PRETRAINED)
    def test_the_cache_is_looked_in_and_damaged_files_there_are_named(
        self, cache: Path, name: str, pretrained: str
    ) -> None:
        cache.mkdir(parents=True)
        source = PRETRAINED[name, pretrained]
        path = cache / source.file_name
        path.write_bytes(b"half a download")
        assert message_of(LossNetworkFileError, lambda: load_loss_network(name, pretrained=pretrained)) == (
            f"expected a file whose SHA-256 begins with {source.hash_prefix} at {str(path)!r}, got 230a36d3: "
            "it is damaged, delete it and fetch it again"
        )

    def test_what_is_not_there_is_downloaded_once(self, cache: Path, server: str) -> None:
        digest = hashlib.sha256(Answer.content).hexdigest()[:8]
        path = fetch(published(f"{server}/weights-{digest}.pth"))
        assert path == cache / f"weights-{digest}.pth"
        assert path.read_bytes() == Answer.content
        assert fetch(published(f"http://nowhere.invalid/weights-{digest}.pth")) == path

    def test_a_damaged_download_is_not_kept(self, cache: Path, server: str) -> None:
        url = f"{server}/weights-01234567.pth"
        digest = hashlib.sha256(Answer.content).hexdigest()
        assert message_of(LossNetworkFileError, lambda: fetch(published(url))) == (
            f'could not download the loss network (invalid hash value (expected "01234567", got "{digest}")): '
            f"get {url}, put it at {str(cache / 'weights-01234567.pth')!r} or name its place "
            "(loss_network.weights=PATH in training, --weights PATH elsewhere), or take the loss network vgg16_slim, "
            "which needs no download"
        )
        assert list(cache.iterdir()) == []

    def test_offline(self, cache: Path) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # bound, but nobody listens
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/models/weights-01234567.pth"
            assert message_of(LossNetworkFileError, lambda: fetch(published(url))) == (
                "could not download the loss network (<urlopen error [Errno 111] Connection refused>): "
                f"get {url}, put it at {str(cache / 'weights-01234567.pth')!r} or name its place "
                "(loss_network.weights=PATH in training, --weights PATH elsewhere), or take the loss network "
                "vgg16_slim, which needs no download"
            )
        assert list(cache.iterdir()) == []


class TestCompressed:
    """The compressed network's form, with random weights."""

    def test_it_gives_its_four_layers(self, slim_weights: Path) -> None:
        network = load_loss_network(weights=slim_weights)
        features = network(torch.rand(1, 3, 32, 32), SLIM_LAYERS)
        assert {name: tuple(value.shape) for name, value in features.items()} == {
            "relu1_2": (1, 32, 32, 32),
            "relu2_2": (1, 96, 16, 16),
            "relu3_3": (1, 192, 8, 8),
            "relu4_3": (1, 448, 4, 4),
        }

    def test_another_layer_is_an_error(self, slim_weights: Path) -> None:
        network = load_loss_network(weights=slim_weights)
        assert message_of(ValueError, lambda: network(torch.rand(1, 3, 32, 32), ["relu3_2"])) == (
            "the loss network has no layer 'relu3_2': take vgg16 or vgg19 as the loss network, or another layer. "
            "It has relu1_2, relu2_2, relu3_3, relu4_3"
        )

    @torch.no_grad()
    def test_the_calibration_mixes_what_is_given_and_not_what_goes_on(self, tmp_path: Path, slim_weights: Path) -> None:
        tensors = load_file(slim_weights)
        matrix = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
        save_file({**tensors, "calibrations.relu1_2": matrix}, tmp_path / "a.safetensors")
        images = torch.rand(1, 3, 16, 16)
        before = load_loss_network(weights=slim_weights)(images, SLIM_LAYERS)
        after = load_loss_network(weights=tmp_path / "a.safetensors")(images, SLIM_LAYERS)
        expected = torch.einsum("ij,njhw->nihw", matrix, before["relu1_2"])
        torch.testing.assert_close(after["relu1_2"], expected, rtol=1e-4, atol=1e-2)
        for layer in SLIM_LAYERS[1:]:
            torch.testing.assert_close(after[layer], before[layer])

    def test_half_precision_weights_are_computed_with_in_float32(self, tmp_path: Path, slim_weights: Path) -> None:
        save_file({key: value.half() for key, value in load_file(slim_weights).items()}, tmp_path / "a.safetensors")
        network = load_loss_network(weights=tmp_path / "a.safetensors")
        assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
        assert not any(parameter.requires_grad for parameter in network.parameters())


class TestShippedWeights:
    """The compressed network that ships in the package."""

    def test_the_file_is_small_and_of_float16(self) -> None:
        assert SLIM_FILE.stat().st_size <= 5_000_000
        assert {value.dtype for value in load_file(SLIM_FILE).values()} == {torch.float16}

    def test_the_metadata_say_whence_it_came_and_how_good_it_is(self) -> None:
        story = shipped_story()
        assert "CC BY 4.0" in story["licence"]
        assert re.search("Simonyan.*Zisserman", json.dumps(story))
        assert "scripts/compress_loss_network.py" in story["command"]
        assert explains(story, {"relu1_2": 0.02, "relu2_2": 0.12, "relu3_3": 0.18, "relu4_3": 0.30})

    @torch.no_grad()
    def test_it_sees_more_in_an_image_with_structure_than_in_a_plain_one(self) -> None:
        network = load_loss_network()
        assert network.layers == SLIM_LAYERS
        stripes = (torch.arange(32) % 4 < 2).float().expand(1, 3, 32, 32)
        striped, plain = network(stripes, SLIM_LAYERS), network(torch.full((1, 3, 32, 32), 0.5), SLIM_LAYERS)
        assert all(striped[layer].square().sum() > plain[layer].square().sum() for layer in SLIM_LAYERS)

    @pytest.mark.skipif("IMPASTO_VGG16" not in os.environ, reason="IMPASTO_VGG16 names no file of VGG-16 weights")
    @torch.no_grad()
    def test_its_losses_are_on_the_scale_of_the_full_network(self) -> None:
        full = load_loss_network("vgg16", weights=Path(os.environ["IMPASTO_VGG16"]))
        generator = torch.Generator().manual_seed(0)
        images = nn.functional.interpolate(torch.rand(2, 3, 16, 16, generator=generator), size=96, mode="bicubic")
        slim = load_loss_network()(images.clamp(0, 1), SLIM_LAYERS)
        for layer, value in full(images.clamp(0, 1), SLIM_LAYERS).items():
            assert mean_square_difference(slim[layer]) == pytest.approx(mean_square_difference(value), rel=0.4)


def shipped_story() -> dict[str, Any]:
    with safe_open(SLIM_FILE, framework="pt") as file:
        story: dict[str, Any] = json.loads(file.metadata()["impasto"])
    return story


def explains(story: dict[str, Any], at_most: dict[str, float]) -> bool:
    """Whether no more than this fraction of each layer's variance is left unexplained."""
    reached = story["figures"]["unexplained_held_out"]
    return reached.keys() == at_most.keys() and all(0 < reached[layer] <= at_most[layer] for layer in at_most)


def mean_square_difference(features: Tensor) -> float:
    """The content loss between the two images of a batch."""
    return (features[0] - features[1]).square().mean().item()


@pytest.mark.skipif("IMPASTO_VGG16" not in os.environ, reason="IMPASTO_VGG16 names no file of VGG-16 weights")
@torch.no_grad()
def test_the_real_weights_see_what_they_saw_when_this_was_written() -> None:
    path = Path(os.environ["IMPASTO_VGG16"])
    network = load_loss_network("vgg16", weights=path)
    ramp = torch.linspace(0, 1, 64)
    image = torch.stack([ramp.expand(64, 64), ramp.flip(0).expand(64, 64), ramp[:, None].expand(64, 64)])[None]
    means = {name: value.mean().item() for name, value in network(image, SLIM_LAYERS).items()}
    assert means == pytest.approx(KNOWN_MEANS, rel=1e-3)


KNOWN_MEANS = {"relu1_2": 191.3007, "relu2_2": 211.6322, "relu3_3": 215.2937, "relu4_3": 22.6446}


def test_the_slim_network_is_vgg16_up_to_relu4_3_and_narrower() -> None:
    full = VGG_CHANNELS["vgg16"][:4]
    assert layer_names(SLIM_CHANNELS) == layer_names(full)
    fractions = [
        ours / theirs for pair in zip(SLIM_CHANNELS, full, strict=True) for ours, theirs in zip(*pair, strict=True)
    ]
    assert all(0.375 <= fraction <= 0.875 for fraction in fractions)
