"""Compares trained styles with what they approximate: L-BFGS on the pixels of each photo, against the same objective.

    python -m scripts.compare_with_optimization runs/* --photos PHOTOS --weights vgg16_features.pth --to comparison

For every style file, photo and size it measures the objective that the style was trained on (or that of ``--loss``),
under the full VGG-16: of the photo unchanged, of the network's painting, and of L-BFGS from noise and from the photo
after each iteration; then how much of the photo is kept (SSIM of the luminance) and how much of the style reached,
judged by another network (Gram distance under VGG-19's first three blocks, balanced); the seconds of each; and what a
few iterations with ``vgg16_slim`` add to the painting. It writes ``comparison.md``, ``comparison.json``, strips of
pictures and, where matplotlib is installed (``pip install 'impasto[plots]'``), plots.

Each measurement is kept in ``TO/cells``, under a name for all that it depends on: a run that was stopped goes on with
the same command, and with more style files, photos or sizes only what is new is measured.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor
from tqdm import tqdm

from impasto.commands.words import file_path, natural_number, status_of, whole_number
from impasto.files import written_whole
from impasto.images import contact_sheet, read_image, resize, write_image
from impasto.learning.config import preset_names, read_preset
from impasto.learning.features import LossNetwork, load_loss_network
from impasto.learning.losses import LossOptions, PerceptualLoss, gram_matrix
from impasto.learning.optimization import Objective, StyleTarget, descend, start_noise
from impasto.painting.stylizer import Stylizer
from impasto.style_file import Style, load_style
from impasto.transformer import find_device
from scripts.evaluate import own_picture, read_photos, with_styles

Cell = dict[str, Any]

MILESTONES = (10, 25, 50, 100, 200, 300, 500)
POLISH = (5, 10, 25)
STARTS = ("noise", "photo")
JUDGE_LAYERS = ("relu1_1", "relu2_1", "relu3_1")


@dataclass(frozen=True)
class Painter:
    """A style file from ``path``: ``budget`` of its training, ``key`` of its contents, ``options`` to measure by."""

    path: Path
    style: Style
    budget: str
    key: str
    options: LossOptions

    @property
    def picture(self) -> Tensor:
        """The built-in style picture at the size it was trained with."""
        return resize(read_image(own_picture(self.style)), short_side=self.style.metadata["style_size"])


@dataclass(frozen=True)
class Judges:
    """The networks that judge: ``full`` gives the objective, ``other`` took no part, ``slim`` polishes."""

    full: LossNetwork
    other: LossNetwork
    slim: LossNetwork


def read_painter(path: Path, *, loss: str | None = None) -> Painter:
    """Return a style file with the name of the budget that it was trained with, or its steps.

    It is measured by the objective it was trained on, or by that of ``loss``.
    """
    style = load_style(path)
    facts = style.metadata
    if "steps" not in facts:
        raise ValueError(f"expected a style that impasto has trained, got an imported one: {str(path)!r}")
    options = LossOptions(**read_preset("loss", facts["loss"] if loss is None else loss))
    if loss is None:
        # Layers are said by styles that were trained from this version on.
        own = ("content_layers", "style_layers", "content_weight", "style_weight", "tv_weight")
        options = replace(options, **{name: facts[name] for name in own if name in facts})
    length = (facts["steps"], facts["batch_size"])
    budgets = {name: read_preset("budget", name) for name in preset_names("budget")}
    named = [name for name, budget in budgets.items() if (budget["steps"], budget["batch_size"]) == length]
    budget = named[0] if named else f"{length[0]} steps of {length[1]}"
    return Painter(path, style, budget, digest(style.network.state_dict().values()), options)


def digest(tensors: Iterable[Tensor], *, also: str = "") -> str:
    """Return a few letters that are others for other values."""
    sha = hashlib.sha256(also.encode())
    for tensor in tensors:
        sha.update(tensor.cpu().numpy().tobytes())
    return sha.hexdigest()[:12]


def check_painters(painters: Sequence[Painter]) -> None:
    """Raise ValueError unless the painters of each style were trained on one objective."""
    seen: dict[str, LossOptions] = {}
    for painter in painters:
        if seen.setdefault(painter.style.name, painter.options) != painter.options:
            raise ValueError(
                f"expected one objective for all files of {painter.style.name}, got two: compare them apart"
            )


# ---- measuring --------------------------------------------------------------------------------------------------


class Ruler:
    """Measures pictures of one photo in one style."""

    def __init__(self, painter: Painter, photo: Tensor, judges: Judges) -> None:
        self.photo, picture = photo, painter.picture.to(photo)
        self.objective = Objective(judges.full, photo, [StyleTarget(picture)], painter.options)
        self.slim = Objective(judges.slim, photo, [StyleTarget(picture)], painter.options)
        alone = LossOptions({}, dict.fromkeys(JUDGE_LAYERS, 1.0), 0.0, 1.0, 0.0, "balanced")
        with torch.no_grad():
            self.other = judges.other
            grams = {n: gram_matrix(x) for n, x in judges.other(picture, JUDGE_LAYERS).items()}
            self.distance = PerceptualLoss(grams, alone)

    @torch.no_grad()
    def measure(self, picture: Tensor) -> Cell:
        """Return objective, SSIM and Gram distance of a picture."""
        rec601 = picture.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
        gray = [np.asarray((image[0] * rec601).sum(0).cpu()) for image in (picture, self.photo)]
        return {
            "objective": float(self.objective(picture).total),
            "ssim": float(structural_similarity(*gray, data_range=1.0)),  # type: ignore[no-untyped-call]
            "gram": float(self.distance(picture, self.other(picture, JUDGE_LAYERS), {}).style),
        }


def measure_descent(ruler: Ruler, start: str, iterations: int, keep: Callable[[int, Tensor], None]) -> Cell:
    """Return the objective after every iteration, its seconds, and all measures at the milestones."""
    picture = start_noise(ruler.photo, seed=0) if start == "noise" else ruler.photo
    totals, seconds, milestones = [], [], {}
    steps = descend(ruler.objective, picture, iterations=iterations)
    for step, spent in timed(steps):
        totals.append(step.lowest)
        seconds.append(spent)
        if step.iteration in (0, *MILESTONES, iterations):
            milestones[step.iteration] = ruler.measure(step.best)
            keep(step.iteration, step.best)
    return {"objective": totals, "seconds": seconds, "milestones": milestones}


def timed(steps: Iterator[Any]) -> Iterator[tuple[Any, float]]:
    """Yield steps with the seconds spent on them, from the first on; what is done in between does not count."""
    yield next(steps), 0.0
    spent = 0.0
    while True:
        began = time.perf_counter()
        step = next(steps, None)
        spent += time.perf_counter() - began
        if step is None:
            return
        yield step, spent


def measure_painter(ruler: Ruler, painter: Painter, keep: Callable[[int, Tensor], None]) -> Cell:
    """Return the measures of the photo, of the painting, of its seconds, and of the painting polished."""
    stylizer = Stylizer(painter.style, device=ruler.photo.device.type)
    painted, seconds = stylizer(ruler.photo), []
    for _ in range(4):
        began = time.perf_counter()
        stylizer(ruler.photo)
        seconds.append(time.perf_counter() - began)
    painted = painted.to(ruler.photo)
    keep(0, painted)
    polish = {}
    for step, spent in timed(descend(ruler.slim, painted, iterations=max(POLISH))):
        if step.iteration in POLISH:
            polish[step.iteration] = {**ruler.measure(step.best), "seconds": spent}
    return {
        "unchanged": ruler.measure(ruler.photo),
        "painted": ruler.measure(painted),
        "seconds": median(seconds[1:]),
        "polish": polish,
    }


def measure_all(arguments: argparse.Namespace, painters: Sequence[Painter], judges: Judges) -> list[Cell]:
    """Return every cell, measuring those that are not on disk."""
    networks = digest(value for network in vars(judges).values() for value in network.state_dict().values())
    versions = f"{torch.__version__} {judges.full.mean.device}"
    cells: dict[str, Cell] = {}
    # All of them before anything is measured: one may be too small.
    by_size = {size: read_photos(arguments.photos, count=arguments.count, size=size) for size in arguments.sizes}
    for size, photos in by_size.items():
        jobs = [(painter, name) for painter in painters for name in photos]
        for painter, name in tqdm(jobs, desc=f"{size} px", disable=None):
            facts = {"style": painter.style.name, "size": size, "photo": name}
            photo = photos[name].to(judges.full.mean)
            key = digest([photo, painter.picture], also=f"{networks} {painter.options} {versions}")
            stem = f"{painter.style.name}_{size}_{Path(name).stem}_{key}"
            make = partial(find_cell, arguments.to, ruler=partial(Ruler, painter, photo, judges))
            make = partial(make, keep_pictures=name == next(iter(photos)))
            for start in STARTS:
                run = partial(measure_descent, start=start, iterations=arguments.iterations)
                each = f"{stem}_{start}_{arguments.iterations}"
                cells[each] = make(each, facts | {"start": start}, run=run)
            each = f"{stem}_{painter.key}"
            facts |= {"path": str(painter.path), "budget": painter.budget}
            cells[each] = make(each, facts, run=partial(measure_painter, painter=painter))
    return list(cells.values())


def find_cell(
    to: Path, stem: str, facts: Cell, *, ruler: Callable[[], Ruler], run: Callable[..., Cell], keep_pictures: bool
) -> Cell:
    """Return a measurement from disk, or make it and write it there."""
    path = to / "cells" / f"{stem}.json"
    if not path.exists():

        def keep(iteration: int, picture: Tensor) -> None:
            if keep_pictures:
                write_image(to / "cells" / f"{stem}_{iteration}.png", picture)

        measured = facts | {"stem": stem} | run(ruler(), keep=keep)
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(measured))
    contents: Cell = json.loads(path.read_text())
    return contents | facts | {"stem": stem}  # the style file may lie elsewhere by now


# ---- summing up -------------------------------------------------------------------------------------------------


def summarise(cells: Sequence[Cell], iterations: int) -> list[Cell]:
    """Return a row for each style file and size: means over the photos, and what L-BFGS needs for the same."""
    rows = []
    painted = [each for each in cells if "budget" in each]
    for key in dict.fromkeys((each["style"], each["size"], each["path"]) for each in painted):
        own = [each for each in painted if (each["style"], each["size"], each["path"]) == key]
        unchanged = fmean(each["unchanged"]["objective"] for each in own)
        row = {"style": key[0], "size": key[1], "budget": own[0]["budget"], "unchanged": unchanged, "photos": len(own)}
        row |= {name: fmean(each["painted"][name] for each in own) for name in ("objective", "ssim", "gram")}
        row["seconds"] = fmean(each["seconds"] for each in own)
        row["polish"] = {
            step: {name: fmean(each["polish"][step][name] for each in own) for name in own[0]["polish"][step]}
            for step in own[0]["polish"]
        }
        for start in STARTS:
            curves = [each for each in cells if (each["style"], each["size"], each.get("start")) == (*key[:2], start)]
            row[start] = compare(row, curves, iterations)
        rows.append(row)
    return rows


def compare(row: Cell, curves: Sequence[Cell], iterations: int) -> Cell:
    """Return L-BFGS's mean curve, the iterations that the network matches (None: more than all), and speed-ups."""
    objective = [fmean(values) for values in zip(*(each["objective"] for each in curves), strict=True)]
    seconds = fmean(each["seconds"][-1] for each in curves) / iterations
    matched = match(objective, row["objective"])
    counts = {"equal": matched} | {str(n): n for n in (100, 300, 500)}
    milestones = {
        step: {name: fmean(each["milestones"][step][name] for each in curves) for name in ("objective", "ssim", "gram")}
        for step in curves[0]["milestones"]
    }
    return {
        "objective": objective,
        "seconds_per_iteration": seconds,
        "matched": matched,
        "speed_up": {k: None if n is None else n * seconds / row["seconds"] for k, n in counts.items()},
        "milestones": milestones,
    }


