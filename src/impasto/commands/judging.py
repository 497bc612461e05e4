"""Options and arguments that the subcommands with a loss network share. Nothing heavy is imported before it is used."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from impasto.commands.words import Options, natural_number

if TYPE_CHECKING:
    from impasto.learning.features import LossNetwork

JUDGING: Options = {
    "--loss-network": {"default": "vgg16_slim", "metavar": "NAME", "help": "vgg16_slim (default), vgg16 or vgg19"},
    "--weights": {"type": Path, "metavar": "PATH", "help": "its weights; default: torch's cache, or a download"},
    "--pretrained": {"metavar": "NAME", "help": "which of torchvision's weights these are"},
    "--device": {"default": "auto", "metavar": "{auto,cpu,cuda,mps}", "help": "where to compute; default: auto"},
    "--seed": {
        "type": natural_number,
        "default": 0,
        "metavar": "NUMBER",
        "help": "of the noise to start from; default: 0",
    },
}
"""Options of the loss network."""


@contextmanager
def told_of_memory() -> Iterator[None]:
    """Raise ValueError where the memory does not suffice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        from impasto.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        raise ValueError("expected memory for pictures of that size, got too little: make them smaller") from error


def load_judge(arguments: argparse.Namespace, *, pooling: str = "max") -> "LossNetwork":
    """Return the loss network that the options ask for, on its device, and prepare the memory for its steps."""
    import torch

    from impasto.learning.allocator import keep_freed_memory
    from impasto.learning.features import load_loss_network
    from impasto.transformer import find_device

    device = find_device(arguments.device)
    keep_freed_memory()
    network = load_loss_network(
        arguments.loss_network, weights=arguments.weights, pretrained=arguments.pretrained, pooling=pooling
    )
    return network.to(device).to(memory_format=torch.channels_last)
