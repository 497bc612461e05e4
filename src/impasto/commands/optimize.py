"""``impasto optimize``: paint one photo the slow way. Nothing heavy is imported before it is used."""

import argparse
import math
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from impasto.commands.judging import JUDGING, load_judge, told_of_memory
from impasto.commands.words import Options, advice, whole_number

if TYPE_CHECKING:
    from torch import Tensor

    from impasto.learning.losses import LossOptions
    from impasto.learning.optimization import Scale, StyleTarget

SUMMARY = "paint one photo the slow way, for example: impasto optimize photo.jpg --style weeping_woman"
DESCRIPTION = """Paint one photo by optimising its pixels, without a trained style (Gatys, Ecker, Bethge 2015), against
the losses that a style is trained with. Ctrl-C stops early and keeps the best picture so far."""

SIZE, ITERATIONS, STYLE_SIZE = 384, 300, 384
"""Defaults of --size, --iterations, and of --style-size for pictures that are not built in."""


def number(word: str) -> float:
    """Return a finite number of 0 or more."""
    with suppress(ValueError):
        if 0 <= float(word) < math.inf:
            return float(word)
    raise argparse.ArgumentTypeError(f"expected a number of 0 or more, got {word!r}")


def learning_rate(word: str) -> float:
    """Return a finite number above 0: with 0 the picture would never change."""
    with suppress(ValueError):
        if 0 < float(word) < math.inf:
            return float(word)
    raise argparse.ArgumentTypeError(f"expected a number above 0, got {word!r}")


def layers(word: str) -> dict[str, float]:
    """Return weights by layer, of words such as relu2_2 or relu2_2=0.5,relu3_3=1."""
    pairs = [part.partition("=") for part in word.split(",")]
    return {name: number(weight) if equals else 1.0 for name, equals, weight in pairs}


def scale(word: str) -> tuple[int, int]:
    """Return short side and iterations, of a word such as 256:100."""
    size, colon, iterations = word.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"expected SIZE:ITERATIONS, such as 256:100, got {word!r}")
    return whole_number(size), whole_number(iterations)


OPTIONS: Options = {
    "photo": {"metavar": "PHOTO"},
    "--style": {
        "action": "append",
        "required": True,
        "metavar": "STYLE",
        "help": "name of a built-in style, or a picture; may be repeated",
    },
    "--share": {
        "action": "append",
        "type": number,
        "metavar": "NUMBER",
        "help": "weight of each style, in their order",
    },
    "--mask": {
        "action": "append",
        "metavar": "PATH",
        "help": "for each style a picture of the photo's size, white where the style goes",
    },
    "--style-size": {
        "type": whole_number,
        "metavar": "PX",
        "help": "short side of the style pictures; sets the stroke",
    },
    "--start": {
        "default": "content",
        "help": "content (default), white, noise, or a trained style whose painting to polish",
    },
    "--objective": {"default": "johnson", "choices": ("johnson", "gatys"), "help": "which losses; default: johnson"},
    "--scaling": {"choices": ("balanced", "paper"), "help": "of johnson, as loss= in training; default: balanced"},
    "--content-layers": {"type": layers, "metavar": "LAYER=WEIGHT,...", "help": "in place of the objective's"},
    "--style-layers": {"type": layers, "metavar": "LAYER=WEIGHT,...", "help": "in place of the objective's"},
    "--content-weight": {"type": number, "metavar": "NUMBER", "help": "in place of the objective's"},
    "--style-weight": {"type": number, "metavar": "NUMBER", "help": "in place of the objective's"},
    "--tv-weight": {"type": number, "metavar": "NUMBER", "help": "of the total variation, in place of the objective's"},
    "--pooling": {"default": "max", "choices": ("max", "average"), "help": "of vgg16 and vgg19; default: max"},
    "--size": {"type": whole_number, "metavar": "PX", "help": f"short side of the result; default: {SIZE}"},
    "--iterations": {"type": whole_number, "metavar": "N", "help": f"default: {ITERATIONS}"},
    "--scales": {
        "action": "append",
        "type": scale,
        "metavar": "SIZE:ITERATIONS",
        "help": "in place of --size and --iterations; repeated, from coarse to fine: --scales 256:200 --scales 512:50",
    },
    "--optimizer": {"default": "lbfgs", "choices": ("lbfgs", "adam"), "help": "default: lbfgs"},
    "--learning-rate": {
        "type": learning_rate,
        "metavar": "NUMBER",
        "help": "the step; default: 1 for lbfgs, 0.03 for adam",
    },
    "--keep-colors": {"action": "store_true", "help": "paint in the photo's own colours"},
    "--every": {
        "type": whole_number,
        "default": 50,
        "metavar": "N",
        "help": "iterations between pictures; default: 50",
    },
    "--output": {"metavar": "PATH", "help": "file or folder; default: the folder painted"},
    "--log-dir": {
        "type": Path,
        "metavar": "DIR",
        "help": "TensorBoard and pictures; default: runs/<photo>_<style>_optimized",
    },
    **JUDGING,
}