def match(curve: Sequence[float], level: float) -> float | None:
    """Return the iteration, interpolated, at which a falling curve reaches a level; None where it does not."""
    for i, value in enumerate(curve):
        if value <= level:
            return 0.0 if i == 0 else i - 1 + (curve[i - 1] - level) / (curve[i - 1] - value)
    return None


def as_markdown(rows: Sequence[Cell], arguments: argparse.Namespace) -> str:
    """Return the three tables: networks, L-BFGS by iterations, polish."""
    about = (
        f"{rows[0]['photos']} photos, L-BFGS of {arguments.iterations} iterations. Objective: as a part of the "
        "unchanged photo's. Matches: after so many iterations L-BFGS stands where the network does. Speed-up: at that "
        "point, and against 100, 300 and 500 iterations of as many seconds each. SSIM: of the luminance, to the photo. "
        "Gram distance: under VGG-19."
    )
    parts = [about]
    speeds = list(rows[0]["noise"]["speed_up"])[1:]
    heads = ["style", "px", "budget", "objective", "matches, noise", "matches, photo", "seconds", "s/iteration"]
    heads += ["speed-up, noise", "speed-up, photo", *speeds, "SSIM", "Gram distance"]
    parts.append(table(heads, [network_row(row, speeds, arguments.iterations) for row in rows]))
    steps = list(rows[0]["noise"]["milestones"])
    firsts = {(row["style"], row["size"]): row for row in rows}.values()
    lines = [
        [row["style"], row["size"], start, *(f"{part(row, row[start]['milestones'][step])}" for step in steps)]
        for row in firsts
        for start in STARTS
    ]
    parts.append(table(["style", "px", "L-BFGS from", *(f"after {step}" for step in steps)], lines))
    heads = ["style", "px", "budget", "painted", *(f"polish {step} (s; SSIM)" for step in rows[0]["polish"])]
    lines = [
        [row["style"], row["size"], row["budget"], part(row, row)]
        + [f"{part(row, each)} ({each['seconds']:.2f}; {each['ssim']:.3f})" for each in row["polish"].values()]
        for row in rows
    ]
    parts.append(table(heads, lines))
    return "\n\n".join(parts) + "\n"


