"""The stylizer: a style loaded once, then one forward pass per picture, of any size and in bounded memory."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Self, TypeVar, Unpack

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from impasto.images import upright
from impasto.painting.arithmetic import rewrite
from impasto.painting.painter import Look, LookOptions, Painter, add_grain
from impasto.painting.pictures import Pixels, from_pillow, to_array, to_image, to_pillow
from impasto.painting.tiles import SMALLEST_BAND, paint_in_bands
from impasto.style_file import Style, load_style
from impasto.transformer import find_device

_BYTES = 36  # that a pixel takes, times the network's width: measured 26 as a whole, 33 in bands

_Image = TypeVar("_Image", Image.Image, Pixels, Tensor)


class Stylizer(Painter):
    """Paints pictures in one style: any size from 1 x 1 px, and the same size comes out; nothing is random.

    ``device`` is ``auto`` (the first there is of cuda, mps, cpu), or the name of one of them.
    """

    def __init__(self, style: Style, *, device: str = "auto") -> None:
        self.style = style
        self.name = style.name
        self.device = find_device(device)
        # A copy: the style keeps its own network on the CPU.
        on_cpu = self.device.type == "cpu"
        self.network = rewrite(style.network) if on_cpu else copy.deepcopy(style.network).to(self.device)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> Self:
        """Return the stylizer of a style file, a checkpoint or a run folder; raises as load_style and the class do."""
        return cls(load_style(Path(path)), device=device)

    def __call__(self, image: _Image, **options: Unpack[LookOptions]) -> _Image:
        """Return the painted image, of the kind, size, type and device of the image; the options are those of Look.

        A Pillow image of any mode gives RGB, or RGBA where it is transparent, and is turned upright first. An array is
        (H, W, 3), a tensor (3, H, W) or (N, 3, H, W): RGB, of uint8, uint16 or floats in [0, 1].

        Raises:
            TypeError: the image or an option is of none of these kinds.
            ValueError: shape, type, range or an option is not as said, or the memory is too little.
        """
        look = Look(**options)
        if isinstance(image, Image.Image):
            # Turned as a copy: upright, which scales 32 bits, changes the image itself.
            picture = from_pillow(upright(ImageOps.exif_transpose(image)))
            picture.pixels = self.paint(picture.pixels, look)
            return to_pillow(picture)
        if isinstance(image, np.ndarray):
            return self.paint(image, look)
        if not isinstance(image, Tensor):
            raise TypeError(f"expected a Pillow image, array or tensor, got {type(image).__name__}: convert it first")
        return self._paint_tensor(image, look)

    def weights(self) -> bytes:
        """Return the bytes of the network's weights."""
        return b"".join(value.numpy().tobytes() for value in self.style.network.state_dict().values())

    def _paint_whole(self, pixels: Pixels, memory: int | None) -> Pixels:
        band = self._band(pixels, memory)
        painted = np.empty_like(pixels)
        for top, rows in self._paint_rows(pixels, band):
            painted[top : top + len(rows)] = rows
        return painted

    def _paint_tensor(self, image: Tensor, look: Look) -> Tensor:
        if image.ndim not in (3, 4) or image.shape[-3] != 3 or 0 in image.shape:
            raise ValueError(f"expected a tensor of shape (3, H, W) or (N, 3, H, W), got {tuple(image.shape)}")
        images = image.detach().cpu().reshape(-1, *image.shape[-3:])
        images = images.float() if image.dtype.is_floating_point else images  # NumPy has no bfloat16
        painted = [torch.from_numpy(self.paint(one.permute(1, 2, 0).numpy(), look)).permute(2, 0, 1) for one in images]
        return torch.stack(painted).reshape(image.shape).to(image)

    def _paint_rows(self, pixels: Pixels, band: int) -> Iterator[tuple[int, Pixels]]:
        """Yield ``top`` and the painted rows (h, W, 3) from there."""
        height, width = pixels.shape[:2]

        def read_rows(top: int, bottom: int) -> Tensor:
            return to_image(add_grain(pixels[top:bottom], top), self.device)

        try:
            if band >= height:
                with torch.inference_mode():
                    yield 0, to_array(self.network(read_rows(0, height)), pixels.dtype)
            else:
                for top, rows in paint_in_bands(self.network, read_rows, height=height, width=width, band=band):
                    yield top, to_array(rows, pixels.dtype)
        except RuntimeError as error:
            # Only CUDA has its own type for it.
            if "memory" not in str(error):
                raise
            raise ValueError(f"{_TOO_LARGE.format(self.device, width, height)}: set a smaller memory") from error

    def _band(self, pixels: Pixels, memory: int | None) -> int:
        """Return how many rows are painted at a time, so that they fit the memory."""
        height, width, _ = pixels.shape
        row = _BYTES * self.network.width * width
        free = self._free(memory)
        if memory is not None:
            free -= pixels.nbytes  # the result takes as much again
        if height * row <= free:
            return len(pixels)
        band = (free // row - 2 * SMALLEST_BAND) // 4 * 4
        if band < SMALLEST_BAND:
            least = (3 * SMALLEST_BAND + 1) * row
            needed = (
                f"{_gigabytes(least)} more" if memory is None else f"a memory of {_gigabytes(memory - free + least)}"
            )
            words = f"at least {needed} is needed, or a larger stroke scale"
            raise ValueError(f"{_TOO_LARGE.format(self.device, width, height)}: {words}")
        return int(band)

    def _room(self, memory: int | None) -> int:
        # On a graphics card the memory is that of its tensors.
        return super()._room(None if self.device.type == "cuda" else memory)

    def _free(self, memory: int | None) -> int:
        """Return the bytes that tensors may take."""
        if self.device.type != "cuda":
            return self._room(memory)
        return torch.cuda.mem_get_info()[0] // 2 if memory is None else memory - torch.cuda.memory_allocated()


def _gigabytes(count: int) -> str:
    return f"{math.ceil(count / 1e8) / 10:.1f} GB"  # rounded up: so much is enough


_TOO_LARGE = "expected an image that fits the memory of {}, got {} x {} px"
