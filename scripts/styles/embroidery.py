"""An embroidered folk panel: two birds and a flowering tree in satin stitch on indigo cloth."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .canvas import (
    Canvas,
    Field,
    Labels,
    Picture,
    Point,
    Scene,
    grid,
    lit,
    medians,
    noise,
    palette,
    regions_of,
    rgb,
    scattered,
    shaken,
    smooth_curve,
)

SIZE = (960, 768)
CLOTH = rgb("#2a3c78")


def draw() -> Picture:
    """The finished picture."""
    rng = np.random.default_rng(1750)
    flat = panel().picture()
    regions, colours = patches_of(flat)
    canvas = Canvas(woven(rng), rng)
    turns = stitch_angles(regions, rng)
    stitches(canvas, regions, colours, turns)
    height = ndimage.gaussian_filter(canvas.height, 0.5)
    return lit(canvas.picture, height, strength=0.22, gloss=0.22)


def panel() -> Scene:
    """The pattern as flat colours, drawn on both sides alike."""
    scene = Scene(SIZE, CLOTH)
    frame(scene)
    trunk = rgb("#7a4a2a")
    scene.polygon([(352, 850), (368, 600), (374, 240), (394, 240), (400, 600), (416, 850)], trunk)
    for side in (-1, 1):
        half(scene, side)
    flower(scene, 384, 220, 92, palette("c8283a f0705a f7c84a"))
    flower(scene, 384, 470, 66, palette("e8a030 f7d870 c8283a"))
    scene.polygon([(270, 880), (498, 880), (470, 820), (298, 820)], rgb("#c8283a"))
    scene.polygon([(298, 820), (470, 820), (478, 800), (290, 800)], rgb("#f0b840"))
    return scene


def half(scene: Scene, side: int) -> None:
    """Everything that is mirrored."""

    def at(points: Sequence[Point]) -> list[Point]:
        return [(384 + side * x, y) for x, y in points]

    for points in (
        [(0, 720), (110, 690), (200, 730), (250, 800)],
        [(0, 600), (120, 560), (230, 470), (240, 380)],
        [(0, 380), (90, 350), (160, 270), (170, 170)],
    ):
        scene.line(smooth_curve(at(points)), rgb("#7a4a2a"), 17)
    for number, (x, y, turn) in enumerate(
        (
            (60, 640, 0.6),
            (150, 620, -0.7),
            (190, 560, 0.8),
            (60, 530, -0.5),
            (60, 300, -0.9),
            (120, 250, 2.6),
            (230, 720, 0.3),
            (160, 780, 1.6),
            (70, 780, 1.0),
            (150, 450, -0.4),
            (190, 260, 0.6),
            (90, 200, -2.2),
        )
    ):
        leaf(scene, side, (x, y), turn, palette("4f9a4a a8c84a 2f7a6a")[number % 3])
    for x, y, size, colours in (
        (252, 800, 62, "d8508a f5a0b8 f7d860"),
        (240, 380, 64, "3a78c8 8ab8e8 f5e8c0"),
        (170, 160, 66, "e87830 f8b858 fbe8a8"),
        (100, 690, 40, "f0d8b0 fbf3dc c8283a"),
        (105, 355, 40, "d8508a f5a0b8 f7d860"),
    ):
        flower(scene, 384 + side * x, y, size, palette(colours))
    bird(scene, side)


def leaf(scene: Scene, side: int, foot: Point, turn: float, colour: Field) -> None:
    """A pointed leaf of two halves."""
    x, y = foot
    right, down = np.cos(turn), np.sin(turn)
    tip = (384 + side * (x + 76 * right), y + 76 * down)
    for sign, shade in ((1, 1.0), (-1, 0.72)):
        middle = (384 + side * (x + 36 * right - sign * 27 * down), y + 36 * down + sign * 27 * right)
        scene.polygon(smooth_curve([(384 + side * x, y), middle, tip]), colour * shade)


def flower(scene: Scene, x: float, y: float, size: float, colours: list[Field]) -> None:
    """Eight petals in two rings round a disc."""
    for reach, width, colour, start in ((0.66, 0.36, 0, 0.0), (0.42, 0.24, 1, 0.39)):
        for turn in start + np.arange(8) * np.pi / 4:
            scene.disc(
                x + np.cos(turn) * size * reach,
                y + np.sin(turn) * size * reach,
                size * width,
                colours[colour] * (0.86 if round(turn * 4 / np.pi) % 2 else 1.0),
            )
    scene.disc(x, y, size * 0.30, colours[2])


def bird(scene: Scene, side: int) -> None:
    """A bird that looks to the tree."""

    def at(points: Sequence[Point]) -> list[Point]:
        return [(384 + side * (x - 36), y) for x, y in points]

    for points, colour in (
        ([(226, 610), (310, 590), (330, 690), (312, 760), (262, 690)], "8f2a4a"),
        ([(300, 600), (345, 640), (334, 780), (300, 690)], "d8508a"),
    ):
        scene.polygon(at(points), rgb(f"#{colour}"))
    scene.blob(
        at([(108, 566), (140, 520), (190, 540), (260, 560), (300, 620), (250, 672), (180, 660), (140, 610)]),
        rgb("#2f8a9a"),
    )
    scene.blob(at([(130, 590), (180, 600), (220, 650), (180, 656), (142, 622)]), rgb("#f0d8a0"))
    for points, colour in (
        ([(190, 570), (250, 570), (302, 640), (230, 620)], "f0b840"),
        ([(200, 590), (240, 596), (280, 656), (222, 632)], "d8502a"),
    ):
        scene.blob(at(points), rgb(f"#{colour}"))
    scene.polygon(at([(112, 550), (70, 566), (112, 576)]), rgb("#f0b840"))
    scene.disc(384 + side * 102, 553, 11, rgb("#fbf3dc"))
    scene.disc(384 + side * 102, 553, 5, rgb("#15141c"))


def frame(scene: Scene) -> None:
    """A border of triangles between two bands."""
    for inset, colour in zip((0, 16, 54, 66), palette("c8283a f0d8a8 c8283a 22305e"), strict=True):
        scene.polygon(
            [(inset, inset), (768 - inset, inset), (768 - inset, 960 - inset), (inset, 960 - inset)],
            CLOTH if inset == 66 else colour,
        )
    for step in range(24):
        x = 16 + step * 46
        for first, tip in ((18, 52), (942, 908)):
            if x < 720:
                scene.polygon([(x, first), (x + 23, tip), (x + 46, first)], rgb("#2f7a6a"))
        y = 16 + step * 46.4
        for first, tip in ((18, 52), (750, 716)):
            if y < 910:
                scene.polygon([(first, y), (tip, y + 23), (first, y + 46)], rgb("#3a78c8"))


def patches_of(flat: Picture) -> tuple[Labels, Field]:
    """Connected patches of one colour, and their colours (patches, 3)."""
    regions, labels = regions_of(flat, over=150), np.zeros(SIZE, np.int32)
    for region in range(regions.max() + 1):
        patches, _ = ndimage.label(regions == region)
        labels = np.where(patches > 0, patches + labels.max(), labels).astype(np.int32)
    return labels, np.asarray(np.nan_to_num(medians(flat, labels)), np.float32)


def stitch_angles(regions: Labels, rng: np.random.Generator) -> Field:
    """Angle per patch: across its longest extent, as satin stitch runs."""
    y, x = grid(SIZE)
    turns = rng.uniform(0, np.pi, regions.max() + 1)
    for label, box in enumerate(ndimage.find_objects(regions), start=1):
        if box is None:
            continue
        rows, columns = np.nonzero(regions[box] == label)
        if rows.size > 30:
            spread = np.cov(np.stack([columns, rows]).astype(float))
            turns[label] = 0.5 * np.arctan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1]) + np.pi / 2
    angles = turns[regions].astype(np.float32)
    cloth = regions == regions[480, 70]
    swirl = 0.9 * np.sin(x / 70) * np.cos(y / 80) + 0.8
    return np.where(cloth, swirl, angles).astype(np.float32)


def woven(rng: np.random.Generator) -> Picture:
    """Linen that shows between stitches."""
    y, x = grid(SIZE)
    weave = 0.5 + 0.25 * np.sin(x * 1.4) * np.sign(np.sin(y * 0.7)) + 0.1 * noise(SIZE, 4, rng)
    return np.asarray(CLOTH * (0.5 + 0.5 * weave[..., None]), np.float32)


def stitches(canvas: Canvas, regions: Labels, colours: Field, turns: Field) -> None:
    """Covers every patch with stitches of its colour, in two layers."""
    rng = canvas.rng
    for spacing, length in ((8.0, 40.0), (8.5, 30.0)):
        for x, y in scattered(SIZE, spacing, rng):
            region = regions[int(y), int(x)]
            colour = shaken(colours[region] * rng.choice([0.78, 1.0, 1.0, 1.25]), 0.045, rng)
            stitch(
                canvas,
                (x, y),
                colour,
                float(turns[int(y), int(x)]) + rng.normal(0, 0.06),
                length=length * rng.uniform(0.8, 1.2),
                regions=regions,
            )


def stitch(canvas: Canvas, at: Point, colour: Field, turn: float, *, length: float, regions: Labels) -> None:
    """One stitch of two-ply thread, clipped to its patch."""
    x, y = at
    width = 7.0
    window, along, across = canvas.place(x, y, angle=turn, length=length, width=width)
    taper = width / 2 * np.sqrt(np.clip(1 - (2 * along / length) ** 6, 0, 1))
    cover = np.clip(taper - np.abs(across) + 0.5, 0, 1) * (regions[window] == regions[int(y), int(x)])
    round_top = np.sqrt(np.clip(1 - (2 * across / width) ** 2, 0, 1))
    ply = 0.5 + 0.5 * np.sin(along * 1.15 + across * 1.3)
    tint = colour * (0.62 + 0.40 * round_top + 0.14 * ply)[..., None]
    canvas.lay(window, cover.astype(np.float32), tint, 3.4 * round_top + 0.8 * ply)
