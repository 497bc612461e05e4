"""``impasto features``: what the loss network sees in a picture. Nothing heavy is imported before it is used."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from impasto.commands.judging import JUDGING, load_judge, told_of_memory
from impasto.commands.stopping import signals_as_interrupts
from impasto.commands.words import Options, whole_number

if TYPE_CHECKING:
    from torch import Tensor

    from impasto.learning.features import LossNetwork
    from impasto.learning.optimization import Step

SUMMARY = "show what the loss network sees, for example: impasto features photo.jpg --layer relu3_3"
DESCRIPTION = """Write what the loss network sees in a picture: feature maps and Gram matrix of each layer, as NumPy
files and as pictures, and on request pictures made from a layer's content, or from Gram matrices, alone."""

OPTIONS: Options = {
    "picture": {"metavar": "PICTURE"},
    "--layer": {"action": "append", "required": True, "metavar": "NAME", "help": "such as relu3_3; may be repeated"},
    "--size": {"type": whole_number, "default": 256, "metavar": "PX", "help": "short side; default: 256"},
    "--count": {"type": whole_number, "default": 64, "metavar": "N", "help": "maps in the grid; default: 64"},
    "--reconstruct": {
        "action": "append",
        "default": [],
        "choices": ("content", "texture"),
        "help": "content: the photo again from each layer's maps alone; texture: from the Gram matrices of all "
        "layers named; may be repeated",
    },
    "--iterations": {"type": whole_number, "default": 200, "metavar": "N", "help": "of those; default: 200"},
    "--output": {"type": Path, "metavar": "DIR", "help": "default: the folder features/<picture>"},
    **JUDGING,
}


@told_of_memory()
def run(arguments: argparse.Namespace) -> int:
    """Write the files, print where they are, and return the exit status."""
    from impasto.images import read_resized

    source = Path(arguments.picture)
    image = read_resized(source, short_side=arguments.size)
    network = load_judge(arguments)
    network.check_layers(arguments.layer)
    folder = arguments.output if arguments.output is not None else Path("features") / source.stem
    _check_apart(source, folder, arguments.layer)
    for layer in dict.fromkeys(arguments.layer):
        write_layer(folder, network, image, layer, count=arguments.count)
    for name, steps in _reconstructions(arguments, network, image):
        write_best(folder / f"{name}.png", steps, iterations=arguments.iterations)
    print(folder)
    return 0


def _check_apart(source: Path, folder: Path, layers: Sequence[str]) -> None:
    """Raise ValueError where one of the pictures to be written would take the place of the source."""
    names = [*layers, "_".join(dict.fromkeys(layers))]
    written = [folder / f"{name}_{kind}.png" for name in names for kind in ("maps", "gram", "content", "texture")]
    if os.path.realpath(source) in map(os.path.realpath, written):
        raise ValueError(
            f"expected an output folder in which {source.name!r} is not written, got that of the picture itself, "
            f"{str(folder)!r}: choose another"
        )


def write_layer(folder: Path, network: "LossNetwork", image: "Tensor", layer: str, *, count: int) -> None:
    """Write a layer's maps (C, H, W) and Gram matrix (C, C), each as a NumPy file and as a picture."""
    from impasto.images import write_image
    from impasto.learning.inspection import draw_gram, draw_maps, feature_maps, save_array
    from impasto.learning.losses import gram_matrix

    maps = feature_maps(network, image, layer)
    gram = gram_matrix(maps[None])[0]
    save_array(folder / f"{layer}_maps.npy", maps)
    save_array(folder / f"{layer}_gram.npy", gram)
    write_image(folder / f"{layer}_maps.png", draw_maps(maps, title=layer, count=count))
    write_image(folder / f"{layer}_gram.png", draw_gram(gram, title=layer))


def _reconstructions(
    arguments: argparse.Namespace, network: "LossNetwork", image: "Tensor"
) -> Iterator[tuple[str, Iterator["Step"]]]:
    from impasto.learning.inspection import reconstruct_content, reconstruct_texture

    layers = list(dict.fromkeys(arguments.layer))
    how = {"iterations": arguments.iterations, "seed": arguments.seed}
    if "content" in arguments.reconstruct:
        for layer in layers:
            yield f"{layer}_content", reconstruct_content(network, image, layer, **how)
    if "texture" in arguments.reconstruct:
        yield f"{'_'.join(layers)}_texture", reconstruct_texture(network, image, layers, **how)


@signals_as_interrupts()
def write_best(path: Path, steps: Iterator["Step"], *, iterations: int) -> None:
    """Write the best picture when the steps end, however they end, with a progress bar."""
    from tqdm import tqdm

    from impasto.images import write_image

    step = None
    try:
        with tqdm(total=iterations + 1, desc=path.stem, disable=None) as bar:
            for step in steps:
                bar.set_postfix_str(f"loss {step.lowest:.4g}", refresh=False)
                bar.update()
                if step.notice is not None:
                    tqdm.write(step.notice, file=sys.stderr)
    finally:
        if step is not None:
            write_image(path, step.best)
