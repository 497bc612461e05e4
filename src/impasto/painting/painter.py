"""What every painter does with a picture, whatever runs its network; nothing here needs torch but two of the looks."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict

import numpy as np
import psutil

from impasto.memory import free_memory
from impasto.painting.pictures import Pixels

SMALLEST = 8
"""Height and width in px that the network needs."""

_FULL_HD = 1920 * 1080  # px; strokes of a fixed size are lost in a picture that is much larger, seen as a whole

_GRAIN = 3  # so many gray levels of 255, a mask of bits as well


class LookOptions(TypedDict, total=False):
    """What may be asked of a painting, by keyword."""

    strength: float
    keep_colors: bool
    stroke_scale: float | None
    memory: int | None


@dataclass(frozen=True)
class Look:
    """How a picture is painted.

    ``strength`` of 0 to 1.5: the photo at 0, the painting at 1, more than the painting above. ``keep_colors``: the
    lightness of the painting, the hue and chroma of the photo. ``stroke_scale`` of 0.1 to 10: strokes so many times
    larger; None: 1, and in pictures larger than full HD as much more as keeps their proportion. ``memory``: bytes that
    the process may hold, or on a graphics card its tensors; None: half of what is free.
    """

    strength: float = 1.0
    keep_colors: bool = False
    stroke_scale: float | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1.5:
            raise ValueError(f"expected a strength of 0 to 1.5, got {self.strength!r}")
        if self.stroke_scale is not None and not 0.1 <= self.stroke_scale <= 10:
            raise ValueError(f"expected a stroke scale of 0.1 to 10, got {self.stroke_scale!r}")
        if self.memory is not None and self.memory < 1:
            raise ValueError(f"expected a memory of 1 byte or more, got {self.memory!r}")


class Painter(ABC):
    """Paints pictures in one style: any size from 1 x 1 px, and the same size comes out; nothing is random."""

    name: str
    """The style's, fit to be part of a file name."""

    def paint(self, pixels: Pixels, look: Look) -> Pixels:
        """Return the painted pixels (H, W, 3), of the type of the pixels: uint8, uint16 or floats in [0, 1].

        Raises:
            ValueError: shape, type or range is another, or the memory is too little.
            OSError: the disk has no room for the temporary files of a large picture.
        """
        _check_pixels(pixels)
        if np.issubdtype(pixels.dtype, np.floating) and pixels.dtype != np.float32:
            return self.paint(pixels.astype(np.float32), look).astype(pixels.dtype)
        height, width = pixels.shape[:2]
        scale = max(1.0, math.sqrt(height * width / _FULL_HD)) if look.stroke_scale is None else look.stroke_scale
        size = [round(side / scale) for side in (height, width)]
        if scale < 1:
            self._check_room(*size, itemsize=pixels.itemsize, look=look)
        scaled = _resize(pixels, *size)
        painted = self._paint_whole(_pad(scaled), look.memory)
        painted = _resize(painted[: scaled.shape[0], : scaled.shape[1]], height, width)
        if look.keep_colors or look.strength != 1:
            from impasto.painting.blending import blend_pixels

            blend_pixels(pixels, painted, strength=look.strength, keeps_colors=look.keep_colors)
        return painted

    @abstractmethod
    def weights(self) -> bytes:
        """Return the bytes of the network's weights, which tell this style from others of its name."""

    def _check_room(self, height: int, width: int, *, itemsize: int, look: Look) -> None:
        """Raise ValueError where the memory does not hold a picture of this size and its painting."""
        needed = 2 * 3 * height * width * itemsize
        if needed > self._room(look.memory):
            raise ValueError(
                f"expected an image that fits the memory, got {width} x {height} px at a stroke "
                f"scale of {look.stroke_scale:g}, which take {needed / 1e9:.1f} GB: "
                "raise the stroke scale, or give a smaller one"
            )

    def _room(self, memory: int | None) -> int:
        """Return the bytes that pixels may take."""
        if memory is not None:
            return int(memory - psutil.Process().memory_info().rss)
        return free_memory() // 2

    @abstractmethod
    def _paint_whole(self, pixels: Pixels, memory: int | None) -> Pixels:
        """Return painted pixels, grain added, of a picture of 8 px or more each way, uint8, uint16 or float32."""


def add_grain(pixels: Pixels, top: int = 0) -> Pixels:
    """Return rows of a picture, from row ``top`` on, with a faint grain, the same for all pictures of its width.

    Where a picture is of one value, as the ground of a logo or a sky too bright for the camera, the network sees
    nothing to lay its strokes by, and would leave a smooth patch. The grain is less than a camera's.
    """
    height, width = pixels.shape[:2]
    full = 1 if np.issubdtype(pixels.dtype, np.floating) else np.iinfo(pixels.dtype).max
    level = pixels.dtype.type(full / 255)
    # So far from black and white that the sum is within the range.
    return pixels.clip(level, full - 2 * level) - level + _draw_grain(top, height, width) * level


@lru_cache(maxsize=1)  # for the next frame of a clip
def _draw_grain(top: int, height: int, width: int) -> Pixels:
    words = math.ceil(width / 8)
    # Of the bit generator itself: NumPy promises to keep its numbers, but not what else is drawn from them.
    numbers = np.random.PCG64(0).advance(top * words).random_raw(height * words)
    return (numbers.view(np.uint8) & _GRAIN).reshape(height, -1, 1)[:, :width].repeat(3, axis=2)


def _check_pixels(pixels: Pixels) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"expected an array of shape (H, W, 3), got {pixels.shape}")
    if pixels.dtype in (np.uint8, np.uint16):
        return
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"expected values of uint8, uint16 or floats in [0, 1], got {pixels.dtype}")
    low, high = pixels.min(), pixels.max()
    if not -0.01 <= low <= high <= 1.01:
        raise ValueError(f"expected values in [0, 1], got {low:g} to {high:g}: divide them by their full scale")


def _pad(pixels: Pixels) -> Pixels:
    """Return the pixels with edges reflected up to the network's smallest size."""
    missing = [(0, max(0, SMALLEST - side)) for side in pixels.shape[:2]]
    return np.pad(pixels, [*missing, (0, 0)], mode="reflect") if np.any(missing) else pixels


def _resize(pixels: Pixels, height: int, width: int) -> Pixels:
    height, width = max(1, height), max(1, width)
    if pixels.shape[:2] == (height, width):
        return pixels
    import cv2

    # Averages areas where it shrinks; cubic interpolation overshoots at edges.
    method = cv2.INTER_AREA if height * width < pixels.shape[0] * pixels.shape[1] else cv2.INTER_CUBIC
    resized: Pixels = cv2.resize(pixels, (width, height), interpolation=method)
    return resized.clip(0, 1) if np.issubdtype(resized.dtype, np.floating) else resized
