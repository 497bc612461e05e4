"""The stylizer: a style loaded once, then one forward pass per picture, of any size and in bounded memory."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypedDict, Unpack, overload

import numpy as np
import psutil
import torch
from PIL import Image, ImageOps
from torch import Tensor

from impasto.images import to_float, to_pixels
from impasto.painting.blending import blend, keep_colors
from impasto.painting.pictures import Pixels, from_pillow, to_pillow
from impasto.painting.tiles import SMALLEST_BAND, paint_in_bands
from impasto.style_file import Style, load_style
from impasto.transformer import MINIMUM_SIZE, find_device

_BYTES = 36  # that a pixel takes, times the network's width: measured 26 as a whole, 33 in bands
_BLENDED_ROWS = 256


class LookOptions(TypedDict, total=False):
    """What may be asked of a painting, by keyword."""

    strength: float
    keep_colors: bool
    stroke_scale: float
    memory: int | None


@dataclass(frozen=True)
class Look:
    """How a picture is painted.

    ``strength`` of 0 to 1.5: the photo at 0, the painting at 1, more than the painting above. ``keep_colors``: the
    lightness of the painting, the hue and chroma of the photo. ``stroke_scale`` of 0.1 to 10: strokes so many times
    larger. ``memory``: bytes that the process may hold, or on a graphics card its tensors; None: half of what is free.
    """

    strength: float = 1.0
    keep_colors: bool = False
    stroke_scale: float = 1.0
    memory: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1.5:
            raise ValueError(f"expected a strength of 0 to 1.5, got {self.strength!r}")
        if not 0.1 <= self.stroke_scale <= 10:
            raise ValueError(f"expected a stroke scale of 0.1 to 10, got {self.stroke_scale!r}")
        if self.memory is not None and self.memory < 1:
            raise ValueError(f"expected a memory of 1 byte or more, got {self.memory!r}")


class Stylizer:
    """Paints pictures in one style: any size from 1 x 1 px, and the same size comes out; nothing is random.

    ``device`` is ``auto`` (the first there is of cuda, mps, cpu), or the name of one of them.
    """

    def __init__(self, style: Style, *, device: str = "auto") -> None:
        self.style = style
        self.device = find_device(device)
        # A copy: the style keeps its own network on the CPU.
        self.network = copy.deepcopy(style.network).to(self.device)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> Self:
        """Return the stylizer of a style file, a checkpoint or a run folder; raises as load_style and find_device."""
        return cls(load_style(Path(path)), device=device)

    @overload
    def __call__(self, image: Image.Image, **options: Unpack[LookOptions]) -> Image.Image: ...
    @overload
    def __call__(self, image: Pixels, **options: Unpack[LookOptions]) -> Pixels: ...
    @overload
    def __call__(self, image: Tensor, **options: Unpack[LookOptions]) -> Tensor: ...
    def __call__(
        self, image: Image.Image | Pixels | Tensor, **options: Unpack[LookOptions]
    ) -> Image.Image | Pixels | Tensor:
        """Return the painted image, of the kind, size, type and device of the image; the options are those of Look.

        A Pillow image of any mode gives RGB, or RGBA where it is transparent, and is turned upright first. An array is
        (H, W, 3), a tensor (3, H, W) or (N, 3, H, W): RGB, of uint8, uint16 or floats in [0, 1].

        Raises:
            TypeError: the image or an option is of none of these kinds.
            ValueError: shape, type, range or an option is not as said, or the memory is too little.
        """
        look = Look(**options)
        if isinstance(image, Image.Image):
            picture = from_pillow(ImageOps.exif_transpose(image))
            picture.pixels = self.paint(picture.pixels, look)
            return to_pillow(picture)
        if isinstance(image, np.ndarray):
            return self.paint(image, look)
        if not isinstance(image, Tensor):
            raise TypeError(f"expected a Pillow image, array or tensor, got {type(image).__name__}: convert it first")
        return self._paint_tensor(image, look)

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
        scaled = _resize(pixels, round(height / look.stroke_scale), round(width / look.stroke_scale))
        painted = self._paint_padded(scaled, look.memory)
        painted = _resize(painted[: scaled.shape[0], : scaled.shape[1]], height, width)
        if look.keep_colors or look.strength != 1:
            _blend(pixels, painted, look)
        return painted

    def _paint_padded(self, pixels: Pixels, memory: int | None) -> Pixels:
        """Return painted pixels, with edges reflected up to the network's smallest size."""
        missing = [(0, max(0, MINIMUM_SIZE - side)) for side in pixels.shape[:2]]
        pixels = np.pad(pixels, [*missing, (0, 0)], mode="reflect") if np.any(missing) else pixels
        # The result takes as much again.
        band = self._band(pixels.shape[0], pixels.shape[1], None if memory is None else memory - pixels.nbytes)
        painted = np.empty_like(pixels)
        for top, rows in self._paint_rows(pixels, band):
            painted[top : top + rows.shape[-2]] = _to_array(rows, pixels.dtype)
        return painted

    def _paint_tensor(self, image: Tensor, look: Look) -> Tensor:
        if image.ndim not in (3, 4) or image.shape[-3] != 3:
            raise ValueError(f"expected a tensor of shape (3, H, W) or (N, 3, H, W), got {tuple(image.shape)}")
        images = image.detach().cpu().reshape(-1, *image.shape[-3:])
        images = images.float() if image.dtype.is_floating_point else images  # NumPy has no bfloat16
        painted = [torch.from_numpy(self.paint(one.permute(1, 2, 0).numpy(), look)).permute(2, 0, 1) for one in images]
        return torch.stack(painted).reshape(image.shape).to(image)

    def _paint_rows(self, pixels: Pixels, band: int) -> Iterator[tuple[int, Tensor]]:
        """Yield ``top`` and the painted rows (1, 3, h, W) from there."""
        height, width = pixels.shape[:2]
        try:
            if band >= height:
                with torch.inference_mode():
                    yield 0, self.network(_to_image(pixels).to(self.device))
            else:
                yield from paint_in_bands(
                    self.network,
                    lambda top, bottom: _to_image(pixels[top:bottom]),
                    height=height,
                    width=width,
                    band=band,
                )
        except RuntimeError as error:
            # Only CUDA has its own type for it.
            if "memory" not in str(error):
                raise
            raise ValueError(f"{_TOO_LARGE.format(self.device, width, height)}: set a smaller memory") from error

    def _band(self, height: int, width: int, memory: int | None) -> int:
        """Return how many rows are painted at a time, so that they fit the memory."""
        row = _BYTES * self.network.width * width
        free = self._free(memory)
        if height * row <= free:
            return height
        band = (free // row - 2 * SMALLEST_BAND) // 4 * 4
        if band < SMALLEST_BAND:
            needed = f"at least {(3 * SMALLEST_BAND + 1) * row / 1e9:.1f} GB more is needed"
            raise ValueError(f"{_TOO_LARGE.format(self.device, width, height)}: {needed}, or a smaller picture")
        return int(band)

    def _free(self, memory: int | None) -> int:
        """Return the bytes that painting may take."""
        on_card = self.device.type == "cuda"
        if memory is not None:
            return memory - (torch.cuda.memory_allocated() if on_card else psutil.Process().memory_info().rss)
        free = torch.cuda.mem_get_info()[0] if on_card else psutil.virtual_memory().available
        return int(free) // 2


_TOO_LARGE = "expected an image that fits the memory of {}, got {} x {} px"


def _check_pixels(pixels: Pixels) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"expected an array of shape (H, W, 3), got {pixels.shape}")
    if pixels.dtype not in (np.uint8, np.uint16) and not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"expected values of uint8, uint16 or floats in [0, 1], got {pixels.dtype}")


