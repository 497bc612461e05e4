"""Makes ``vgg16_slim``: VGG-16 up to relu4_3 with fewer channels, calibrated to the original's losses.

    python scripts/compress_loss_network.py --weights vgg16_features.pth --photos PHOTOS --pictures PAINTINGS STYLES

The steps, for the four blocks' last layers (the *taps* relu1_2, relu2_2, relu3_3, relu4_3):

1. Per convolution, choose the channels that best explain the covariance of the original's activations (greedy pivoted
   Cholesky), and refit the convolution by ridge regression, on the compressed network's own inputs, to the original's
   pre-activations of these channels.
2. Fine-tune everything against the original's features, with a linear map A from the compressed to the original
   channels at every tap, on photographs, pictures, blends of them, noise, colour changes and stylized images. The loss
   is the fraction of the features' variance that A f leaves unexplained, summed over the taps.
3. Fold A into the features: with M = AᵀA, c compressed and C original channels, the
   calibration M^(1/2) · sqrt(c/C) makes the mean-squared content loss and the summed Gram loss (Gram divided by the
   number of values) what they are on A f, that is, on the original's scale.

Photos are held out of the fit by ``--held-out``; every figure printed at the end is measured on them. The work folder
keeps the state: a run that was stopped goes on with the same command.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from impasto.commands.words import file_path, natural_number, status_of, whole_number
from impasto.files import written_whole
from impasto.images import find_images, read_pixels, to_float
from impasto.learning.features import (
    PRETRAINED,
    SLIM_CHANNELS,
    SLIM_FILE,
    SLIM_LAYERS,
    VGG_CHANNELS,
    LossNetwork,
    channels_of,
    load_loss_network,
)
from impasto.style_file import load_style
from impasto.transformer import TransformerNet

TAPS = SLIM_LAYERS
RIDGE = 1e-4
"""Ridge of the regressions, relative to the size of each unknown's inputs."""


# ---- images to fit on -------------------------------------------------------------------------------------------


class Crops:
    """Random training images: a batch depends on its seed alone."""

    def __init__(
        self, photos: Sequence[Tensor], pictures: Sequence[Tensor], painters: Sequence[TransformerNet], *, size: int
    ) -> None:
        self.photos, self.pictures, self.painters, self.size = photos, pictures, painters, size

    def batch(self, count: int, *, seed: int) -> Tensor:
        """Return (count, 3, size, size) in [0, 1]."""
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([self._image(generator) for _ in range(count)])

    def _image(self, generator: torch.Generator) -> Tensor:
        kind = _uniform(generator)
        if kind < 0.04:
            image = self._noise(generator)
        elif kind < 0.14 and self.pictures:
            image = self._crop(self.pictures, generator)
        elif kind < 0.29 and self.painters:
            image = self._painted(generator)
        else:
            image = self._crop(self.photos, generator)
        if _uniform(generator) < 0.08:
            image = image.lerp(self._crop([*self.photos, *self.pictures], generator), _uniform(generator))
        if _uniform(generator) < 0.2:
            image = _change_colours(image, generator)
        if _uniform(generator) < 0.1:
            image = image + 0.15 * _uniform(generator) * torch.randn(image.shape, generator=generator)
        return image.clamp(0, 1)

    def _crop(self, images: Sequence[Tensor], generator: torch.Generator) -> Tensor:
        """Return a random square of a random image, between 0.75 and 1.5 of its pixels' size, perhaps mirrored."""
        pixels = images[_integer(generator, len(images))]
        height, width = pixels.shape[-2:]
        side = min(height, width, round(self.size * (0.67 + 0.67 * _uniform(generator))))
        top, left = _integer(generator, height - side + 1), _integer(generator, width - side + 1)
        crop = to_float(pixels[None, :, top : top + side, left : left + side])
        crop = F.interpolate(crop, (self.size, self.size), mode="bilinear", antialias=True)
        return crop.flip(-1) if _uniform(generator) < 0.5 else crop

    def _painted(self, generator: torch.Generator) -> Tensor:
        painter = self.painters[_integer(generator, len(self.painters))]
        with torch.inference_mode():
            painted = painter(self._crop(self.photos, generator)).clamp(0, 1)
        return painted.clone()  # an inference tensor could not take part in the fit

    def _noise(self, generator: torch.Generator) -> Tensor:
        """Return noise whose amplitude falls with the frequency to a random power between 0 (white) and 1.5."""
        white = torch.fft.rfft2(torch.randn(1, 3, self.size, self.size, generator=generator))
        rows, columns = torch.fft.fftfreq(self.size)[:, None], torch.fft.rfftfreq(self.size)[None]
        frequency = (rows.square() + columns.square()).sqrt().clamp(min=1 / self.size)
        noise: Tensor = torch.fft.irfft2(white / frequency ** (1.5 * _uniform(generator)))
        return 0.5 + (0.1 + 0.2 * _uniform(generator)) * noise / noise.std()


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _integer(generator: torch.Generator, end: int) -> int:
    return int(torch.randint(end, (), generator=generator))


