"""A cubist portrait of a crying woman: two faces in one, tears of glass, a handkerchief, a feathered hat."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .canvas import (
    Canvas,
    Field,
    Labels,
    Mask,
    Picture,
    Point,
    along_field,
    edge_distance,
    grid,
    lit,
    mask,
    mix,
    noise,
    palette,
    rgb,
    shaken,
    smoothstep,
)

SIZE = (960, 768)
INK = rgb("#15101c")

YELLOW = "f7dc1e f0c419 e6e04a f9ea7d d9c21c f4b81d"
GREEN = "5aa63a 2f8a4a 93c23d 1f6b4c a9d158 c8dc4a"
VIOLET = "6d3b93 8a4fb0 4a2a7a a877c4 b98bd0 5b2f8a"
RED = "d2232f b3162d e8433a 8f1230 ee6a3c c81f4f"
BLUE = "1f4fa8 2d74c9 173a7d 57a0dc 123060 3b8fd0"
PALE = "f4f1e4 dfe9f2 b9d6ee f8f6ee c9c6e6 9cc4e4"
WARM = "e8892b f0ad3c d9652a f3c35a c9512c e39a30"
TEARS = "e2f3ff 8fc6f4 57a0dc f4fbff bfe2fb"
NIGHT = "221a44 2b2560 1a1533 3d2f74 141029 342a66"


@dataclass(frozen=True)
class Shape:
    """A part of the portrait, broken into shards by straight cuts."""

    points: Sequence[Point]
    colours: str
    cuts: int = 0
    hatch: float = 0.5  # chance that a shard is hatched
    fine: bool = False  # outlined with a thinner line


def draw() -> Picture:
    """The finished picture."""
    rng = np.random.default_rng(1937)
    parts, masses, shards, colours = broken(shapes(), rng)
    tones = shaded(shards, colours, rng)
    turns = rng.uniform(0, np.pi, shards.max() + 1)
    canvas, angle = Canvas(tones, rng), along_field(turns[shards])
    canvas.cover(tones, angle, width=26, length=80, spacing=13, jitter=0.07, regions=shards)
    canvas.cover(tones, angle, width=12, length=46, spacing=11, jitter=0.10, regions=shards, dry=0.6)
    hatch(canvas, shards, turns, hatched=hatch_chances(parts, shards, rng))
    contour(canvas, (masses, parts, shards), rng)
    return lit(canvas.picture, ndimage.gaussian_filter(canvas.height, 0.7), strength=0.55, gloss=0.18)


def shapes() -> list[Shape]:
    """Every part, from the wall to the tears."""
    return [*wall(), *hair_and_dress(), *face(), *hat(), *eyes(), *mouth(), *hand(), *tears()]


def wall() -> list[Shape]:
    """The room behind her."""
    return [
        Shape([(0, 0), (768, 0), (768, 960), (0, 960)], WARM + " " + YELLOW, 7, 0.6),
        Shape([(0, 0), (250, 0), (150, 420), (0, 520)], GREEN, 5, 0.7),
        Shape([(600, 0), (768, 0), (768, 560), (660, 420)], YELLOW, 5, 0.8),
        Shape([(0, 640), (190, 600), (230, 960), (0, 960)], BLUE, 4, 0.7),
    ]


def hair_and_dress() -> list[Shape]:
    """Hair, neck, shoulders and collar."""
    return [
        Shape([(430, 210), (600, 230), (690, 380), (668, 520), (735, 690), (600, 800), (500, 640)], NIGHT, 7, 0.9),
        Shape([(600, 300), (700, 380), (680, 560), (745, 700), (640, 740), (590, 520)], VIOLET, 5, 0.8),
        Shape([(330, 740), (520, 700), (560, 880), (350, 900)], YELLOW + " " + GREEN, 4, 0.6),
        Shape([(60, 960), (180, 850), (350, 830), (430, 960)], RED, 5, 0.7),
        Shape([(400, 960), (560, 800), (720, 790), (768, 850), (768, 960)], BLUE + " " + VIOLET, 6, 0.8),
        Shape([(300, 850), (352, 812), (392, 960), (320, 960)], PALE, 3, 0.4),
        Shape([(392, 960), (545, 790), (600, 850), (480, 960)], PALE, 3, 0.4),
    ]


def face() -> list[Shape]:
    """Profile to the left and front view to the right, meeting in a broken line."""
    lit_side = [(290, 262), (232, 330), (226, 412), (150, 545), (172, 578), (226, 580), (196, 622), (222, 650)]
    lit_side += [(200, 690), (238, 716), (236, 790), (300, 826), (346, 700), (330, 600), (384, 420), (372, 262)]
    dark_side = [(372, 262), (384, 420), (330, 600), (346, 700), (300, 826), (420, 806), (540, 690), (606, 530)]
    return [
        Shape(lit_side, YELLOW, 6, 0.45),
        Shape([*dark_side, (612, 400), (560, 262)], GREEN + " " + YELLOW, 7, 0.5),
        Shape([(560, 400), (612, 380), (632, 450), (606, 540), (566, 520)], WARM + " " + RED, 2, 0.6),
        Shape([(384, 420), (424, 470), (452, 585), (392, 618), (330, 600)], PALE + " " + YELLOW, 3, 0.5),
        Shape([(330, 600), (392, 618), (372, 640), (338, 634)], RED, 0, 0.0),
        Shape([(470, 560), (580, 520), (560, 640), (480, 690)], RED + " " + WARM, 4, 0.9),
        Shape([(236, 560), (306, 540), (322, 640), (250, 640)], WARM, 3, 0.9),
        Shape([(300, 826), (346, 700), (420, 740), (420, 806)], VIOLET, 3, 0.7),
    ]


def hat() -> list[Shape]:
    """A tilted hat with a band, a feather and a brim."""
    return [
        Shape([(270, 232), (300, 70), (430, 22), (566, 60), (640, 236)], BLUE, 7, 0.7),
        Shape([(276, 196), (634, 200), (650, 256), (262, 250)], NIGHT, 5, 0.5),
        Shape([(170, 300), (262, 226), (640, 232), (720, 330), (560, 282), (380, 292)], VIOLET, 7, 0.7),
        Shape([(520, 220), (560, 100), (690, 20), (754, 70), (700, 160), (610, 236)], RED + " " + WARM, 9, 0.9),
        Shape([(560, 214), (694, 62), (708, 76), (588, 226)], PALE, 0, 0.0),
        Shape([(500, 176), (556, 186), (572, 232), (520, 252), (482, 220)], YELLOW, 3, 0.4),
    ]


def eyes() -> list[Shape]:
    """One eye seen from the side, one from the front and set too high, both brimming."""
    return [
        Shape([(226, 398), (290, 340), (366, 306), (374, 330), (304, 364), (240, 414)], NIGHT, 1, 0.0),
        Shape([(240, 424), (304, 386), (362, 420), (318, 462), (262, 456)], PALE, 1, 0.0),
        Shape([(274, 398), (312, 392), (326, 428), (304, 458), (274, 440)], BLUE, 2, 0.0, True),
        Shape([(290, 410), (310, 408), (314, 434), (296, 442)], "15101c", 0, 0.0, True),
        Shape([(410, 302), (500, 306), (600, 372), (588, 390), (496, 332), (412, 328)], NIGHT, 2, 0.0),
        Shape([(420, 404), (452, 366), (520, 350), (590, 384), (552, 436), (470, 450)], PALE, 2, 0.0),
        Shape(
            [(470, 362), (520, 354), (544, 392), (520, 440), (476, 440), (458, 400)], RED + " " + VIOLET, 3, 0.0, True
        ),
        Shape([(490, 384), (516, 380), (524, 408), (504, 424), (486, 410)], "15101c", 0, 0.0, True),
        Shape([(440, 462), (548, 448), (590, 400), (596, 424), (560, 474), (470, 484)], VIOLET, 2, 0.5),
        Shape([(498, 388), (508, 386), (508, 396), (499, 398)], "ffffff", 0, 0.0, True),
        Shape([(294, 413), (302, 411), (302, 419), (296, 420)], "ffffff", 0, 0.0, True),
    ]


def mouth() -> list[Shape]:
    """A mouth drawn down, with bared teeth."""
    upper = [(196, 622), (270, 640), (312, 634), (398, 676), (412, 716), (330, 676), (222, 650)]
    lower = [(200, 690), (240, 700), (330, 728), (412, 716), (350, 760), (238, 722)]
    teeth = [
        Shape([(x, 651 + t), (x + 32, 660 + t), (x + 30, 694 + t), (x - 2, 690 + t)], PALE, 0, 0.0, True)
        for x, t in ((226, 0), (258, 8), (290, 16), (322, 26))
    ]
    inside = Shape([(222, 650), (330, 676), (412, 716), (330, 728), (240, 700), (204, 688)], "15101c", 0, 0.0, True)
    return [inside, *teeth, Shape(upper, RED, 2, 0.3), Shape(lower, RED, 2, 0.3)]


def hand() -> list[Shape]:
    """Her hand with a crumpled handkerchief, pressed to the cheek."""
    cloth = [(430, 640), (498, 588), (560, 620), (632, 574), (652, 668), (706, 720), (630, 770), (610, 850)]
    cloth += [(530, 800), (470, 846), (446, 760), (400, 726)]
    fingers = [
        [(768, 690), (640, 640), (560, 646), (548, 672), (640, 690), (768, 760)],
        [(768, 740), (640, 692), (540, 690), (526, 718), (640, 742), (768, 800)],
        [(768, 790), (640, 744), (530, 736), (520, 764), (630, 790), (768, 850)],
        [(768, 840), (640, 792), (560, 784), (548, 810), (630, 838), (768, 900)],
    ]
    nails = [
        [(x, y), (x + 34, y - 8), (x + 34, y + 14), (x - 6, y + 16)]
        for x, y in ((558, 656), (538, 700), (530, 745), (558, 794))
    ]
    return [
        Shape(cloth, PALE, 11, 0.5),
        *(Shape(finger, YELLOW + " " + GREEN + " " + WARM, 2, 0.5) for finger in fingers),
        *(Shape(nail, RED, 0, 0.0, True) for nail in nails),
    ]


def tears() -> list[Shape]:
    """Angular drops under both eyes."""
    drops = [(262, 462, 74), (308, 466, 54), (232, 566, 58), (288, 540, 86), (488, 482, 92), (540, 478, 64)]
    drops += [(436, 616, 66), (508, 580, 40), (270, 752, 52), (366, 750, 60), (180, 720, 54), (150, 800, 66)]
    found = []
    for x, y, tall in drops:
        wide = tall * 0.34
        found.append(
            Shape(
                [
                    (x, y),
                    (x + wide, y + tall * 0.7),
                    (x + wide * 0.3, y + tall),
                    (x - wide * 0.7, y + tall),
                    (x - wide, y + tall * 0.65),
                ],
                TEARS,
                1,
                0.0,
                True,
            )
        )
    return found


def broken(parts: list[Shape], rng: np.random.Generator) -> tuple[Labels, Labels, Labels, Field]:
    """Labels of parts, of parts without the fine ones, of shards, and the shards' colours (shards, 3)."""
    owner, masses, shards = (np.zeros(SIZE, np.int32) for _ in range(3))
    y, x = grid(SIZE)
    bent_x, bent_y = x + 1.6 * noise(SIZE, 60, rng), y + 1.6 * noise(SIZE, 60, rng)
    for number, part in enumerate(parts):
        drawn = mask(SIZE, part.points).astype(np.float32)
        inside = ndimage.map_coordinates(drawn, [bent_y, bent_x], order=1, mode="nearest") > 0.5
        owner[inside] = number
        masses[inside & (not part.fine)] = number
        shards[inside] = number * 4096 + cut(part, bent_x, bent_y, rng)[inside]
    kept, flat = np.unique(shards, return_inverse=True)
    colours = [pick(parts[int(label) // 4096].colours, rng) for label in kept]
    return owner, masses, flat.reshape(SIZE).astype(np.int32), np.stack(colours)


def cut(part: Shape, x: Field, y: Field, rng: np.random.Generator) -> Labels:
    """Which side of each straight cut a pixel lies on, as the bits of one number."""
    sides = np.zeros(x.shape, np.int32)
    corners = np.asarray(part.points)
    for bit in range(part.cuts):
        through = rng.dirichlet(np.ones(len(corners))) @ corners
        turn = rng.choice([0.35, 1.1, 1.9, 2.6]) + rng.normal(0, 0.2)
        sides |= ((x - through[0]) * np.sin(turn) > (y - through[1]) * np.cos(turn)).astype(np.int32) << bit
    return sides


def pick(names: str, rng: np.random.Generator) -> Field:
    """A colour of the palette, a little changed."""
    colours = palette(names)
    return shaken(colours[rng.integers(len(colours))], 0.02 if len(colours) > 1 else 0, rng)


def shaded(shards: Labels, colours: Field, rng: np.random.Generator) -> Picture:
    """Colour of every pixel: each shard goes from lighter to darker and warmer to cooler across itself."""
    y, x = grid(SIZE)
    count = len(colours)
    turn = rng.uniform(0, 2 * np.pi, count)
    ramp = x * np.cos(turn)[shards] + y * np.sin(turn)[shards]
    middle = ndimage.mean(ramp, shards, np.arange(count))
    spread = ndimage.standard_deviation(ramp, shards, np.arange(count)) + 12
    ramp = np.clip((ramp - middle[shards]) / spread[shards], -1.6, 1.6) / 3.2 + 0.5
    dark = colours * np.asarray([0.80, 0.66, 0.74], np.float32)
    light = colours + (1 - colours) * 0.24
    return mix(dark[shards], light[shards], 0.8 * ramp + 0.10 * noise(SIZE, 40, rng, octaves=3) + 0.2)


def hatch_chances(parts: Labels, shards: Labels, rng: np.random.Generator) -> Mask:
    """Whether each shard is hatched."""
    owner = ndimage.maximum(parts, shards, np.arange(shards.max() + 1)).astype(int)
    chance = np.asarray([part.hatch for part in shapes()])[owner]
    return np.asarray(rng.random(chance.size) < chance)


def hatch(canvas: Canvas, shards: Labels, turns: Field, *, hatched: Mask) -> None:
    """Parallel strokes of darker or lighter paint across the chosen shards."""
    rng = canvas.rng
    y, x = grid(SIZE)
    for shard in np.flatnonzero(hatched):
        inside = shards == shard
        if inside.sum() < 700:
            continue
        turn = float(turns[shard]) + rng.choice([0.8, 1.57, 2.3])
        across = y * np.cos(turn) - x * np.sin(turn)
        gap = rng.uniform(10, 16)
        tone = canvas.picture[inside].mean(0)
        ink = mix(tone, INK, 0.72) if tone.mean() > 0.42 or rng.random() < 0.3 else mix(tone, rgb("#fff3c0"), 0.55)
        for line in np.arange(across[inside].min() + gap / 2, across[inside].max(), gap):
            hatch_line(canvas, inside & (np.abs(across - line) < 1), shards, turn=turn, ink=ink)


def hatch_line(canvas: Canvas, line: Mask, shards: Labels, *, turn: float, ink: Field) -> None:
    """One stroke along the part of a line that lies inside its shard."""
    rng = canvas.rng
    rows, columns = np.nonzero(line)
    if rows.size < 12:
        return
    middle = rows.size // 2
    order = np.argsort(columns * np.cos(turn) + rows * np.sin(turn))
    row, column = rows[order[middle]], columns[order[middle]]
    length = np.hypot(np.ptp(rows), np.ptp(columns)) * rng.uniform(0.75, 1.0) + 4
    canvas.stroke(
        float(column),
        float(row),
        shaken(ink, 0.04, rng),
        angle=turn + rng.normal(0, 0.02),
        length=length,
        width=rng.uniform(3.5, 6.5),
        dry=0.08,
        body=0.5,
        regions=shards,
    )


def contour(canvas: Canvas, layers: tuple[Labels, ...], rng: np.random.Generator) -> None:
    """Heavy brushed lines round the masses, thinner ones round their parts and the shards."""
    swell = noise(SIZE, 70, rng, octaves=2)
    line = np.zeros(SIZE, np.float32)
    for labels, width in zip(layers, (4.6, 2.6, 1.5), strict=True):
        distance = edge_distance(labels) - width * (1 + 0.3 * swell)
        line = np.maximum(line, 1 - smoothstep(-0.8, 0.8, distance))
    bristle = noise(SIZE, 7, rng, octaves=2)
    ink = INK + 0.035 * bristle[..., None]
    canvas.picture = mix(canvas.picture, ink, line * np.clip(0.95 + 0.06 * bristle, 0, 1))
    canvas.height += line * (0.25 + 0.12 * bristle)
