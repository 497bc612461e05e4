"""Training a style from its options: photos, module, callbacks, trainer, fit, export, in that order."""

import copy
import gc
import logging
import math
import platform
import shlex
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from torch import Tensor
from torch.optim import Optimizer

from impasto.files import NO_SPACE, leave_disk_errors_to_the_main_thread, written_whole
from impasto.images import read_resized, to_float, write_image
from impasto.learning.allocator import keep_freed_memory
from impasto.learning.callbacks import EventLogger, Previews, ProgressBar, Throughput
from impasto.learning.config import (
    BudgetConfig,
    ConfigError,
    OptimizerName,
    Precision,
    TrainConfig,
    did_you_mean,
    style_picture,
    to_path,
    to_seconds,
    to_yaml,
)
from impasto.learning.faults import GuardNumbers
from impasto.learning.features import LossNetwork, load_loss_network
from impasto.learning.losses import LossOptions, PerceptualLoss, gram_matrix
from impasto.learning.memory import check_memory
from impasto.learning.module import StyleModule
from impasto.learning.muon import Muon
from impasto.learning.photos import PhotoDataModule
from impasto.learning.provenance import gather_facts, make_metadata
from impasto.learning.run_folder import (
    CHECKPOINT,
    Facts,
    SaveState,
    check_fits,
    check_run_dir,
    check_same,
    earlier_run,
    new_run_dir,
)
from impasto.learning.snapshot import count_steps_from
from impasto.learning.stopping import Stopped, Stops, fit, ignore_signals
from impasto.memory import is_out_of_memory
from impasto.photo_folder import CONFIG, CONTACT_SHEET, counted, write_list
from impasto.style_file import SHIPPED, load_style, save_style
from impasto.transformer import TransformerNet, count_parameters, find_device

OPTIMIZERS = {OptimizerName.muon: Muon, OptimizerName.adam: torch.optim.Adam}
LOG_EVERY = 10
"""Steps between two rows of TensorBoard's curves."""

_TRIAL_SECONDS = 0.5
"""How long a step is tried for, to know how long it takes."""

