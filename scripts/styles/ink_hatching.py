"""Pen and ink: an old harbour town in crossed hatching on warm paper, with washes of ochre and blue."""

import numpy as np
from PIL import Image, ImageDraw

from .canvas import Field, Picture, Point, Scene, grid, mix, noise, paper, placed, rgb, smooth_curve, smoothstep

SIZE = (800, 960)
SCALE = 3
INK = rgb("#1c1a22")


def draw() -> Picture:
    """The finished picture."""
    rng = np.random.default_rng(1650)
    tone, outline = scene_tone(rng)
    ink = hatched(tone, rng)
    ink = np.maximum(ink, outline)
    tooth = paper(SIZE, rng)
    sheet = rgb("#efe2c4") * (1 + 0.022 * tooth + 0.03 * noise(SIZE, 200, rng))[..., None]
    sheet = washes(sheet.astype(np.float32), tone, rng)
    ink = np.clip(ink * (0.96 + 0.07 * tooth), 0, 1)
    return np.clip(mix(sheet, INK, ink), 0, 1)


def scene_tone(rng: np.random.Generator) -> tuple[Field, Field]:
    """Darkness 0..1 of the scene, and the ink of its outlines."""
    tones, lines = Scene(SIZE, np.full(3, 0.22)), Scene(SIZE, np.zeros(3), scale=SCALE)
    for points, dark in [*land(), *houses(rng), *boats()]:
        tones.polygon(points, np.full(3, dark))
        lines.polygon(points, np.full(3, 0.92 if dark > 0.9 else 0.0))
        for first, second in zip(points, [*points[1:], points[0]], strict=True):
            lines.line([first, *wobbly(first, second, rng), second], np.ones(3), 2.2)
    tone = tones.picture()[..., 0]
    y, _ = grid(SIZE)
    clouds = smoothstep(-0.2, 1.4, noise(SIZE, (70, 220), rng, octaves=3)) * 0.42
    sky = (tone > 0.215) & (tone < 0.225)
    tone = np.where(sky & (y < 500), 0.16 + clouds, tone)
    ripples = 0.14 * np.sin(y / 7 + 2 * noise(SIZE, (20, 120), rng))
    tone = tone + np.where(y > 560, ripples, 0) + 0.06 * noise(SIZE, 40, rng, octaves=2)
    return np.asarray(np.clip(tone, 0, 1), np.float32), lines.picture()[..., 0]


def wobbly(first: Point, second: Point, rng: np.random.Generator) -> list[Point]:
    """Points between two others, as an unsteady hand sets them."""
    count = int(np.hypot(second[0] - first[0], second[1] - first[1]) / 28)
    shares = np.linspace(0, 1, count + 2)[1:-1]
    return [
        (
            first[0] + (second[0] - first[0]) * share + rng.normal(0, 1.2),
            first[1] + (second[1] - first[1]) * share + rng.normal(0, 1.2),
        )
        for share in shares
    ]


def land() -> list[tuple[list[Point], float]]:
    """Mountain, hill, quay and water."""
    peak = smooth_curve(
        [(-20, 420), (120, 300), (260, 190), (360, 250), (480, 330), (640, 240), (800, 300), (990, 200)], count=40
    )
    hill = smooth_curve([(-20, 470), (200, 400), (420, 440), (660, 380), (990, 430)], count=40)
    return [
        ([*peak, (990, 600), (-20, 600)], 0.40),
        ([(260, 190), (300, 290), (270, 360), (360, 420), (480, 420), (430, 320), (360, 250)], 0.66),
        ([(640, 240), (660, 330), (720, 400), (860, 400), (800, 300)], 0.62),
        ([*hill, (990, 600), (-20, 600)], 0.52),
        ([(-20, 560), (980, 560), (980, 820), (-20, 820)], 0.38),
        ([(-20, 545), (980, 545), (980, 584), (-20, 584)], 0.74),
    ]


def houses(rng: np.random.Generator) -> list[tuple[list[Point], float]]:
    """A row of gabled houses and a tower, each with a lit side, a dark side and a roof.

    Windows would be stamped all over the photos: small, alike and the darkest of all, they weigh much in Gram matrices.
    """
    found: list[tuple[list[Point], float]] = []
    for row, foot in ((0, 480), (1, 550)):
        x = -30.0 + 40 * row
        while x < 960:
            wide, tall = rng.uniform(58, 92), rng.uniform(70, 130)
            found += house(x, foot, wide, 190 if row == 0 and 560 < x < 650 else tall, rng)
            x += wide * rng.uniform(1.0, 1.25)
    return found


def house(x: float, foot: float, wide: float, tall: float, rng: np.random.Generator) -> list[tuple[list[Point], float]]:
    """One house."""
    top, side, gable = foot - tall, x + wide * 0.62, wide * 0.55
    return [
        ([(x, foot), (x, top), (x + wide * 0.31, top - gable), (side, top), (side, foot)], rng.uniform(0.06, 0.26)),
        ([(side, foot), (side, top), (x + wide, top), (x + wide, foot)], 0.78),
        ([(x + wide * 0.31, top - gable), (side - 2, top), (x + wide + 3, top), (x + wide * 0.72, top - gable)], 0.60),
    ]


