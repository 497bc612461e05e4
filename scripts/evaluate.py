"""Judges trained styles: their losses on photos never trained on, whatever loss network they were trained against.

    python scripts/evaluate.py runs/* --photos PHOTOS --weights vgg16_features.pth

Every style file paints the photos' centres. Content, style and total-variation loss, each with its weight, and their
total are taken under one loss network, on the scales ``loss=paper`` and ``loss=balanced``, and set beside those of the
photos unchanged, and with ``--versus`` of a second style file.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from tqdm import tqdm

from impasto.commands.words import file_path, natural_number, status_of, whole_number
from impasto.files import written_whole
from impasto.images import find_images, read_image, read_pixels, resize, to_float
from impasto.learning.config import BUILTIN, read_preset, style_picture
from impasto.learning.features import LossNetwork, load_loss_network
from impasto.learning.losses import LossOptions, PerceptualLoss, gram_matrix
from impasto.learning.photos import centre_crop
from impasto.style_file import Style, load_style

SCALES = ("paper", "balanced")
UNCHANGED = "photos unchanged"
STYLE_SIZE = 384
"""Short side in px of the picture of a style that was imported, and does not say how large it was."""

Painter = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """The losses of one painter on one photo, weighted; ``photo`` is "mean" in a summary."""

    style: str
    scale: str
    painter: str
    photo: str
    content: float
    style_loss: float
    tv: float
    total: float


def main() -> int:
    """Judge, and return the exit status."""
    return status_of(lambda: run(parse_arguments()))


def run(arguments: argparse.Namespace) -> None:
    """Print the table and write the JSON."""
    network = load_loss_network(arguments.loss_network, weights=arguments.weights, pretrained=arguments.pretrained)
    network.to(memory_format=torch.channels_last)
    photos = read_photos(arguments.photos, count=arguments.count, size=arguments.size)
    rows = []
    for path in tqdm(with_styles(arguments.styles), unit="style"):
        rows += judge(path, photos, network, versus=arguments.versus, picture=arguments.picture)
    means = summarise(rows)
    print(f"{len(photos)} photos, {arguments.size} px, judged by {arguments.loss_network}\n{as_table(means)}")
    if arguments.json is not None:
        report = {"photos": list(photos), "size": arguments.size, "loss_network": arguments.loss_network}
        report |= {"means": [asdict(row) for row in means], "rows": [asdict(row) for row in rows]}
        with written_whole(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2))


def with_styles(paths: Sequence[Path]) -> list[Path]:
    """Return those that hold a style, and name the others: optimizations keep their records among the runs.

    Raises:
        ValueError: there is none, or files of one style differ in its picture or size: one mark cannot serve both.
    """
    kept = []
    marks: dict[str, object] = {}
    for path in paths:
        try:
            style = load_style(path)
        except FileNotFoundError as error:
            if len(paths) == 1 or not path.is_dir():
                raise
            print(f"passed over {str(path)!r}: {error}", file=sys.stderr)
            continue
        kept.append(path)
        facts = (style.metadata.get("style_size"), style.metadata.get("picture", f"{style.name}.jpg"))
        if marks.setdefault(style.name, facts) != facts:
            raise ValueError(
                f"expected files of {style.name!r} of one picture at one style.size, got two: judge them apart"
            )
    if not kept:
        raise ValueError("expected style files or run folders, got none that holds a style: train one")
    return kept


def read_photos(folder: Path, *, count: int, size: int) -> dict[str, Tensor]:
    """Return, by name within the folder, the centres (1, 3, size, size) of photos spread evenly over the folder.

    Raises:
        ValueError: there are none, or one would have to be enlarged: the loss of a blur says nothing.
    """
    files = find_images(folder)
    if not files:
        raise ValueError(f"expected photos in {str(folder)!r}, found none: name a folder of photos")
    number = min(count, len(files)) if count else len(files)
    chosen = (files[i * len(files) // number] for i in range(number))
    return {str(path.relative_to(folder)): _centre(path, size) for path in chosen}


def _centre(path: Path, size: int) -> Tensor:
    pixels = read_pixels(path, at_least=size)
    if min(pixels.shape[-2:]) < size:
        width, height = pixels.shape[:0:-1]
        raise ValueError(
            f"expected photos of {size} px or more, got {width} x {height} px in {str(path)!r}: leave it out"
        )
    return to_float(centre_crop(pixels, size)[None])


def judge(
    path: Path, photos: Mapping[str, Tensor], network: LossNetwork, *, versus: Path | None, picture: Path | None
) -> list[Row]:
    """Return the rows of a style file, of the photos unchanged, and of the style file to compare with."""
    style = load_style(path)
    painters: dict[str, Painter] = {UNCHANGED: lambda photo: photo, str(path): style.network}
    if versus is not None:
        painters[str(versus)] = load_style(versus).network
    losses = make_losses(style, network, picture=picture)
    return [
        Row(style.name, scale, name, photo, *values)
        for name, painter in painters.items()
        for photo, image in photos.items()
        for scale, values in measure(painter, image, network, losses).items()
    ]


def make_losses(style: Style, network: LossNetwork, *, picture: Path | None) -> dict[str, PerceptualLoss]:
    """Return the loss on each scale, against the style's own picture or the one given."""
    path = own_picture(style) if picture is None else picture
    image = resize(read_image(path), short_side=style.metadata.get("style_size", STYLE_SIZE)).to(network.mean)
    options = {scale: LossOptions(**read_preset("loss", scale)) for scale in SCALES}
    with torch.no_grad():
        features = network(image, options[SCALES[0]].style_layers)
    grams = {name: gram_matrix(x) for name, x in features.items()}
    return {scale: PerceptualLoss(grams, each) for scale, each in options.items()}


