"""The stylizer: a style loaded once, then one forward pass per image."""

import copy

import torch
from torch import Tensor

from impasto.style_file import Style
from impasto.transformer import check_input, find_device


class Stylizer:
    """Paints images in one style: (1, 3, H, W) in [0, 1] to the same shape and range, for any H, W of 8 px or more.

    ``device`` is ``auto`` (the first there is of cuda, mps, cpu), or the name of one of them.
    """

    def __init__(self, style: Style, *, device: str = "auto") -> None:
        self.style = style
        self.device = find_device(device)
        # A copy: the style keeps its own network on the CPU.
        self.network = copy.deepcopy(style.network).to(self.device)

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """Return the painted image, on the CPU.

        Raises:
            ValueError: the shape is not (1, 3, H, W), a side is under 8 px, or the image does not fit the memory.
        """
        check_input(image)
        try:
            painted: Tensor = self.network(image.to(self.device)).clamp(0, 1)
        except RuntimeError as error:
            # Only CUDA has its own type for it.
            if "memory" not in str(error):
                raise
            raise ValueError(self._too_large(image)) from error
        return painted.cpu()

    def _too_large(self, image: Tensor) -> str:
        height, width = image.shape[-2:]
        advice = "make it smaller first" if self.device.type == "cpu" else "make it smaller first, or try --device cpu"
        return f"expected an image that fits the memory of {self.device}, got {width} x {height} px: {advice}"


__all__ = ["Stylizer"]
