"""A Roman-like mosaic: two fish among water plants, of stone and glass tesserae in mortar."""

import numpy as np
from scipy import ndimage, spatial

from .canvas import (
    Field,
    Labels,
    Picture,
    Point,
    Scene,
    grid,
    lit,
    mix,
    noise,
    palette,
    rgb,
    scattered,
    smooth_curve,
    smoothstep,
)

SIZE = (800, 960)
TILE = 17.0
NEIGHBOURS = 8


def draw() -> Picture:
    """The finished picture."""
    rng = np.random.default_rng(79)
    flat = composition()
    turns = directions(flat)
    seeds = settled(scattered(SIZE, TILE, rng), turns)
    tile, gap, inner = tiled(seeds, turns, 1)
    colour = stone(flat, seeds, rng)[tile]
    colour = colour * (1 + 0.07 * noise(SIZE, 7, rng, octaves=2) + 0.05 * noise(SIZE, 3, rng))[..., None]
    mortar = rgb("#cdbfa5") * (0.62 + 0.10 * noise(SIZE, 4, rng)[..., None])
    face = smoothstep(1.6, 3.2, gap)
    height = 2.2 * smoothstep(1.0, 5.5, gap) + 0.35 * noise(SIZE, 6, rng, octaves=2) + inner
    return lit(mix(mortar, colour, face), ndimage.gaussian_filter(height, 0.6), strength=0.32, gloss=0.25)


def composition() -> Picture:
    """The scene as flat colours."""
    scene = Scene(SIZE, rgb("#2f7f93"))
    for top, colour in zip((0, 150, 330, 520, 680), palette("9fd0c8 5fb0b4 3a93a6 236f8c 174f70"), strict=True):
        edge = [(x, top + 26 * np.sin(x / 105 + top)) for x in range(-20, 1000, 20)]
        scene.polygon([*edge, (980, 820), (-20, 820)], colour)
    for x, tall, lean, green in (
        (90, 420, 60, "2f7a45"),
        (150, 300, -50, "7fae3f"),
        (820, 460, -70, "2f7a45"),
        (890, 330, 40, "a8b83f"),
        (480, 210, 40, "4f9a4a"),
    ):
        plant(scene, (x, 760), tall, lean, rgb(f"#{green}"))
    scene.polygon(
        [*smooth_curve([(-10, 730), (200, 700), (430, 745), (700, 705), (970, 735)]), (970, 810), (-10, 810)],
        rgb("#d9b676"),
    )
    fish(scene, (390, 270), 1.0, palette("d8572a f0973a f7cf6a fbf0d0"))
    fish(scene, (590, 540), -0.85, palette("8f2430 c8453a ef8f5a fbe3c4"))
    for x, y, radius in (
        (150, 180, 20),
        (185, 120, 14),
        (840, 190, 22),
        (800, 120, 14),
        (300, 480, 16),
        (700, 120, 12),
    ):
        scene.disc(x, y, radius, rgb("#f2f4e6"))
        scene.disc(x, y, radius * 0.5, rgb("#9fd0c8"))
    return border(scene)


def plant(scene: Scene, foot: Point, tall: float, lean: float, colour: Field) -> None:
    """A stem with paired leaves."""
    x, y = foot
    stem = smooth_curve([(x, y), (x + lean, y - tall / 2), (x - lean * 0.4, y - tall)], count=9)
    scene.line(stem, colour * 0.6, 12)
    for number, (at_x, at_y) in enumerate(stem[1:]):
        side = 1 if number % 2 else -1
        scene.blob(
            [(at_x, at_y), (at_x + side * 28, at_y - 34), (at_x + side * 66, at_y - 40), (at_x + side * 40, at_y - 4)],
            colour,
        )


def fish(scene: Scene, middle: Point, size: float, colours: list[Field]) -> None:
    """A fish; negative size swims to the right."""

    def at(points: list[Point]) -> list[Point]:
        return [(middle[0] + x * size, middle[1] + y * abs(size)) for x, y in points]

    dark, body, light, pale = colours
    scene.polygon(at([(170, 0), (290, -95), (262, 0), (296, 90)]), dark)
    scene.polygon(at([(-40, -80), (40, -142), (140, -110), (120, -50)]), dark)
    scene.polygon(at([(-30, 80), (30, 138), (90, 118), (70, 60)]), dark)
    scene.blob(at([(-230, 10), (-120, -85), (30, -95), (200, -15), (200, 15), (30, 92), (-120, 85)]), body)
    scene.blob(at([(-70, 70), (0, 44), (90, 30), (190, 6), (70, 78), (0, 90)]), pale)
    for x in range(-60, 170, 46):
        scene.line(at([(x, -66 + abs(x) / 4), (x + 22, -20), (x, 30)]), light, 13)
    scene.line(at([(-118, -82), (-88, -10), (-118, 74)]), dark, 13)
    scene.disc(middle[0] - 165 * size, middle[1] - 22 * abs(size), 22, rgb("#fdf6dc"))
    scene.disc(middle[0] - 165 * size, middle[1] - 22 * abs(size), 11, rgb("#1a1a22"))


