"""Training a style from its options: photos, module, callbacks, trainer, fit, export, in that order."""

import copy
import itertools
import logging
import platform
import shutil
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.optim import Optimizer

import impasto
from impasto.files import written_whole
from impasto.images import read_image, resize, to_float, write_image
from impasto.learning.callbacks import EventLogger, Previews, ProgressBar, SaveState, Throughput
from impasto.learning.config import Precision, TrainConfig, style_picture, to_yaml
from impasto.learning.features import LossNetwork, load_loss_network
from impasto.learning.losses import PerceptualLoss, gram_matrix
from impasto.learning.module import StyleModule
from impasto.learning.photos import PhotoDataModule
from impasto.style_file import FORMAT_VERSION, SHIPPED, load_style, save_style
from impasto.transformer import TransformerNet, count_parameters, find_device

LIGHTNING_PRECISION: dict[Precision, Literal["32-true", "bf16-mixed"]] = {
    Precision.fp32: "32-true",
    Precision.bf16: "bf16-mixed",
}
LOG_EVERY = 10
"""Steps between two rows of TensorBoard's curves."""


@dataclass(frozen=True)
class TrainingResult:
    """Where the finished style is, and its losses on held-out photos."""

    style_file: Path
    contact_sheet: Path
    losses: dict[str, float]
    seconds: float


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """The training was stopped from outside; its state is on disk."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def run(config: TrainConfig) -> int:
    """Train a style, print where it is and what to do with it, and return the exit status."""
    try:
        result = train(config)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.status
    losses = ", ".join(f"{name} {value:.4g}" for name, value in result.losses.items())
    print(
        f"\nstyle file     {result.style_file}\n"
        f"contact sheet  {result.contact_sheet}\n"
        f"final losses   {losses} (on held-out photos)\n"
        f"time           {_minutes(result.seconds)}\n"
        f"next           python stylize.py --model {result.style_file.parent} photo.jpg"
    )
    return 0


def train(config: TrainConfig) -> TrainingResult:
    """Train a style and write its run folder.

    Raises:
        ValueError, FileNotFoundError: a picture, folder or weights file that cannot be used; nothing is written then.
        Stopped: Ctrl-C or SIGTERM, after the state was saved.
    """
    began = time.perf_counter()
    quiet_lightning()
    seed_everything(config.seed, workers=True, verbose=False)
    device = find_device(config.device)
    style = resize(read_image(style_picture(config.style.image)), short_side=config.style.size)
    photos = make_photos(config)
    module = make_module(config, style).to(device)
    previews = Previews(style, photos.held_out_photos(384), every=config.budget.previews)
    precision, step_seconds = choose_precision(config, module, device)
    seconds = expect_seconds(config, module, previews, step_seconds=step_seconds) + time.perf_counter() - began
    run_dir = clear_run_dir(Path(config.run_dir).expanduser())
    print(describe_plan(config, module, photos=photos, precision=precision, seconds=seconds))
    with written_whole(run_dir / "config.yaml") as temporary:
        temporary.write_text(to_yaml(config), encoding="utf-8")
    fit(make_trainer(config, run_dir, previews, device=device, precision=precision), module, photos)
    return export(config, module, previews, photos=photos, run_dir=run_dir, began=began)


# ---- the parts --------------------------------------------------------------------------------------------------


def make_photos(config: TrainConfig) -> PhotoDataModule:
    """Return the photos, looked at once, so that an unusable folder is an error before anything else."""
    data, budget = config.data, config.budget
    photos = PhotoDataModule(
        source=data.source.value,
        root=Path(data.root).expanduser() if data.root is not None else None,
        image_size=budget.image_size,
        batch_size=budget.batch_size,
        seed=config.seed,
        workers=data.workers,
        generated=data.generated,
        generated_share=data.generated_share,
    )
    photos.setup("fit")
    return photos


def make_module(config: TrainConfig, style: Tensor) -> StyleModule:
    """Return the module with the style's Gram matrices as its constants."""
    given = config.loss_network
    weights = Path(given.weights).expanduser() if given.weights is not None else None
    loss_network = load_loss_network(given.name, weights=weights, pretrained=given.pretrained)
    # A network without normalisation runs faster so; a transformer with instance normalisation does not.
    loss_network.to(memory_format=torch.channels_last)
    budget = config.budget
    return StyleModule(
        make_transformer(config),
        loss_network,
        make_loss(config, loss_network, style),
        steps=budget.steps,
        learning_rate=budget.learning_rate,
        warm_up=budget.warm_up,
        decay=budget.decay,
        average=budget.average,
        amsgrad=budget.amsgrad,
        clip=budget.clip,
        metadata=make_metadata(config),
    )


