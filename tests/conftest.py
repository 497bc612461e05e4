"""What several rooms' tests need: a tiny style, saved, and a loss network's weights."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from impasto.learning.features import SLIM_CHANNELS, SLIM_LAYERS, LossNetwork
from impasto.memory import free_memory
from impasto.style_file import save_style
from impasto.transformer import TransformerNet


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# A shell that runs the tests in the background makes them, and all they start, ignore Ctrl-C, and nohup the end of the
# terminal: tests of these would hang.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# With pytest -n the processes that run tests, and all that these start, share the cores: threads that wait for each
# other are slower than none.
if WORKERS := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    THREADS = max(1, cores() // WORKERS)
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    torch.set_num_threads(THREADS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """With -n auto a process for each core, but no more than memory for them is free: each takes up to 4 GB."""
    return max(1, min(cores(), 16, free_memory() // 2**32))


@pytest.fixture(autouse=True)
def pixel_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command sets for its process is not set for the next test."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@pytest.fixture
def metadata() -> dict[str, Any]:
    return {
        "format_version": 1,
        "style": "zigzag",
        "width": 4,
        "loss_network": "vgg16_slim",
        "content_weight": 1.0,
        "style_weight": 2.5,
        "tv_weight": 0.0,
        "loss": "balanced",
        "steps": 3,
        "image_size": 32,
        "style_size": 64,
        "losses": {"content": 0.25, "style": 0.5},
        "versions": {"torch": "2.15.0"},
        "commit": None,
        "seed": 0,
    }


@pytest.fixture
def network() -> TransformerNet:
    torch.manual_seed(0)
    return TransformerNet(4)


@pytest.fixture
def strong(network: TransformerNet) -> TransformerNet:
    """A network whose normalisations matter as much as a trained one's."""
    for norm in network.modules():
        if isinstance(norm, nn.InstanceNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
    return network.eval().requires_grad_(False)


@pytest.fixture
def style_path(tmp_path: Path, network: TransformerNet, metadata: dict[str, Any]) -> Path:
    """The style file of a run folder, as training leaves it."""
    path = tmp_path / "runs" / "zigzag" / "zigzag.safetensors"
    save_style(path, network, metadata=metadata)
    return path


@pytest.fixture
def folder(style_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with runs/zigzag."""
    monkeypatch.chdir(style_path.parents[2])
    return style_path.parents[2]


def random_judge(channels: tuple[tuple[int, ...], ...], *, calibrated: tuple[str, ...] = ()) -> LossNetwork:
    """A network of random weights: judges no picture well, but like a loss network."""
    torch.manual_seed(0)
    network = LossNetwork(channels, mean=(0.5,) * 3, std=(0.25,) * 3, calibrated=calibrated)
    for convolution in network.convolutions.values():
        nn.init.kaiming_normal_(convolution.get_parameter("weight"))
    return network


@pytest.fixture(scope="session")
def slim_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the form of vgg16_slim's, with random weights."""
    path = tmp_path_factory.mktemp("weights") / "slim.safetensors"
    save_file(random_judge(SLIM_CHANNELS, calibrated=SLIM_LAYERS).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def judge() -> LossNetwork:
    """A loss network of two blocks and random weights, from relu1_1 to pool2."""
    return random_judge(((6,), (8,)))