def own_picture(style: Style) -> Path:
    """Return the picture that a style was learned from; raises ValueError where it does not come with impasto."""
    name = style.metadata.get("picture", f"{style.name}.jpg")  # older files do not say
    path = style_picture(f"{BUILTIN}{name}")
    if name is None or not path.is_file():
        raise ValueError(
            f"expected a style whose picture comes with impasto, got {style.name!r}: evaluate.py takes it as --picture"
        )
    return path


@torch.inference_mode()
def measure(
    painter: Painter, photo: Tensor, network: LossNetwork, losses: Mapping[str, PerceptualLoss]
) -> dict[str, tuple[float, float, float, float]]:
    """Return, by scale, the weighted content, style and total-variation loss of a painted photo, and their total."""
    layers = losses[SCALES[0]].content_layers.keys() | losses[SCALES[0]].style_layers.keys()
    painted = painter(photo).clamp(0, 1)
    before, after = network(photo, layers), network(painted, layers)
    measured = {}
    for scale, loss in losses.items():
        terms = loss(painted, after, before)
        content, style = loss.content_weight * terms.content, loss.style_weight * terms.style
        measured[scale] = (float(content), float(style), float(loss.tv_weight * terms.tv), float(terms.total))
    return measured


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Return the means over the photos, in the order of first appearance."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.style, row.scale, row.painter), []).append(row)
    terms = ("content", "style_loss", "tv", "total")
    return [
        Row(*key, "mean", *(fmean(getattr(row, term) for row in group) for term in terms))
        for key, group in groups.items()
    ]


def as_table(rows: Sequence[Row]) -> str:
    """Return the rows as text; the last column is the total as a part of the unchanged photos'."""
    unchanged = {(row.style, row.scale): row.total for row in rows if row.painter == UNCHANGED}
    width = max(len(row.painter) for row in rows)
    heads = f"{'content':>10} {'style':>10} {'tv':>9} {'total':>10}  part"
    lines = [f"{'style':16} {'scale':9} {'painter':{width}} {heads}"]
    for row in sorted(rows, key=lambda row: (row.style, SCALES.index(row.scale))):
        values = f"{row.content:10.4g} {row.style_loss:10.4g} {row.tv:9.3g} {row.total:10.4g}"
        part = row.total / unchanged[row.style, row.scale]
        lines.append(f"{row.style:16} {row.scale:9} {row.painter:{width}} {values} {part:5.2f}")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("styles", type=file_path, nargs="+", help="style files, checkpoints or run folders")
    parser.add_argument("--photos", type=file_path, required=True, help="folder of photos never trained on")
    parser.add_argument(
        "--count", type=natural_number, default=16, help="photos, spread over the folder; 0: all (default: 16)"
    )
    parser.add_argument(
        "--size", type=whole_number, default=256, help="side of the photos' centres in px (default: 256)"
    )
    parser.add_argument("--picture", type=file_path, help="style picture, where it is none that comes with impasto")
    parser.add_argument("--versus", type=file_path, help="a second style file to set beside each")
    parser.add_argument("--loss-network", default="vgg16", help="vgg16 (default), vgg19 or vgg16_slim")
    parser.add_argument("--weights", type=file_path, help="its weights (default: torch's hub cache, or a download)")
    parser.add_argument("--pretrained", help="which weights these are (default: IMAGENET1K_FEATURES for vgg16)")
    parser.add_argument("--json", type=file_path, help="write every figure, photo by photo, to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