def boats() -> list[tuple[list[Point], float]]:
    """Boats at anchor and their reflections."""
    parts: list[tuple[list[Point], float]] = [
        ([(-80, 38), (80, 38), (60, 96), (30, 70), (0, 110), (-50, 80)], 0.72),
        ([(-96, 0), (104, -8), (76, 38), (-70, 38)], 0.86),
        ([(-90, 6), (98, -2), (94, 8), (-86, 14)], 0.10),
        ([(-4, -4), (2, -190), (86, -22)], 0.12),
        ([(-14, -8), (-8, -160), (-76, -16)], 0.34),
        ([(-5, 4), (-4, -204), (0, -204), (2, 4)], 0.95),
    ]
    places = ((170, 660, 1.2), (480, 630, 0.85), (740, 690, 1.45))
    return [(placed(points, *place), dark) for place in places for points, dark in parts]


def hatched(tone: Field, rng: np.random.Generator) -> Field:
    """Ink of hatching in five directions, each drawn where the scene is darker than its threshold."""
    sheet = Image.new("L", (SIZE[1] * SCALE, SIZE[0] * SCALE))
    pen = ImageDraw.Draw(sheet)
    drift = 0.22 * noise(SIZE, 150, rng)
    for turn, threshold, gap in (
        (0.12, 0.08, 11.0),
        (-0.75, 0.30, 9.0),
        (0.85, 0.46, 9.0),
        (-1.45, 0.60, 8.0),
        (0.4, 0.76, 6.0),
    ):
        for x, y in starts(turn, gap, rng):
            hatch(pen, tone - threshold, (x, y), turn + drift[int(y), int(x)], rng)
    small = sheet.resize((SIZE[1], SIZE[0]), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def starts(turn: float, gap: float, rng: np.random.Generator) -> list[Point]:
    """Where the pen is set down: rows `gap` apart across `turn`, every 30 px along it."""
    reach = np.hypot(*SIZE) / 2
    across, along = np.meshgrid(np.arange(-reach, reach, gap), np.arange(-reach, reach, 30))
    along = along + rng.uniform(-9, 9, along.shape)
    across = across + rng.normal(0, gap * 0.09, across.shape)
    x = SIZE[1] / 2 + along * np.cos(turn) - across * np.sin(turn)
    y = SIZE[0] / 2 + along * np.sin(turn) + across * np.cos(turn)
    inside = (x >= 0) & (x < SIZE[1]) & (y >= 0) & (y < SIZE[0])
    return list(zip(x[inside].tolist(), y[inside].tolist(), strict=True))


def hatch(pen: ImageDraw.ImageDraw, excess: Field, start: Point, turn: float, rng: np.random.Generator) -> None:
    """One hatch line of up to 38 px, ending where the scene gets too light."""
    x, y = start
    lean = turn + rng.normal(0, 0.03)
    for step in range(10):
        row, column = int(y), int(x)
        if not (0 <= row < SIZE[0] and 0 <= column < SIZE[1]) or excess[row, column] <= 0:
            return
        ahead_x, ahead_y = x + 3.8 * np.cos(lean), y + 3.8 * np.sin(lean)
        press = (0.9 + 2.2 * min(excess[row, column], 0.5)) * (1.15 - 0.06 * step)
        pen.line([(x * SCALE, y * SCALE), (ahead_x * SCALE, ahead_y * SCALE)], fill=255, width=round(press * SCALE))
        x, y, lean = ahead_x, ahead_y, lean + rng.normal(0, 0.015)


def washes(sheet: Picture, tone: Field, rng: np.random.Generator) -> Picture:
    """Thin colour on the paper: blue sky and water, ochre on all the land and low in the sky, rust on some roofs."""
    y, _ = grid(SIZE)
    cloud = noise(SIZE, 90, rng, octaves=3)
    blue = 0.36 * smoothstep(-0.5, 0.6, cloud) * (1 - smoothstep(180, 320, y)) + 0.42 * smoothstep(575, 600, y)
    sheet = mix(sheet, rgb("#6f9fb0"), blue * (0.85 + 0.15 * noise(SIZE, 18, rng)))
    warm = smoothstep(170, 400, y) * (1 - smoothstep(545, 600, y)) * smoothstep(-0.9, 0.6, noise(SIZE, 130, rng))
    sheet = mix(sheet, rgb("#d98a3f"), np.clip(0.5 * warm, 0, 1))
    roof = warm * smoothstep(0.5, 0.62, tone) * (1 - smoothstep(0.66, 0.7, tone))
    return mix(sheet, rgb("#b5452f"), np.clip(0.5 * roof, 0, 1))