def _change_colours(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return the image with its channels mixed, scaled and shifted at random."""
    mix = torch.eye(3) + 0.25 * torch.randn(3, 3, generator=generator)
    shift = 0.15 * torch.randn(3, 1, 1, generator=generator)
    return torch.einsum("ij,njhw->nihw", mix, image - 0.5) + 0.5 + shift


# ---- step 1: choose channels, refit convolutions ----------------------------------------------------------------


def initialise(student: LossNetwork, teacher: LossNetwork, images: Tensor, *, seed: int) -> None:
    """Set the student's convolutions one after the other, each fitted on what the ones before it give."""
    generator = torch.Generator().manual_seed(seed)
    moments = measure_moments(teacher, [name.replace("conv", "relu") for name, _ in _convolutions(student)], images)
    for name, layer in tqdm(_convolutions(student), desc="refit", unit="layer"):
        kept = choose_channels(moments[name.replace("conv", "relu")], layer.out_channels)
        targets = (x[:, kept] for x in _features(teacher, name, images))
        weight, bias = refit(_inputs(student, name, images), targets, generator=generator)
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)


def _convolutions(network: LossNetwork) -> list[tuple[str, nn.Conv2d]]:
    return [(name, layer) for name, layer in network.convolutions.items() if isinstance(layer, nn.Conv2d)]


def _features(network: LossNetwork, name: str, images: Tensor) -> Iterator[Tensor]:
    for chunk in torch.split(images, 8):
        with torch.autocast("cpu", torch.bfloat16):
            features = network(chunk, [name])[name]
        yield features


def _inputs(student: LossNetwork, name: str, images: Tensor) -> Iterator[Tensor]:
    """Return what the named convolution of the student sees."""
    position = student.order.index(name)
    if position == 0:
        return ((chunk - student.mean) / student.std for chunk in torch.split(images, 8))
    return _features(student, student.order[position - 1], images)


