"""Photos for training: random square crops, each a function of the seed and its number alone.

Sample ``i`` is the same whatever the number of workers and wherever the training was resumed. Photos that cannot be
read are passed over, counted and named; only where most are bad is that an error.
"""

import atexit
import json
import logging
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from impasto.images import read_pixels, to_float
from impasto.learning.generated_photos import dead_leaves
from impasto.learning.photo_cache import PhotoCache, open_cache, state_of
from impasto.photo_folder import UNREADABLE, PhotoError, counted, find_photos

SAMPLES = ("astronaut.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg")
"""Colour photographs that scikit-image installs, to train on."""

HELD_OUT_SAMPLES = ("chelsea.png", "coffee.png")

COCO_FOLDERS = ("train2017", "train2014", "val2017")

LARGEST_CROP = 3
"""The largest crop is this many times the training size: beyond it, photos are shown smaller than they are painted."""

GENERATED_SIZE = 1.5
"""Side of a generated picture in training sizes."""

LONGEST_PREVIEW = 3
"""The longest preview is this many times as long as it is wide: a panorama's would cost more than the training."""

EXPOSED_SHARE = 0.25
"""Of the crops whose exposure is changed: where lights and darks are seldom flat, a style leaves them smooth blobs."""

NAMED = 5
"""Skipped photos that are named while training goes on; all are named in the list at its end."""

Batch = tuple[Tensor, dict[Path, str], str | None]
"""Samples, uint8 (N, 3, size, size), why photos that were tried for them and not before cannot be read, and why the
cache is no longer written."""

_PROBED = 16  # photos read before it is judged whether most are bad
_TRIES = 10  # to cut a crop of more than one colour
_log = logging.getLogger(__name__)


# ---- where photos come from -------------------------------------------------------------------------------------


def sample_photos() -> tuple[list[Path], list[Path]]:
    """Return the files to train on and those held out, of the photographs that come with scikit-image."""
    folder = Path(str(resources.files("skimage"))) / "data"
    found = {path.name: path for path in folder.iterdir()}
    trained_on, held_out = ([found[name] for name in names if name in found] for names in (SAMPLES, HELD_OUT_SAMPLES))
    return trained_on, held_out


def coco_photos(root: Path) -> list[Path]:
    """Return the image files of a folder in COCO's layout; where its annotations are there, only those they list.

    Raises:
        PhotoError: none of COCO's folders is there, or the annotations are broken or list no image that is there.
    """
    # absolute: "." has no name, though the folder it stands for has one
    itself = [root] if root.absolute().name in COCO_FOLDERS else []
    candidates = [root / name for name in COCO_FOLDERS] + itself
    folder = next((path for path in candidates if path.is_dir()), None)
    if folder is None:
        raise PhotoError(
            f"expected one of {', '.join(COCO_FOLDERS)} in {str(root)!r}, found none: name COCO's folder with "
            "data.root=DIR, fetch it with scripts/download_coco.py, or use data=folder"
        )
    photos = find_photos(folder)
    folder = folder.absolute()
    annotations = folder.parent / "annotations" / f"instances_{folder.name}.json"
    if annotations.is_file():
        listed = _listed_names(annotations)
        photos = [path for path in photos if path.name in listed]
        if not photos:
            raise PhotoError(
                f"expected in {str(folder)!r} the images that {str(annotations)!r} lists, found none of its "
                f"{len(listed)}: fetch the photos again, or move the file away to train on every image"
            )
    return photos


def _listed_names(annotations: Path) -> set[str]:
    try:
        text = annotations.read_text(encoding="utf-8")
        if not text.rstrip().endswith("}"):
            raise ValueError("cut off")
        # Only this list is decoded: the outlines that follow would fill gigabytes.
        images, _ = json.JSONDecoder().raw_decode(text, text.index("[", text.index('"images"')))
        return {str(image["file_name"]) for image in images}
    except (ValueError, KeyError, TypeError) as error:
        raise PhotoError(
            f"expected COCO's annotations in {str(annotations)!r}, got something else or a part of them: "
            "fetch the file again, or move it away to train on every image"
        ) from error


