"""Makes the starting weights ``base``: a transformer from which any style is learned in few steps.

    python scripts/train_base.py --pictures PAINTINGS --leave-out weeping_woman mosaic ink_hatching watercolour

Many styles are learned at once by networks that share their convolutions and have normalisations of their own
(Dumoulin, Shlens, Kudlur 2017); every photo of a step is painted in a style drawn for it. The base has the shared
convolutions and the mean of the normalisations. A style is a picture, or a random part of one in random colours. The
photos are those of ``data=samples``, in crops as small as the first ones of ``budget=quick``. The work folder keeps
the state: a run that was stopped goes on with the same command, to the same weights.
"""

import argparse
import copy
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2  # type: ignore[import-untyped]
from tqdm import tqdm

from impasto.commands.words import file_path, natural_number, status_of, whole_number
from impasto.files import written_whole
from impasto.images import find_images, read_image, resize
from impasto.learning.allocator import keep_freed_memory
from impasto.learning.command import read_options
from impasto.learning.config import BUILTIN, Precision, TrainConfig, style_picture
from impasto.learning.features import load_loss_network
from impasto.learning.module import StyleModule
from impasto.learning.muon import Muon
from impasto.learning.training import autocast, base_weights, choose_precision, make_loss, make_photos, make_transformer
from impasto.metadata import FORMAT_VERSION
from impasto.style_file import save_style
from impasto.transformer import ConvLayer, InstanceNorm, TransformerNet, find_device

VARY = v2.Compose(
    [
        v2.RandomResizedCrop(384, scale=(0.3, 1.0), ratio=(0.8, 1.25), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(brightness=0.2, contrast=0.3, saturation=0.4, hue=0.5),
    ]
)
"""From a picture to a style like no other; draws from torch's global generator."""

SAVE_EVERY = 100
"""Steps."""


def main() -> int:
    """Train, and return the exit status."""
    return status_of(lambda: run(parse_arguments()))


def run(arguments: argparse.Namespace) -> None:
    """Train and write the weights."""
    keep_freed_memory()
    arguments.work.mkdir(parents=True, exist_ok=True)
    config, device = read_config(arguments), find_device(arguments.device)
    torch.manual_seed(arguments.seed)
    base = make_transformer(config).to(device)
    lessons = make_lessons(config, base, draw_styles(read_pictures(arguments), arguments))
    optimizer, precision = make_optimizer(config, base, lessons), choose_precision(config, lessons[0])
    first = load_state(arguments, lessons, optimizer)
    photos = photos_from(config, sample=first * config.budget.batch_size)
    bar = tqdm(range(first, arguments.steps), initial=first, total=arguments.steps, unit="step", miniters=20)
    for step in bar:
        optimizer.param_groups[0]["lr"] = config.budget.learning_rate * rate_factor(step, arguments.steps)
        batch, generator = next(photos).to(device), torch.Generator().manual_seed(arguments.seed + step)
        loss = learn(lessons, optimizer, batch, generator=generator, precision=precision)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == arguments.steps:
            bar.set_postfix_str(f"loss {loss:.2f}")
            save_state(arguments, lessons, optimizer, step=step + 1, loss=loss)
    output = arguments.output if arguments.output is not None else base_weights(arguments.width)
    save_style(output, mean_of(lessons), metadata=describe(arguments), dtype=torch.float16)


def read_config(arguments: argparse.Namespace) -> TrainConfig:
    """Return the options of ``train.py`` that say what a step is."""
    words = [f"network.width={arguments.width}", f"seed={arguments.seed}", "init=scratch", "budget.small_share=0"]
    words += ["budget.image_size=128", "precision=fp32", *arguments.options]
    return read_options(words)


# ---- the styles -------------------------------------------------------------------------------------------------


def read_pictures(arguments: argparse.Namespace) -> list[Tensor]:
    """Return the style pictures (1, 3, H, W): the built-in ones but for those left out, and those of the folders."""
    builtin = find_images(style_picture(BUILTIN))
    names = {path.stem for path in builtin}
    if unknown := set(arguments.leave_out) - names:
        raise ValueError(f"expected styles to leave out of {', '.join(sorted(names))}, got {', '.join(unknown)}")
    paths = [path for path in builtin if path.stem not in arguments.leave_out]
    return [read_image(path) for path in [*paths, *(p for folder in arguments.pictures for p in find_images(folder))]]


def draw_styles(pictures: Sequence[Tensor], arguments: argparse.Namespace) -> list[Tensor]:
    """Return as many style pictures as asked for: first those given, then variations of them, drawn by the seed."""
    if not pictures:
        raise ValueError("expected a picture to learn from, got none: leave fewer out, or name others with --pictures")
    torch.manual_seed(arguments.seed)
    styles = [resize(picture, short_side=384) for picture in pictures[: arguments.styles]]
    while len(styles) < arguments.styles:
        styles.append(VARY(pictures[len(styles) % len(pictures)]))
    return styles


def make_lessons(config: TrainConfig, base: TransformerNet, styles: Sequence[Tensor]) -> list[StyleModule]:
    """Return a module for every style picture (1, 3, H, W), whose network has the very convolutions of ``base``."""
    device = next(base.parameters()).device
    loss_network = load_loss_network()
    loss_network.to(device).to(memory_format=torch.channels_last)
    losses = [make_loss(config, loss_network, style.to(device)) for style in styles]
    return [StyleModule(with_own_norms(base), loss_network, loss, steps=1, learning_rate=1.0) for loss in losses]


def with_own_norms(base: TransformerNet) -> TransformerNet:
    """Return a network with the convolutions of another and normalisations of its own, equal at first."""
    network = copy.deepcopy(base)
    for ours, theirs in zip(network.modules(), base.modules(), strict=True):
        if isinstance(ours, ConvLayer) and isinstance(theirs, ConvLayer):
            ours.conv = theirs.conv
    return network


def norms_of(network: TransformerNet) -> list[nn.Parameter]:
    """Return the values of the normalisations."""
    return [each for layer in network.modules() if isinstance(layer, InstanceNorm) for each in layer.parameters()]


@torch.no_grad()
def mean_of(lessons: Sequence[StyleModule]) -> TransformerNet:
    """Return the network of the shared convolutions and the mean of the normalisations."""
    mean = copy.deepcopy(lessons[0].transformer)
    for ours, *theirs in zip(norms_of(mean), *(norms_of(each.transformer) for each in lessons), strict=True):
        ours.copy_(torch.stack(theirs).mean(0))
    return mean


# ---- a step -----------------------------------------------------------------------------------------------------


def make_optimizer(config: TrainConfig, base: TransformerNet, lessons: Sequence[StyleModule]) -> Muon:
    """Return the optimizer of the shared convolutions and of all normalisations."""
    shared = {each for layer in base.modules() if isinstance(layer, nn.Conv2d) for each in layer.parameters()}
    own = [each for lesson in lessons for each in norms_of(lesson.transformer)]
    return Muon([each for each in base.parameters() if each in shared] + own, lr=config.budget.learning_rate)


def learn(
    lessons: Sequence[StyleModule],
    optimizer: Muon,
    photos: Tensor,
    *,
    generator: torch.Generator,
    precision: Precision = Precision.fp32,
) -> float:
    """Take a step on photos (N, 3, H, W), each in a style drawn for it, and return the mean loss.

    A step whose numbers break, as with a photo of one colour, is left out.
    """
    loss = 0.0
    for photo in torch.split(photos, 1):
        lesson = lessons[int(torch.randint(len(lessons), (), generator=generator))]
        with autocast(precision, photo.device):
            total = lesson.step_terms(photo).total / len(photos)
        total.backward()  # type: ignore[no-untyped-call]
        loss += total.item()
    norm = torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    if math.isfinite(loss) and norm.isfinite():
        optimizer.step()
    optimizer.zero_grad()
    return loss


def rate_factor(step: int, steps: int) -> float:
    """Return what the learning rate is multiplied by: a short warm-up, then a cosine to 0."""
    return min(1.0, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * step / steps))


