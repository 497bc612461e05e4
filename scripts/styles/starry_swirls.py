"""A swirling night sky over a lake with two boats, in thick directed strokes."""

import numpy as np
from scipy import ndimage

from .canvas import (
    Canvas,
    Field,
    Picture,
    Scene,
    along_field,
    grid,
    lit,
    mix,
    noise,
    palette,
    regions_of,
    rgb,
    smooth_curve,
    smoothstep,
)

SIZE = (800, 960)
# x, y, radius and turning sense of the eddies in the sky
EDDIES = ((250, 190, 120, 1), (560, 130, 85, -1), (780, 260, 105, 1), (430, 330, 70, -1), (90, 360, 70, -1))
LAMPS = (
    (250, 190, 36),
    (560, 130, 26),
    (780, 260, 58),
    (430, 330, 20),
    (90, 360, 20),
    (390, 70, 15),
    (690, 50, 13),
    (900, 110, 17),
    (120, 70, 18),
)
SHORE = 520


def draw() -> Picture:
    """The finished picture."""
    rng = np.random.default_rng(1889)
    colours, angle = composition(rng), along_field(flow())
    canvas, things = Canvas(colours, rng), regions_of(foreground())
    canvas.cover(colours, angle, width=22, length=90, spacing=15, jitter=0.05, sway=0.10, regions=things)
    canvas.cover(colours, angle, width=13, length=60, spacing=10, jitter=0.07, sway=0.08, body=0.9, regions=things)
    accents = np.clip(colours * 1.15 + 0.12, 0, 1)
    canvas.cover(accents, angle, width=7, length=42, spacing=15, jitter=0.09, sway=0.06, body=1.1, regions=things)
    canvas.cover(colours, angle, width=8, length=22, spacing=7, jitter=0.08, where=(things > 0) * 1.0, body=1.2)
    height = ndimage.gaussian_filter(canvas.height, 0.8)
    return lit(canvas.picture, height, strength=0.75, gloss=0.15)


def flow() -> Field:
    """Direction of the strokes: round the eddies in the sky, level on the water, up the hills."""
    y, x = grid(SIZE)
    right: Field = np.full(SIZE, 0.45, np.float32)
    down: Field = 0.25 * np.cos(x / 110)
    whirls = [*EDDIES, *((x, y, 3 * radius, 1) for x, y, radius in LAMPS[5:])]
    for middle_x, middle_y, radius, sense in whirls:
        away_x, away_y = x - middle_x, y - middle_y
        pull = np.exp(-((np.hypot(away_x, away_y) / (radius * 1.15)) ** 2)) * 3.2 / radius
        right, down = right - sense * away_y * pull, down + sense * away_x * pull
    sky = np.arctan2(down, right)
    water = 0.10 * np.sin(x / 60 + y / 25)
    hills = 0.9 * np.cos((x - 100) / 140)
    below = np.where(y > SHORE + 10, water, hills)
    return np.asarray(np.where(ground() > 0, below, sky), np.float32)


def ground() -> Field:
    """1 on hills and water, 0 in the sky."""
    scene = Scene(SIZE, (0, 0, 0))
    scene.polygon([*ridge(0), (960, 800), (0, 800)], (1, 1, 1))
    return np.round(scene.picture()[..., 0])


def ridge(drop: float) -> list[tuple[float, float]]:
    """Skyline, lowered by `drop`."""
    points = [(0, 440), (130, 410), (270, 470), (430, 480), (600, 430), (760, 390), (880, 430), (960, 410)]
    return smooth_curve([(x, y + drop) for x, y in points])


