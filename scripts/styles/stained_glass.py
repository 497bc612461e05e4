"""A stained-glass window: a bird among irises before a rising sun, in leaded, mottled glass."""

import numpy as np
from scipy import ndimage, spatial

from .canvas import (
    Field,
    Labels,
    Picture,
    Point,
    Scene,
    edge_distance,
    grid,
    lit,
    medians,
    mix,
    noise,
    palette,
    regions_of,
    rgb,
    scattered,
    smooth_curve,
    smoothstep,
)

SIZE = (960, 768)
LEAD = rgb("#17161a")
SUN = (420.0, 330.0)


def draw() -> Picture:
    """The finished picture."""
    rng = np.random.default_rng(12)
    flat = window().picture()
    cells = panes(regions_of(flat, over=500), rng)
    picture = glass(flat, cells, rng)
    width = 4.6 + 0.7 * noise(SIZE, 50, rng)
    distance = edge_distance(cells)
    lead = 1 - smoothstep(-0.8, 0.8, distance - width)
    solder = np.sqrt(np.clip(1 - (distance / width) ** 2, 0, 1)) * 5 + 0.5 * noise(SIZE, 6, rng)
    metal = lit(np.broadcast_to(LEAD * 1.6, (*SIZE, 3)), solder, strength=0.5, gloss=0.25)
    return mix(picture, metal, lead)


def window() -> Scene:
    """The composition as flat colours."""
    scene = Scene(SIZE, rgb("#2b6fb8"))
    for radius, colour in zip((420, 320, 230, 150), palette("3f8fcf e0702a f08a30 f7b53c"), strict=True):
        scene.disc(*SUN, radius, colour)
    hills(scene)
    for x, y, tall, colours in (
        (120, 640, 320, "5a2f9a 8a5cc8 b58ae0"),
        (660, 600, 360, "3a3fa8 6a6fd8 a0a8f0"),
        (390, 760, 200, "a02f7a c85a9a e89ac0"),
        (255, 800, 160, "c03a4a e0605a f09a7a"),
    ):
        iris(scene, (x, y), tall, palette(colours))
    bird(scene)
    return scene


def hills(scene: Scene) -> None:
    """Water and two banks."""
    scene.polygon([(0, 520), (768, 470), (768, 960), (0, 960)], rgb("#1f8a9a"))
    scene.polygon([*smooth_curve([(0, 470), (150, 500), (300, 560), (430, 620)]), (0, 700)], rgb("#3f8a4a"))
    scene.polygon(
        [(768, 440), *smooth_curve([(768, 440), (640, 500), (520, 540), (400, 640)]), (768, 720)], rgb("#3a8a5c")
    )
    scene.polygon([*smooth_curve([(0, 800), (200, 760), (460, 830), (768, 780)]), (768, 960), (0, 960)], rgb("#2f7f4a"))


def iris(scene: Scene, foot: Point, tall: float, colours: list[Field]) -> None:
    """A flower with sword leaves."""
    x, y = foot
    for lean, width in ((-70, 16), (60, 18), (-25, 13)):
        leaf = [(x - width, 960), (x + lean - width * 0.5, y + 40), (x + lean * 1.5, y - 20), (x + width, 960)]
        scene.polygon(leaf, rgb("#5aa845" if lean > 0 else "#357f3c"))
    scene.line([(x, 960), (x, y)], rgb("#79b84a"), 16)
    size = tall / 3.4
    for turn, colour in ((2.75, 0), (0.4, 0), (1.57, 1), (-2.1, 1), (-1.05, 1), (-1.57, 2)):
        tip_x, tip_y = x + np.cos(turn) * size, y - 30 + np.sin(turn) * size
        side_x, side_y = -np.sin(turn) * size * 0.42, np.cos(turn) * size * 0.42
        mid_x, mid_y = (x + tip_x * 2) / 3, (y - 30 + tip_y * 2) / 3
        scene.blob(
            [(x, y - 30), (mid_x + side_x, mid_y + side_y), (tip_x, tip_y), (mid_x - side_x, mid_y - side_y)],
            colours[colour],
        )
    scene.disc(x, y - 24, size * 0.16, rgb("#fbd84a"))


