"""Compares how ``vgg16_slim`` and the full VGG-16 judge stylized images.

    python -m scripts.compare_loss_networks --weights vgg16_features.pth --photos PHOTOS runs/*

Every style file paints the photos, at full strength and blended with the photo. For content, and for the style loss
against each built-in picture, both on the scale of ``loss=paper``, it prints Spearman's rank correlation between the
two networks' losses over all these images, and the ratio of their means (slim over full).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from impasto.commands.words import file_path, status_of, whole_number
from impasto.images import find_images, read_image, resize
from impasto.learning.config import BUILTIN, style_picture
from impasto.learning.features import SLIM_LAYERS, VGG_CHANNELS, LossNetwork, channels_of, load_loss_network
from impasto.learning.losses import content_loss, gram_matrix, style_loss
from impasto.style_file import load_style
from scripts.evaluate import read_photos

STRENGTHS = (0.4, 0.7, 1.0)
STYLE_SIZE = 384


def paint(photos: Tensor, style_files: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Return photos and paintings (K, 3, H, W) side by side: every style at every strength."""
    before, after = [], []
    for path in style_files:
        network = load_style(path).network
        with torch.inference_mode():
            painted = torch.cat([network(photo).clamp(0, 1) for photo in torch.split(photos, 1)])
        for strength in STRENGTHS:
            before.append(photos)
            after.append(photos.lerp(painted, strength))
    return torch.cat(before), torch.cat(after)


def content_losses(network: LossNetwork, photos: Tensor, painted: Tensor) -> list[float]:
    """Return the content loss at relu3_3 of each pair."""
    losses = []
    for pair in zip(torch.split(photos, 1), torch.split(painted, 1), strict=True):
        before, after = (network(image, ["relu3_3"])["relu3_3"] for image in pair)
        losses.append(float(content_loss(after, before)))
    return losses


def grams_of(network: LossNetwork, image: Tensor) -> dict[str, Tensor]:
    """Return an image's Gram matrices by layer."""
    return {name: gram_matrix(x) for name, x in network(image, SLIM_LAYERS).items()}


def compare_grams(grams: dict[str, Tensor], targets: dict[str, Tensor]) -> float:
    """Return the style loss, averaged over the entries of the full network's Gram matrices and summed over layers."""
    full = VGG_CHANNELS["vgg16"]
    each = [style_loss(grams[n], targets[n]) / channels_of(n, full) ** 2 for n in SLIM_LAYERS]
    return float(torch.stack(each).sum())


def agreement(slim: Sequence[float], full: Sequence[float]) -> dict[str, float]:
    """Return the rank correlation and the ratio of the means."""
    return {"rank_correlation": float(spearmanr(slim, full).statistic), "ratio": sum(slim) / sum(full)}


def main() -> int:
    """Compare, and return the exit status."""
    return status_of(lambda: run(parse_arguments()))


def run(arguments: argparse.Namespace) -> None:
    """Print the comparison."""
    full_network = load_loss_network("vgg16", weights=arguments.weights).to(memory_format=torch.channels_last)
    networks = [load_loss_network(), full_network]
    photos = torch.cat(list(read_photos(arguments.photos, count=arguments.count, size=256).values()))
    before, after = paint(photos, arguments.styles)
    slim, full = (content_losses(network, before, after) for network in networks)
    report = {"images": {"count": len(after)}, "content": agreement(slim, full)}
    grams = [[grams_of(network, image) for image in tqdm(torch.split(after, 1))] for network in networks]
    for path in find_images(style_picture(BUILTIN)):
        picture = resize(read_image(path), short_side=STYLE_SIZE)
        targets = [grams_of(network, picture) for network in networks]
        slim, full = ([compare_grams(each, target) for each in own] for own, target in zip(grams, targets, strict=True))
        report[f"style {path.stem}"] = agreement(slim, full)
    print(json.dumps(report, indent=2))


def parse_arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("styles", type=file_path, nargs="+", help="style files or run folders")
    parser.add_argument("--weights", type=file_path, required=True, help="VGG-16 weights on the 0-255 scale")
    parser.add_argument("--photos", type=file_path, required=True, help="folder of photographs")
    parser.add_argument("--count", type=whole_number, default=6, help="photographs, spread over the folder")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