@told_of_memory()
def run(arguments: argparse.Namespace) -> int:
    """Paint the photo, print where the result is, and return the exit status."""
    from impasto.commands.record import Record
    from impasto.images import check_aspect, read_image
    from impasto.learning.optimization import paint
    from impasto.painting.outputs import check_places, plan_jobs

    name = f"{'_'.join(Path(style).stem for style in arguments.style)}_optimized"
    jobs = plan_jobs([arguments.photo], output=arguments.output, style_name=name)
    if len(jobs) != 1:
        raise ValueError(f"expected one photo, got {len(jobs)} with {arguments.photo!r}: optimize them one by one")
    if jobs[0].is_clip:
        raise ValueError(
            f"expected a photo, got the clip {str(jobs[0].source)!r}: give one of its frames "
            "(of a GIF or WebP, -o with a .png takes the first)"
        )
    for read in (*arguments.style, *(arguments.mask or ())):
        if os.path.realpath(read) == os.path.realpath(jobs[0].target):
            raise ValueError(f"expected an output other than a style or mask, got {read!r}: choose another name")
    check_places(jobs)
    check_aspect(jobs[0].source)
    photo, scales, options = read_image(jobs[0].source), read_scales(arguments), read_options(arguments)
    steps = paint(
        load_judge(arguments, pooling=arguments.pooling),
        photo,
        read_styles(arguments, photo),
        options,
        start=find_start(arguments),
        scales=scales,
        optimizer=arguments.optimizer,
        learning_rate=arguments.learning_rate,
    )
    # TensorBoard writes into no folder whose name is no UTF-8.
    log_name = f"{jobs[0].source.stem}_{name}".encode(errors="replace").decode()
    log_dir = arguments.log_dir if arguments.log_dir is not None else Path("runs") / log_name
    colours = photo if arguments.keep_colors else None
    record = Record(jobs[0].target, log_dir, options, every=arguments.every, colours=colours)
    return record.follow(steps, total=sum(each.iterations + 1 for each in scales))


def read_scales(arguments: argparse.Namespace) -> "list[Scale]":
    """Return the pyramid, of one level without --scales."""
    from impasto.learning.optimization import Scale

    if arguments.scales is None:
        size = SIZE if arguments.size is None else arguments.size
        return [Scale(size, ITERATIONS if arguments.iterations is None else arguments.iterations)]
    if arguments.size is not None or arguments.iterations is not None:
        raise ValueError("expected --scales, or --size and --iterations, got both: leave one out")
    return [Scale(*pair) for pair in arguments.scales]


