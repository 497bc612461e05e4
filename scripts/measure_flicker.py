"""Measures how much a painted clip flickers, with and without --smooth: python scripts/measure_flicker.py mosaic.

Its clips are made by a camera that moves over a photo in a known way, with a little noise as of a sensor, so that it is
known where each pixel was a frame before. Flicker is the mean difference, in gray levels, between a frame and the
one before moved to its place; that of the photo itself is noise and resampling.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

from impasto.commands.words import status_of, whole_number
from impasto.painting.smoothing import Smoother
from impasto.painting.stylizer import Stylizer

Frame = NDArray[np.uint8]
Camera = NDArray[np.float64]
"""(2, 3): leads from a place (x, y, 1) in the frame to one in the photo."""

MOVES: dict[str, Callable[[int], Camera]] = {
    "pan": lambda time: camera(zoom=1.6, across=2.3 * time, down=1.1 * time),
    "zoom": lambda time: camera(zoom=1.8 * (1 - 0.008 * time)),
    "turn": lambda time: camera(zoom=1.6, angle=0.008 * time, across=1.2 * time),
}
SIZE = (192, 128)
NOISE = 2.0  # gray levels


def camera(*, zoom: float, angle: float = 0.0, across: float = 0.0, down: float = 0.0) -> Camera:
    """Return a camera that looks at a place right and below of the photo's upper left quarter."""
    turn = zoom * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = np.array([230 + across, 190 + down])
    return np.column_stack([turn, centre - turn @ np.array(SIZE) / 2])


def film(photo: Frame, cameras: Sequence[Camera]) -> list[Frame]:
    """Return what each camera sees."""
    rng = np.random.default_rng(0)
    flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
    seen = [cv2.warpAffine(photo, each, SIZE, flags=flags, borderMode=cv2.BORDER_REFLECT) for each in cameras]
    return [np.rint(one + rng.normal(0, NOISE, one.shape)).clip(0, 255).astype(np.uint8) for one in seen]


def flicker(frames: Sequence[Frame], cameras: Sequence[Camera]) -> float:
    """Return the mean difference, in gray levels, of neighbouring frames where they show the same."""
    differences = []
    for number in range(1, len(frames)):
        x, y = _former_places(cameras[number], cameras[number - 1])
        is_seen = (x >= 0) & (x <= SIZE[0] - 1) & (y >= 0) & (y <= SIZE[1] - 1)
        former = frames[number - 1].astype(np.float32)
        moved = cv2.remap(former, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        differences.append(np.abs(moved - frames[number])[is_seen].mean())
    return float(np.mean(differences))


def _former_places(now: Camera, before: Camera) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    in_photo = np.stack([x, y], axis=-1) @ now[:, :2].T + now[:, 2]
    places = ((in_photo - before[:, 2]) @ np.linalg.inv(before[:, :2]).T).astype(np.float32)
    return places[..., 0], places[..., 1]


def sharpness(frames: Sequence[Frame]) -> float:
    """Return the mean size of the second derivative of lightness."""
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    return float(np.mean([np.abs(cv2.Laplacian(one, cv2.CV_32F)) for one in gray]))


def main() -> int:
    """Measure, and return the exit status."""
    return status_of(lambda: run(parse_arguments()))


def run(arguments: argparse.Namespace) -> None:
    """Print a line for each style and movement."""
    print("style            camera  photo  painted  smoothed  ratio  sharpness kept")
    photo: Frame = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    for name in arguments.styles:
        stylizer = Stylizer.load(name, device="cpu")
        for move, at in MOVES.items():
            cameras = [at(time) for time in range(arguments.frames)]
            photos = film(photo, cameras)
            painted = [stylizer(photo) for photo in photos]
            smooth = Smoother()
            smoothed = [smooth(*pair) for pair in zip(photos, painted, strict=True)]
            before, after = flicker(painted, cameras), flicker(smoothed, cameras)
            kept = sharpness(smoothed) / sharpness(painted)
            figures = (
                f"{flicker(photos, cameras):5.2f}  {before:7.2f}  {after:8.2f}  {after / before:5.2f}  {kept:14.2f}"
            )
            print(f"{name:15}  {move:6}  {figures}")


def parse_arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("styles", nargs="+", metavar="STYLE")
    parser.add_argument("--frames", type=whole_number, default=12)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