def composition(rng: np.random.Generator) -> Picture:
    """Colours of the scene."""
    y, x = grid(SIZE)
    picture = mix(rgb("#101b4a"), rgb("#2f74b8"), smoothstep(0, 480, y + 70 * noise(SIZE, 130, rng, octaves=2)))
    for middle_x, middle_y, radius, sense in EDDIES:
        distance = np.hypot(x - middle_x, y - middle_y)
        turn = np.arctan2(y - middle_y, x - middle_x)
        arms = np.sin(2 * turn - sense * distance / radius * 5.5)
        near = np.exp(-((distance / radius / 1.25) ** 2))
        picture = mix(picture, rgb("#8fd0d8"), near * smoothstep(0.0, 0.9, arms))
        picture = mix(picture, rgb("#132a6b"), 0.8 * near * smoothstep(0.2, 1.0, -arms))
    picture = lamps(picture, x, y)
    return with_land(picture, rng)


def lamps(picture: Picture, x: Field, y: Field) -> Picture:
    """Stars and moon: yellow discs in rings of light."""
    for middle_x, middle_y, radius in LAMPS:
        distance = np.hypot(x - middle_x, y - middle_y) / radius
        halo = np.exp(-((distance / 2.1) ** 2)) * (0.62 + 0.38 * np.cos(distance * 5))
        picture = mix(picture, rgb("#f0c63c"), np.clip(halo, 0, 1))
        picture = mix(picture, rgb("#fff3b0"), 1 - smoothstep(0.55, 0.85, distance))
    return picture


def with_land(sky: Picture, rng: np.random.Generator) -> Picture:
    """Hills, lake with reflections, boats, reeds."""
    scene = Scene(SIZE, (0, 0, 0))
    for drop, colour in zip((0, 34, 66), palette("27408a 1d5a7a 15324f"), strict=True):
        scene.polygon([*ridge(drop), (960, 800), (0, 800)], colour)
    land = scene.picture()
    y, x = grid(SIZE)
    mirrored = sky[np.clip(2 * SHORE - y.astype(int), 0, 799), np.clip((x + 9 * np.sin(y / 9)).astype(int), 0, 959)]
    ripple = 0.35 + 0.2 * noise(SIZE, (9, 80), rng)
    water = mix(mirrored, rgb("#16407a"), np.clip(ripple, 0, 1))
    land = mix(land, water, smoothstep(-4, 4, y - SHORE - 4 * noise(SIZE, (200, 90), rng)))
    picture, things = mix(sky, land, ground()), foreground()
    return np.where(things.sum(-1, keepdims=True) > 0, things, picture)


def foreground() -> Picture:
    """Two boats, a village with lit windows and a dark bank, on black."""
    scene = Scene(SIZE, (0, 0, 0), scale=1)
    walls = palette("3a2a66 6a3560 24407a 85485a")
    for number, x in enumerate((70, 128, 196, 236, 306, 420, 466, 536, 700, 752, 800, 872)):
        wide, top = 38 + number * 17 % 24, 492 - number * 29 % 41
        scene.polygon([(x, 524), (x, top), (x + wide, top), (x + wide, 524)], walls[number % 4])
        scene.polygon([(x - 5, top), (x + wide / 2, top - 26), (x + wide + 5, top)], walls[(number + 1) % 4] * 0.8)
        scene.polygon([(x + 11, 508), (x + 11, 494), (x + 24, 494), (x + 24, 508)], rgb("#fbd45a"))
    for x, y, size in ((330, 660, 1.2), (640, 610, 0.85)):
        scene.polygon(
            [
                (x - 80 * size, y),
                (x + 84 * size, y - 4),
                (x + 56 * size, y + 34 * size),
                (x - 52 * size, y + 34 * size),
            ],
            rgb("#a8402f"),
        )
        scene.polygon([(x, y - 8), (x + 4, y - 150 * size), (x + 78 * size, y - 12)], rgb("#f4e0a4"))
        scene.polygon([(x - 8, y - 8), (x - 2, y - 130 * size), (x - 60 * size, y - 12)], rgb("#ee9a45"))
    scene.polygon(
        [*smooth_curve([(0, 740), (180, 715), (420, 770), (700, 765), (960, 700)]), (960, 800), (0, 800)],
        rgb("#1d4a4a"),
    )
    return scene.picture()
