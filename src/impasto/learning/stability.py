"""Steady video, learned: a frame and a slightly noisy, shifted copy of it are to be painted alike."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

_FARTHEST = 6  # px of a shift: the transformer works in steps of 4, so every offset within a step is met
_NOISE = 0.02  # of [0, 1]: a sensor's in dim light
_MARGIN = 24  # px that are not compared: what a shift pushes out comes in again at the other side


@dataclass(frozen=True)
class Disturbance:
    """A shift by whole pixels, ``down`` and ``across``, around the image, and noise (N, 3, H, W) added to it."""

    down: int
    across: int
    noise: Tensor

    @classmethod
    def draw(cls, photos: Tensor, *, seed: int) -> Self:
        """Return one for photos (N, 3, H, W), the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        down, across = torch.randint(-_FARTHEST, _FARTHEST + 1, (2,), generator=generator).tolist()
        noise = _NOISE * torch.randn(photos.shape, generator=generator)
        return cls(down, across, noise.to(photos))

    def __call__(self, photos: Tensor) -> Tensor:
        """Return the photos as a moment later."""
        return self._shift(photos) + self.noise

    def loss(self, stylized: Tensor, disturbed: Tensor) -> Tensor:
        """Return the mean squared difference of two paintings where they show the same, in float32."""
        difference = self._shift(stylized.float()) - disturbed.float()
        height, width = difference.shape[2:]
        margin = min(_MARGIN, (min(height, width) - 1) // 4)
        return difference[..., margin : height - margin, margin : width - margin].square().mean()

    def _shift(self, images: Tensor) -> Tensor:
        return images.roll((self.down, self.across), (2, 3))
