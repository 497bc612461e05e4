"""Times training and painting against plain ones, written from the public design alone.

    python scripts/benchmark.py train
    python scripts/benchmark.py stylize
    python scripts/benchmark.py photos
    python scripts/benchmark.py stylize --device cuda --picture 1920 1080 --pictures 200
    python scripts/benchmark.py train --alone --batch 1 4 16 32 --size 128 256 512 1024 --micro-batch-size all 1
    python scripts/benchmark.py train --width 32 --loss-network vgg16 --batch 1 4 --size 256 512 --json report.json

The plain step: a transformer of width 32 and the full VGG-16, both float32 and eager; photo and painting both go
through VGG up to relu4_3; Gram matrices by ``bmm`` with autograd's own backward; Adam. The two take turns at the same
batch and image size, on the same photos, each in a process of its own: ours keeps freed memory, as ``train.py`` does,
and in one process the plain one would have it kept too. Weights are random: they do not change the time. With
``--alone`` ours is timed without it: for a table of what grows with what, the smallest cases first. What would not fit
the free memory, by the memory of the cases before it, is passed over in one line; at the end comes, for every size, the
largest batch within 8, 24 and 80 GB (10^9 bytes) that was measured, and what a line through the smallest and the
largest batch says: that is no measurement.

Painting: one picture of 8 bits in memory, and what comes out of 8 bits, with the network of ours at each width (with
``--onnx`` as an ONNX file as well) and the plain one (width 32, float32, eager, nn.InstanceNorm2d), in turns; then the
command from its start to its end on one small picture; then a folder of JPEG files against the time that the network
alone takes for as many.

Photos: crops a second by number of loader workers, with nothing else to do, from a folder of as many JPEG files as COCO
has and of its sizes (or ``--folder``), and how long it takes until the first batch is there. With ``--cache DIR`` as
many loaders that read decoded photos from there take turns with those; what the rounds need is written beforehand.
``--memory 0`` is a folder far larger than the memory that decoded photos are kept in.
"""

import argparse
import gc
import itertools
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from impasto.commands.words import file_path, natural_number, status_of, whole_number
from impasto.files import written_whole
from impasto.images import to_float
from impasto.learning.allocator import keep_freed_memory
from impasto.learning.command import read_options
from impasto.learning.config import Precision, TrainConfig
from impasto.learning.features import PRETRAINED, VGG_CHANNELS, LossNetwork, load_loss_network
from impasto.learning.module import StyleModule
from impasto.learning.photos import PhotoDataModule, sample_photos
from impasto.learning.training import choose_precision, make_loss, take_step
from impasto.memory import is_out_of_memory
from impasto.painting.batch import paint_all
from impasto.painting.outputs import plan_jobs
from impasto.painting.painter import Look
from impasto.painting.pictures import Pixels
from impasto.painting.stylizer import Stylizer
from impasto.style_file import Style, save_style
from impasto.transformer import TransformerNet, find_device

STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
WARM_UP = 3
"""Steps before the clock starts: on a GPU the second and third are recorded."""

COCO_SIZES = ((640, 480), (640, 427), (480, 640), (640, 426), (500, 375), (427, 640))
"""(width, height) of the commonest photos."""

DIFFERENT = 500
"""Of the files made are different: to decode, all are as costly as if all were."""

MEMORIES = (8, 24, 80)
"""GB of cards and machines."""

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """What is timed; ``precision`` and ``micro_batch_size`` are those of our step, the plain one has neither."""

    batch: int
    size: int
    width: int
    loss_network: str
    precision: str
    device: str
    micro_batch_size: int | None = None

    @property
    def pixels(self) -> int:
        """How many are painted at a time."""
        return self.size**2 * (self.batch if self.micro_batch_size is None else min(self.batch, self.micro_batch_size))

    @property
    def kind(self) -> tuple[Any, ...]:
        """What cases share whose memory grows along one line with their pixels."""
        return self.width, self.loss_network, self.micro_batch_size, self.device


@dataclass(frozen=True)
class Plain:
    """Of the plain step: its median, and how many times ours it takes, as the median of the rounds and their range."""

    seconds: float
    peak_mib: float
    ratio: float
    spread: tuple[float, float]


