"""The typed schema of every training option, and its checks.

Nothing else knows the options' names. YAML in ``configs/`` holds only groups and presets; an unknown key, a wrong type
or a value out of range is an error before anything heavy is imported.
"""

import difflib
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import resources
from operator import attrgetter
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

BUILTIN = "builtin:"
"""Begins the name of a picture that ships inside the package."""


class ConfigError(ValueError):
    """An option that does not exist, or a value that it cannot have."""


class Scaling(StrEnum):
    """What the loss terms are divided by."""

    balanced = "balanced"
    paper = "paper"
    gatys = "gatys"


class Source(StrEnum):
    """Where the photos come from."""

    samples = "samples"
    folder = "folder"
    coco = "coco"


class Precision(StrEnum):
    """Number format of the networks; ``auto`` tries both for a moment and takes the faster."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class OptimizerName(StrEnum):
    """What moves the weights: Muon, which takes fewer steps, or the paper's Adam."""

    muon = "muon"
    adam = "adam"


@dataclass
class StyleConfig:
    """The picture to learn from; ``size`` is its short side in px, ``strength`` multiplies the style weight."""

    name: str = MISSING
    image: str = MISSING
    size: int = 384
    strength: float = 1.0
    credit: str = ""
    licence: str = ""


@dataclass
class DataConfig:
    """The photos; ``generated`` and ``generated_share`` belong to ``samples``, ``root`` and ``cache`` to the others.

    ``cache`` is a folder where decoded photos are kept for later runs.
    """

    source: Source = Source.samples
    root: str | None = None
    cache: str | None = None
    workers: int = 0
    generated: int = 48
    generated_share: float = 0.5


@dataclass
class NetworkConfig:
    """The image transformer."""

    width: int = 16


@dataclass
class LossConfig:
    """The perceptual loss: scaling, the weights of the terms, and of the layers within them.

    ``stability`` weighs how much a slightly moved, noisy photo is painted otherwise: for video.
    """

    scaling: Scaling = Scaling.balanced
    content_weight: float = MISSING
    style_weight: float = MISSING
    tv_weight: float = MISSING
    stability: float = 0.0
    content_layers: dict[str, float] = MISSING
    style_layers: dict[str, float] = MISSING


@dataclass
class LossNetworkConfig:
    """The frozen VGG; ``pretrained`` names torchvision's weights, ``weights`` a file to take instead."""

    name: str = MISSING
    pretrained: str | None = None
    weights: str | None = None


@dataclass
class BudgetConfig:
    """How long to train and how; sizes in px, the schedule in steps.

    The first ``small_share`` of the steps see crops of ``small_size`` px, if that is less than ``image_size``. Of a
    batch ``micro_batch_size`` photos are painted and judged at a time, or all, and their gradients added.
    """

    steps: int = MISSING
    batch_size: int = MISSING
    micro_batch_size: int | None = None
    image_size: int = MISSING
    small_size: int = 128
    small_share: float = 0.0
    learning_rate: float = MISSING
    warm_up: int = 0
    decay: bool = True
    average: float = 0.99
    optimizer: OptimizerName = OptimizerName.muon
    clip: float | None = 1.0
    previews: int = MISSING

    @property
    def photos_at_once(self) -> int:
        """How many photos are painted and judged at a time."""
        return self.batch_size if self.micro_batch_size is None else min(self.batch_size, self.micro_batch_size)

    @property
    def small_steps(self) -> int:
        """How many steps, the first ones, see small crops."""
        return round(self.small_share * self.steps) if self.small_size < self.image_size else 0