def make_transformer(config: TrainConfig) -> TransformerNet:
    """Return the network to train, with the weights to start from.

    Raises:
        ValueError: the style to start from has another width.
    """
    transformer = TransformerNet(config.network.width)
    path = starting_weights(config)
    if path is not None:
        style = load_style(path)
        if style.network.width != config.network.width:
            raise ValueError(
                f"expected a style of width {config.network.width} to start from, got width {style.network.width} with "
                f"init={config.init}: add network.width={style.network.width}, or init=scratch"
            )
        transformer.load_state_dict(style.network.state_dict())
    return transformer


def starting_weights(config: TrainConfig) -> Path | None:
    """Return the style to start from, or None for random weights, as where there are no base weights of that width."""
    if config.init == "base":
        path = base_weights(config.network.width)
        return path if path.exists() else None
    return Path(config.init).expanduser() if config.init != "scratch" else None


def base_weights(width: int) -> Path:
    """Return where the package keeps the weights made by ``scripts/train_base.py``."""
    return SHIPPED.parent / f"base_{width}.safetensors"


def make_loss(config: TrainConfig, loss_network: LossNetwork, style: Tensor) -> PerceptualLoss:
    """Return the loss against one style picture (1, 3, H, W)."""
    loss = config.loss
    content_layers = {name: weight for name, weight in loss.content_layers.items() if weight > 0}
    style_layers = {name: weight for name, weight in loss.style_layers.items() if weight > 0}
    loss_network.check_layers([*content_layers, *style_layers])
    with torch.no_grad():
        features = loss_network(style, style_layers.keys())
    return PerceptualLoss(
        {name: gram_matrix(x) for name, x in features.items()},
        content_layers=content_layers,
        style_layers=style_layers,
        content_weight=loss.content_weight,
        style_weight=loss.style_weight * config.style.strength,
        tv_weight=loss.tv_weight,
        scaling=loss.scaling.value,
    )


def make_metadata(config: TrainConfig) -> dict[str, Any]:
    """Return the plain facts that travel with a style."""
    return {
        "format_version": FORMAT_VERSION,
        "style": config.style.name,
        "credit": config.style.credit,
        "licence": config.style.licence,
        "width": config.network.width,
        "init": config.init,
        "loss_network": config.loss_network.name,
        "loss": config.loss.scaling.value,
        "content_weight": config.loss.content_weight,
        "style_weight": config.loss.style_weight * config.style.strength,
        "tv_weight": config.loss.tv_weight,
        "image_size": config.budget.image_size,
        "batch_size": config.budget.batch_size,
        "style_size": config.style.size,
        "seed": config.seed,
        "versions": {
            "impasto": impasto.__version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "pytorch_lightning": version("pytorch-lightning"),
        },
        "commit": find_commit(),
    }


