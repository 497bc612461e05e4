"""What a style says of its making, and what a run must share with its beginning to be gone on with."""

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import impasto
from impasto.learning.config import (
    BUILTIN,
    StyleConfig,
    TrainConfig,
    lasting_options,
    preset_names,
    read_preset,
    style_picture,
    to_path,
)
from impasto.learning.module import StyleModule
from impasto.learning.photos import PhotoDataModule
from impasto.learning.run_folder import FINGERPRINT, Facts
from impasto.metadata import FORMAT_VERSION


def make_metadata(config: TrainConfig, *, began_at: Path | None) -> dict[str, Any]:
    """Return the plain facts that travel with a style, which began at other weights or at random ones."""
    return {
        "format_version": FORMAT_VERSION,
        "style": config.style.name,
        "picture": config.style.image.removeprefix(BUILTIN) if config.style.image.startswith(BUILTIN) else None,
        **_rights(config.style),
        "width": config.network.width,
        # Its name, not where it lies on this machine.
        "init": to_path(config.init).resolve().name if began_at is not None else "scratch",
        "loss_network": config.loss_network.name,
        "loss": config.loss.scaling.value,
        "content_layers": config.loss.content_layers,
        "style_layers": config.loss.style_layers,
        "content_weight": config.loss.content_weight,
        "style_weight": config.loss.style_weight * config.style.strength,
        "tv_weight": config.loss.tv_weight,
        "stability": config.loss.stability,
        "image_size": config.budget.image_size,
        "small_size": config.budget.small_size,
        "small_steps": config.budget.small_steps,
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


def _rights(style: StyleConfig) -> dict[str, str]:
    """Return credit and licence, but not those of a built-in picture in whose place another one was given."""
    if not style.image.startswith(BUILTIN) and any(
        style.credit == read_preset("style", name).get("credit") for name in preset_names("style")
    ):
        return {"credit": "", "licence": ""}
    return {"credit": style.credit, "licence": style.licence}


def find_commit() -> str | None:
    """Return the commit of the checkout that runs, or None where the package was installed from a wheel."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def gather_facts(config: TrainConfig, module: StyleModule, *, photos: PhotoDataModule) -> Facts:
    """Return what a resumed run must share with its beginning; the number format is added when it is chosen."""
    loss_network, _ = module.judge
    weights = (value.cpu().numpy().tobytes() for value in loss_network.state_dict().values())
    return {
        **lasting_options(config),
        # The file's bytes: those of the scaled picture depend on the processor's rounding.
        "style.image": fingerprint([style_picture(config.style.image).read_bytes()]),
        "loss_network.weights": fingerprint(weights),
        "data.root": fingerprint(describe_photos(photos)),
        "precision": config.precision.value,
    }


def describe_photos(photos: PhotoDataModule) -> Iterator[bytes]:
    """Yield name and size of every file to train on: what is in them may be too much to read."""
    for name, path in zip(photos.names(), photos.crops.files, strict=True):
        size = path.stat().st_size if path.exists() else -1  # a link to nothing is a photo that cannot be read
        yield os.fsencode(name) + f"\0{size}\0".encode()


def fingerprint(parts: Iterable[bytes]) -> str:
    """Return a short text that is another one for other bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return FINGERPRINT + digest.hexdigest()