@dataclass
class TrainConfig:
    """Everything ``train.py`` can be told; ``init`` is ``scratch``, ``base``, or a style to start from.

    ``resume`` goes on with the run in ``run_dir``, which is saved every ``save_every``; ``max_time`` stops a training.
    """

    style: StyleConfig = field(default_factory=StyleConfig)
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    loss_network: LossNetworkConfig = field(default_factory=LossNetworkConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    init: str = "scratch"
    device: str = "auto"
    precision: Precision = Precision.auto
    seed: int = 0
    run_dir: str = MISSING
    resume: bool = False
    save_every: str = "1min"
    max_time: str | None = None


# ---- checks -----------------------------------------------------------------------------------------------------

_RANGES: dict[str, tuple[float, float]] = {
    "style.size": (32, math.inf),
    "style.strength": (0, math.inf),
    "data.workers": (0, math.inf),
    "data.generated": (0, 10_000),
    "data.generated_share": (0, 1),
    "loss.content_weight": (0, math.inf),
    "loss.style_weight": (0, math.inf),
    "loss.tv_weight": (0, math.inf),
    "loss.stability": (0, math.inf),
    "budget.steps": (1, math.inf),
    "budget.batch_size": (1, math.inf),
    "budget.image_size": (32, math.inf),
    "budget.small_size": (32, math.inf),
    "budget.small_share": (0, 1),
    "budget.warm_up": (0, math.inf),
    "budget.previews": (1, math.inf),
    "network.width": (1, 256),
    "seed": (0, 2**32 - 1),
}
"""The least and the greatest value; infinity itself is none."""

_LONGEST_NAME = 200
"""Bytes of a style's name: with what is added to it, file systems take 255."""


def validate(config: TrainConfig) -> None:
    """Raise ConfigError for the first option whose value cannot be used."""
    for name, (least, most) in _RANGES.items():
        value = attrgetter(name)(config)
        if not value >= least:
            raise ConfigError(f"expected {name} of {least:g} or more, got {value!r}")
        if value == math.inf:
            raise ConfigError(f"expected a finite {name}, got inf")
        if not value <= most:
            raise ConfigError(f"expected {name} of {most:,} or less, got {value!r}")
    for name in ("init", "device"):
        if getattr(config, name) == "":
            default = getattr(TrainConfig, name)
            raise ConfigError(f"expected {name}=VALUE, got nothing after '=': leave it out for {name}={default}")
    _check_rates(config)
    to_seconds("save_every", config.save_every)
    if config.max_time is not None:
        to_seconds("max_time", config.max_time)
    _check_name(config.style.name)
    _check_data(config.data)
    _check_layers(config.loss)


def _check_rates(config: TrainConfig) -> None:
    budget = config.budget
    if not 0 < budget.learning_rate < 1:
        raise ConfigError(f"expected budget.learning_rate between 0 and 1, got {budget.learning_rate!r}")
    if not 0 <= budget.average < 1:
        raise ConfigError(f"expected budget.average of 0 or more and below 1, got {budget.average!r}")
    if budget.clip is not None and not budget.clip > 0:
        raise ConfigError(f"expected budget.clip above 0, or null for none, got {budget.clip!r}")
    if budget.micro_batch_size is not None and not budget.micro_batch_size >= 1:
        raise ConfigError(
            "expected budget.micro_batch_size of 1 or more, or null for the whole batch, "
            f"got {budget.micro_batch_size!r}"
        )


def _check_name(name: str) -> None:
    if re.fullmatch(r"[\w][\w .-]*", name) is None:
        raise ConfigError(
            f"expected style.name of letters, digits, '_', '-', '.' and spaces, got {name!r}: "
            "it becomes the name of the run folder and of the style file"
        )
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise ConfigError(f"expected style.name of {_LONGEST_NAME} bytes or less, got {len(os.fsencode(name))}")


def _check_data(data: DataConfig) -> None:
    if data.source is Source.samples and data.root is not None:
        raise ConfigError(f"data=samples takes no data.root, got {data.root!r}: use data=folder to train on a folder")
    if data.source is Source.samples and data.cache is not None:
        raise ConfigError(f"data=samples takes no data.cache, got {data.cache!r}: its few photos are kept in memory")
    if data.source is not Source.samples:
        for name in ("generated", "generated_share"):
            if getattr(data, name) != getattr(DataConfig, name):
                raise ConfigError(
                    f"data={data.source.value} takes no data.{name}, got {getattr(data, name)!r}: generated pictures "
                    "belong to data=samples"
                )
    if data.cache == "":
        raise ConfigError("expected data.cache=DIR, got nothing after '=': name a folder for decoded photos, or null")
    if data.source is not Source.samples and data.root in (None, ""):
        raise ConfigError(f"expected data.root=DIR with data={data.source.value}, got none: name the folder of photos")


def _check_layers(loss: LossConfig) -> None:
    for name in ("content_layers", "style_layers"):
        layers = getattr(loss, name)
        if not all(0 <= weight < math.inf for weight in layers.values()) or not any(layers.values()):
            raise ConfigError(
                f"expected loss.{name} with weights of 0 or more, one of them above 0, got {layers!r}: "
                "a weight of 0 leaves a layer out"
            )


def to_seconds(name: str, duration: str) -> float:
    """Return the seconds of an option such as ``90s``, ``15min`` or ``2h``.

    Raises:
        ConfigError: it is written otherwise.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h)", duration)
    if match is None:
        raise ConfigError(f"expected {name} such as 90s, 15min or 2h, got {duration!r}")
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600}[match[2]]


def style_picture(image: str) -> Path:
    """Return the path of a style picture: a file, or ``builtin:NAME`` for one that ships inside the package."""
    if image.startswith(BUILTIN):
        return Path(str(resources.files("impasto.assets"))) / "styles" / image.removeprefix(BUILTIN)
    return to_path(image)


def to_path(text: str) -> Path:
    """Return the path of an option, ``~`` being a home folder; raises ConfigError where that is nobody's."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"expected a path, got {text!r}, whose '~' names no user: write ~/... or ./~...") from error


def read_preset(group: str, name: str) -> dict[str, Any]:
    """Return the plain values of a preset of ``configs``, for those who need it alone, without Hydra.

    Raises:
        ConfigError: there is no such preset; names the closest match.
    """
    known = preset_names(group)
    if name not in known:
        raise ConfigError(f"there is no {group} {name!r}: {did_you_mean(name, known)}it can be {', '.join(known)}")
    text = (resources.files("impasto.configs") / group / f"{name}.yaml").read_text(encoding="utf-8")
    values = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question, with a space after it, about the closest of the known names, or nothing if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def preset_names(group: str) -> list[str]:
    """Return the names of a group's presets, sorted."""
    files = (resources.files("impasto.configs") / group).iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml"))


def option_names() -> list[str]:
    """Return the dotted names of all options, groups included."""
    return [name for name, _ in _flatten(OmegaConf.to_container(OmegaConf.structured(TrainConfig)))]


_MAY_CHANGE = {
    *("budget.steps", "budget.micro_batch_size", "data.cache", "data.workers", "device"),
    *("max_time", "resume", "run_dir", "save_every", "style.credit", "style.licence"),
    # Where these are read may change, what is read may not: the run compares that itself.
    *("data.root", "loss_network.weights", "precision", "style.image"),
}


def lasting_options(config: TrainConfig) -> dict[str, Any]:
    """Return the options that a resumed run shares with its beginning: plain values by dotted name."""
    values = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    return {name: value for name, value in _flatten(values) if name not in _MAY_CHANGE and not isinstance(value, dict)}


def _flatten(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values, of a group before what is in it."""
    for name, value in values.items():
        yield prefix + name, value
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")


def to_yaml(config: TrainConfig) -> str:
    """Return all options, resolved, as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))