def border(scene: Scene) -> Picture:
    """The scene in a frame of waves."""
    picture = scene.picture()
    y, x = grid(SIZE)
    inset = np.minimum(np.minimum(x, 959 - x), np.minimum(y, 799 - y))
    along = np.where(np.minimum(x, 959 - x) < np.minimum(y, 799 - y), y, x)
    teeth = np.abs(along / 64 % 1 - 0.5) * 44 + 12
    frame = np.where((inset > teeth)[..., None], rgb("#8f2a2a"), rgb("#ecdcb4"))
    frame = np.where((inset < 9)[..., None], rgb("#2a2430"), frame)
    frame = np.where((inset > 44)[..., None], rgb("#e8c060"), frame)
    return np.where((inset > 60)[..., None], picture, frame).astype(np.float32)


def directions(flat: Picture) -> Field:
    """Angle of the rows of tiles: along the nearest outline."""
    grey = ndimage.gaussian_filter(flat.mean(-1), 3)
    slope_y, slope_x = ndimage.sobel(grey, 0), ndimage.sobel(grey, 1)
    weight = np.hypot(slope_x, slope_y)
    doubled = 2 * np.arctan2(slope_y, slope_x)
    blur = 14
    sine = ndimage.gaussian_filter(weight * np.sin(doubled), blur)
    cosine = ndimage.gaussian_filter(weight * np.cos(doubled) + 1e-4, blur)
    return np.asarray(np.arctan2(sine, cosine) / 2, np.float32)


def tiled(seeds: Field, turns: Field, step: int) -> tuple[Labels, Field, Field]:
    """Per pixel of every `step`-th row and column: its tile, distance to the next tile, and a tilted top.

    Source: Hausner 2001, Simulating Decorative Mosaics: cells of the maximum norm in turned frames are square.
    """
    y, x = grid(SIZE)
    y, x = y[::step, ::step], x[::step, ::step]
    _, near = spatial.cKDTree(seeds).query(np.stack([x, y], -1), k=NEIGHBOURS)
    away_x, away_y = x[..., None] - seeds[near, 0], y[..., None] - seeds[near, 1]
    turn = turns[seeds[near, 1].astype(int), seeds[near, 0].astype(int)]
    cosine, sine = np.cos(turn), np.sin(turn)
    reach = np.maximum(np.abs(away_x * cosine + away_y * sine), np.abs(away_y * cosine - away_x * sine))
    order = np.argsort(reach, -1)
    first = np.take_along_axis(near, order[..., :1], -1)[..., 0]
    nearest = np.take_along_axis(reach, order[..., :2], -1)
    tilt = np.take_along_axis(away_x * np.cos(near * 2.4) + away_y * np.sin(near * 2.4), order[..., :1], -1)[..., 0]
    return first, (nearest[..., 1] - nearest[..., 0]).astype(np.float32), (0.09 * tilt).astype(np.float32)


def settled(seeds: Field, turns: Field) -> Field:
    """Seeds moved to the middles of their tiles, a few times over."""
    for _ in range(7):
        tile, _, _ = tiled(seeds, turns, 3)
        y, x = grid(SIZE)
        counts = np.bincount(tile.ravel(), minlength=len(seeds))
        kept = counts > 0
        mid_x = np.bincount(tile.ravel(), x[::3, ::3].ravel(), len(seeds))[kept] / counts[kept]
        mid_y = np.bincount(tile.ravel(), y[::3, ::3].ravel(), len(seeds))[kept] / counts[kept]
        seeds = np.stack([mid_x, mid_y], -1)
    return seeds


def stone(flat: Picture, seeds: Field, rng: np.random.Generator) -> Field:
    """(tiles, 3) colour under each seed, varied as stone varies."""
    colour = flat[seeds[:, 1].astype(int), seeds[:, 0].astype(int)]
    count = len(seeds)
    varied = colour * rng.uniform(0.74, 1.22, (count, 1)) + rng.normal(0, 0.035, (count, 3))
    return np.asarray(np.clip(varied, 0.02, 1), np.float32)