@dataclass(frozen=True)
class Timing:
    """Medians over the rounds of our step; ``plain`` is None where it was timed alone."""

    case: Case
    seconds: float
    images_per_second: float
    peak_mib: float
    plain: Plain | None


# ---- the two steps ----------------------------------------------------------------------------------------------


def plain_step(case: Case) -> Step:
    """Return a training step as a first reading of the paper would write it."""
    device = torch.device(case.device)
    transformer, network = plain_network().to(device), random_vgg16().to(device)
    optimizer = torch.optim.Adam(transformer.parameters(), lr=1e-3)
    with torch.no_grad():
        style = torch.rand(1, 3, 384, 384, device=device)
        targets = {name: plain_gram(x) for name, x in network(style, STYLE_LAYERS).items()}

    def step(photos: Tensor) -> Tensor:
        optimizer.zero_grad()
        painted = transformer(photos)
        before, after = network(photos, STYLE_LAYERS), network(painted, STYLE_LAYERS)
        loss = torch.nn.functional.mse_loss(after["relu3_3"], before["relu3_3"])
        for name in STYLE_LAYERS:
            gram = plain_gram(after[name])
            loss = loss + 5 * torch.nn.functional.mse_loss(gram, targets[name].expand_as(gram))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def plain_gram(features: Tensor) -> Tensor:
    """Return the Gram matrices (N, C, C) over C·H·W."""
    count, channels, height, width = features.shape
    flat = features.view(count, channels, height * width)
    return torch.bmm(flat, flat.transpose(1, 2)) / (channels * height * width)


def random_vgg16() -> LossNetwork:
    """Return VGG-16 with random weights."""
    source = PRETRAINED["vgg16", "IMAGENET1K_FEATURES"]
    return LossNetwork(VGG_CHANNELS["vgg16"], mean=source.mean, std=source.std)


def our_step(case: Case) -> Step:
    """Return the step that ``train.py`` takes with these options; freed memory is kept from then on, as there."""
    keep_freed_memory()
    module = our_module(case)
    optimizer = module.new_optimizer()
    return lambda photos: take_step(module, optimizer, photos, Precision(case.precision))


def our_module(case: Case) -> StyleModule:
    """Return the module that ``train.py`` makes with these options, but for the weights of a full VGG."""
    device = torch.device(case.device)
    network = load_loss_network() if case.loss_network == "vgg16_slim" else random_vgg16()
    network.to(memory_format=torch.channels_last)
    loss = make_loss(read_config(case), network, torch.rand(1, 3, 384, 384))
    module = StyleModule(
        TransformerNet(case.width),
        network,
        loss,
        steps=1000,
        learning_rate=1e-3,
        micro_batch_size=case.micro_batch_size,
    ).to(device)
    module.judge_to(device)
    return module


def read_config(case: Case) -> TrainConfig:
    """Return the options of ``train.py`` for a case."""
    words = [f"budget.batch_size={case.batch}", f"budget.image_size={case.size}", f"network.width={case.width}"]
    words += [f"loss_network={case.loss_network}", f"precision={case.precision}", f"device={case.device}"]
    words += [f"budget.micro_batch_size={'null' if case.micro_batch_size is None else case.micro_batch_size}"]
    return read_options([*words, "budget.small_share=0"])


# ---- measuring --------------------------------------------------------------------------------------------------


def measure(case: Case, *, rounds: int, alone: bool) -> Timing:
    """Return the timing of a case; our step and the plain one take turns.

    Raises:
        BrokenProcessPool, MemoryError, RuntimeError: the memory did not suffice.
    """
    makers = [our_step] if alone else [our_step, plain_step]
    with ExitStack() as stack:
        workers = [stack.enter_context(_new_worker(case, alone=alone)) for _ in makers]
        stack.callback(_let_go)
        for worker, make in zip(workers, makers, strict=True):
            worker.submit(_begin, make, case).result()
        times = [[worker.submit(_time_step).result() for worker in workers] for _ in range(WARM_UP + rounds)][WARM_UP:]
        peaks = [worker.submit(_peak_mib).result() for worker in workers]
    seconds = [median(column) for column in zip(*times, strict=True)]
    plain = None
    if not alone:
        ratios = [plain / own for own, plain in times]
        plain = Plain(seconds[1], peaks[1], ratio=median(ratios), spread=(min(ratios), max(ratios)))
    return Timing(case, seconds[0], images_per_second=case.batch / seconds[0], peak_mib=peaks[0], plain=plain)


