"""A woodblock print: a curling wave under a red sun, carved in bands of flowing lines."""

import numpy as np
from scipy import ndimage

from .canvas import Field, Mask, Picture, Point, Scene, grid, mix, noise, palette, paper, rgb, smooth_curve, smoothstep

SIZE = (800, 960)
INK = rgb("#16213f")


def draw() -> Picture:
    """The finished picture."""
    rng = np.random.default_rng(36)
    picture = sky(rng)
    for layer in range(len(CRESTS)):
        picture = wave(picture, layer, rng)
    picture = foam(picture, rng)
    return printed(picture, rng)


CRESTS: list[list[Point]] = [
    [(0, 470), (120, 430), (260, 470), (420, 500), (600, 440), (760, 400), (880, 440), (960, 420)],
    [
        (0, 520),
        (110, 400),
        (200, 255),
        (330, 150),
        (480, 135),
        (590, 200),
        (610, 290),
        (555, 345),
        (490, 330),
        (480, 280),
        (520, 262),
        (500, 240),
        (440, 260),
        (410, 340),
        (450, 450),
        (580, 530),
        (760, 560),
        (960, 520),
    ],
    [(0, 640), (150, 560), (300, 590), (430, 660), (600, 640), (740, 560), (850, 590), (960, 650)],
    [(0, 720), (130, 730), (300, 690), (460, 740), (640, 770), (800, 700), (960, 740)],
]
TINTS = ["3d7f9e 8fbcc4 d5e0d2", "1f4f86 3a76a6 a9cbd0", "16386e 2a629a 7fb0c4", "12284f 1f4f86 5c93b4"]


def sky(rng: np.random.Generator) -> Picture:
    """Graded sky with a striped sun and bands of cloud."""
    y, x = grid(SIZE)
    picture = mix(rgb("#e9b98a"), rgb("#f3e4c3"), smoothstep(0, 330, y + 18 * noise(SIZE, 120, rng)))
    picture = mix(picture, rgb("#7fa7ad"), 0.75 * (1 - smoothstep(0, 120, y + 14 * noise(SIZE, 90, rng))))
    sun = 1 - smoothstep(-1, 1, np.hypot(x - 742, y - 190) - 112)
    rays = stripes(np.hypot(x - 742, y - 190) + 3 * noise(SIZE, 60, rng), 17, 0.16)
    picture = mix(picture, mix(rgb("#c8352b"), rgb("#e8743f"), rays), sun)
    drift = y + 16 * np.sin(x / 95) + 11 * noise(SIZE, 100, rng)
    lines = stripes(drift, 19, 0.12 + 0.05 * noise(SIZE, 60, rng))
    picture = mix(picture, rgb("#8a5a44"), 0.8 * lines * (1 - sun))
    finer = stripes(drift + 9, 19, 0.10 + 0.10 * noise(SIZE, 80, rng))
    picture = mix(picture, rgb("#fbf3dd"), 0.7 * finer * (1 - sun))
    return clouds(picture, rng)


def clouds(picture: Picture, rng: np.random.Generator) -> Picture:
    """Long flat clouds with a dark outline."""
    y, x = grid(SIZE)
    for middle_x, middle_y, long in ((180, 90, 200), (820, 70, 170), (640, 330, 190), (60, 260, 130), (900, 300, 120)):
        edge = np.abs((x - middle_x) / long) ** 2.4 + np.abs((y - middle_y - 9 * np.sin(x / 31)) / 25) ** 2.0
        edge = -signed_distance(edge < 1 + 0.1 * noise(SIZE, 40, rng))
        inner = stripes(edge, 13, 0.22)
        body = mix(rgb("#f7efdc"), rgb("#b58f78"), inner)
        picture = mix(picture, body, 1 - smoothstep(-1, 1, edge))
        picture = mix(picture, INK, 1 - smoothstep(1.2, 2.6, np.abs(edge)))
    return picture


def stripes(field: Field, period: float, share: Field | float) -> Field:
    """Lines along the level sets of `field`: 1 on a line, `share` of the period wide."""
    phase = np.abs((field / period) % 1 - 0.5)  # 0.5 between lines, 0 on them
    soft = 0.7 / period
    return smoothstep(-soft, soft, np.asarray(share) / 2 - phase)


