"""A live window: what a camera sees, painted, and shown as fast as it can be painted."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import pygame

from impasto.painting.painter import Look, Painter
from impasto.painting.pictures import Picture, Pixels, write_picture
from impasto.painting.smoothing import Smoother

_PATIENCE = 0.05  # seconds without a new frame, after which the keys are looked at
_CLOSING = 2  # seconds that a stream may take to answer for the last time
_USUAL_RATE = 25.0  # frames per second of a file that does not say


def paint_camera(
    painter: Painter,
    source: str,
    look: Look,
    *,
    folder: Path,
    is_smooth: bool = False,
    saved: Callable[[Path], None] = lambda _: None,
) -> None:
    """Show the painted frames in a window until it is closed, Esc or Q is pressed, or the stream ends.

    ``source`` is the number of a camera, or the path or address of a stream. S saves the frame that is shown as a PNG
    in ``folder``, and ``saved`` is told of it.

    Raises:
        ValueError: there is no such camera, no display, or too little memory for a frame.
        OSError: a frame cannot be saved.
    """
    smooth = Smoother() if is_smooth else None
    painted: Pixels | None = None
    with _Window(painter.name) as window, _Camera(source) as camera:
        for photo in camera.newest():
            if photo is not None:
                painted = painter.paint(photo, look)
                painted = painted if smooth is None else smooth(photo, painted)
                window.show(painted)
            for key in window.pressed():
                if key in (pygame.K_ESCAPE, pygame.K_q):
                    return
                if key == pygame.K_s and painted is not None:
                    saved(_save(painted, folder, name=painter.name))


class _Camera:
    """Frames as they come: a thread reads them all and keeps the newest, so that none is shown late."""

    def __init__(self, source: str) -> None:
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: the error below says it
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self.source = source
        is_number = source.isdecimal() and len(source) < 6  # no more than OpenCV counts to
        is_live = is_number or not os.path.isfile(source)
        # What stands before a colon in the name of a file would be taken for a protocol.
        address = source if is_live else os.path.abspath(source)
        self.capture = cv2.VideoCapture(int(source)) if is_number else cv2.VideoCapture(address)
        if not self.capture.isOpened():
            raise ValueError(
                f"expected the number of a camera, or a stream that can be opened, got {source!r}: check that it is "
                "there, and that no other program uses it"
            )
        # A camera waits for its next frame; of a file all would be there at once.
        self.pause = 0 if is_live else 1 / (self.capture.get(cv2.CAP_PROP_FPS) or _USUAL_RATE)
        self.frame: Pixels | None = None
        self.has_ended = self.is_closed = False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed = True
        self.thread.join(_CLOSING)

    def newest(self) -> Iterator[Pixels | None]:
        """Yield each time the newest frame (H, W, 3), or None where none came for a moment, until the stream ends."""
        has_frames = False
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.frame is not None or self.has_ended, _PATIENCE)
                frame, self.frame = self.frame, None
            if frame is None and self.has_ended:
                break
            has_frames = has_frames or frame is not None
            yield frame
        if not has_frames:
            raise ValueError(f"expected frames from a camera, got none from {self.source!r}: try another number")

    def _read(self) -> None:
        try:
            due = time.monotonic()
            while not self.is_closed:
                is_there, frame = self.capture.read()
                if not is_there:
                    break
                with self.changed:
                    self.frame = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
                    self.changed.notify()
                due += self.pause
                time.sleep(max(0, due - time.monotonic()))
        finally:
            self.capture.release()
            with self.changed:
                self.has_ended = True
                self.changed.notify()


class _Window:
    """A window of any size, in which the painting fits; its caption says how fast it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.times: deque[float] = deque(maxlen=10)

    def __enter__(self) -> Self:
        with _told_of_display():
            _find_display()
        return self

    def __exit__(self, *_: object) -> None:
        pygame.display.quit()

    def show(self, pixels: Pixels) -> None:
        """Show the pixels (H, W, 3) of uint8; the first open the window, in their size."""
        size = pixels.shape[1], pixels.shape[0]
        with _told_of_display():
            window = pygame.display.get_surface() or pygame.display.set_mode(size, pygame.RESIZABLE)
        share = min(window.get_width() / size[0], window.get_height() / size[1])
        fitting = max(1, round(size[0] * share)), max(1, round(size[1] * share))
        image = pygame.image.frombuffer(pixels.tobytes(), size, "RGB")
        image = image if fitting == size else pygame.transform.smoothscale(image, fitting)
        window.fill("black")
        window.blit(image, image.get_rect(center=window.get_rect().center))
        self.times.append(time.perf_counter())
        if len(self.times) > 1:
            rate = (len(self.times) - 1) / (self.times[-1] - self.times[0])
            pygame.display.set_caption(f"{self.name}: {rate:.1f} frames per second")
        pygame.display.flip()

    def pressed(self) -> Iterator[int]:
        """Yield the keys that were pressed; closing the window is Esc."""
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                yield pygame.K_ESCAPE
            if event.type == pygame.KEYDOWN:
                yield event.key


@contextmanager
def _told_of_display() -> Iterator[None]:
    try:
        yield
    except pygame.error as error:
        raise ValueError(
            f"expected a display for the window, got {str(error)!r}: run it on a desktop, or paint a clip"
        ) from error


def _find_display() -> None:
    """Start SDL; raises pygame.error where nobody would see the window."""
    is_chosen = "SDL_VIDEODRIVER" in os.environ
    names = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform == "linux" and not is_chosen and not any(os.environ.get(name) for name in names):
        raise pygame.error(f"{' and '.join(names)} are not set")
    pygame.display.init()
    if pygame.display.get_driver() == "offscreen" and not is_chosen:  # what SDL falls back to
        pygame.display.quit()
        raise pygame.error("none that can be reached")


def _save(painted: Pixels, folder: Path, *, name: str) -> Path:
    """Write the frame under a new name; returns its path."""
    now = f"{name}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    names = (f"{now}-{number}" if number > 1 else now for number in count(1))
    path = next(path for path in (folder / f"{each}.png" for each in names) if not path.exists())
    write_picture(path, Picture(painted))
    return path
