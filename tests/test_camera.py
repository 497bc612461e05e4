"""A live window shows what is painted, minds its keys, and ends with its stream; SDL draws into memory."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pygame
import pytest
from numpy.typing import NDArray
from PIL import Image

from impasto.cli import main
from impasto.painting.camera import paint_camera
from impasto.painting.painter import Look
from impasto.painting.smoothing import Smoother
from impasto.painting.stylizer import Stylizer
from tests.clip_files import Clip, frames, write_clip
from tests.test_cli import error, stylize

Pixels = NDArray[np.uint8]
CANNOT_BE_OPENED = (
    "expected the number of a camera, or a stream that can be opened, got {!r}: check that it is there, "
    "and that no other program uses it"
)
NO_FOLDER = (
    "expected a folder as output, got the file 'a.png': name a folder, with a slash at the end if it has a dot in its "
    "name"
)
LONG = range(0, 600 * 512, 512)  # a minute, which no test waits for


@pytest.fixture(autouse=True)
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield
    assert not pygame.display.get_init()


def seen() -> Pixels:
    """What the window shows (H, W, 3)."""
    window = pygame.display.get_surface()
    assert window is not None
    return np.ascontiguousarray(pygame.surfarray.array3d(window).swapaxes(0, 1))


def press(*keys: int) -> None:
    for key in keys:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))


class Watched(Stylizer):
    """Does something before each frame is painted; told how many were."""

    before: Callable[[int], None]
    photos: list[Pixels]

    def paint(self, pixels: Pixels, look: Look) -> Pixels:
        self.before(len(self.photos))
        self.photos.append(pixels)
        return super().paint(pixels, look)


def watched(before: Callable[[int], None]) -> Watched:
    stylizer = Watched.load("runs/zigzag", device="cpu")
    stylizer.before, stylizer.photos = before, []
    return stylizer


class TestWindow:
    @pytest.mark.parametrize("look", [Look(), Look(0.5, keep_colors=True, stroke_scale=2)], ids=["plain", "other"])
    @pytest.mark.usefixtures("folder")
    def test_what_is_painted_is_shown(self, look: Look) -> None:
        shown = []

        def watch(count: int) -> None:
            if count:
                shown.append((seen(), pygame.display.get_caption()[0]))
            if count == 4:
                press(pygame.K_q)

        stylizer = watched(watch)
        paint_camera(stylizer, str(write_clip(Path("a.mp4"), Clip(times=LONG))), look, folder=Path("painted"))
        assert len(shown) == 4
        plain = Stylizer.load("runs/zigzag", device="cpu")
        for photo, (surface, _) in zip(stylizer.photos, shown, strict=False):
            assert photo.shape == (24, 32, 3)
            assert np.array_equal(surface, plain.paint(photo, look))
        name, _, rate = shown[-1][1].partition(": ")
        assert name == "zigzag"
        assert rate.endswith(" frames per second")
        assert 0 < float(rate.partition(" ")[0]) < 1000

    @pytest.mark.usefixtures("folder")
    def test_colours_are_those_of_the_clip(self) -> None:
        stylizer = watched(lambda _: press(pygame.K_q))
        path = write_clip(Path("a.mp4"), Clip(times=LONG))
        paint_camera(stylizer, str(path), Look(strength=0), folder=Path("painted"))
        red, _, blue = stylizer.photos[0].astype(int).mean(axis=(0, 1))
        assert red > blue + 8  # as clip_files.picture has it

    @pytest.mark.usefixtures("folder")
    def test_a_window_of_another_shape_has_black_beside(self) -> None:
        shown = []

        def watch(count: int) -> None:
            if count == 1:
                pygame.display.set_mode((128, 48), pygame.RESIZABLE)
            if count == 2:
                shown.append(seen())
                press(pygame.K_q)

        stylizer = watched(watch)
        path = write_clip(Path("a.mp4"), Clip(times=LONG))
        paint_camera(stylizer, str(path), Look(strength=0), folder=Path("painted"))
        assert shown[0].shape == (48, 128, 3)
        assert (shown[0][:, :32] == 0).all()
        assert (shown[0][:, 96:] == 0).all()
        within = shown[0][:, 32:96].reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
        assert np.abs(within - stylizer.photos[1]).mean() < 4
        assert np.abs(within[:, ::-1] - stylizer.photos[1]).mean() > 8

    @pytest.mark.parametrize("event", [pygame.K_ESCAPE, pygame.K_q, None], ids=["escape", "q", "closed"])
    @pytest.mark.usefixtures("folder")
    def test_it_ends_when_it_is_told(self, event: int | None) -> None:
        def watch(count: int) -> None:
            if count == 1:
                press(event) if event is not None else pygame.event.post(pygame.event.Event(pygame.QUIT))

        stylizer = watched(watch)
        paint_camera(stylizer, str(write_clip(Path("a.mp4"), Clip(times=LONG))), Look(), folder=Path("painted"))
        assert len(stylizer.photos) == 2

    @pytest.mark.usefixtures("folder")
    def test_a_slow_painter_sees_the_newest_frames_only(self) -> None:
        threads = threading.active_count()
        stylizer = watched(lambda _: time.sleep(1))
        path = write_clip(Path("a.mp4"), Clip(times=range(0, 15 * 512, 512)))
        paint_camera(stylizer, str(path), Look(), folder=Path("painted"))
        assert 2 <= len(stylizer.photos) <= 5
        last = frames(path)[-1].to_ndarray(format="rgb24").astype(int)
        assert np.abs(stylizer.photos[-1] - last).mean() < 2 < np.abs(stylizer.photos[0] - last).mean()
        assert threading.active_count() == threads

    @pytest.mark.usefixtures("folder")
    def test_smooth_frames_follow_the_former_ones(self) -> None:
        shown = []

        def watch(count: int) -> None:
            if count:
                shown.append(seen())
            if count == 4:
                press(pygame.K_q)

        stylizer = watched(watch)
        path = str(write_clip(Path("a.mp4"), Clip(times=LONG)))
        paint_camera(stylizer, path, Look(), folder=Path("painted"), is_smooth=True)
        smooth, plain = Smoother(), Stylizer.load("runs/zigzag", device="cpu")
        for photo, surface in zip(stylizer.photos, shown, strict=False):
            assert np.array_equal(surface, smooth(photo, plain.paint(photo, Look())))


class TestSaving:
    @pytest.mark.usefixtures("folder")
    def test_each_is_a_new_file(self) -> None:
        saved: list[Path] = []
        shown: list[Pixels] = []

        def watch(count: int) -> None:
            if count == 1:
                press(pygame.K_s, pygame.K_s, pygame.K_s)
            if count == 2:
                shown.append(seen())
                press(pygame.K_q)

        stylizer = watched(watch)
        path = str(write_clip(Path("a.mp4"), Clip(times=LONG)))
        paint_camera(stylizer, path, Look(), folder=Path("out/b"), saved=saved.append)
        assert len(set(saved)) == 3
        assert sorted(os.listdir("out/b")) == sorted(each.name for each in saved)
        for each in saved:
            with Image.open(each) as image:
                assert np.array_equal(np.asarray(image), shown[0])

    def test_the_command_prints_the_path(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write_clip(folder / "a.mp4", Clip(times=LONG))
        status = with_keys([pygame.K_s, pygame.K_ESCAPE], "--camera", path, "--output", "out")
        printed = capsys.readouterr()
        assert (status, printed.err) == (0, "")
        assert os.listdir("out") == [Path(printed.out.strip()).name]
        assert printed.out.startswith("out/zigzag_2")


def wait_for_window() -> None:
    window = None
    while window is None:
        time.sleep(0.01)
        with suppress(pygame.error):  # SDL has not started yet
            window = pygame.display.get_surface()


def with_keys(keys: list[int], *words: object) -> int:
    """The command's status; the keys are pressed once its window shows something."""

    def wait_and_press() -> None:
        wait_for_window()
        press(*keys)

    threading.Thread(target=wait_and_press, daemon=True).start()
    return stylize(*words)