def _new_worker(case: Case, *, alone: bool) -> Executor:
    """Return a process for a step, or, to spare its start where nothing of this one is measured with it, a thread."""
    if alone and case.device == "cuda":
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def random_photos(case: Case) -> Tensor:
    """Return photos (N, 3, size, size) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (case.batch, 3, case.size, case.size), generator=generator, dtype=torch.uint8)
    return to_float(pixels).to(case.device)


_here: list[tuple[Step, Tensor]] = []
"""The step that this process takes, and its photos."""


def _begin(make: Callable[[Case], Step], case: Case) -> None:
    if sys.platform == "linux":
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory ends, this process is to end and no other
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    _here.append((make(case), random_photos(case)))


def _let_go() -> None:
    """Give back the memory of a step that this process took: the next case asks how much is free."""
    _here.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _time_step() -> float:
    return timed(*_here[0])


def _peak_mib() -> float:
    """Return the peak memory so far: of the process on the CPU, of torch's allocator on a GPU."""
    if _here[0][1].is_cuda:
        return torch.cuda.max_memory_allocated() / 2**20
    # Not getrusage's: a process begins with the peak of the one that started it.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None, "Linux says it"
    return int(peak[1]) / 2**10


# ---- painting ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """The median of several measurements, and the smallest and largest."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Painting:
    """What a picture takes in seconds with a network of ours, and how many times as long the plain one takes."""

    network: str
    seconds: Spread
    plain_seconds: Spread
    ratio: Spread


def plain_network(width: int = 32) -> nn.Module:
    """Return the network of the paper with reflection padding and upsampling, as a first reading would write it."""
    return nn.Sequential(
        *plain_layer(3, width, kernel=9),
        *plain_layer(width, 2 * width, stride=2),
        *plain_layer(2 * width, 4 * width, stride=2),
        *(PlainBlock(4 * width) for _ in range(5)),
        *(nn.Upsample(scale_factor=2), *plain_layer(4 * width, 2 * width)),
        *(nn.Upsample(scale_factor=2), *plain_layer(2 * width, width)),
        *plain_layer(width, 3, kernel=9)[:2],
    )


