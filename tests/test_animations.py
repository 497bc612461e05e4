"""Animated GIF and WebP files move as before when they are painted."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from impasto.painting.batch import paint_clips
from impasto.painting.outputs import ClipOptions, Job
from impasto.painting.stylizer import Look, Stylizer
from tests.clip_files import picture
from tests.test_cli import stylize

DURATIONS = [40, 200, 70, 70, 1000]
SIZE = (33, 24)


def write(path: Path, *, with_alpha: bool = False, **options: Any) -> None:
    images = [Image.fromarray(picture(3 * number, SIZE)) for number in range(len(DURATIONS))]
    if with_alpha:
        for number, image in enumerate(images):
            alpha = np.full(SIZE[::-1], 255, np.uint8)
            alpha[:, 5 * number : 5 * number + 6] = 0
            image.putalpha(Image.fromarray(alpha))
    options |= {"disposal": 2} if path.suffix == ".gif" else {"lossless": True}
    images[0].save(path, save_all=True, append_images=images[1:], duration=DURATIONS, **options)


def read(path: Path) -> tuple[list[NDArray[np.uint8]], list[int], object]:
    """Frames (H, W, 4), durations in ms, and what is said of loops."""
    frames, durations = [], []
    with Image.open(path) as file:
        for number in range(getattr(file, "n_frames", 1)):
            file.seek(number)
            file.load()
            frames.append(np.array(file.convert("RGBA")))
            durations.append(int(file.info["duration"]))
        return frames, durations, file.info.get("loop")


def gray(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(frame[..., :3] @ np.array([0.299, 0.587, 0.114]), np.float64)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize("loop", [{"loop": 0}, {"loop": 3}, {}], ids=["endless", "three", "none"])
@pytest.mark.usefixtures("folder")
def test_times_and_loops_are_kept(suffix: str, loop: dict[str, Any]) -> None:
    write(Path(f"a{suffix}"), **loop)
    assert stylize(f"a{suffix}") == 0
    before, durations, loops = read(Path(f"a{suffix}"))
    after, kept, kept_loops = read(Path(f"painted/a_zigzag{suffix}"))
    assert kept == durations == DURATIONS
    assert kept_loops == loops
    assert {frame.shape for frame in after} == {(24, 33, 4)}
    stylizer = Stylizer.load("runs/zigzag", device="cpu")
    for photo, painted in zip(before, after, strict=True):
        expected = stylizer(np.ascontiguousarray(photo[..., :3]))
        # WebP halves the resolution of colour, not of lightness.
        assert np.abs(gray(expected) - gray(painted)).mean() < 8
        assert np.abs(gray(photo) - gray(painted)).mean() > 16


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.usefixtures("folder")
def test_what_is_transparent_is_kept(suffix: str) -> None:
    write(Path(f"a{suffix}"), with_alpha=True)
    assert stylize(f"a{suffix}", "--output", f"b{suffix}") == 0
    before, _, _ = read(Path(f"a{suffix}"))
    after, durations, _ = read(Path(f"b{suffix}"))
    assert durations == DURATIONS
    for photo, painted in zip(before, after, strict=True):
        assert np.array_equal(photo[..., 3], painted[..., 3])
        assert (photo[..., 3] == 0).any()


@pytest.mark.usefixtures("folder")
def test_one_frame_is_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("moving.gif"))
    Image.fromarray(picture(0, SIZE)).save("still.gif")
    assert stylize("moving.gif", "still.gif") == 0
    assert sorted(os.listdir("painted")) == ["moving_zigzag.gif", "still_zigzag.png"]
    assert stylize("moving.gif", "--output", "first.png") == 0
    assert read_size(Path("first.png")) == SIZE
    assert capsys.readouterr().err == ""


def read_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.usefixtures("folder")
def test_an_interruption_leaves_what_is_done(suffix: str) -> None:
    class Stopped(Stylizer):
        painted = 0

        def paint(self, pixels: NDArray[np.uint8], look: Look) -> NDArray[np.uint8]:
            if self.painted == 3:
                raise KeyboardInterrupt
            self.painted += 1
            return super().paint(pixels, look)

    write(Path(f"a{suffix}"))
    job = Job(Path(f"a{suffix}"), Path(f"b{suffix}"), is_clip=True)
    with pytest.raises(KeyboardInterrupt) as caught:
        list(paint_clips(Stopped.load("runs/zigzag", device="cpu"), [job], look=Look(), options=ClipOptions()))
    assert caught.value.__notes__ == [f"the 3 frames done are in 'b.partial{suffix}'"]
    assert read(Path(f"b.partial{suffix}"))[1] == DURATIONS[:3]
    assert not Path(f"b{suffix}").exists()


@pytest.mark.usefixtures("folder")
def test_a_damaged_one_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("a.gif"))
    data = Path("a.gif").read_bytes()
    Path("a.gif").write_bytes(data[: len(data) // 2])
    assert stylize("a.gif") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: expected a whole image file, got a damaged one in 'a.gif': copy it again")
    assert printed.count("\n") == 1
    assert not Path("painted/a_zigzag.gif").exists()