def network_row(row: Cell, speeds: Sequence[str], iterations: int) -> list[Any]:
    """Return the cells of a network's line."""
    noise, photo = row["noise"], row["photo"]
    matches = [f"over {iterations}" if each["matched"] is None else f"{each['matched']:.0f}" for each in (noise, photo)]
    equal = ["-" if (up := each["speed_up"]["equal"]) is None else f"{up:.0f}x" for each in (noise, photo)]
    fixed = [f"{noise['speed_up'][name]:.0f}x" for name in speeds]
    costs = [f"{row['seconds']:.3f}", f"{noise['seconds_per_iteration']:.3f}"]
    names = [row["style"], row["size"], row["budget"], part(row, row)]
    return [*names, *matches, *costs, *equal, *fixed, f"{row['ssim']:.3f}", f"{row['gram']:.3f}"]


def part(row: Cell, measured: Cell) -> str:
    """Return an objective as a part of the unchanged photo's."""
    return f"{measured['objective'] / row['unchanged']:.3f}"


def table(heads: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(str(value) for value in row)} |" for row in rows)


# ---- pictures and plots -----------------------------------------------------------------------------------------


def draw_strips(to: Path, painters: Sequence[Painter], cells: Sequence[Cell]) -> None:
    """Write a strip for each style and size: style and paintings, then L-BFGS by milestone from either start."""
    pictures = {painter.style.name: painter.picture for painter in painters}
    for style, size in dict.fromkeys((each["style"], each["size"]) for each in cells):
        rows = [[pictures[style]]]
        for each in cells:
            paths = [to / "cells" / f"{each['stem']}_{step}.png" for step in each.get("milestones", (0,))]
            found = [read_image(path) for path in paths if path.exists()]
            if (each["style"], each["size"]) == (style, size) and found:
                rows = [rows[0] + found, *rows[1:]] if "budget" in each else [*rows, found]
        write_image(to / f"strip_{style}_{size}.jpg", contact_sheet(rows, height=192), quality=88)