def measure_moments(network: LossNetwork, names: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """Return, by layer, the sum over all positions of the products of every two channels, (C, C)."""
    moments = {name: torch.zeros((), dtype=torch.double) for name in names}
    for chunk in torch.split(images, 8):
        for name, x in network(chunk, names).items():
            moments[name] = moments[name] + torch.einsum("nchw,ndhw->cd", x, x).double()
    return moments


def choose_channels(moments: Tensor, count: int) -> list[int]:
    """Return the channels that best explain the others linearly: greedy pivoted Cholesky of the moments (C, C)."""
    kept: list[int] = []
    for _ in range(count):
        diagonal = moments.diagonal()
        gain = moments.square().sum(0) / diagonal.clamp(min=1e-9 * float(diagonal.max()))
        gain[kept] = -1
        pivot = int(gain.argmax())
        kept.append(pivot)
        column = moments[:, pivot] / moments[pivot, pivot].sqrt()
        moments = moments - torch.outer(column, column)
    return kept


def refit(
    inputs: Iterator[Tensor], targets: Iterator[Tensor], *, generator: torch.Generator, positions: int = 600
) -> tuple[Tensor, Tensor]:
    """Return weight (c_out, c_in, 3, 3) and bias of the ridge regression of the targets on 3x3 patches of the inputs.

    ``positions`` are drawn at random from each chunk of images.
    """
    left = right = torch.zeros((), dtype=torch.double)
    channels = 0
    for x, y in zip(inputs, targets, strict=True):
        channels = x.shape[1]
        chosen = torch.randint(x.shape[2] * x.shape[3], (positions,), generator=generator)
        patches = take_patches(x, chosen).transpose(0, 1).flatten(1)  # (9 c_in, n · positions)
        patches = torch.cat([patches, torch.ones_like(patches[:1])]).double()
        wanted = y.flatten(2)[..., chosen].transpose(0, 1).flatten(1).double()
        left, right = left + patches @ patches.T, right + patches @ wanted.T
    solution = solve_ridge(left, right)
    return solution[:-1].T.reshape(-1, channels, 3, 3).float(), solution[-1].float()


def take_patches(x: Tensor, chosen: Tensor) -> Tensor:
    """Return the 3x3 patches (N, 9 C, P) around P positions, numbered row by row; ``F.unfold`` would make all."""
    rows, columns = chosen // x.shape[3], chosen % x.shape[3]
    padded = F.pad(x, (1, 1, 1, 1))
    shifted = [padded[:, :, rows + i, columns + j] for i in range(3) for j in range(3)]
    return torch.stack(shifted, dim=2).flatten(1, 2)


def solve_ridge(left: Tensor, right: Tensor) -> Tensor:
    """Return x of (left + ridge) x = right; the ridge is relative to each unknown's own scale."""
    scale = left.diagonal().sqrt().clamp(min=1e-9)
    scaled = left / torch.outer(scale, scale) + RIDGE * torch.eye(len(left), dtype=left.dtype)
    return torch.linalg.solve(scaled, right / scale[:, None]) / scale[:, None]


def fit_readout(student: LossNetwork, teacher: LossNetwork, images: Tensor) -> dict[str, Tensor]:
    """Return the least-squares map A (C, c) from the student's to the teacher's features at every tap."""
    left = {name: torch.zeros((), dtype=torch.double) for name in TAPS}
    right = dict(left)
    for chunk in torch.split(images, 8):
        ours, theirs = student(chunk, TAPS), teacher(chunk, TAPS)
        for name in TAPS:
            left[name] = left[name] + torch.einsum("nchw,ndhw->cd", ours[name], ours[name]).double()
            right[name] = right[name] + torch.einsum("nchw,ndhw->cd", ours[name], theirs[name]).double()
    return {name: solve_ridge(left[name], right[name]).T.float() for name in TAPS}


# ---- step 2: fine-tune ------------------------------------------------------------------------------------------


class Fit(nn.Module):
    """What the fine-tuning changes: the student, and by tap the map A to the original's features."""

    def __init__(self, student: LossNetwork, readouts: nn.ParameterDict) -> None:
        super().__init__()
        self.student, self.readouts = student, readouts


def unexplained(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], readouts: nn.ParameterDict, variance: dict[str, float]
) -> dict[str, Tensor]:
    """Return, by tap, the mean squared error of A f over the mean variance of the original's channels."""
    errors = {}
    for name in TAPS:
        predicted = F.conv2d(ours[name], readouts[name][:, :, None, None])
        with torch.autocast("cpu", enabled=False):  # which would copy both to float32: half of a step's time
            errors[name] = F.mse_loss(predicted, theirs[name]).float() / variance[name]
    return errors


