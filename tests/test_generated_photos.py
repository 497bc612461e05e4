from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from impasto.learning.generated_photos import dead_leaves

SIZE = 192


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.float64]:
    """Eight pictures (8, 3, SIZE, SIZE), 0 to 255."""
    return np.stack([dead_leaves(SIZE, seed=seed).numpy() for seed in range(8)]).astype(np.float64)


def power_slope(gray: NDArray[np.float64]) -> float:
    """The exponent with which the power of a picture (size, size) changes with the frequency."""
    size = len(gray)
    window = np.outer(np.hanning(size), np.hanning(size))
    power = np.abs(np.fft.fft2((gray - gray.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    bands = list(pairwise(np.geomspace(4 / size, 0.25, 9)))
    means = [power[(frequency >= low) & (frequency < high)].mean() for low, high in bands]
    return float(np.polyfit(np.log([low * high for low, high in bands]) / 2, np.log(means), 1)[0])


@pytest.mark.parametrize("size", [8, 33, 96])
def test_a_picture_is_square_and_of_bytes(size: int) -> None:
    picture = dead_leaves(size, seed=0)
    assert picture.shape == (3, size, size)
    assert picture.dtype == torch.uint8


def test_a_picture_depends_on_its_seed_alone() -> None:
    assert torch.equal(dead_leaves(48, seed=5), dead_leaves(48, seed=5))
    assert not torch.equal(dead_leaves(48, seed=5), dead_leaves(48, seed=6))


def test_the_measured_slope_of_white_noise_is_zero() -> None:
    assert power_slope(np.random.default_rng(0).standard_normal((SIZE, SIZE))) == pytest.approx(0, abs=0.15)


def test_power_falls_with_the_frequency_as_in_photographs(pictures: NDArray[np.float64]) -> None:
    # Measured alike, scikit-image's photographs lie between -1.7 and -3.
    slopes = [power_slope(picture.mean(0)) for picture in pictures]
    assert -3.4 < np.mean(slopes) < -1.7


def test_edges_are_rare_and_strong_as_in_photographs(pictures: NDArray[np.float64]) -> None:
    differences = np.diff(pictures.mean(1), axis=-1)
    kurtosis = (differences**4).mean() / (differences**2).mean() ** 2
    assert kurtosis > 10  # 3 for noise of normal distribution, which has no edges


def test_pictures_have_dark_and_light_parts_and_colours(pictures: NDArray[np.float64]) -> None:
    light = pictures.mean(1)
    assert np.quantile(light, 0.05) < 60
    assert np.quantile(light, 0.95) > 180
    spread = pictures.max(1) - pictures.min(1)  # 0 for gray
    assert spread.mean() > 15


def test_pictures_differ_in_their_colours(pictures: NDArray[np.float64]) -> None:
    means = pictures.mean((2, 3))  # (8, 3)
    assert (means.max(0) - means.min(0)).min() > 25