def find_commit() -> str | None:
    """Return the commit of the checkout that runs, or None where the package was installed from a wheel."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def make_trainer(
    config: TrainConfig, run_dir: Path, previews: Previews, *, device: torch.device, precision: Precision
) -> Trainer:
    """Return a trainer that runs one endless epoch of the budget's steps."""
    steps = config.budget.steps
    return Trainer(
        accelerator=device.type,
        devices=1,
        precision=LIGHTNING_PRECISION[precision],
        max_steps=steps,
        max_epochs=1,
        limit_train_batches=steps,  # gives the progress bar its end
        val_check_interval=min(config.budget.previews, steps),
        num_sanity_val_steps=0,
        log_every_n_steps=min(LOG_EVERY, steps),
        default_root_dir=run_dir,
        logger=EventLogger(run_dir, name="", version="", default_hp_metric=False),
        callbacks=[
            ProgressBar(refresh_rate=1),
            Throughput(),
            previews,
            SaveState(run_dir / "last.ckpt", every=config.budget.previews),
        ],
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def choose_precision(config: TrainConfig, module: StyleModule, device: torch.device) -> tuple[Precision, float]:
    """Return the number format to train in and the measured seconds of a step.

    ``auto`` tries both for a moment: whether bf16 pays depends on the processor, not only on what it can do.
    """
    asked = config.precision
    candidates = [Precision.fp32, Precision.bf16] if asked is Precision.auto else [asked]
    size = config.budget.image_size
    batch = torch.rand(config.budget.batch_size, 3, size, size, device=device)
    seconds = {precision: time_step(module, batch, precision) for precision in candidates}
    best = min(candidates, key=lambda precision: seconds[precision])
    return best, seconds[best]


def time_step(module: StyleModule, batch: Tensor, precision: Precision) -> float:
    """Return the seconds of one training step, the second of two; a copy of the module takes them."""
    module = copy.deepcopy(module)
    module.judge_to(batch.device)
    optimizer = torch.optim.Adam(module.transformer.parameters(), lr=module.learning_rate)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        take_step(module, optimizer, batch, precision).item()  # waits for the device
        seconds = time.perf_counter() - began
    return seconds


def take_step(module: StyleModule, optimizer: Optimizer, photos: Tensor, precision: Precision) -> Tensor:
    """Train on a batch as the trainer does, but without Lightning, and return the loss."""
    with torch.autocast(photos.device.type, torch.bfloat16, enabled=precision is Precision.bf16):
        total = module.loss_terms(photos, module.transformer(photos)).total
    total.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(module.transformer.parameters(), module.longest_gradient)
    optimizer.step()
    optimizer.zero_grad()
    module.move_average()
    return total.detach()


def expect_seconds(config: TrainConfig, module: StyleModule, previews: Previews, *, step_seconds: float) -> float:
    """Return the seconds that the steps and the previews will take, by the time of one of each."""
    began = time.perf_counter()
    previews.sheet(module)
    preview_seconds = time.perf_counter() - began
    return config.budget.steps * step_seconds + config.budget.steps / config.budget.previews * preview_seconds


def clear_run_dir(run_dir: Path) -> Path:
    """Return an empty run folder; the run that was there before is kept under the next free number.

    Raises:
        ValueError: there is something else than a run of impasto.
    """
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        if not (run_dir / "config.yaml").is_file():
            raise ValueError(
                f"expected a new folder or one of an earlier run, got something else at {str(run_dir)!r}: "
                "choose another with run_dir=DIR"
            )
        names = (run_dir.with_name(f"{run_dir.name}-{number}") for number in itertools.count(1))
        kept = next(path for path in names if not path.exists())
        run_dir.rename(kept)
        print(f"the run that was at {run_dir} is now {kept}")
    run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir


def describe_plan(
    config: TrainConfig, module: StyleModule, *, photos: PhotoDataModule, precision: Precision, seconds: float
) -> str:
    """Return what the training will do, a line each."""
    budget = config.budget
    parameters = count_parameters(module.transformer)
    return (
        f"style          {config.style.name}: {style_picture(config.style.image)} at {config.style.size} px\n"
        f"photos         {photos.describe()}\n"
        f"transformer    width {config.network.width}, {parameters:,} parameters, {_describe_start(config)}\n"
        f"loss network   {config.loss_network.name}\n"
        f"loss           {config.loss.scaling.value}: content {config.loss.content_weight:g}, "
        f"style {config.loss.style_weight * config.style.strength:g}, tv {config.loss.tv_weight:g}\n"
        f"steps          {budget.steps} of {budget.batch_size} photos at {budget.image_size} px\n"
        f"device         {module.device}, {precision.value}\n"
        f"expected time  {_minutes(seconds)}\n"
        f"run folder     {config.run_dir} (watch it: tensorboard --logdir {Path(config.run_dir).parent})"
    )


def _describe_start(config: TrainConfig) -> str:
    if starting_weights(config) is not None:
        return f"from {config.init}"
    return "from scratch" if config.init == "scratch" else f"from scratch (there is no {config.init} of this width)"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def fit(trainer: Trainer, module: StyleModule, photos: PhotoDataModule) -> None:
    """Train to the end; raises Stopped on Ctrl-C and SIGTERM, both of which Lightning turns into SystemExit."""
    try:
        trainer.fit(module, datamodule=photos)
    except SystemExit as error:
        status = 143 if isinstance(error, SIGTERMException) else 130
        raise Stopped(
            f"\nstopped after step {trainer.global_step} of {trainer.max_steps}; what was learned so far paints with: "
            f"python stylize.py --model {trainer.default_root_dir} photo.jpg",
            status=status,
        ) from error


def export(
    config: TrainConfig,
    module: StyleModule,
    previews: Previews,
    *,
    photos: PhotoDataModule,
    run_dir: Path,
    began: float,
) -> TrainingResult:
    """Write the style file and the contact sheet, and return where they are."""
    losses = measure_losses(module, photos)
    style_file = run_dir / f"{config.style.name}.safetensors"
    save_style(style_file, module.average, metadata={**module.describe(), "losses": losses})
    sheet = run_dir / "contact_sheet.png"
    write_image(sheet, previews.sheet(module, height=384))
    return TrainingResult(style_file, sheet, losses, time.perf_counter() - began)


def measure_losses(module: StyleModule, photos: PhotoDataModule) -> dict[str, float]:
    """Return the averaged weights' unweighted losses and their weighted total on the held-out photos."""
    module.judge_to(module.device)  # Lightning has moved the module off a GPU
    rows = []
    with torch.inference_mode():
        for batch in photos.val_dataloader():
            images = to_float(batch).to(module.device)
            terms = module.loss_terms(images, module(images))
            rows.append(torch.stack([terms.content, terms.style, terms.tv, terms.total]))
    means = torch.stack(rows).mean(0).tolist()
    return dict(zip(("content", "style", "tv", "total"), means, strict=True))


def quiet_lightning() -> None:
    """Silence advice and advertisements that say nothing to the user of a finished program."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")  # Lightning 2.6 with torch 2.11 on
    threading.excepthook = leave_disk_errors_to_the_main_thread


def leave_disk_errors_to_the_main_thread(failure: threading.ExceptHookArgs) -> None:
    """Say nothing of a full disk in TensorBoard's writer thread, which raises the error again in the main thread."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)