class TestCommand:
    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "12:30.mp4"])
    def test_the_end_of_the_stream_is_the_end(self, name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        clip = Clip(codec="mpeg4", times=range(4), time_base=Clip().time_base * 512)
        write_clip(folder / f"a{Path(name).suffix}", clip).rename(name)
        assert stylize("--camera", name) == 0
        assert capfd.readouterr() == ("", "")
        assert not Path("painted").exists()

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ([], "expected photos or --camera, got none: see impasto stylize --help"),
            (["a.jpg", "--camera", "0"], "expected photos or --camera, got both: see impasto stylize --help"),
            (["--camera", "0", "--resume"], "expected photos with --resume, got --camera: leave one out"),
            (["--camera", "0", "--strip"], "expected photos with --strip, got --camera: leave one out"),
            (["--camera", "nowhere.mp4"], CANNOT_BE_OPENED.format("nowhere.mp4")),
            (["--camera", "999"], CANNOT_BE_OPENED.format("999")),
            (["--camera", "99999999999999999999"], CANNOT_BE_OPENED.format("99999999999999999999")),
            (["--camera", ""], CANNOT_BE_OPENED.format("")),
            (["--camera", "0", "--output", "a.png"], NO_FOLDER),
        ],
        ids=["none", "both", "resume", "strip", "no stream", "no camera", "no number", "nothing", "a file"],
    )
    @pytest.mark.usefixtures("folder")
    def test_what_cannot_be(self, words: list[str], expected: str, capfd: pytest.CaptureFixture[str]) -> None:
        assert stylize(*words) == 2
        assert capfd.readouterr() == ("", f"error: {expected}\n")

    @pytest.mark.usefixtures("folder")
    def test_a_stream_without_frames(self, capfd: pytest.CaptureFixture[str]) -> None:
        data = bytearray(write_clip(Path("a.avi"), Clip(codec="mjpeg", pix_fmt="yuvj420p")).read_bytes())
        start = data.index(b"movi") + 4
        data[start:] = bytes(len(data) - start)
        Path("a.avi").write_bytes(data)
        assert stylize("--camera", "a.avi") == 2
        line = "error: expected frames from a camera, got none from 'a.avi': try another number\n"
        assert capfd.readouterr() == ("", line)

    @pytest.mark.parametrize(
        ("driver", "said"),
        [(None, "DISPLAY and WAYLAND_DISPLAY are not set"), ("nonsense", "nonsense not available")],
    )
    @pytest.mark.skipif(sys.platform != "linux", reason="others always have a display")
    @pytest.mark.usefixtures("folder")
    def test_no_display(
        self, driver: str | None, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name, raising=False)
        if driver is not None:
            monkeypatch.setenv("SDL_VIDEODRIVER", driver)
        assert stylize("--camera", "0") == 2
        assert error(capsys) == (
            f"error: expected a display for the window, got {said!r}: run it on a desktop, or paint a clip"
        )

    @pytest.mark.skipif(sys.platform != "linux", reason="others always have a display")
    @pytest.mark.usefixtures("folder")
    def test_a_display_that_does_not_answer(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SDL_VIDEODRIVER")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setenv("DISPLAY", ":987")
        assert stylize("--camera", "0") == 2
        assert error(capsys) == (
            "error: expected a display for the window, got 'none that can be reached': run it on a desktop, "
            "or paint a clip"
        )

    @pytest.mark.usefixtures("folder")
    def test_without_the_extra(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "impasto.painting.camera", raising=False)
        monkeypatch.setitem(sys.modules, "pygame", None)
        assert stylize("--camera", "0") == 2
        assert error(capsys) == "error: expected the package pygame, found none: pip install 'impasto[camera]'"

    def test_an_interruption_is_one_line(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        def stop() -> None:
            wait_for_window()
            # While it opens, pygame clears whatever is raised in the code that loads its icon.
            while not any("frames per second" in title for title in pygame.display.get_caption()):
                time.sleep(0.01)
            signal.raise_signal(signal.SIGINT)

        path = write_clip(folder / "a.mp4", Clip(times=LONG))
        thread = threading.Thread(target=stop)
        thread.start()
        status = main(["stylize", "--model", "runs/zigzag", "--device", "cpu", "--camera", str(path)])
        thread.join()
        assert (status, error(capsys)) == (130, "interrupted; files already written are whole")
