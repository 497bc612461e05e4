"""Measures what it would cost VGG-16 to be narrower at one layer: why ``vgg16_slim`` has the widths it has.

    python -m scripts.measure_widths --weights vgg16_features.pth --photos PHOTOS

What one convolution after the other reads is projected onto its strongest principal components, three eighths, half
or three quarters as many as there are channels; the rest of the network goes on with what is left. Printed is
the fraction of the last layer's variance that is lost by it, on photos.
"""

import argparse
import sys
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.commands.words import file_path, status_of, whole_number
from impasto.learning.features import LossNetwork, load_loss_network
from scripts.compress_loss_network import centre_crops, measure_moments, read_folder

FRACTIONS = (0.375, 0.5, 0.75)
"""Of a layer's channels."""


def main() -> int:
    """Measure, and return the exit status."""
    return status_of(lambda: run(parse_arguments()))


@torch.no_grad()
def run(arguments: argparse.Namespace) -> None:
    """Print the table."""
    network = load_loss_network("vgg16", weights=arguments.weights).to(memory_format=torch.channels_last)
    network.check_layers([arguments.at])
    images = centre_crops(read_folder(arguments.photos)[:: arguments.every], 256)
    expected = forward(network, images, arguments.at)
    variance = expected.var((0, 2, 3), correction=0).mean()
    print(f"variance of {arguments.at} lost on {len(images)} photos when one layer keeps only a part of its channels\n")
    print("| layer | " + " | ".join(f"{part:g}" for part in FRACTIONS) + " |\n" + "|---" * (1 + len(FRACTIONS)) + "|")
    for name, moments in measure_moments(network, layers_read(network, arguments.at), images).items():
        components = torch.linalg.eigh(moments).eigenvectors
        projections = [keep(components, part) for part in FRACTIONS]
        got = (forward(network, images, arguments.at, projected=(name, matrix)) for matrix in projections)
        print(f"| {name} | " + " | ".join(f"{F.mse_loss(x, expected) / variance:.3f}" for x in got) + " |", flush=True)


def layers_read(network: LossNetwork, last: str) -> list[str]:
    """Return the layers that a convolution up to the last layer reads, and the last layer."""
    order = network.order[: network.order.index(last) + 1]
    return [before for before, name in pairwise(order) if name.startswith("conv")] + [last]


def keep(components: Tensor, fraction: float) -> Tensor:
    """Return the projection (C, C) onto the strongest components, which are the last ones."""
    strongest = components[:, -round(fraction * len(components)) :]
    return (strongest @ strongest.T).float()


def forward(network: LossNetwork, images: Tensor, last: str, *, projected: tuple[str, Tensor] | None = None) -> Tensor:
    """Return the last layer's features, with those of one layer projected by a matrix (C, C)."""
    if projected is None:
        return torch.cat([network(chunk, [last])[last] for chunk in torch.split(images, 8)])
    name, matrix = projected
    if name == last:
        return project(forward(network, images, last), matrix)
    reader = network.convolutions[network.order[network.order.index(name) + 1]]
    hook = reader.register_forward_pre_hook(lambda _, inputs: project(inputs[0], matrix))
    try:
        return forward(network, images, last)
    finally:
        hook.remove()


def project(features: Tensor, matrix: Tensor) -> Tensor:
    """Return the channels mixed by the matrix."""
    return F.conv2d(features, matrix[:, :, None, None])


def parse_arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=file_path, required=True, help="VGG-16 weights on the 0-255 scale")
    parser.add_argument("--photos", type=file_path, required=True, help="folder of photographs")
    parser.add_argument("--every", type=whole_number, default=12, help="take every n-th photo")
    parser.add_argument("--at", default="relu4_3", help="layer at which the loss is measured")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