def draw_plots(to: Path, rows: Sequence[Cell]) -> None:
    """Write a plot for each style and size: L-BFGS's objective by iteration, the networks' levels as lines."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - not everybody has it
    except ImportError:
        print("no plots: they need matplotlib (pip install 'impasto[plots]')", file=sys.stderr)
        return
    for style, size in dict.fromkeys((row["style"], row["size"]) for row in rows):
        own = [row for row in rows if (row["style"], row["size"]) == (style, size)]
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for start in STARTS:
            axes.plot([value / own[0]["unchanged"] for value in own[0][start]["objective"]], label=f"L-BFGS, {start}")
        for number, row in enumerate(own, start=len(STARTS)):
            level = row["objective"] / row["unchanged"]
            axes.axhline(level, color=f"C{number}", linestyle="--", label=f"network, {row['budget']}")
        axes.set(title=f"{style}, {size} px", xlabel="iterations", ylabel="part of the photo's objective")
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper right")
        with written_whole(to / f"plot_{style}_{size}.png") as temporary:
            figure.savefig(temporary, dpi=110)


def main() -> int:
    """Compare, and return the exit status."""
    return status_of(lambda: run(parse_arguments()))


def run(arguments: argparse.Namespace) -> None:
    """Measure what is missing, and write the report."""
    painters = [read_painter(path, loss=arguments.loss) for path in with_styles(arguments.styles)]
    check_painters(painters)
    device = find_device(arguments.device)
    full = load_loss_network(arguments.loss_network, weights=arguments.weights)
    other = load_loss_network("vgg19", weights=arguments.judge_weights, blocks=3)
    judges = [each.to(device).to(memory_format=torch.channels_last) for each in (full, other, load_loss_network())]
    cells = measure_all(arguments, painters, Judges(*judges))
    rows = summarise(cells, arguments.iterations)
    report = as_markdown(rows, arguments)
    facts = {"device": str(device), "torch": str(torch.__version__), "iterations": arguments.iterations}
    for name, text in (("md", report), ("json", json.dumps({**facts, "rows": rows}, indent=1))):
        with written_whole(arguments.to / f"comparison.{name}") as temporary:
            temporary.write_text(text)
    draw_strips(arguments.to, painters, cells)
    draw_plots(arguments.to, rows)
    print(report)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("styles", type=file_path, nargs="+", help="style files or run folders of built-in styles")
    parser.add_argument("--photos", type=file_path, required=True, help="folder of photos never trained on")
    parser.add_argument("--count", type=natural_number, default=20, help="photos, spread over the folder (default: 20)")
    parser.add_argument("--sizes", type=whole_number, nargs="+", default=[256, 512, 1024], help="default: 256 512 1024")
    parser.add_argument("--iterations", type=whole_number, default=500, help="of L-BFGS (default: 500)")
    parser.add_argument("--quick", action="store_true", help="2 photos at 128 px, 50 iterations: minutes on two cores")
    parser.add_argument(
        "--loss", choices=preset_names("loss"), help="the objective (default: what each was trained on)"
    )
    parser.add_argument("--loss-network", default="vgg16", help="which gives the objective (default: vgg16)")
    parser.add_argument("--weights", type=file_path, help="its weights (default: torch's hub cache, or a download)")
    parser.add_argument(
        "--judge-weights", type=file_path, help="VGG-19's, whole or its first three blocks (default: same)"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    parser.add_argument("--to", type=file_path, default=Path("comparison"), help="default: comparison")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.count, arguments.sizes, arguments.iterations = 2, [128], 50
    return arguments


if __name__ == "__main__":
    sys.exit(main())