def bird(scene: Scene) -> None:
    """A heron-like bird in flight across the sun."""
    scene.blob([(250, 250), (330, 205), (470, 250), (560, 330), (470, 345), (330, 320)], rgb("#f3efe0"))
    tints = palette("f6f4ea bcd6f0 e4eef6 8fb8e4 f6f4ea a4c8ec")
    for number, (tip_x, tip_y) in enumerate(((150, 200), (90, 130), (80, 60), (150, 20), (230, 30), (300, 80))):
        feather(scene, (345, 262), (tip_x, tip_y), tints[number])
    for number, (tip_x, tip_y) in enumerate(((640, 235), (706, 160), (722, 84), (650, 40), (560, 44), (480, 96))):
        feather(scene, (430, 268), (tip_x, tip_y), tints[number])
    scene.polygon([(250, 255), (150, 262), (96, 300), (150, 285), (262, 300)], rgb("#f3efe0"))
    scene.polygon([(110, 288), (40, 330), (128, 304)], rgb("#e87a2a"))
    scene.polygon([(540, 310), (690, 330), (650, 360), (540, 345)], rgb("#c8402f"))


def feather(scene: Scene, root: Point, tip: Point, colour: Field) -> None:
    """One long pane from root to tip."""
    across_x, across_y = (tip[1] - root[1]) * 0.13, (root[0] - tip[0]) * 0.13
    middle = root[0] * 0.35 + tip[0] * 0.65, root[1] * 0.35 + tip[1] * 0.65
    scene.polygon(
        smooth_curve(
            [
                (root[0] + across_x, root[1] + across_y),
                (middle[0] + across_x, middle[1] + across_y),
                tip,
                (middle[0] - across_x, middle[1] - across_y),
                (root[0] - across_x, root[1] - across_y),
            ]
        ),
        colour,
    )


def panes(regions: Labels, rng: np.random.Generator) -> Labels:
    """Regions broken into panes, by cells that are drawn out round the sun."""
    y, x = grid(SIZE)
    seeds = scattered(SIZE, 66, rng)
    radius = np.hypot(x - SUN[0], y - SUN[1])
    shear = np.stack([x + 12 * np.sin(radius / 40), y + 12 * np.cos(radius / 40)], -1)
    _, cell = spatial.cKDTree(seeds).query(shear.reshape(-1, 2))
    joined = regions * 4096 + cell.reshape(SIZE).astype(np.int32)
    return without_slivers(joined)


def without_slivers(labels: Labels) -> Labels:
    """Labels in which panes too small for glass are given to their neighbours."""
    core = edge_distance(labels) > 6
    _, flat = np.unique(labels, return_inverse=True)
    flat = flat.reshape(SIZE)
    kept = np.bincount(flat[core], minlength=flat.max() + 1) > 30
    nearest = ndimage.distance_transform_edt(~(core & kept[flat]), return_distances=False, return_indices=True)
    return np.asarray(flat[tuple(nearest)], np.int32)


def glass(flat: Picture, cells: Labels, rng: np.random.Generator) -> Picture:
    """Colour of each pane with streaks, seeds and a glow in its middle."""
    count = cells.max() + 1
    mean = medians(flat, cells) * rng.uniform(0.72, 1.22, (count, 1)) + rng.normal(0, 0.035, (count, 3))
    colour = np.clip(mean, 0.03, 1)[cells]
    turned = rng.random(count)[cells] < 0.5
    streaks = np.where(turned, noise(SIZE, (60, 12), rng, octaves=3), noise(SIZE, (12, 60), rng, octaves=3))
    mottle = 0.14 * streaks + 0.10 * noise(SIZE, 9, rng, octaves=2)
    glow = 0.30 * smoothstep(2, 34, edge_distance(cells)) - 0.14
    lightness = mottle + glow
    bright = colour * (1 + lightness[..., None]) + np.clip(lightness, 0, 1)[..., None] * 0.14
    return lit(bright.astype(np.float32), noise(SIZE, 14, rng, octaves=2), strength=0.35, gloss=0.2)