@torch.no_grad()
def measure(fit: Fit, teacher: LossNetwork, images: Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """Return, by tap, the fraction of variance unexplained over all these images, and the variance.

    The variance is that of the original's features around their channel's mean, averaged over the channels.
    """
    errors, squares, means = ({name: torch.zeros(()) for name in TAPS} for _ in range(3))
    for chunk in torch.split(images, 8):
        theirs, part = teacher(chunk, TAPS), len(chunk) / len(images)
        chunk_errors = unexplained(fit.student(chunk, TAPS), theirs, fit.readouts, dict.fromkeys(TAPS, 1.0))
        for name, features in theirs.items():
            errors[name] = errors[name] + part * chunk_errors[name]
            squares[name] = squares[name] + part * features.square().mean()
            means[name] = means[name] + part * features.mean((0, 2, 3))
    variance = {name: float(squares[name] - means[name].square().mean()) for name in TAPS}
    return {name: float(errors[name]) / variance[name] for name in TAPS}, variance


def fine_tune(
    fit: Fit,
    mover: "Mover",
    teacher: LossNetwork,
    crops: Crops,
    held_out: Tensor,
    *,
    first: int,
    arguments: argparse.Namespace,
) -> None:
    """Minimise the unexplained variance from the first step on, saving to the work folder."""
    _, variance = measure(fit, teacher, crops.batch(64, seed=arguments.seed))
    lessons = Lessons(teacher, crops, count=arguments.batch, seed=arguments.seed + 1)
    progress = tqdm(range(first, arguments.steps), initial=first, total=arguments.steps, desc="fit", unit="step")
    for step in progress:
        rate = arguments.rate * schedule(step, arguments.steps)
        errors = fit_step(fit, *lessons.at(step), variance)
        mover.move(rate)
        progress.set_postfix_str(" ".join(f"{float(e):.3f}" for e in errors.values()))
        if (step + 1) % arguments.report_every == 0 or step + 1 == arguments.steps:
            log(arguments.work, {"step": step + 1, "rate": rate, **report(fit, teacher, held_out)})
            save_state(fit, mover, step=step + 1, arguments=arguments)


def save_state(fit: Fit, mover: "Mover", *, step: int, arguments: argparse.Namespace) -> None:
    """Write everything that a run needs to go on from this step."""
    state = {"fit": fit.state_dict(), "optimizers": mover.state(), "step": step, "arguments": plain(arguments)}
    with written_whole(arguments.work / "state.pt") as temporary:
        torch.save(state, temporary)


def plain(arguments: argparse.Namespace) -> dict[str, str]:
    """Return, as text, the arguments that the network depends on."""
    free = ("work", "output", "report_every")
    return {name: str(value) for name, value in vars(arguments).items() if name not in free}


class Mover:
    """Moves a fit's parameters by Muon (the matrices) and Adam (the biases), at rates relative to their sizes.

    Features are strongly correlated, so the regression is badly conditioned: Muon's orthogonalised steps get further
    than Adam's in the same time.
    """

    def __init__(self, fit: Fit) -> None:
        # Muon takes matrices only: each is a view (c_out, c_in · 9) of a parameter's own memory.
        self.matrices = {p: nn.Parameter(p.detach().view(len(p), -1)) for p in fit.parameters() if p.ndim > 1}
        self.biases = [p for p in fit.parameters() if p.ndim == 1]
        groups = [{"params": [m], "scale": _size(m) * max(m.shape) ** 0.5} for m in self.matrices.values()]
        adam = torch.optim.Adam([{"params": [bias], "scale": _size(bias)} for bias in self.biases])
        muon = torch.optim.Muon(groups, weight_decay=0.0)
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (muon, adam)

    def move(self, rate: float) -> None:
        """Change every parameter by about ``rate`` times its size, and forget its gradient."""
        for parameter, matrix in self.matrices.items():
            matrix.grad = parameter.grad.reshape(matrix.shape) if parameter.grad is not None else None
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            optimizer.step()
        for parameter in (*self.matrices, *self.biases):
            parameter.grad = None

    def state(self) -> list[dict[str, Any]]:
        """Return everything that a later run needs."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load(self, state: Sequence[dict[str, Any]]) -> None:
        """Take up what ``state`` returned."""
        for optimizer, saved in zip(self.optimizers, state, strict=True):
            optimizer.load_state_dict(saved)


def _size(parameter: Tensor) -> float:
    return float(parameter.detach().square().mean().sqrt())


class Lessons:
    """Batches with the original's features: every fourth step sees a new batch, the others one of the last few.

    The original's features cost as much as the step itself, and the photographs come back anyway.
    """

    REUSE, KEPT = 4, 60

    def __init__(self, teacher: LossNetwork, crops: Crops, *, count: int, seed: int) -> None:
        self.teacher, self.crops, self.count, self.seed = teacher, crops, count, seed
        self._batch = lru_cache(self.KEPT)(self._new_batch)

    def at(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return images (count, 3, size, size) and the features of the original at the taps, in bfloat16."""
        number = step // self.REUSE
        if step % self.REUSE:
            generator = torch.Generator().manual_seed(self.seed + step)
            number -= _integer(generator, min(number + 1, self.KEPT))
        return self._batch(number)

    def _new_batch(self, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        images = self.crops.batch(self.count, seed=self.seed + number).to(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return images, self.teacher(images, TAPS)


def fit_step(fit: Fit, images: Tensor, theirs: dict[str, Tensor], variance: dict[str, float]) -> dict[str, Tensor]:
    """Return the unexplained fractions of one batch, with their gradients in place."""
    with torch.autocast("cpu", torch.bfloat16):
        errors = unexplained(fit.student(images, TAPS), theirs, fit.readouts, variance)
    torch.stack(list(errors.values())).sum().backward()  # type: ignore[no-untyped-call]
    return {name: error.detach() for name, error in errors.items()}


def schedule(step: int, steps: int) -> float:
    """Return the factor of the learning rate: up over 50 steps, then down to 0 along a cosine."""
    warm_up = min(1.0, (step + 1) / 50)
    return warm_up * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * step / steps))))