def hold_out(photos: Sequence[Path], *, seed: int) -> tuple[list[Path], list[Path]]:
    """Return the photos to train on and a seeded choice held out: a tenth, at most 8; a single one serves as both."""
    if len(photos) < 2:
        return list(photos), list(photos)
    count = min(8, max(1, len(photos) // 10))
    chosen = set(np.random.default_rng(seed).choice(len(photos), count, replace=False).tolist())
    kept = [path for i, path in enumerate(photos) if i not in chosen]
    return kept, [photos[i] for i in sorted(chosen)]


# ---- crops ------------------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class PhotoCrops(Dataset[Tensor]):
    """Endless random crops, uint8 (3, size, size), of photo files and, by ``generated_share``, generated pictures.

    Photos are visited in shuffled rounds. A crop's side is drawn evenly over the orders of size, between ``size`` and
    three times that or the photo's short side; small photos are enlarged. Half the crops are mirrored;
    ``exposed_share`` of them are darker or brighter. The first ``small_samples`` have ``small_size``, not ``size``.
    Decoded photos are kept in ``cache``; without one, or where it cannot take them, in memory up to ``memory`` bytes.

    Raises:
        PhotoError: there are neither files nor generated pictures.
    """

    files: list[Path]
    _: KW_ONLY
    size: int
    seed: int
    generated: list[Tensor] = field(default_factory=list)
    generated_share: float = 0.0
    exposed_share: float = 0.0
    small_size: int = 0
    small_samples: int = 0
    memory: int = 2**30
    cache: PhotoCache | None = None

    def __post_init__(self) -> None:
        if not self.files and not self.generated:
            raise PhotoError(
                "expected photos or generated pictures to train on, got neither: "
                "raise data.generated, or lower data.generated_share"
            )
        if not self.files or not self.generated:
            self.generated_share = 1.0 if self.generated else 0.0
        self.skipped: dict[Path, str] = {}
        self._news: dict[Path, str] = {}
        self._decoded: dict[Path, Tensor] = {}
        self.sound: set[Path] = set()

    def __getitem__(self, number: int) -> Tensor:
        """Return sample ``number`` of the run.

        A crop of one colour, such as a logo's white ground, has infinite gradients and would cost the whole step:
        another one is cut then, several times if need be.

        Raises:
            PhotoError: most of the photos tried so far cannot be read.
        """
        random = np.random.default_rng([self.seed, number])
        _, pixels = self._picture(number, random)
        size = self.small_size if number < self.small_samples else self.size
        for _ in range(_TRIES):
            crop = self._crop(pixels, random, size)
            if (crop != crop[:, :1, :1]).any():
                break
        return crop

    def batch(self, samples: list[Tensor]) -> Batch:
        """Return samples as one batch, with what was found out since the last one: each loader worker has its own."""
        return default_collate(samples), *self.take_news()

    def take_news(self) -> tuple[dict[Path, str], str | None]:
        """Return, as in a batch, what was found out since this was last asked."""
        news, self._news = self._news, {}
        return news, self.cache.trouble if self.cache is not None else None

    def name_of(self, number: int) -> str:
        """Return the path of the photo that sample ``number`` is cut from, or what is generated for it."""
        name, _ = self._picture(number, np.random.default_rng([self.seed, number]))
        return name

    def _picture(self, number: int, random: np.random.Generator) -> tuple[str, Tensor]:
        if random.uniform() < self.generated_share:
            index = random.integers(len(self.generated))
            return f"generated picture {index}", self.generated[index]
        return self._photo(number, random)

    def probe(self) -> None:
        """Read a few photos spread over all of them, so that a hopeless folder is found out before training."""
        count = min(_PROBED, len(self.files))
        for number in range(count):
            self._read(self.files[number * len(self.files) // count])

    def is_sound(self, path: Path) -> bool:
        """Return whether a photo can be read."""
        return self._read(path) is not None

    def _photo(self, number: int, random: np.random.Generator) -> tuple[str, Tensor]:
        """Return the photo whose turn it is, or the first readable one of a random sequence after it, and its path."""
        rounds, position = divmod(number, len(self.files))
        path = self.files[_order(len(self.files), self.seed, rounds)[position]]
        while (pixels := self._read(path)) is None:
            if len(self.skipped) >= len(self.files):  # none may be left to find
                self._give_up()
            path = self.files[random.integers(len(self.files))]
        return str(path), pixels

    def _read(self, path: Path) -> Tensor | None:
        if path in self._decoded:
            return self._decoded[path]
        if path in self.skipped:
            return None
        pixels = None
        try:
            pixels = self._load(path)
            self.sound.add(path)
        except UNREADABLE as error:
            self.skipped[path] = self._news[path] = str(error)
            self.sound.discard(path)
        self._check_most()
        return pixels

    def _load(self, path: Path) -> Tensor:
        """Return the pixels of a photo, as they were kept or decoded now; what is decoded is kept where there is room.

        Raises:
            ValueError, OSError: the photo cannot be read.
        """
        if self.cache is not None and (kept := self.cache.read(path)) is not None:
            return kept
        state = state_of(path)  # beforehand: the photo may be replaced while it is decoded
        limit = LARGEST_CROP * self.size
        pixels = _shrink(read_pixels(path, at_least=limit), limit)
        if self.cache is not None and self.cache.keep(path, pixels, of=state):
            return pixels
        if self.memory >= pixels.numel():
            self.memory -= pixels.numel()
            self._decoded[path] = pixels
        return pixels

    def _check_most(self) -> None:
        """Raise PhotoError where enough photos were tried to say that most are bad."""
        bad, tried = len(self.skipped), len(self.skipped) + len(self.sound)
        # Half of a few may be bad by chance: until all are known, two standard deviations more are asked for.
        doubt = tried**0.5 if tried < len(self.files) else 0.0
        if tried >= min(_PROBED, len(self.files)) and bad > tried / 2 + doubt:
            self._give_up()

    def _give_up(self) -> NoReturn:
        tried = len(self.skipped) + len(self.sound)
        first = "; ".join(list(self.skipped.values())[:3])
        raise PhotoError(
            f"{len(self.skipped)} of the first {tried} photos cannot be read ({first}): "
            "repair the folder or name another one with data.root=DIR"
        )

    def _crop(self, pixels: Tensor, random: np.random.Generator, size: int) -> Tensor:
        height, width = pixels.shape[-2:]
        largest = min(height, width)
        smallest = min(size, largest)
        side = round(smallest * (min(largest, LARGEST_CROP * size) / smallest) ** random.uniform())
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        crop = _scale(pixels[:, top : top + side, left : left + side], size, size)
        crop = crop.flip(-1) if random.uniform() < 0.5 else crop
        return _expose(crop, 2 ** random.uniform(-1, 1.5)) if random.uniform() < self.exposed_share else crop


@lru_cache(maxsize=1)  # shuffling many photos takes time
def _order(count: int, seed: int, rounds: int) -> NDArray[np.int64]:
    """Return the order of the photos in a round."""
    return np.random.default_rng([seed, 1, rounds]).permutation(count)


def _expose(pixels: Tensor, gain: float) -> Tensor:
    """Return a photo taken with so many times the light; what is too bright becomes flat, as in a camera."""
    return (pixels.float() * gain).clamp(max=255).to(torch.uint8)


def _shrink(pixels: Tensor, short_side: int) -> Tensor:
    """Return uint8 pixels (3, H, W) with a short side of at most that; nothing is enlarged."""
    height, width = pixels.shape[-2:]
    scale = short_side / min(height, width)
    return pixels if scale >= 1 else _scale(pixels, round(height * scale), round(width * scale))


def _scale(pixels: Tensor, height: int, width: int) -> Tensor:
    if pixels.shape[-2:] == (height, width):
        return pixels
    return F.interpolate(pixels[None], (height, width), mode="bilinear", antialias=True)[0]


def centre_crop(pixels: Tensor, size: int) -> Tensor:
    """Return the largest central square of uint8 pixels (3, H, W), scaled to (3, size, size)."""
    return _scale(_middle(pixels, aspect=1), size, size)


def _middle(pixels: Tensor, *, aspect: int) -> Tensor:
    """Return the largest central part of pixels (3, H, W) at most ``aspect`` times as long as it is wide."""
    height, width = pixels.shape[-2:]
    longest = aspect * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return pixels[:, top : top + longest, left : left + longest]


# ---- the data module --------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class PhotoDataModule(LightningDataModule):
    """Batches (N, 3, size, size) in [0, 1] for training, and fixed held-out photos for validation and previews.

    ``source`` is ``samples``, ``folder`` or ``coco``; the last two need ``root``, and keep decoded photos in the folder
    ``cache`` if there is one. ``start`` is the sample number to begin with; the first ``small_steps`` batches are of
    ``small_size``. ``skipped`` holds why photos could not be read so far, by their name within ``root``.
    """

    source: str
    root: Path | None = None
    cache: Path | None = None
    image_size: int = 256
    batch_size: int = 4
    seed: int = 0
    workers: int = 0
    generated: int = 48
    generated_share: float = 0.5
    small_size: int = 0
    small_steps: int = 0
    start: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self.skipped: dict[str, str] = {}
        self._troubled = False
        self.crops: PhotoCrops
        self.held_out: list[Path]
        self._centres: list[Tensor]

    def setup(self, stage: str) -> None:
        """Find the photos, once; raises PhotoError or FileNotFoundError where there is nothing to train on."""
        if hasattr(self, "crops"):
            return
        files, self.held_out = self._find()
        cache, generated = None, []
        if self.cache is not None and self.root is not None:
            cache = open_cache(self.cache, photos=self.root, at_least=LARGEST_CROP * self.image_size)
        if self.source == "samples" and self.generated_share > 0:
            side = math.ceil(GENERATED_SIZE * self.image_size)
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
                drawn = threads.map(lambda number: dead_leaves(side, seed=number), range(self.generated))
                bar = tqdm(drawn, "drawing pictures", self.generated, delay=3, leave=False, disable=None)
                generated = list(bar)
        self.crops = PhotoCrops(
            files if self.source != "samples" or self.generated_share < 1 else [],
            size=self.image_size,
            seed=self.seed,
            generated=generated,
            generated_share=self.generated_share,
            exposed_share=EXPOSED_SHARE,
            small_size=self.small_size,
            small_samples=self.small_steps * self.batch_size,
            cache=cache,
        )
        self.crops.probe()
        # A photo that cannot be read cannot be a preview either.
        self.held_out = [path for path in self.held_out if self.crops.is_sound(path)] or sorted(self.crops.sound)[:1]
        self._note(*self.crops.take_news())
        # Read now: they may be gone when the training ends.
        pixels = (read_pixels(path, at_least=self.image_size) for path in self.held_out)
        self._centres = [centre_crop(each, self.image_size) for each in pixels]

    def _find(self) -> tuple[list[Path], list[Path]]:
        if self.source == "samples":
            return sample_photos()
        if self.root is None:
            raise PhotoError(f"expected a folder for the source {self.source!r}, got none: name it with data.root=DIR")
        find = {"folder": find_photos, "coco": coco_photos}[self.source]
        return hold_out(find(self.root), seed=self.seed)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the endless batches, uint8, from sample ``start`` on."""
        return DataLoader(
            self.crops,  # type: ignore[arg-type] # it is of samples, the loader of batches
            batch_size=self.batch_size,
            sampler=range(self.start, sys.maxsize),  # without an end
            collate_fn=self.crops.batch,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=leave_signals_to_the_parent,
        )

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Return the held-out photos' centres, uint8, one by one: no option changes what they are judged by."""
        return DataLoader(self._centres)  # type: ignore[arg-type]

    def on_before_batch_transfer(self, batch: Batch | Tensor, dataloader_idx: int) -> Tensor:
        """Return the samples alone; what could not be read for them is noted in ``skipped``."""
        if isinstance(batch, Tensor):
            return batch
        samples, skipped, trouble = batch
        self._note(skipped, trouble)
        return samples

    def _note(self, skipped: Mapping[Path, str], trouble: str | None) -> None:
        if trouble is not None and not self._troubled:  # every loader worker says it, and again with every batch
            self._troubled = True
            _log.warning("%s", trouble)
        for path, reason in skipped.items():
            if (name := self._name(path)) in self.skipped:
                continue
            self.skipped[name] = reason
            if len(self.skipped) <= NAMED:
                _log.warning("skipped photo %d: %s", len(self.skipped), reason)
            elif len(self.skipped) == NAMED + 1:
                _log.warning("skipped more than %d photos: they are named in the list alone", NAMED)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"skipped": json.dumps(self.skipped)}  # one value: of many a file is taken for a hostile one

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Add what an earlier run has kept."""
        before = state_dict.get("skipped", {})
        self.skipped = {**(json.loads(before) if isinstance(before, str) else before), **self.skipped}

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> Tensor:
        """Return the batch in [0, 1]; bytes travel to the device, four times fewer."""
        return to_float(batch)

    def held_out_photos(self, short_side: int) -> list[Tensor]:
        """Return held-out photos (1, 3, H, W) in [0, 1] for previews, at most ``short_side`` px on the shorter side.

        Photos under the training size are enlarged to it, as in training. They are whole, but for panoramas.
        """
        return [self._preview(read_pixels(path, at_least=short_side), short_side) for path in self.held_out]

    def _preview(self, pixels: Tensor, short_side: int) -> Tensor:
        pixels = _middle(pixels, aspect=LONGEST_PREVIEW)
        height, width = pixels.shape[-2:]
        scale = min(short_side, max(self.image_size, min(height, width))) / min(height, width)
        return to_float(_scale(pixels, round(height * scale), round(width * scale))[None])

    def names_in_step(self, step: int) -> list[str]:
        """Return the names of the pictures that the samples of a step, counted from 1, are cut from."""
        first = (step - 1) * self.batch_size
        return [self.crops.name_of(number) for number in range(first, first + self.batch_size)]

    def names(self) -> list[str]:
        """Return the names, within their folder, of the files to train on: with the seed they fix the samples."""
        return [self._name(path) for path in self.crops.files]

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self.root) if self.root is not None else path.name

    def describe(self) -> str:
        """Return one line that says what is trained on."""
        place = "of scikit-image" if self.source == "samples" else f"in {self.root}"
        files, generated = self.crops.files, self.crops.generated
        parts = [counted(len(files), "photograph") + f" {place}"] if files else []
        parts += [counted(len(generated), "generated picture")] if generated else []
        kept = counted(len(self.held_out), "photograph") + " held out"
        if set(self.held_out) & set(files):
            kept = "none could be held out, so validation uses one of them"
        cache = f"; decoded ones kept in {self.cache}" if self.crops.cache is not None else ""
        return f"{' and '.join(parts)}; {kept}{cache}"


def leave_signals_to_the_parent(worker: int) -> None:
    """Make a loader worker ignore Ctrl-C and the like, which reach the whole group: the parent ends it in order."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def end_workers() -> None:
    """End the loader workers that are left when the process ends: it would wait for them, and they ignore its word."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