def photos_from(config: TrainConfig, *, sample: int) -> Iterator[Tensor]:
    """Return the endless batches (N, 3, H, W) in [0, 1] from that sample on."""
    photos = make_photos(config)
    photos.start = sample
    batches = (photos.on_before_batch_transfer(batch, 0) for batch in photos.train_dataloader())
    return (photos.on_after_batch_transfer(batch, 0) for batch in batches)


# ---- files ------------------------------------------------------------------------------------------------------


def load_state(arguments: argparse.Namespace, lessons: Sequence[StyleModule], optimizer: Muon) -> int:
    """Take up the state of the work folder, if there is any, and return the number of steps taken so far."""
    path = arguments.work / "state.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location=next(lessons[0].transformer.parameters()).device)
    if state["arguments"] != plain(arguments):
        raise ValueError(
            f"expected the arguments of the run in {str(arguments.work)!r} ({state['arguments']}), "
            f"got {plain(arguments)}: name another folder with --work"
        )
    for lesson, weights in zip(lessons, state["networks"], strict=True):
        lesson.transformer.load_state_dict(weights)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def plain(arguments: argparse.Namespace) -> dict[str, str]:
    """Return, as text, the arguments that the weights depend on."""
    return {name: str(value) for name, value in vars(arguments).items() if name not in ("device", "work", "output")}


def save_state(
    arguments: argparse.Namespace, lessons: Sequence[StyleModule], optimizer: Muon, *, step: int, loss: float
) -> None:
    """Write the state and a row of the log."""
    state: dict[str, Any] = {"networks": [lesson.transformer.state_dict() for lesson in lessons]}
    state |= {"optimizer": optimizer.state_dict(), "step": step, "arguments": plain(arguments)}
    with written_whole(arguments.work / "state.pt") as temporary:
        torch.save(state, temporary)
    with (arguments.work / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "loss": loss}) + "\n")


def describe(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the metadata of the style file, which paints in no style; no path of this machine is in them."""
    given = vars(arguments) | {"pictures": [folder.resolve().name for folder in arguments.pictures]}
    given["options"] = [re.sub(r"=.*/", "=", option) for option in arguments.options]
    return {
        "format_version": FORMAT_VERSION,
        "style": "base",
        "width": arguments.width,
        "licence": "MIT",
        "loss_network": "vgg16_slim",
        "program": "scripts/train_base.py",
        **{name: given[name] for name in ("options", "pictures", "leave_out", "styles", "steps", "seed")},
    }


def parse_arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="*", help="options of train.py, for example data=folder data.root=DIR")
    parser.add_argument("--pictures", type=file_path, nargs="*", default=[], help="folders of further style pictures")
    parser.add_argument("--leave-out", nargs="*", default=[], help="built-in styles to measure with afterwards")
    parser.add_argument("--width", type=whole_number, default=16)
    parser.add_argument("--styles", type=whole_number, default=33)
    parser.add_argument("--steps", type=whole_number, default=6000)
    parser.add_argument("--seed", type=natural_number, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=file_path, default=Path("runs/base"), help="folder of the state and the log")
    parser.add_argument("--output", type=file_path, help="default: the package's own base weights of that width")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