# ---- step 3: calibrate, write, report ---------------------------------------------------------------------------


def calibration(readout: Tensor) -> Tensor:
    """Return M^(1/2) · sqrt(c/C) with M = AᵀA, for A of shape (C, c)."""
    original, compressed = readout.shape
    values, vectors = torch.linalg.eigh((readout.T @ readout).double())
    root: Tensor = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    return (root * (compressed / original) ** 0.5).float()


def calibrated(fit: Fit) -> LossNetwork:
    """Return the finished network: the student's convolutions, and the readouts as calibrations."""
    network = new_student(layers=TAPS)
    tensors = {f"calibrations.{name}": calibration(fit.readouts[name].detach()) for name in TAPS}
    network.load_state_dict({**fit.student.state_dict(), **tensors})
    return network


def new_student(layers: tuple[str, ...] = ()) -> LossNetwork:
    """Return a compressed network with random weights; without calibrated layers it gives any layer."""
    caffe = PRETRAINED["vgg16", "IMAGENET1K_FEATURES"]
    return LossNetwork(SLIM_CHANNELS, mean=caffe.mean, std=caffe.std, calibrated=layers)


def write_network(network: LossNetwork, path: Path, *, figures: dict[str, object]) -> None:
    """Write the network as float16 with the story of its making."""
    story = {
        "what": "VGG-16 up to relu4_3 with fewer channels, calibrated at " + ", ".join(TAPS),
        "made_by": "scripts/compress_loss_network.py of the impasto project",
        "made_from": "the VGG-16 weights of Karen Simonyan and Andrew Zisserman, Visual Geometry Group, Oxford",
        "licence": "CC BY 4.0",
        "command": shlex.join(["python", "scripts/compress_loss_network.py", *sys.argv[1:]]),
        "input": "RGB in [0, 1], minus (0.48235, 0.45882, 0.40784), times 255",
        "figures": figures,
    }
    tensors = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    with written_whole(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={"impasto": json.dumps(story)})


def report(fit: Fit, teacher: LossNetwork, held_out: Tensor) -> dict[str, object]:
    """Return the figures of the log: what is left unexplained of photos held out of the fit."""
    unexplained_parts, _ = measure(fit, teacher, held_out)
    return {"unexplained_held_out": {name: round(value, 4) for name, value in unexplained_parts.items()}}


def log(work: Path, row: dict[str, object]) -> None:
    """Append a row of figures to the log and print it."""
    line = json.dumps(row)
    with (work / "log.jsonl").open("a") as file:
        file.write(line + "\n")
    tqdm.write(line)


