"""A poppy field under a hot sky in oil so thick that every ridge catches the light."""

import numpy as np
from scipy import ndimage

from .canvas import (
    Canvas,
    Field,
    Picture,
    along_field,
    grid,
    lit,
    mix,
    noise,
    palette,
    rgb,
    scattered,
    shaken,
    smoothstep,
)

SIZE = (800, 960)
HORIZON = 300


def draw() -> Picture:
    """The finished picture."""
    rng = np.random.default_rng(5)
    colours, angle = composition(rng), along_field(flow(rng))
    canvas = Canvas(colours, rng)
    canvas.cover(colours, angle, width=34, length=90, spacing=20, jitter=0.06, sway=0.25, body=1.5)
    canvas.cover(colours, angle, width=22, length=60, spacing=15, jitter=0.09, sway=0.25, body=2.0, dry=0.35)
    stalks(canvas)
    flowers(canvas)
    height = ndimage.gaussian_filter(canvas.height, 0.9)
    return lit(canvas.picture, height, strength=1.25, gloss=0.45)


def flow(rng: np.random.Generator) -> Field:
    """Direction of the strokes: rolling in the sky, steep in the grass."""
    y, x = grid(SIZE)
    sky = 0.5 * np.sin(x / 130 + y / 70) + 0.35 * noise(SIZE, 150, rng)
    grass = -1.45 + 0.45 * noise(SIZE, 110, rng) + (x - 480) / 1400
    hills = 0.35 * np.cos(x / 150)
    turn = np.where(y < HORIZON - 70, sky, np.where(y < HORIZON + 40, hills, grass))
    return np.asarray(turn, np.float32)


def composition(rng: np.random.Generator) -> Picture:
    """Colours of sky, hills and field."""
    y, x = grid(SIZE)
    picture = mix(rgb("#2f78c0"), rgb("#f6d79a"), smoothstep(0, HORIZON, y + 22 * noise(SIZE, 140, rng)))
    cloud = smoothstep(0.1, 1.0, noise(SIZE, (70, 190), rng, octaves=3))
    picture = mix(picture, rgb("#fbf0e2"), 0.9 * cloud)
    picture = mix(picture, rgb("#c08ab0"), 0.6 * cloud * smoothstep(0.2, 1.2, noise(SIZE, (60, 160), rng)))
    for drop, colour in zip((-70, -35, 0), palette("5a86b8 4f8a78 3f7a3f"), strict=True):
        edge = HORIZON + drop + 24 * np.sin(x / 120 + drop) + 8 * noise(SIZE, (400, 60), rng)
        picture = mix(picture, rgb_mix(colour, noise(SIZE, 50, rng)), smoothstep(-2, 2, y - edge))
    field = mix(rgb("#d6b83a"), rgb("#2a6a35"), smoothstep(HORIZON, 800, y + 70 * noise(SIZE, (40, 120), rng)))
    field = mix(field, rgb("#8fb53f"), 0.7 * smoothstep(0.1, 1.2, noise(SIZE, (120, 45), rng, octaves=2)))
    field = mix(field, rgb("#1d4048"), 0.6 * smoothstep(0.5, 1.5, noise(SIZE, (120, 45), rng, octaves=2)))
    return mix(picture, field, smoothstep(-3, 3, y - HORIZON - 26 - 8 * np.sin(x / 90)))


def rgb_mix(colour: Field, share: Field) -> Picture:
    """The colour, warmed and lightened where `share` is high."""
    return mix(colour, np.clip(colour * 1.3 + 0.08, 0, 1), smoothstep(-1, 1, share))


def stalks(canvas: Canvas) -> None:
    """Thin strokes of grass."""
    rng = canvas.rng
    greens = palette("b7cf4f 5f9a3a 2c5f3a e8d86a 1f4a3f")
    for x, y in scattered(SIZE, 17, rng):
        if y > HORIZON + 40:
            size = 0.5 + (y - HORIZON) / 500
            canvas.stroke(
                x,
                y,
                shaken(greens[rng.integers(5)], 0.05, rng),
                angle=-1.5 + rng.normal(0, 0.28),
                length=62 * size,
                width=8 * size,
                bend=rng.normal(0, 0.004),
                body=1.6,
            )


def flowers(canvas: Canvas) -> None:
    """Poppies, cornflowers and daisies, larger to the front."""
    rng = canvas.rng
    kinds = [
        palette("d8261c f0452a a81020 f77a3a"),
        palette("d8261c f5553a b01428 ff9a5a"),
        palette("2f4fb0 5a80e0 20357a 9ab0f0"),
        palette("fbf3dc ffffff e8d8b0 f6dc70"),
    ]
    points = [point for point in scattered(SIZE, 34, rng) if point[1] > HORIZON + 40]
    for x, y in sorted(points, key=lambda point: float(point[1])):
        size = 0.35 + 0.9 * (y - HORIZON) / 500
        if rng.random() < 0.62:
            kind = kinds[rng.choice(4, p=[0.42, 0.30, 0.14, 0.14])]
            flower(canvas, x, y, kind, size)


def flower(canvas: Canvas, x: float, y: float, colours: list[Field], size: float) -> None:
    """Five to seven petals of one stroke each, and a dark heart."""
    rng = canvas.rng
    count = int(rng.integers(5, 8))
    for turn in rng.uniform(0, 6.28) + np.arange(count) * 2 * np.pi / count:
        reach = 14 * size
        canvas.stroke(
            x + np.cos(turn) * reach,
            y + 0.8 * np.sin(turn) * reach,
            shaken(colours[rng.integers(4)], 0.04, rng),
            angle=turn + rng.normal(0, 0.3),
            length=34 * size,
            width=20 * size,
            bend=rng.normal(0, 0.006),
            dry=0.15,
            body=2.6,
        )
    canvas.stroke(x, y, rgb("#241018"), angle=rng.uniform(0, 3), length=13 * size, width=10 * size, body=1.2)