SKIPPED = "skipped.txt"
"""Name of the list of photos that cannot be read, in a run folder."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """Where the style is, its losses on held-out photos, what the time went into, and how many photos were damaged."""

    style_file: Path
    contact_sheet: Path
    losses: dict[str, float]
    seconds: dict[str, float]
    skipped: int


def run(config: TrainConfig, *, go_on: str, paint: Sequence[str]) -> Stopped | None:
    """Train a style, print where it is and what to do with it, and return what stopped it, if anything did.

    ``go_on`` is what to type where the training was stopped, ``paint`` the first words of what paints. Where it was
    stopped signals are ignored from then on.

    Raises:
        ValueError, OSError: as ``train`` does; also ValueError where the memory does not suffice.
    """
    try:
        result = train(config)
    except Stopped as stopped:
        print(describe_stop(config, stopped, go_on=go_on, paint=paint), file=sys.stderr)
        return stopped
    except OSError as error:
        if error.errno in NO_SPACE:
            print(file=sys.stderr)  # the progress bar has not ended its line
            error.filename = error.filename or config.run_dir  # TensorBoard's writer names no file
            _note_what_is_kept(config, error)
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # a sweep goes on, and needs what they hold
        raise ValueError("; ".join([describe_lack(config), *getattr(error, "__notes__", [])])) from error
    print(describe_result(result, paint))
    return None


def describe_lack(config: TrainConfig) -> str:
    """Return what did not fit the memory, and which options to lower."""
    budget = config.budget
    counts = {"micro_batch_size (which changes no result)": budget.photos_at_once, "batch_size": budget.batch_size}
    lower = [*(f"budget.{name}" for name, count in counts.items() if count > 1), "budget.image_size"]
    return (
        f"expected memory for {budget.photos_at_once} of {budget.batch_size} photos of {budget.image_size} px at a "
        f"time and a style picture of {config.style.size} px, got too little: lower {', '.join(lower)} or style.size"
    )


def _note_what_is_kept(config: TrainConfig, error: BaseException) -> None:
    """Say in a note where a training goes on whose disk or memory was full, if it has saved anything."""
    checkpoint = to_path(config.run_dir) / CHECKPOINT
    if checkpoint.is_file() and not hasattr(error, "__notes__"):  # which say that the run there is an earlier one
        error.add_note(f"with resume=true it goes on after step {load_style(checkpoint).metadata['steps']}")


def describe_result(result: TrainingResult, paint: Sequence[str]) -> str:
    """Return where a finished style is, how good it is, and what to do with it."""
    losses = ", ".join(f"{name} {value:.4g}" for name, value in result.losses.items())
    spent = ", ".join(f"{name} {_minutes(seconds)}" for name, seconds in result.seconds.items())
    photos = f"{counted(result.skipped, 'photo')} that cannot be read, listed in {result.style_file.with_name(SKIPPED)}"
    skipped = f"skipped        {photos}\n" if result.skipped > 0 else ""
    return (
        f"\nstyle file     {result.style_file}\n"
        f"contact sheet  {result.contact_sheet}\n"
        f"final losses   {losses} (on held-out photos)\n"
        f"time           {_minutes(sum(result.seconds.values()))} ({spent})\n"
        f"{skipped}"
        f"next           {_command_to_paint(result.style_file.parent, paint)}"
    )


def describe_stop(config: TrainConfig, stopped: Stopped, *, go_on: str, paint: Sequence[str]) -> str:
    """Return why a training stopped, what it has left, and the next command to type."""
    if stopped.steps == 0:
        nothing = f"stopped before the end of the first step ({stopped}): there is nothing to go on from"
        return "\n" + "; ".join([nothing, *getattr(stopped, "__notes__", [])])
    return (
        f"\nstopped after step {stopped.steps} of {config.budget.steps} ({stopped})\n"
        f"to paint with what was learned so far: {_command_to_paint(to_path(config.run_dir), paint)}\n"
        f"to go on: {go_on}"
    )


def _command_to_paint(run_dir: Path, paint: Sequence[str]) -> str:
    return shlex.join([*paint, "--model", str(run_dir), "photo.jpg"])


def train(config: TrainConfig) -> TrainingResult:
    """Train a style, or go on with an earlier training of it, and write its run folder.

    Raises:
        ValueError, FileNotFoundError: a picture, folder or weights file that cannot be used, nothing to resume, or
            another training in the run folder; nothing is written then but decoded photos, into ``data.cache``.
        Stopped: a signal, the time limit or an error in the midst of it, after the state was saved; signals are ignored
            from then on.
        MemoryError, RuntimeError: the memory did not suffice; in the midst of it, after the state was saved.
    """
    began = time.perf_counter()
    gc.collect()  # an earlier training of this process, with what it holds of a GPU's memory
    quiet_lightning()
    keep_freed_memory()
    seed_everything(config.seed, workers=True, verbose=False)
    run_dir = to_path(config.run_dir)
    with ExitStack() as held:
        if not config.resume:
            check_run_dir(run_dir)  # before the preparation, which takes its time
        earlier = held.enter_context(earlier_run(run_dir)) if config.resume else None
        parts = make_parts(config, earlier)
        plan = describe_plan(parts, seconds=expect_seconds(parts) + time.perf_counter() - began)
        if earlier is None:
            held.enter_context(new_run_dir(run_dir))
        print(plan)
        with written_whole(run_dir / CONFIG) as temporary:
            temporary.write_text(to_yaml(config), encoding="utf-8")
        prepared = time.perf_counter()
        if parts.module.steps_before < config.budget.steps:
            learn(parts, began=began)
        return export(parts, times=[began, prepared, time.perf_counter()])


# ---- the parts --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """What a training is made of; ``precision`` is never ``auto`` here.

    ``good`` is the state that a resumed run goes back to where its numbers break.
    """

    config: TrainConfig
    module: StyleModule
    photos: PhotoDataModule
    previews: Previews
    precision: Precision
    facts: Facts
    good: list[Tensor]


def make_parts(config: TrainConfig, earlier: dict[str, Any] | None) -> Parts:
    """Return the parts of a training that begins, or goes on from the checkpoint of an earlier one."""
    if earlier is not None and config.precision is Precision.auto:
        config = replace(config, precision=Precision(earlier["facts"].get("precision")))
    device = find_device(config.device)
    style = read_resized(style_picture(config.style.image), short_side=config.style.size)
    module = make_module(config, style).to(device)
    if device.type == "cpu":  # before the photos, since generated ones of such a size would take long
        bf16 = config.precision is Precision.bf16  # auto tries float32 first
        check_memory(module, photos=config.budget.photos_at_once, size=config.budget.image_size, bf16=bf16)
    photos = make_photos(config)
    facts = gather_facts(config, module, photos=photos)
    if earlier is not None:
        go_on(config, module, photos, earlier=earlier, facts=facts)
    previews = Previews(style, photos.held_out_photos(384), every=config.budget.previews)
    precision = choose_precision(config, module)
    facts["precision"] = precision.value
    good = earlier["good"] if earlier is not None else []
    return Parts(config, module, photos, previews, precision, facts, good)


def make_photos(config: TrainConfig) -> PhotoDataModule:
    """Return the photos, looked at once, so that an unusable folder is an error before anything else."""
    data, budget = config.data, config.budget
    photos = PhotoDataModule(
        source=data.source.value,
        root=to_path(data.root) if data.root is not None else None,
        cache=to_path(data.cache) if data.cache is not None else None,
        image_size=budget.image_size,
        batch_size=budget.batch_size,
        seed=config.seed,
        workers=data.workers,
        generated=data.generated,
        generated_share=data.generated_share,
        small_size=budget.small_size,
        small_steps=budget.small_steps,
    )
    photos.setup("fit")
    return photos


def make_module(config: TrainConfig, style: Tensor) -> StyleModule:
    """Return the module with the style's Gram matrices as its constants."""
    given = config.loss_network
    weights = to_path(given.weights) if given.weights is not None else None
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
        small_steps=budget.small_steps,
        warm_up=budget.warm_up,
        decay=budget.decay,
        average=budget.average,
        optimizer=OPTIMIZERS[budget.optimizer],
        clip=budget.clip,
        micro_batch_size=budget.micro_batch_size,
        stability=config.loss.stability,
        seed=config.seed,
        metadata=make_metadata(config, began_at=starting_weights(config)),
    )


