"""Steady video: each painted frame blended with the one before, moved along as the photo moved.

Source: the motion is found by dense inverse search (Kroeger et al. 2016, OpenCV); where it does not lead back again,
forward and backward, something was covered or uncovered (Sundaram, Brox, Keutzer 2010, with their constants).
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from impasto.painting.pictures import Pixels

_SHARE = 0.8  # of the frame before, where it is known to fit: more is steadier, and less sharp
_TOLERANCE, _SLACK = 0.01, 0.5  # of squared motion, and square pixels: how far from its start a way back may end
_ALIKE = 24.0  # gray levels that a moved photo may differ by, on average around a pixel
_SOFTNESS = 5  # px
_SMALLEST = 16  # px, in which motion can be found
_LONGEST = 2**15 - 2  # px of a side that OpenCV moves

_Flow = NDArray[np.float32]  # (H, W, 2), in px
_Gray = NDArray[np.uint8]


class Smoother:
    """Call it with each photo (H, W, 3) and its painting, in order; what comes back flickers less."""

    def __init__(self) -> None:
        self.motion = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.photo: _Gray | None = None
        self.painted: Pixels | None = None

    def __call__(self, photo: Pixels, painted: Pixels) -> Pixels:
        """Return the painting, blended with the former one where that fits, of the same type."""
        former_photo, former = self.photo, self.painted
        self.remember(photo, painted)
        if (
            former_photo is None
            or former is None
            or former.shape != painted.shape
            or min(painted.shape[:2]) < _SMALLEST
            or max(painted.shape[:2]) > _LONGEST
        ):
            return painted
        assert self.photo is not None, "remembered above"
        backward, forward = self._find_motion(self.photo, former_photo), self._find_motion(former_photo, self.photo)
        fits = _find_fit(backward, forward, self.photo, former_photo)
        moved = _move(former, backward).astype(np.float32)
        share = (_SHARE * fits)[..., None]
        blended: Pixels = np.rint(painted + share * (moved - painted)).astype(painted.dtype)
        self.painted = blended
        return blended

    def remember(self, photo: Pixels, painted: Pixels) -> None:
        """Take this frame for the former one of the next."""
        eight = photo if photo.dtype == np.uint8 else (photo >> 8).astype(np.uint8)
        self.photo = np.asarray(cv2.cvtColor(eight, cv2.COLOR_RGB2GRAY), np.uint8)
        self.painted = painted

    def _find_motion(self, start: _Gray, end: _Gray) -> _Flow:
        """Return where each pixel of ``start`` is in ``end``, from its own place."""
        return np.asarray(self.motion.calc(start, end, np.zeros((*start.shape, 2), np.float32)), np.float32)


def _find_fit(backward: _Flow, forward: _Flow, photo: _Gray, former: _Gray) -> NDArray[np.float32]:
    """Return (H, W) from 0, where nothing of the former frame belongs, to 1."""
    back = _move(forward, backward)
    missed = ((backward + back) ** 2).sum(axis=-1)
    allowed = _TOLERANCE * ((backward**2).sum(axis=-1) + (back**2).sum(axis=-1)) + _SLACK
    # Where the motion is wrong both ways, as at a cut, the photo tells.
    change = cv2.blur(cv2.absdiff(photo, _move(former, backward)).astype(np.float32), (_SOFTNESS, _SOFTNESS))
    height, width = photo.shape
    x, y = _places(backward)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    fits = (missed < allowed) & (change < _ALIKE) & inside
    # Soft edges between the blended and the fresh.
    return np.asarray(cv2.blur(fits.astype(np.float32), (_SOFTNESS, _SOFTNESS)) * fits, np.float32)


def _move(values: NDArray[Any], flow: _Flow) -> NDArray[Any]:
    """Return, at each pixel, the value where the flow leads."""
    x, y = _places(flow)
    return np.asarray(cv2.remap(values, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))


def _places(flow: _Flow) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows, columns = np.indices(flow.shape[:2], np.float32)
    return columns + flow[..., 0], rows + flow[..., 1]
