"""Flicker is what neighbouring frames differ by where they show the same, and nothing for a camera that moves alone."""

import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from scripts import measure_flicker
from scripts.measure_flicker import MOVES, SIZE, camera, flicker


def test_a_constant_difference_is_the_flicker() -> None:
    cameras = [MOVES["turn"](time) for time in range(3)]
    frames = [np.full((*SIZE[::-1], 3), level, np.uint8) for level in (10, 17, 10)]
    assert flicker(frames, cameras) == pytest.approx(7)


def test_whole_steps_of_the_camera_are_followed() -> None:
    cameras = [camera(zoom=1, across=2.0 * time, down=3.0 * time) for time in range(4)]
    whole = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    frames = [whole[3 * time :, 2 * time :][: SIZE[1], : SIZE[0]] for time in range(4)]
    assert flicker(frames, cameras) < 1e-3
    assert flicker(frames[::-1], cameras) > 5


def test_its_table(style_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["measure_flicker.py", str(style_path), "--frames", "2"])
    measure_flicker.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-6:-5] for line in lines[1:]] == [["pan"], ["zoom"], ["turn"]]
    assert all(float(line.split()[-2]) < 0.8 for line in lines[1:])
