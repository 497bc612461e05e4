"""Smoothed clips flicker half as much or less, follow the motion, and leave alone what was covered or cut."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from impasto.cli import main
from impasto.painting.batch import paint_clips
from impasto.painting.outputs import ClipOptions, Job
from impasto.painting.painter import Look
from impasto.painting.smoothing import Smoother
from impasto.painting.stylizer import Stylizer
from tests.clip_files import Clip, frames, times, write_clip

SIZE = (96, 64)
Frame = NDArray[np.uint8]


def landscape() -> Frame:
    """A large picture with detail everywhere."""
    noise = np.random.default_rng(0).normal(size=(200, 300, 3))
    layers = [cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (1.5, 4, 12)]
    values = np.asarray(sum(layers))
    return np.asarray((128 + 45 * values / values.std()).clip(0, 255), np.uint8)


def pan(count: int, *, step: tuple[int, int] = (3, 1)) -> list[Frame]:
    """A camera that moves by whole pixels: each frame is known from the one before, exactly."""
    whole = landscape()
    return [
        whole[30 + step[1] * number :][: SIZE[1], 20 + step[0] * number :][:, : SIZE[0]].copy()
        for number in range(count)
    ]


def restless(photos: list[Frame]) -> list[Frame]:
    """Paintings whose strokes are elsewhere in every frame."""
    rng = np.random.default_rng(1)
    return [(photo * 0.8 + rng.normal(25, 20, photo.shape)).clip(0, 255).astype(np.uint8) for photo in photos]


def flicker(painted: list[Frame], *, step: tuple[int, int] = (3, 1)) -> float:
    """Mean difference between neighbouring frames where they show the same."""
    across, down = step
    pairs = pairwise(painted)
    width, height = SIZE
    return float(
        np.mean(
            [
                np.abs(before[down:, across:].astype(int) - after[: height - down, : width - across]).mean()
                for before, after in pairs
            ]
        )
    )


def test_flicker_is_halved_and_the_mean_is_kept() -> None:
    photos = pan(8)
    painted = restless(photos)
    smooth = Smoother()
    smoothed = [smooth(photo, one) for photo, one in zip(photos, painted, strict=True)]
    assert np.array_equal(smoothed[0], painted[0])
    assert flicker(smoothed) < 0.5 * flicker(painted)
    # It follows the motion: without it the pictures would be blurred together.
    clean = [(photo * 0.8 + 25).clip(0, 255) for photo in photos]
    errors = [
        [np.abs(one - true).mean() for one, true in zip(each, clean, strict=True)] for each in (painted, smoothed)
    ]
    assert np.mean(errors[1][2:]) < 0.8 * np.mean(errors[0][2:])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_types_are_kept(dtype: type) -> None:
    photos: list[NDArray[Any]] = [photo.astype(dtype) * (257 if dtype is np.uint16 else 1) for photo in pan(3)]
    smooth = Smoother()
    painted = [smooth(photo.astype(dtype), photo.astype(dtype)) for photo in photos]
    assert {one.dtype for one in painted} == {np.dtype(dtype)}
    assert np.abs(painted[2].astype(int) - photos[2]).mean() < 0.02 * np.iinfo(dtype).max


def test_nothing_crosses_a_cut() -> None:
    first = pan(1)[0]
    second = np.ascontiguousarray(255 - landscape()[100:164, 150:246])
    smooth = Smoother()
    smooth(first, np.zeros_like(first))
    painted = np.full_like(second, 255)
    assert np.abs(smooth(second, painted).astype(int) - 255).mean() < 12


def test_what_was_covered_is_painted_afresh() -> None:
    background = pan(1)[0]
    photos = []
    for left in (20, 40):
        photo = background.copy()
        photo[16:48, left : left + 24] = (250, 20, 20)
        photos.append(photo)
    smooth = Smoother()
    smooth(photos[0], np.zeros_like(background))
    painted = smooth(photos[1], np.full_like(background, 200))
    uncovered, still = painted[20:44, 24:36], painted[:, 72:]
    assert uncovered.mean() > 150
    assert still.mean() < 110


@pytest.mark.parametrize("size", [(1, 1), (15, 40), (16, 16), (17, 33), (17, 33_000)])
def test_frames_of_any_size(size: tuple[int, int]) -> None:
    photo = np.full((*size, 3), 99, np.uint8)
    smooth = Smoother()
    for _ in range(3):
        assert np.array_equal(smooth(photo, photo), photo)


class Stopped(Stylizer):
    left = 5

    def paint(self, pixels: Frame, look: Look) -> Frame:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().paint(pixels, look)


def filmed(name: str, *words: str) -> NDArray[np.int64]:
    words = ("--device", "cpu", "--quality", "100", "--output", name, *words)
    assert main(["stylize", "--model", "runs/zigzag", "a.mp4", *words]) == 0
    return pixels(Path(name))


def pixels(path: Path) -> NDArray[np.int64]:
    """All frames (T, H, W, 3)."""
    return np.stack([frame.to_ndarray(format="rgb24").astype(np.int64) for frame in frames(path)])


@pytest.mark.usefixtures("folder")
def test_a_clip_is_smoothed_and_continued() -> None:
    write_clip(Path("a.mp4"), Clip(size=(65, 48), pix_fmt="yuv444p"))
    plain, smooth = (filmed(name, *words) for name, words in (("plain.mp4", []), ("smooth.mp4", ["--smooth"])))
    assert np.abs(np.diff(smooth, axis=0)).mean() < 0.8 * np.abs(np.diff(plain, axis=0)).mean()
    job, options = Job(Path("a.mp4"), Path("b.mp4"), is_clip=True), ClipOptions(100, resume=True, smooth=True)
    with pytest.raises(KeyboardInterrupt):
        list(paint_clips(Stopped.load("runs/zigzag", device="cpu"), [job], look=Look(), options=options))
    stylizer = Stopped.load("runs/zigzag", device="cpu")
    stylizer.left = 3
    assert list(paint_clips(stylizer, [job], look=Look(), options=options)) == [(job, None)]
    assert times(Path("b.mp4")) == times(Path("a.mp4"))
    continued = pixels(Path("b.mp4"))
    assert np.abs(continued[5:] - smooth[5:]).mean() < 0.8 * np.abs(continued[5:] - plain[5:]).mean()