def centre_crops(images: Sequence[Tensor], size: int) -> Tensor:
    """Return (N, 3, size, size) in [0, 1]; raises ValueError without images, or for one that is smaller."""
    if not images or min(min(pixels.shape[1:]) for pixels in images) < size:
        raise ValueError(f"expected pictures of {size} px or more on each side, got none or smaller ones")
    crops = []
    for pixels in images:
        top, left = (pixels.shape[1] - size) // 2, (pixels.shape[2] - size) // 2
        crops.append(pixels[:, top : top + size, left : left + size])
    return to_float(torch.stack(crops))


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=file_path, required=True, help="VGG-16 weights on the 0-255 scale")
    parser.add_argument("--photos", type=file_path, required=True, help="folder of photographs")
    parser.add_argument(
        "--pictures", type=file_path, nargs="*", default=[], help="folders of paintings and style pictures"
    )
    parser.add_argument(
        "--painters", type=file_path, nargs="*", default=[], help="style files that make stylized images"
    )
    parser.add_argument(
        "--work", type=file_path, default=Path("runs/vgg16_slim"), help="folder of the state and the log"
    )
    parser.add_argument("--output", type=file_path, default=SLIM_FILE)
    parser.add_argument("--held-out", type=whole_number, default=6, help="every n-th photo is kept for the figures")
    parser.add_argument("--steps", type=whole_number, default=1800)
    parser.add_argument("--batch", type=whole_number, default=5)
    parser.add_argument("--size", type=whole_number, default=240, help="side of the training crops in px")
    parser.add_argument("--rate", type=float, default=0.005, help="learning rate relative to the size of the weights")
    parser.add_argument("--report-every", type=whole_number, default=400)
    parser.add_argument("--seed", type=natural_number, default=0)
    return parser.parse_args(argv)


def read_folder(folder: Path) -> list[Tensor]:
    """Return the pictures of a folder as uint8 tensors (3, H, W)."""
    return [read_pixels(path, at_least=384) for path in find_images(folder)]


def main() -> int:
    """Make the network, and return the exit status."""
    return status_of(lambda: run(parse_arguments()))


def run(arguments: argparse.Namespace) -> None:
    """Make the network and print its figures."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    teacher = load_loss_network("vgg16", weights=arguments.weights).to(memory_format=torch.channels_last)
    photos = read_folder(arguments.photos)
    pictures = [picture for folder in arguments.pictures for picture in read_folder(folder)]
    painters = [load_style(path).network for path in arguments.painters]
    fitted = [photo for i, photo in enumerate(photos) if i % arguments.held_out]
    if not fitted:
        raise ValueError(f"expected two photos or more, and --held-out of 2 or more, got {len(photos)} photos")
    held_out = centre_crops(photos[:: arguments.held_out], 256)
    crops = Crops(fitted, pictures, painters, size=arguments.size)

    began = time.monotonic()
    fit, mover, first = start(teacher, crops, arguments=arguments)
    log(arguments.work, {"step": "start", **report(fit, teacher, held_out)})
    fine_tune(fit, mover, teacher, crops, held_out, first=first, arguments=arguments)
    figures = report(fit, teacher, held_out)
    write_network(calibrated(fit), arguments.output, figures=figures)
    log(arguments.work, {**figures, "minutes": round((time.monotonic() - began) / 60, 1)})


def start(teacher: LossNetwork, crops: Crops, *, arguments: argparse.Namespace) -> tuple[Fit, Mover, int]:
    """Return the fit, its mover and the steps taken as the work folder keeps them; where it is empty, after step 1."""
    sizes = {name: (channels_of(name, VGG_CHANNELS["vgg16"]), channels_of(name, SLIM_CHANNELS)) for name in TAPS}
    fit = Fit(new_student(), nn.ParameterDict({name: torch.empty(size) for name, size in sizes.items()}))
    state_file = arguments.work / "state.pt"
    state = torch.load(state_file, weights_only=True) if state_file.exists() else None
    if state is None:
        images = crops.batch(128, seed=arguments.seed).to(memory_format=torch.channels_last)
        initialise(fit.student, teacher, images, seed=arguments.seed)
        fit.readouts.load_state_dict(fit_readout(fit.student, teacher, images))
    elif state.get("arguments") == plain(arguments):
        fit.load_state_dict(state["fit"])
    else:
        raise ValueError(
            f"expected the arguments of the run in {str(arguments.work)!r} ({state.get('arguments')}), "
            f"got {plain(arguments)}: name another folder with --work"
        )
    mover = Mover(fit.requires_grad_(True))
    if state is None:
        save_state(fit, mover, step=0, arguments=arguments)
        return fit, mover, 0
    mover.load(state["optimizers"])
    return fit, mover, int(state["step"])


if __name__ == "__main__":
    sys.exit(main())