def _resize(pixels: Pixels, height: int, width: int) -> Pixels:
    height, width = max(1, height), max(1, width)
    if pixels.shape[:2] == (height, width):
        return pixels
    import cv2

    # Averages areas where it shrinks; cubic interpolation overshoots at edges.
    method = cv2.INTER_AREA if height * width < pixels.shape[0] * pixels.shape[1] else cv2.INTER_CUBIC
    resized: Pixels = cv2.resize(pixels, (width, height), interpolation=method)
    return resized.clip(0, 1) if np.issubdtype(resized.dtype, np.floating) else resized


def _blend(photo: Pixels, painted: Pixels, look: Look) -> None:
    """Change the painted pixels to the look, a band at a time."""
    for top in range(0, len(photo), _BLENDED_ROWS):
        band = slice(top, top + _BLENDED_ROWS)
        before, after = _to_image(photo[band]), _to_image(painted[band])
        after = keep_colors(before, after) if look.keep_colors else after
        painted[band] = _to_array(blend(before, after, strength=look.strength), painted.dtype)


def _to_image(pixels: Pixels) -> Tensor:
    image = to_float(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]).contiguous()
    low, high = image.min().item(), image.max().item()
    if not -0.01 <= low <= high <= 1.01:
        raise ValueError(f"expected values in [0, 1], got {low:g} to {high:g}: divide them by their full scale")
    return image


def _to_array(image: Tensor, dtype: np.dtype) -> Pixels:
    array: Pixels = to_pixels(image[0].permute(1, 2, 0).cpu(), getattr(torch, dtype.name)).numpy()
    return array


__all__ = ["Look", "LookOptions", "Stylizer"]