def wave(picture: Picture, layer: int, rng: np.random.Generator) -> Picture:
    """Lays one wave over the picture: bands that follow the crest, an outline, a pale lip."""
    depth = depth_below(CRESTS[layer])
    dark, middle, pale = palette(TINTS[layer])
    flow = depth + 5 * noise(SIZE, 120, rng) + 0.02 * depth * np.sin(grid(SIZE)[1] / 60)
    body = mix(middle, dark, smoothstep(10, 150, depth + 10 * noise(SIZE, 50, rng)))
    body = mix(body, pale, stripes(flow, 26, 0.30 + 0.10 * noise(SIZE, 90, rng)))
    body = mix(body, INK, stripes(flow + 9, 26, 0.13 + 0.05 * noise(SIZE, 70, rng)))
    body = mix(body, mix(body, INK, 0.5), stripes(flow + 17, 13, 0.10))
    lip = depth - 15 - 5 * noise(SIZE, 34, rng)
    body = mix(body, rgb("#f5efdd"), 1 - smoothstep(-1, 1, lip))
    body = mix(body, INK, 1 - smoothstep(0.8, 2.6, np.abs(lip)))
    picture = mix(picture, body, smoothstep(-0.8, 0.8, depth))
    return mix(picture, INK, 1 - smoothstep(1.6, 3.4, np.abs(depth)))


def depth_below(crest: list[Point]) -> Field:
    """Signed distance to a crest line, positive in the water below it."""
    line = smooth_curve(crest, count=400)
    scene = Scene(SIZE, (0, 0, 0))
    scene.polygon([*line, (1400, 560), (1400, 1300), (-400, 1300), (-400, 600)], (1, 1, 1))
    return signed_distance(scene.picture()[..., 0] > 0.5)


def signed_distance(inside: Mask) -> Field:
    """Distance to the edge of a mask, positive inside."""
    outward = ndimage.distance_transform_edt(~inside)
    return np.asarray(ndimage.distance_transform_edt(inside) - outward, np.float32)


def foam(picture: Picture, rng: np.random.Generator) -> Picture:
    """Claws and drops of foam along the curl."""
    white, edge = Scene(SIZE, (0, 0, 0)), Scene(SIZE, (0, 0, 0))
    curl = smooth_curve(CRESTS[1], count=400)[90:235]
    for x, y in [curl[index] for index in rng.integers(0, len(curl), 260)]:
        spread = abs(rng.normal(0, 26))
        turn = rng.uniform(-np.pi, np.pi)
        at = (x + np.cos(turn) * spread, y + np.sin(turn) * spread)
        radius = rng.uniform(4, 13) / (1 + spread / 50)
        edge.disc(*at, radius + 2.2, (1, 1, 1))
        white.disc(*at, radius, (1, 1, 1))
    for _ in range(150):
        at, radius = (rng.uniform(250, 760), rng.normal(300, 120)), rng.uniform(1.5, 5)
        edge.disc(*at, radius + 1.6, (1, 1, 1))
        white.disc(*at, radius, (1, 1, 1))
    picture = mix(picture, INK, edge.picture()[..., 0])
    return mix(picture, rgb("#f5efdd"), white.picture()[..., 0])


def printed(picture: Picture, rng: np.random.Generator) -> Picture:
    """Ink taken unevenly by the paper, through the grain of the cherry block."""
    y, _ = grid(SIZE)
    rings = y + 30 * noise(SIZE, (160, 420), rng) + 3 * noise(SIZE, (10, 160), rng)
    grain = 0.5 + 0.5 * np.sin(rings * 0.75 + 1.5 * noise(SIZE, (30, 300), rng))
    tooth = paper(SIZE, rng)
    bare = np.clip(0.05 + 0.13 * grain + 0.06 * tooth, 0, 0.5)
    worn = mix(picture, rgb("#f1e3c4"), bare)
    return np.asarray(np.clip(worn * (1 + 0.025 * tooth[..., None]), 0, 1), np.float32)
