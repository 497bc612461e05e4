"""Measures what it would cost VGG-16 to be narrower at one layer: why ``vgg16_slim`` has the widths it has.

    python scripts/measure_widths.py --weights vgg16_features.pth --photos PHOTOS

The activations of one layer after the other are projected onto their strongest principal components, three eighths,
half or three quarters as many as the layer has channels; the rest of the network goes on with what is left. Printed is
the fraction of the last layer's variance that is lost by it, on photos.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from impasto.learning.features import LossNetwork, load_loss_network
from scripts.compress_loss_network import centre_crops, measure_moments, read_folder

FRACTIONS = (0.375, 0.5, 0.75)


def main() -> int:
    """Print the table and return the exit status."""
    arguments = parse_arguments()
    network = load_loss_network("vgg16", weights=arguments.weights).to(memory_format=torch.channels_last)
    images = centre_crops(read_folder(arguments.photos)[:: arguments.every], 256)
    network.check_layers([arguments.at])
    up_to = network.order[: network.order.index(arguments.at) + 1]
    layers = [name for name in up_to if name.startswith("relu")]
    print(f"variance of {arguments.at} lost on {len(images)} photos when one layer keeps only a part of its channels\n")
    print("| layer | " + " | ".join(f"{part:g}" for part in FRACTIONS) + " |\n" + "|---" * (1 + len(FRACTIONS)) + "|")
    for name, components in principal_components(network, layers, images).items():
        lost = [lost_variance(network, images, name, keep(components, part), arguments.at) for part in FRACTIONS]
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in lost) + " |", flush=True)
    return 0


def principal_components(network: LossNetwork, layers: list[str], images: Tensor) -> dict[str, Tensor]:
    """Return, by layer, the eigenvectors (C, C) of the second moments, the strongest last."""
    moments = measure_moments(network, layers, images)
    return {name: torch.linalg.eigh(matrix).eigenvectors for name, matrix in moments.items()}


def keep(components: Tensor, fraction: float) -> Tensor:
    """Return the projection (C, C) onto the strongest components."""
    strongest = components[:, -round(fraction * len(components)) :]
    return (strongest @ strongest.T).float()


@torch.no_grad()
def lost_variance(network: LossNetwork, images: Tensor, name: str, projection: Tensor, last: str) -> float:
    """Return the fraction of the last layer's variance, around its channels' means, that a projection takes away."""
    lost = square = total = torch.zeros(())
    for chunk in torch.split(images, 8):
        expected = network(chunk, [last])[last]
        got = forward_with_projection(network, chunk, name, projection, last)
        lost = lost + (got - expected).square().sum((0, 2, 3))
        square, total = square + expected.square().sum((0, 2, 3)), total + expected.sum((0, 2, 3))
    count = len(images) * expected[0, 0].numel()
    return float(lost.sum() / (square - total.square() / count).sum())


def forward_with_projection(network: LossNetwork, images: Tensor, name: str, projection: Tensor, last: str) -> Tensor:
    """Return the last layer's features when those of the layer ``name`` are projected (and again not negative)."""
    convolution = network.convolutions[name.replace("relu", "conv")]
    hook = convolution.register_forward_hook(lambda _, __, x: torch.einsum("dc,nchw->ndhw", projection, x.relu()))
    try:
        features: Tensor = network(images, [last])[last]
    finally:
        hook.remove()
    return features


def parse_arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="VGG-16 weights on the 0-255 scale")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--every", type=int, default=12, help="take every n-th photo")
    parser.add_argument("--at", default="relu4_3", help="layer at which the loss is measured")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