def make_transformer(config: TrainConfig) -> TransformerNet:
    """Return the network to train, with the weights to start from; those of a resumed run come from its checkpoint.

    Raises:
        ValueError: the style to start from has another width.
    """
    transformer = TransformerNet(config.network.width)
    path = starting_weights(config) if not config.resume else None
    if path is not None:
        if not path.exists() and (hint := did_you_mean(config.init, ("scratch", "base")).rstrip()):
            raise ConfigError(f"expected init of scratch, base or a trained style, got {config.init!r}: {hint}")
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
    return to_path(config.init) if config.init != "scratch" else None


def base_weights(width: int) -> Path:
    """Return where the package keeps the weights made by ``scripts/train_base.py``."""
    return SHIPPED.parent / f"base_{width}.safetensors"


def make_loss(config: TrainConfig, loss_network: LossNetwork, style: Tensor) -> PerceptualLoss:
    """Return the loss against one style picture (1, 3, H, W)."""
    loss = config.loss
    content_layers, style_layers = (
        {name: weight for name, weight in each.items() if weight > 0}
        for each in (loss.content_layers, loss.style_layers)
    )
    weights = loss.content_weight, loss.style_weight * config.style.strength, loss.tv_weight
    options = LossOptions(content_layers, style_layers, *weights, loss.scaling.value)
    loss_network.check_layers([*options.content_layers, *options.style_layers])
    with torch.no_grad():
        features = loss_network(style, options.style_layers.keys())
    return PerceptualLoss({name: gram_matrix(x) for name, x in features.items()}, options)


def go_on(
    config: TrainConfig, module: StyleModule, photos: PhotoDataModule, *, earlier: dict[str, Any], facts: Facts
) -> None:
    """Bring module and photos to where an earlier run was saved.

    Raises:
        ValueError: an option is another one than that run's, or it has taken more steps than are asked for.
    """
    check_same(Path(config.run_dir), began=earlier["facts"], now=facts)
    check_fits(Path(config.run_dir), earlier, module)
    taken = earlier["global_step"]
    if taken > config.budget.steps:
        raise ValueError(
            f"expected budget.steps of {taken} or more to resume the run in {config.run_dir!r}, which has taken as "
            f"many, got {config.budget.steps}: raise it, or leave out resume=true to begin anew"
        )
    module.go_on_from(earlier)
    module.metadata["init"] = earlier["impasto"]["init"]  # "base" may be other weights by now, or have come since
    photos.load_state_dict(earlier.get(type(photos).__qualname__, {}))
    photos.start = taken * config.budget.batch_size


def save_state(parts: Parts) -> SaveState:
    """Return what keeps the checkpoint, the style file and the list of skipped photos of a run folder up to date."""
    path, module = style_file(parts.config), parts.module

    def save_style_so_far() -> None:
        save_style(path, module.average, metadata=module.describe())
        list_skipped(parts)

    every = to_seconds("save_every", parts.config.save_every)
    return SaveState(path.with_name(CHECKPOINT), every=every, facts=parts.facts, also=save_style_so_far)


def list_skipped(parts: Parts) -> None:
    """Write which photos could not be read so far, if any, into the run folder."""
    if parts.photos.skipped:
        write_list(style_file(parts.config).with_name(SKIPPED), parts.photos.skipped)