def plain_layer(channels: int, to: int, *, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """Return padding, convolution, normalisation and ReLU."""
    padding, convolution = nn.ReflectionPad2d(kernel // 2), nn.Conv2d(channels, to, kernel, stride)
    return [padding, convolution, nn.InstanceNorm2d(to, affine=True), nn.ReLU()]


class PlainBlock(nn.Module):
    """Two convolutions added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*plain_layer(channels, channels), *plain_layer(channels, channels)[:3])

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's shape."""
        return x + self.layers(x)


def plain_painter(device: torch.device) -> Callable[[Pixels], Pixels]:
    """Return a function from pixels (H, W, 3) of 8 bits to such, with the plain network."""
    network = plain_network().eval().to(device)

    def paint(pixels: Pixels) -> Pixels:
        with torch.no_grad():
            image = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None].float() / 255
            painted = network(image)[0, :, : pixels.shape[0], : pixels.shape[1]]
            return (painted.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()

    return paint


def random_style(width: int) -> Style:
    """Return a style of random weights."""
    network = TransformerNet(width).eval().requires_grad_(False)
    return Style(network, {"format_version": 1, "style": f"random_{width}", "width": width})


def our_painters(
    widths: Sequence[int], *, device: torch.device, onnx: Path | None
) -> dict[str, Callable[[Any], object]]:
    """Return a painter for each width, and one more for each where there is a folder for ONNX files."""
    painters: dict[str, Callable[[Any], object]] = {}
    for width in widths:
        style = random_style(width)
        painters[f"width {width}"] = partial(Stylizer(style, device=device.type), stroke_scale=1.0)
        if onnx is not None:
            painters[f"width {width} as ONNX"] = onnx_painter(style, onnx / f"{width}.onnx")
    return painters


def onnx_painter(style: Style, path: Path) -> Callable[[Any], object]:
    """Return the painter of the style as an ONNX file, which it writes."""
    from impasto.painting.export import export_onnx
    from impasto.painting.onnx_runtime import OnnxPainter

    export_onnx(style, path)
    painter = OnnxPainter(path)
    return lambda pixels: painter.paint(pixels, Look(stroke_scale=1.0))


def compare_painting(
    plain: Callable[[Any], object], painters: dict[str, Callable[[Any], object]], photo: Pixels, *, rounds: int
) -> list[Painting]:
    """Return the time of each painter against the plain network's, one picture each in turns."""
    turn = (plain, *painters.values())
    times = [[timed(painter, photo) for painter in turn] for _ in range(1 + rounds)][1:]  # the first warms up
    return [
        Painting(
            network,
            seconds=spread(row[column] for row in times),
            plain_seconds=spread(row[0] for row in times),
            ratio=spread(row[0] / row[column] for row in times),
        )
        for column, network in enumerate(painters, start=1)
    ]


def time_command(folder: Path, photo: Pixels, *, device: torch.device, rounds: int) -> Spread:
    """Return the seconds of the command ``impasto stylize``, from its start to its end."""
    model, source = folder / "random.safetensors", folder / "small.png"
    style = random_style(16)
    save_style(model, style.network, metadata=style.metadata)
    Image.fromarray(photo).resize((512, 512)).save(source)
    words = [sys.executable, "-m", "impasto", "stylize", "--model", str(model)]
    words += ["--device", device.type, str(source)]
    start = partial(subprocess.run, words, cwd=folder, check=True, capture_output=True)
    return spread(timed(start) for _ in range(rounds))


def compare_folder(folder: Path, photo: Pixels, *, device: torch.device, count: int) -> tuple[float, float]:
    """Return the seconds that a folder of JPEG files takes, and those of the network alone for as many pictures."""
    photos = folder / "photos"
    photos.mkdir()
    for number in range(count):
        Image.fromarray(np.roll(photo, 40 * number, axis=1)).save(photos / f"{number}.jpg", quality=95)
    stylizer = Stylizer(random_style(16), device=device.type)
    image = to_float(torch.from_numpy(photo.copy()).permute(2, 0, 1)[None]).contiguous().to(device)
    jobs = plan_jobs([str(photos)], output=str(folder / "painted"), style_name="random")
    with torch.inference_mode():
        stylizer.network(image)
        network = timed(lambda: [stylizer.network(image) for _ in jobs])
    everything = timed(lambda: list(paint_all(stylizer, jobs, look=Look(stroke_scale=1.0))))
    return everything, network


def timed(call: Callable[..., object], *arguments: object) -> float:
    """Return the wall time of a call, to its very end on a GPU."""
    began = time.perf_counter()
    call(*arguments)
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - began


def spread(values: Iterable[float]) -> Spread:
    """Return the median of the values, the smallest and the largest."""
    values = sorted(values)
    return Spread(median(values), values[0], values[-1])


def sample_photo(width: int, height: int) -> Pixels:
    """Return a photograph (H, W, 3) of that size."""
    photos, _ = sample_photos()
    with Image.open(photos[0]) as photo:
        return np.array(photo.convert("RGB").resize((width, height)))


def report_stylize(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print the figures of painting, and return them."""
    torch.set_num_threads(arguments.threads)
    device = find_device(arguments.device)
    photo = sample_photo(*arguments.picture)
    with tempfile.TemporaryDirectory() as name:
        painters = our_painters(arguments.width, device=device, onnx=Path(name) if arguments.onnx else None)
        paintings = compare_painting(plain_painter(device), painters, photo, rounds=arguments.rounds)
    for painting in paintings:
        print(f"{painting.network}: {as_seconds(painting.seconds)}, plain {as_seconds(painting.plain_seconds)}")
        print(f"  {painting.ratio.median:.2f} times faster, {painting.ratio.least:.2f} to {painting.ratio.most:.2f}")
    with tempfile.TemporaryDirectory() as name:
        command = time_command(Path(name), photo, device=device, rounds=arguments.rounds)
        everything, network = compare_folder(Path(name), photo, device=device, count=arguments.pictures)
    print(f"the command on 512 x 512 px: {as_seconds(command)}")
    print(f"{arguments.pictures} files: {everything:.2f} s, the network alone {network:.2f} s", end="")
    print(f": {100 * (everything / network - 1):+.0f} %")
    figures = {"command": asdict(command), "folder_seconds": everything, "network_seconds": network}
    return figures | {"paintings": [asdict(painting) for painting in paintings]}


def as_seconds(seconds: Spread) -> str:
    """Return the figures as words."""
    return f"{seconds.median:.2f} s ({seconds.least:.2f} to {seconds.most:.2f})"


# ---- photos -----------------------------------------------------------------------------------------------------


def make_photos(folder: Path, *, count: int) -> None:
    """Write JPEG files of COCO's sizes, parts of photographs; beyond ``DIFFERENT`` they are links to the others."""
    random = np.random.default_rng(0)
    photographs = [Image.open(path).convert("RGB") for path in sample_photos()[0]]
    for number in range(count):
        path = folder / f"{number:012}.jpg"
        if number >= DIFFERENT:
            path.hardlink_to(folder / f"{number % DIFFERENT:012}.jpg")
            continue
        width, height = COCO_SIZES[number % len(COCO_SIZES)]
        photograph = photographs[number % len(photographs)]
        share = random.uniform(0.3, 1) * min(photograph.width / width, photograph.height / height)
        left = random.uniform(0, photograph.width - share * width)
        top = random.uniform(0, photograph.height - share * height)
        part = (left, top, left + share * width, top + share * height)
        photograph.resize((width, height), box=part).save(path, quality=90)


@dataclass(frozen=True)
class Loading:
    """How photos are read: by so many loader workers, and from decoded ones in ``cache`` if there is one."""

    workers: int
    cache: Path | None

    def describe(self) -> str:
        """Return it in words."""
        return f"{self.workers} workers{' with decoded photos on disk' if self.cache is not None else ''}"


def open_photos(
    folder: Path, loading: Loading, arguments: argparse.Namespace, *, memory: int
) -> tuple[Iterator[Any], float]:
    """Return batches of a folder's photos as training gets them, and the seconds until the first was there."""
    began = time.perf_counter()
    data = PhotoDataModule(
        source="folder",
        root=folder,
        cache=loading.cache,
        image_size=arguments.size,
        batch_size=arguments.batch,
        workers=loading.workers,
    )
    data.setup("fit")
    data.crops.memory = min(memory, data.crops.memory)
    batches = iter(data.train_dataloader())
    next(batches)
    return batches, time.perf_counter() - began


def report_photos(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print the figures of the photos, and return them."""
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder
        if folder is None:
            folder = Path(name)
            make_photos(folder, count=arguments.count)
        caches = dict.fromkeys((None, arguments.cache))
        loadings = [Loading(workers, cache) for workers in arguments.workers for cache in caches]
        opened = {each: open_photos(folder, each, arguments, memory=arguments.memory * 2**20) for each in loadings}
        batches = max(1, arguments.crops // arguments.batch)
        rates: dict[Loading, list[float]] = {loading: [] for loading in opened}
        if arguments.cache is not None:
            fill_cache(folder, loadings[-1], arguments)
        for _ in range(arguments.rounds):
            for loading, (loader, _) in opened.items():
                seconds = timed(lambda loader: [next(loader) for _ in range(batches)], loader)
                rates[loading].append(batches * arguments.batch / seconds)
    figures = []
    for loading, (_, first) in opened.items():
        rate = spread(rates[loading])
        print(f"{loading.describe()}: {rate.median:.0f} crops a second", end="")
        print(f" ({rate.least:.0f} to {rate.most:.0f}), the first batch after {first:.1f} s")
        facts = {"workers": loading.workers, "cache": loading.cache is not None}
        figures.append({**facts, "crops_per_second": asdict(rate), "first_batch_seconds": first})
    return {"photos": figures}


def fill_cache(folder: Path, loading: Loading, arguments: argparse.Namespace) -> None:
    """Write the decoded photos that the rounds will need, and print how fast."""
    loader, _ = open_photos(folder, loading, arguments, memory=0)
    batches = arguments.rounds * max(1, arguments.crops // arguments.batch)
    seconds = timed(lambda: [next(loader) for _ in range(batches)])
    print(f"writing them: {batches * arguments.batch / seconds:.0f} crops a second")


# ---- the command ------------------------------------------------------------------------------------------------


def main() -> int:
    """Measure, and return the exit status."""
    return status_of(lambda: run(parse_arguments()))


def run(arguments: argparse.Namespace) -> None:
    """Print the figures asked for, and write the JSON."""
    report = {"train": report_train, "stylize": report_stylize, "photos": report_photos}[arguments.what]
    figures = report(arguments)
    if arguments.json is not None:
        facts = {"torch": str(torch.__version__), "threads": torch.get_num_threads(), "rounds": arguments.rounds}
        with written_whole(arguments.json) as temporary:
            temporary.write_text(json.dumps(facts | figures, indent=2))


def report_train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print one row for every combination asked for, and return the timings."""
    timings: list[Timing] = []
    print(f"{'batch':>5} {'micro':>5} {'size':>5} {'width':>5} {'loss network':12} {'prec':5}", end="")
    print(f" {'s/step':>7} {'images/s':>8}", end="")
    print(f" {'MiB':>6}", end="\n" if arguments.alone else f" {'plain s':>8} {'plain MiB':>9} {'ratio':>6}  spread\n")
    for case in tqdm(cases(arguments), unit="case", disable=None):
        lack = find_lack(case, timings)
        if lack is None:
            try:
                timings.append(measure(choose(case), rounds=arguments.rounds, alone=arguments.alone))
            except (BrokenProcessPool, MemoryError, RuntimeError) as error:
                if not (isinstance(error, BrokenProcessPool) or is_out_of_memory(error)):
                    raise
                lack = "did not fit the memory"
        tqdm.write(as_row(timings[-1]) if lack is None else f"{begin_row(case)} {lack}")
    print(*describe_largest(timings), sep="\n")
    return {"timings": [asdict(timing) for timing in timings]}


def cases(arguments: argparse.Namespace) -> Sequence[Case]:
    """Return every combination of the options, those of the fewest pixels first."""
    device = str(find_device(arguments.device))
    combinations = itertools.product(
        arguments.batch, arguments.size, arguments.width, arguments.loss_network, arguments.precision
    )
    found = [Case(*each, device, size) for each in combinations for size in arguments.micro_batch_size]
    return sorted(found, key=lambda case: (case.pixels, case.batch))


def find_lack(case: Case, timings: Sequence[Timing]) -> str | None:
    """Return why a case is better not tried: by those before it, it needs more than nine tenths of the free memory."""
    peaks = sorted((each.case.pixels, worst_mib(each)) for each in timings if each.case.kind == case.kind)
    free = torch.cuda.mem_get_info()[0] if case.device == "cuda" else psutil.virtual_memory().available
    if len({pixels for pixels, _ in peaks}) < 2:
        return None
    expected = along_line(peaks[0], peaks[-1], case.pixels)
    if expected < 0.9 * free / 2**20:
        return None
    return f"not tried: {expected:.0f} MiB expected, {free / 2**20:.0f} MiB free"


def worst_mib(timing: Timing) -> float:
    """Return the peak memory of the larger of the steps."""
    return max(timing.peak_mib, timing.plain.peak_mib if timing.plain is not None else 0)


def along_line(first: tuple[float, float], last: tuple[float, float], x: float) -> float:
    """Return the y that belongs to x on the line through two points."""
    return first[1] + (last[1] - first[1]) / (last[0] - first[0]) * (x - first[0])


def describe_largest(timings: Sequence[Timing]) -> Iterator[str]:
    """Yield a line for all cases but for their batches: the largest batch within each memory."""
    groups: dict[Case, list[tuple[float, float]]] = {}
    for timing in timings:
        groups.setdefault(replace(timing.case, batch=0), []).append((timing.peak_mib, timing.case.batch))
    for case, peaks in sorted(groups.items(), key=lambda group: group[0].size):
        peaks.sort(key=lambda peak: peak[1])
        found = [f"{memory} GB: {_largest(peaks, memory * 1e9 / 2**20)}" for memory in MEMORIES]
        micro = f", {case.micro_batch_size} at a time" if case.micro_batch_size is not None else ""
        yield f"{case.size} px, width {case.width}, {case.loss_network}, {case.precision}{micro}: {'; '.join(found)}"


def _largest(peaks: Sequence[tuple[float, float]], memory: float) -> str:
    """Return the largest batch of (peak MiB, batch) whose peak is within the memory, and the one that a line tells."""
    measured = max((batch for peak, batch in peaks if peak <= memory), default=None)
    text = f"{measured:.0f} measured" if measured is not None else "none of the measured"
    if len(peaks) < 2 or peaks[-1][0] <= peaks[0][0]:
        return text
    return f"{text}, about {max(0, int(along_line(peaks[0], peaks[-1], memory)))} by a line"


def choose(case: Case) -> Case:
    """Return the case with the precision that ``train.py`` would choose."""
    if case.precision != Precision.auto.value:
        return case
    return replace(case, precision=choose_precision(read_config(case), our_module(case)).value)


def as_row(timing: Timing) -> str:
    """Return one line of the table."""
    plain = timing.plain
    row = f"{begin_row(timing.case)} {timing.seconds:7.3f} {timing.images_per_second:8.1f} {timing.peak_mib:6.0f}"
    if plain is not None:
        least, most = plain.spread
        row += f" {plain.seconds:8.2f} {plain.peak_mib:9.0f} {plain.ratio:6.2f}  {least:.2f} to {most:.2f}"
    return row


def begin_row(case: Case) -> str:
    """Return the columns that tell the case."""
    micro = case.micro_batch_size if case.micro_batch_size is not None else "all"
    return f"{case.batch:5} {micro:>5} {case.size:5} {case.width:5} {case.loss_network:12} {case.precision:5}"


def count_or_all(word: str) -> int | None:
    """Return a number of photos, or None for all of a batch."""
    return None if word == "all" else whole_number(word)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    train, stylize, photos = (commands.add_parser(name) for name in ("train", "stylize", "photos"))
    train.add_argument("--batch", type=whole_number, nargs="+", default=[4])
    train.add_argument("--size", type=whole_number, nargs="+", default=[256], help="side of the photos in px")
    train.add_argument(
        "--width", type=whole_number, nargs="+", default=[16], help="of our transformer; the plain one's is 32"
    )
    train.add_argument("--loss-network", nargs="+", default=["vgg16_slim"], choices=["vgg16_slim", "vgg16"])
    train.add_argument("--precision", nargs="+", default=["auto"], choices=[each.value for each in Precision])
    train.add_argument(
        "--micro-batch-size", type=count_or_all, nargs="+", default=[None], help="photos at a time, or all"
    )
    train.add_argument("--device", default="auto")
    train.add_argument("--alone", action="store_true", help="without the plain step")
    stylize.add_argument("--picture", type=whole_number, nargs=2, default=[1280, 720], metavar=("WIDTH", "HEIGHT"))
    stylize.add_argument(
        "--width", type=whole_number, nargs="+", default=[32, 16], help="of our network; the plain one's is 32"
    )
    stylize.add_argument("--onnx", action="store_true", help="also as ONNX files: needs impasto[export]")
    stylize.add_argument("--pictures", type=whole_number, default=8, help="in the folder")
    stylize.add_argument("--device", default="cpu", help="auto, cpu (default), cuda or mps")
    stylize.add_argument("--threads", type=whole_number, default=2, help="on a CPU")
    photos.add_argument("--folder", type=file_path, help="of photos (default: one is made)")
    photos.add_argument(
        "--count", type=whole_number, default=118_287, help="files in the folder made (default: as COCO has)"
    )
    photos.add_argument("--cache", type=file_path, metavar="DIR", help="also with decoded photos kept in this folder")
    photos.add_argument("--memory", type=natural_number, default=1024, help="MiB for decoded photos, of each process")
    photos.add_argument("--workers", type=natural_number, nargs="+", default=[0, 1, 2])
    photos.add_argument("--size", type=whole_number, default=256, help="side of the crops in px")
    photos.add_argument("--batch", type=whole_number, default=4)
    photos.add_argument(
        "--crops", type=whole_number, default=1000, help="counted in each round, with each number of workers"
    )
    for command in (train, stylize, photos):
        command.add_argument("--rounds", type=whole_number, default=7)
        command.add_argument("--json", type=file_path, help="write every figure to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