def read_options(arguments: argparse.Namespace) -> "LossOptions":
    """Return the objective's preset, with the values that the options put in place of its own."""
    from impasto.learning.config import read_preset
    from impasto.learning.losses import LossOptions

    if arguments.objective == "gatys" and arguments.scaling is not None:
        raise ValueError("expected --scaling with --objective johnson alone, got gatys: leave one out")
    johnson = "balanced" if arguments.scaling is None else arguments.scaling
    values = read_preset("loss", johnson if arguments.objective == "johnson" else arguments.objective)
    values |= {name: value for name in values if (value := getattr(arguments, name)) is not None and name != "scaling"}
    for name in ("content_layers", "style_layers"):
        values[name] = {layer: weight for layer, weight in values[name].items() if weight > 0}
    return LossOptions(**values)


def read_styles(arguments: argparse.Namespace, photo: "Tensor") -> "list[StyleTarget]":
    """Return the style pictures with their weights and masks."""
    from impasto.learning.optimization import StyleTarget

    names = arguments.style
    shares = [1.0] * len(names) if arguments.share is None else arguments.share
    masks = [None] * len(names) if arguments.mask is None else arguments.mask
    for option, given in (("--share", shares), ("--mask", masks)):
        if len(given) != len(names):
            raise ValueError(
                f"expected {option} once for each of {len(names)} styles, got {len(given)}: give it to all"
            )
    if not sum(shares) > 0:
        raise ValueError("expected a --share above 0, got none: the greater a share, the more of the style")
    return [
        StyleTarget(
            read_style(name, arguments.style_size), share, None if mask is None else read_mask(Path(mask), photo)
        )
        for name, share, mask in zip(names, shares, masks, strict=True)
    ]


def read_style(name: str, size: int | None) -> "Tensor":
    """Return a style picture by path, or by the name of a built-in style."""
    from impasto.images import read_resized
    from impasto.learning.config import preset_names, read_preset, style_picture

    known = [each for each in preset_names("style") if each != "custom"]
    if name in known and not Path(name).is_file():
        preset = read_preset("style", name)
        return read_resized(style_picture(preset["image"]), short_side=preset["size"] if size is None else size)
    if not Path(name).exists():
        raise FileNotFoundError(
            f"expected a picture or a style ({', '.join(known)}), found nothing at {name!r}: {advice(name, known)}"
        )
    return read_resized(Path(name), short_side=STYLE_SIZE if size is None else size)


def read_mask(path: Path, photo: "Tensor") -> "Tensor":
    """Return a mask (1, 1, H, W) of the photo's size; what is transparent is black."""
    from impasto.painting.pictures import read_picture, to_image

    picture = read_picture(path)
    mask = to_image(picture.pixels)
    if picture.alpha is not None:
        mask = mask * to_image(picture.alpha[..., None])
    if mask.shape != photo.shape:
        wanted, got = (f"{each.shape[-1]} x {each.shape[-2]} px" for each in (photo, mask))
        raise ValueError(f"expected a mask of the photo's size, {wanted}, got {got} in {str(path)!r}: scale the mask")
    return mask.mean(1, keepdim=True)


def find_start(arguments: argparse.Namespace) -> "Callable[[Tensor], Tensor]":
    """Return what makes the first picture from the photo."""
    import torch

    from impasto.learning.optimization import start_noise
    from impasto.painting.stylizer import Stylizer
    from impasto.style_file import SHIPPED, load_style

    starts: dict[str, Callable[[Tensor], Tensor]] = {
        "content": torch.clone,
        "white": torch.ones_like,
        "noise": partial(start_noise, seed=arguments.seed),
    }
    if arguments.start in starts:
        return starts[arguments.start]
    if not Path(arguments.start).exists() and not (SHIPPED / f"{arguments.start}.safetensors").is_file():
        raise FileNotFoundError(
            f"expected --start {', '.join(starts)} or a trained style, got {arguments.start!r}: "
            f"{advice(arguments.start, starts)}"
        )
    stylizer = Stylizer(load_style(Path(arguments.start)), device=arguments.device)
    return lambda photo: stylizer(photo).to(photo)
