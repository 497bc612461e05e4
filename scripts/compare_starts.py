"""Shows what starting from weights that can paint is worth: the judge's loss by seconds of training, from each start.

    python -m scripts.compare_starts --photos PHOTOS --weights vgg16_features.pth --plot docs/starts.png

Each style is trained once for every start and number of steps (``--scratch-steps`` from scratch), each time with the
whole schedule of that many steps, as a user would who has no time for more. Runs that are there already are not trained
again. The full VGG-16 judges paintings of photos never trained on, on the scale ``loss=balanced``. Seconds are those of
one small and one large step, the medians of several timed after all trainings, times their numbers. The plot needs
matplotlib (``pip install 'impasto[plots]'``).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import cycle, product
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from impasto.cli import main as impasto
from impasto.commands.words import file_path, natural_number, status_of, whole_number
from impasto.files import written_whole
from impasto.learning.command import read_options
from impasto.learning.features import LossNetwork, load_loss_network
from impasto.learning.training import choose_precision, make_module, seconds_of_steps, starting_weights
from impasto.style_file import load_style
from impasto.transformer import find_device
from scripts.compare_with_optimization import digest
from scripts.evaluate import UNCHANGED, judge, read_photos, summarise

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
LINES = ("-", "--", ":", "-.")

Totals = dict[str, dict[int, float]]
"""The judge's total by start and steps."""


def main() -> int:
    """Compare, and return the exit status."""
    return status_of(lambda: run(parse_arguments()))


def run(arguments: argparse.Namespace) -> None:
    """Train what is missing, judge it, print the table and draw the plot."""
    if arguments.plot is not None and find_spec("matplotlib") is None:
        raise ValueError("expected matplotlib for --plot, found none: pip install 'impasto[plots]'")
    network = load_loss_network(arguments.loss_network, weights=arguments.weights)
    network.to(memory_format=torch.channels_last)
    photos = read_photos(arguments.photos, count=arguments.count, size=256)
    totals: dict[str, Totals] = {style: {start: {} for start in arguments.starts} for style in arguments.styles}
    for style, start in tqdm(list(product(arguments.styles, arguments.starts)), unit="start", disable=None):
        for steps in arguments.scratch_steps if start == "scratch" else arguments.steps:
            run_dir = arguments.work / "_".join([style, start, str(steps), *marks(start, arguments.options)])
            path = train(run_dir, style, start=start, steps=steps, options=arguments.options)
            totals[style][start][steps] = total_of(path, photos, network)
    per_step = time_steps(arguments.options)
    print(as_table(totals, per_step))
    if arguments.json is not None:
        report = {"photos": list(photos), "totals": totals, "seconds_per_step": per_step}
        with written_whole(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2))
    if arguments.plot is not None:
        draw(totals, arguments.plot, per_step=per_step)


def marks(start: str, options: Sequence[str]) -> list[str]:
    """Return what tells runs with these options and weights to start from from others: nothing without either."""
    path = starting_weights(read_options([f"init={start}", *options]))
    weights = load_style(path).network.state_dict().values() if path is not None else ()
    return [digest(weights, also="\0".join(options))] if options or path is not None else []


def time_steps(options: Sequence[str]) -> float:
    """Return the mean seconds of a step of the schedule."""
    config = read_options(options)
    module = make_module(config, torch.rand(1, 3, 256, 256)).to(find_device(config.device))
    precision = choose_precision(config, module)
    return seconds_of_steps(module, config.budget, precision) / config.budget.steps


def train(run_dir: Path, style: str, *, start: str, steps: int, options: Sequence[str]) -> Path:
    """Return the run folder of a style trained so, after training it where that was not done before."""
    if not (run_dir / "contact_sheet.png").exists():
        budget = [
            f"budget.steps={steps}",
            f"budget.warm_up={30 if start == 'scratch' else 10}",
            f"budget.previews={steps}",
        ]
        status = impasto(["train", f"style={style}", f"init={start}", f"run_dir={run_dir}", *budget, *options])
        if status != 0:
            raise SystemExit(status)
    return run_dir


def total_of(path: Path, photos: dict[str, Tensor], network: LossNetwork) -> float:
    """Return the judge's balanced total of a style, the mean over the photos."""
    rows = summarise(judge(path, photos, network, versus=None, picture=None))
    (total,) = (row.total for row in rows if row.scale == "balanced" and row.painter != UNCHANGED)
    return total


def as_table(totals: dict[str, Totals], per_step: float) -> str:
    """Return the totals as text, a line for each training."""
    lines = [f"{'style':16} {'start':16} {'steps':>6} {'seconds':>8} {'total':>8}"]
    for style, starts in totals.items():
        for start, by_steps in starts.items():
            for steps, total in by_steps.items():
                lines.append(f"{style:16} {start:16} {steps:6} {steps * per_step:8.0f} {total:8.3f}")
    return "\n".join(lines)


def draw(totals: dict[str, Totals], path: Path, *, per_step: float) -> None:
    """Write the plot: one colour for each style, one kind of line for each start."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - not everybody has it

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (style, starts), colour in zip(totals.items(), cycle(COLOURS), strict=False):
        for (start, by_steps), line in zip(starts.items(), cycle(LINES), strict=False):
            seconds = [steps * per_step for steps in by_steps]
            axes.plot(seconds, list(by_steps.values()), f"o{line}", color=colour, label=f"{style}, from {start}")
    axes.set(xlabel="seconds of training", ylabel="content + style + tv, judged by VGG-16")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=110)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    styles = ("mosaic", "ink_hatching", "watercolour")  # not among the pictures that base was made with
    starts, steps, scratch = ("base", "scratch"), (125, 250, 500), (500, 1000, 2000)
    parser.add_argument("options", nargs="*", help="options of train.py, for example data=folder data.root=DIR")
    parser.add_argument("--styles", nargs="+", default=styles, help=f"default: {' '.join(styles)}")
    parser.add_argument("--starts", nargs="+", default=starts, help=f"values of init; default: {' '.join(starts)}")
    parser.add_argument("--steps", type=whole_number, nargs="+", default=steps, help="default: 125 250 500")
    parser.add_argument("--scratch-steps", type=whole_number, nargs="+", default=scratch, help="default: 500 1000 2000")
    parser.add_argument("--photos", type=file_path, required=True, help="folder of photos never trained on")
    parser.add_argument("--count", type=natural_number, default=16, help="photos to judge by (default: 16)")
    parser.add_argument("--loss-network", default="vgg16", help="the judge (default: vgg16)")
    parser.add_argument("--weights", type=file_path, help="its weights (default: torch's hub cache, or a download)")
    parser.add_argument("--work", type=file_path, default=Path("runs/starts"), help="folder of the runs")
    parser.add_argument("--json", type=file_path, help="write the totals to this file")
    parser.add_argument("--plot", type=file_path, help="draw them to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
