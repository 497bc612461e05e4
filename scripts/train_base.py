"""Makes the starting weights ``base``: a transformer from which any style is learned in few steps.

    python scripts/train_base.py --pictures PAINTINGS --leave-out weeping_woman mosaic ink_hatching watercolour

Reptile (Nichol, Achiam, Schulman 2018): again and again a style is drawn, a random part of a random picture in random
colours; a copy of the weights trains on it for a few steps, and the weights move towards the copy: at first all the
way, in the end a little. The photos are those of ``data=samples``. The work folder keeps the state: a run that was
stopped goes on with the same command, to the same weights.
"""

import argparse
import json
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]
from tqdm import tqdm

from impasto.files import written_whole
from impasto.images import find_images, read_image
from impasto.learning.command import to_config
from impasto.learning.config import Precision, TrainConfig, style_picture
from impasto.learning.features import LossNetwork, load_loss_network
from impasto.learning.module import StyleModule
from impasto.learning.training import (
    base_weights,
    choose_precision,
    make_loss,
    make_photos,
    make_transformer,
    take_step,
)
from impasto.style_file import FORMAT_VERSION, save_style
from impasto.transformer import TransformerNet, find_device

VARY = v2.Compose(
    [
        v2.RandomResizedCrop(384, scale=(0.3, 1.0), ratio=(0.8, 1.25), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(brightness=0.2, contrast=0.3, saturation=0.4, hue=0.5),
    ]
)
"""From a picture to a style like no other; draws from torch's global generator."""


def main() -> int:
    """Train, write the weights, and return the exit status."""
    arguments = parse_arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    device = find_device(arguments.device)
    config = read_config(arguments)
    pictures = read_pictures(arguments)
    loss_network = load_loss_network()
    loss_network.to(device).to(memory_format=torch.channels_last)
    torch.manual_seed(arguments.seed)
    base = make_transformer(config).to(device)
    first = load_state(arguments.work, base)
    precision = choose_once(arguments.work, config, new_task(config, base, pictures, loss_network, seed=0), device)
    photos = photos_from(config, sample=first * arguments.inner * config.budget.batch_size)
    bar = tqdm(range(first, arguments.outer), initial=first, total=arguments.outer, unit="style")
    for task in bar:
        module = new_task(config, base, pictures, loss_network, seed=arguments.seed + task)
        batches = [next(photos).to(device) for _ in range(arguments.inner)]
        loss = learn(module, batches, rate=arguments.rate, precision=precision)
        move(base, module.transformer, part=part_of_the_way(task, arguments.outer))
        bar.set_postfix_str(f"loss {loss:.2f}")
        if (task + 1) % 10 == 0 or task + 1 == arguments.outer:
            save_state(arguments.work, base, task=task + 1, loss=loss)
    output = arguments.output if arguments.output is not None else base_weights(arguments.width)
    save_style(output, base, metadata=describe(arguments), dtype=torch.float16)
    return 0


def read_config(arguments: argparse.Namespace) -> TrainConfig:
    """Return the options of ``train.py`` that say what a step is."""
    words = [f"network.width={arguments.width}", f"seed={arguments.seed}", "init=scratch", "budget.small_share=0"]
    words += arguments.options
    with initialize_config_module("impasto.configs", version_base="1.3"):
        return to_config(compose("train", words))


def read_pictures(arguments: argparse.Namespace) -> list[Tensor]:
    """Return the style pictures (1, 3, H, W): the built-in ones but for those left out, and those of the folders."""
    builtin = find_images(style_picture("builtin:mosaic.jpg").parent)
    names = {path.stem for path in builtin}
    if unknown := set(arguments.leave_out) - names:
        raise ValueError(f"expected styles to leave out of {', '.join(sorted(names))}, got {', '.join(unknown)}")
    paths = [path for path in builtin if path.stem not in arguments.leave_out]
    return [read_image(path) for path in [*paths, *(p for folder in arguments.pictures for p in find_images(folder))]]


def new_task(
    config: TrainConfig, base: TransformerNet, pictures: list[Tensor], loss_network: LossNetwork, *, seed: int
) -> StyleModule:
    """Return a module that begins at the base weights and is to learn a style drawn by the seed."""
    torch.manual_seed(seed)
    picture = VARY(pictures[int(torch.randint(len(pictures), ()))])
    device = next(base.parameters()).device
    transformer = TransformerNet(base.width).to(device)
    transformer.load_state_dict(base.state_dict())
    loss = make_loss(config, loss_network, picture.to(device))
    return StyleModule(transformer, loss_network, loss, steps=1, learning_rate=config.budget.learning_rate)


def choose_once(work: Path, config: TrainConfig, module: StyleModule, device: torch.device) -> Precision:
    """Return the precision that is faster here, as tried at the first start: a resumed run keeps it."""
    path = work / "precision"
    if not path.exists():
        path.write_text(choose_precision(config, module, device)[0].value)
    return Precision(path.read_text())


def photos_from(config: TrainConfig, *, sample: int) -> Iterator[Tensor]:
    """Return the endless batches (N, 3, H, W) in [0, 1] from that sample on."""
    photos = make_photos(config)
    photos.start = sample
    batches = (photos.on_before_batch_transfer(batch, 0) for batch in photos.train_dataloader())
    return (photos.on_after_batch_transfer(batch, 0) for batch in batches)


def learn(module: StyleModule, batches: Sequence[Tensor], *, rate: float, precision: Precision) -> float:
    """Take a step on every batch, the first few smaller, and return the mean loss of the second half."""
    optimizer = torch.optim.Adam(module.transformer.parameters(), lr=rate)
    losses = []
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 4)
        losses.append(take_step(module, optimizer, batch, precision))
    return float(torch.stack(losses[len(losses) // 2 :]).mean())


def part_of_the_way(task: int, tasks: int) -> float:
    """Return how far the weights follow: 1 for the first third, then down to 0.1 along a cosine."""
    progress = max(0.0, task / tasks - 1 / 3) / (2 / 3)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def move(base: TransformerNet, learned: TransformerNet, *, part: float) -> None:
    """Move the base weights towards the learned ones."""
    torch._foreach_lerp_(list(base.parameters()), list(learned.parameters()), part)


def load_state(work: Path, base: TransformerNet) -> int:
    """Take up the weights of the work folder, if there are any, and return the number of styles learned so far."""
    path = work / "state.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    base.load_state_dict(state["base"])
    return int(state["task"])


def save_state(work: Path, base: TransformerNet, *, task: int, loss: float) -> None:
    """Write the state and a row of the log."""
    with written_whole(work / "state.pt") as temporary:
        torch.save({"base": base.state_dict(), "task": task}, temporary)
    with (work / "log.jsonl").open("a") as file:
        file.write(json.dumps({"styles": task, "loss": loss}) + "\n")


def describe(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the metadata of the style file, which paints in no style."""
    return {
        "format_version": FORMAT_VERSION,
        "style": "base",
        "width": arguments.width,
        "licence": "MIT",
        "loss_network": "vgg16_slim",
        "command": shlex.join(["python", "scripts/train_base.py", *sys.argv[1:]]),
    }


def parse_arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="*", help="options of train.py, for example data=folder data.root=DIR")
    parser.add_argument("--pictures", type=Path, nargs="*", default=[], help="folders of further style pictures")
    parser.add_argument("--leave-out", nargs="*", default=[], help="built-in styles to measure with afterwards")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--outer", type=int, default=150, help="styles")
    parser.add_argument("--inner", type=int, default=20, help="steps of each style")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of these steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, default=Path("runs/base"), help="folder of the state and the log")
    parser.add_argument("--output", type=Path, help="default: the package's own base weights of that width")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