def style_file(config: TrainConfig) -> Path:
    """Return where a run's style file is."""
    return to_path(config.run_dir) / f"{config.style.name}.safetensors"


def make_trainer(parts: Parts, callbacks: Sequence[Callback]) -> Trainer:
    """Return a trainer that runs one endless epoch of the steps that are left of the budget."""
    config = parts.config
    steps, before = config.budget.steps, parts.module.steps_before
    run_dir = to_path(config.run_dir)
    purge_step = before + 1 if before > 0 else None
    trainer = Trainer(
        accelerator=parts.module.device.type,
        devices=1,
        precision="bf16-mixed" if parts.precision is Precision.bf16 else "32-true",
        max_steps=steps,
        max_epochs=1,
        limit_train_batches=steps - before,  # the epoch's end
        val_check_interval=min(config.budget.previews, steps),
        check_val_every_n_epoch=None,  # the interval counts all steps, not those of this command
        num_sanity_val_steps=0,
        log_every_n_steps=min(LOG_EVERY, steps),
        default_root_dir=run_dir,
        logger=EventLogger(run_dir, name="", version="", default_hp_metric=False, purge_step=purge_step),
        callbacks=[ProgressBar(refresh_rate=1), Throughput(), *callbacks],
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    count_steps_from(trainer, before)
    return trainer


def choose_precision(config: TrainConfig, module: StyleModule) -> Precision:
    """Return the number format to train in.

    ``auto`` tries both for a moment, on crops of the size that most time goes into: whether bf16 pays depends on the
    processor, not only on what it can do.
    """
    imitated = platform.machine() in ("x86_64", "AMD64") and not torch.cpu._is_avx512_bf16_supported()
    if config.precision is Precision.bf16 and module.device.type == "cpu" and imitated:
        _log.warning("precision=bf16 on a processor that only imitates it: slower than precision=fp32, or auto")
    if config.precision is not Precision.auto:
        return config.precision
    size = max(steps_by_size(config.budget).items(), key=lambda item: item[1] * item[0] ** 2)[0]
    formats = (Precision.fp32, Precision.bf16)
    count, photos = steps_by_size(config.budget)[size], config.budget.batch_size
    return min(formats, key=lambda precision: time_step(module, photos, size, precision, most=count))


def steps_by_size(budget: BudgetConfig, *, taken: int = 0) -> dict[int, int]:
    """Return how many steps there are, of those not yet taken, by the size of their crops in px."""
    small = max(0, budget.small_steps - taken)
    counts = ((budget.small_size, small), (budget.image_size, budget.steps - taken - small))
    return {size: count for size, count in counts if count > 0}


def seconds_of_steps(module: StyleModule, budget: BudgetConfig, precision: Precision) -> float:
    """Return the seconds that the steps not yet taken will take, by the time of one of each size."""
    counts = steps_by_size(budget, taken=module.steps_before)
    photos = budget.batch_size
    return sum(count * time_step(module, photos, size, precision, most=count) for size, count in counts.items())


def time_step(module: StyleModule, photos: int, size: int, precision: Precision, *, most: int) -> float:
    """Return the median seconds of a step on photos of ``size`` px after the first; a copy of the module takes them.

    One step may take half as much again as the next where other programs run: as many as fit in a moment are timed, but
    no more than ``most``, the number that will be taken. On a GPU the second and third step are recorded.
    """
    module = copy.deepcopy(module)
    module.judge_to(module.device)
    optimizer = module.new_optimizer()
    batch = torch.rand(photos, 3, size, size, device=module.device)
    times: list[float] = []
    first = 3 if batch.is_cuda else 1
    while len(times) <= first or (sum(times[first:]) < _TRIAL_SECONDS and len(times) < first + most):
        began = time.perf_counter()
        take_step(module, optimizer, batch, precision).item()  # waits for the device
        times.append(time.perf_counter() - began)
    return median(times[first:])


def take_step(module: StyleModule, optimizer: Optimizer, photos: Tensor, precision: Precision) -> Tensor:
    """Train on a batch as the trainer does, but without Lightning, and return the loss."""
    with autocast(precision, photos.device):
        learned = module.learn_from(photos)
    module.hand_out(learned)
    optimizer.step()
    module.move_average()
    return learned.terms.total


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context in which the losses of a step are computed in that number format."""
    # Without a cache, as in Lightning.
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.bf16, cache_enabled=False)


def expect_seconds(parts: Parts) -> float:
    """Return the seconds that the steps and the previews will take, by the time of one of each."""
    began = time.perf_counter()
    parts.previews.sheet(parts.module)
    preview_seconds = time.perf_counter() - began
    budget, module = parts.config.budget, parts.module
    count = (budget.steps - module.steps_before) / budget.previews
    return seconds_of_steps(module, budget, parts.precision) + count * preview_seconds


def describe_plan(parts: Parts, *, seconds: float) -> str:
    """Return what the training will do, a line each."""
    config, module = parts.config, parts.module
    parameters = count_parameters(module.transformer)
    stability = f", stability {config.loss.stability:g}" if config.loss.stability > 0 else ""
    return (
        f"style          {config.style.name}: {style_picture(config.style.image)} at {config.style.size} px\n"
        f"photos         {parts.photos.describe()}\n"
        f"transformer    width {config.network.width}, {parameters:,} parameters, {_describe_start(config, module)}\n"
        f"loss network   {config.loss_network.name}\n"
        f"loss           {config.loss.scaling.value}: content {config.loss.content_weight:g}, "
        f"style {config.loss.style_weight * config.style.strength:g}, tv {config.loss.tv_weight:g}{stability}\n"
        f"steps          {_describe_steps(config, module)}\n"
        f"device         {module.device}, {parts.precision.value}\n"
        f"expected time  {_minutes(seconds)}\n"
        f"run folder     {config.run_dir} (watch it: tensorboard --logdir {Path(config.run_dir).parent})"
    )


def _describe_steps(config: TrainConfig, module: StyleModule) -> str:
    budget = config.budget
    taken = f"{module.steps_before} to " if module.steps_before > 0 else ""
    small = f", the first {budget.small_steps} at {budget.small_size} px" if budget.small_steps > 0 else ""
    return f"{taken}{budget.steps} of {budget.batch_size} photos at {budget.image_size} px{small}"


def _describe_start(config: TrainConfig, module: StyleModule) -> str:
    if module.steps_before > 0:
        return f"from step {module.steps_before} of the run"
    if starting_weights(config) is not None:
        return f"from {config.init}"
    return "from scratch" if config.init == "scratch" else "from scratch (there is no base of this width)"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def learn(parts: Parts, *, began: float) -> None:
    """Take the steps that are left, saving the state beside them; raises Stopped where that ends early."""
    config, module = parts.config, parts.module
    limit = to_seconds("max_time", config.max_time) if config.max_time is not None else math.inf
    stops = Stops(deadline=began + limit)
    guard = GuardNumbers(good=parts.good, name_photos=parts.photos.names_in_step)
    saves = save_state(parts)
    trainer = make_trainer(parts, [saves, stops, guard, parts.previews])
    try:
        fit(trainer, module, datamodule=parts.photos, stops=stops)
    except Stopped as stopped:
        ignore_signals()
        stopped.steps = saves.saved_step or module.steps_before
        raise
    except (MemoryError, RuntimeError) as error:
        print(file=sys.stderr)  # the progress bar has not ended its line
        _note_what_is_kept(config, error)
        raise


def export(parts: Parts, *, times: Sequence[float]) -> TrainingResult:
    """Write the style file and the contact sheet, and return where they are.

    ``times`` are those at which the preparation and the steps began, and at which these ended.
    """
    module = parts.module
    losses = measure_losses(module, parts.photos)
    path = style_file(parts.config)
    save_style(path, module.average, metadata={**module.describe(), "losses": losses})
    sheet = path.with_name(CONTACT_SHEET)
    write_image(sheet, parts.previews.sheet(module, height=384))
    list_skipped(parts)
    spans = (end - begin for begin, end in pairwise([*times, time.perf_counter()]))
    seconds = dict(zip(("preparation", "steps and previews", "results"), spans, strict=True))
    return TrainingResult(path, sheet, losses, seconds, skipped=len(parts.photos.skipped))


def measure_losses(module: StyleModule, photos: PhotoDataModule) -> dict[str, float]:
    """Return the averaged weights' unweighted losses and their weighted total on the held-out photos."""
    module.judge_to(module.device)  # Lightning has moved the module off a GPU
    rows = []
    with torch.inference_mode():
        for photo in photos.val_dataloader():
            image = to_float(photo).to(module.device)
            terms = module.loss_terms(image, module(image))
            rows.append(torch.stack([terms.content, terms.style, terms.tv, terms.total]))
    return dict(zip(("content", "style", "tv", "total"), torch.stack(rows).mean(0).tolist(), strict=True))


def quiet_lightning() -> None:
    """Silence advice and advertisements that say nothing to the user of a finished program."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")  # of a run's last few steps
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")  # Lightning 2.6 with torch 2.11 on
    threading.excepthook = leave_disk_errors_to_the_main_thread
