"""A loose watercolour bouquet: transparent washes with dark edges, blooms, granulation and splashes."""

import numpy as np

from .canvas import Field, Picture, Window, lit, noise, palette, paper, rgb, shaken, smoothstep

SIZE = (960, 768)
DARKEST = 1.9  # optical density that even many washes do not exceed


def draw() -> Picture:
    """The finished picture."""
    rng = np.random.default_rng(44)
    sheet = Sheet(rng)
    background(sheet)
    stems(sheet)
    leaves(sheet)
    for x, y, size, colours in FLOWERS:
        flower(sheet, x, y, size, palette(colours))
    splashes(sheet)
    picture = np.asarray(
        np.clip(rgb("#faf4e6") * np.exp(-DARKEST * (1 - np.exp(-sheet.density / DARKEST))), 0, 1), np.float32
    )
    return lit(picture, sheet.tooth, strength=0.045)


FLOWERS = (
    (250, 250, 120, "e0457a f08aa8 c02a5f"),
    (520, 210, 110, "f0a030 f7c850 e06a2a"),
    (400, 400, 140, "d83a3a f0705a b01f48"),
    (150, 460, 100, "7a5ac8 a890e0 5a3aa0"),
    (620, 420, 115, "3f78d0 7fa8e8 3a50b0"),
    (290, 600, 95, "f0b040 f8d870 e88038"),
    (520, 610, 105, "d0509a e898c0 a83080"),
    (660, 640, 70, "e85a48 f59a78 c83a4a"),
    (110, 660, 70, "e88098 f0a8b8 d05080"),
    (390, 110, 70, "8a6ad0 b8a0e8 6848b0"),
    (110, 190, 60, "f0c850 f5dc88 e8a038"),
    (680, 160, 65, "d85a88 e890b0 b83868"),
)


class Sheet:
    """Wet paper: how much of each colour the pigment on it swallows."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.density = np.zeros((*SIZE, 3), np.float32)
        self.tooth = paper(SIZE, rng)
        self.ragged = noise(SIZE, 60, rng, octaves=4)
        self.pools = noise(SIZE, 46, rng, octaves=3)

    def wash(
        self,
        x: float,
        y: float,
        colour: Field,
        *,
        length: float,
        width: float,
        turn: float = 0.0,
        strength: float = 0.8,
        rough: float = 0.16,
        power: float = 2.0,
    ) -> None:
        """Lays one transparent wash: paler inside, dark at the edge, grainy where the paper is low.

        It is an oval; with `power` below 2 its ends are pointed.
        """
        window, inside = self.oval(x, y, length=length, width=width, turn=turn, rough=rough, power=power)
        if inside.size == 0:
            return
        body = smoothstep(-0.8, 0.8, inside)
        rim = body * np.exp(-np.clip(inside, 0, None) / 2.6)
        pool = 1 + 0.42 * self._shifted(self.pools, inside)
        grain = 1 - 0.13 * self.tooth[window]
        amount = strength * np.clip(body * (0.62 * pool * grain) + 0.75 * rim, 0, None)
        self.density[window] += amount[..., None] * absorbed(colour)

    def bloom(self, x: float, y: float, size: float) -> None:
        """Lets a drop of water push the pigment outwards into a jagged dark ring."""
        window, inside = self.oval(x, y, length=size, width=size, rough=0.30)
        pushed = 1 - 0.62 * smoothstep(0, 14, inside) + 0.7 * np.exp(-np.abs(inside) / 2.2)
        self.density[window] *= pushed[..., None].astype(np.float32)

    def oval(
        self, x: float, y: float, *, length: float, width: float, rough: float, turn: float = 0.0, power: float = 2.0
    ) -> tuple[Window, Field]:
        """A window and there the rough distance to the oval's edge, positive inside."""
        reach = max(length, width) * 0.95 + 4
        rows = slice(max(int(y - reach), 0), max(min(int(y + reach), SIZE[0]), 0))
        columns = slice(max(int(x - reach), 0), max(min(int(x + reach), SIZE[1]), 0))
        down, right = np.ogrid[rows, columns]
        along = (right - x) * np.cos(turn) + (down - y) * np.sin(turn)
        across = (down - y) * np.cos(turn) - (right - x) * np.sin(turn)
        reached = np.abs(along / (length / 2)) ** power + np.abs(across / (width / 2)) ** power
        radius = reached ** (1 / power)
        inside = 1 - radius + rough * self._shifted(self.ragged, radius)
        return (rows, columns), np.asarray(inside * min(length, width) / 2, np.float32)

    def _shifted(self, field: Field, like: Field) -> Field:
        """A piece of `field` from anywhere, so that no two washes have the same outline."""
        rows, columns = like.shape
        top = self.rng.integers(0, max(SIZE[0] - rows, 0) + 1)
        left = self.rng.integers(0, max(SIZE[1] - columns, 0) + 1)
        return field[top : top + rows, left : left + columns]


def absorbed(colour: Field) -> Field:
    """(3,) optical density of a pigment that looks `colour` on white."""
    return np.asarray(-np.log(np.clip(colour, 0.04, 0.98)), np.float32)


def background(sheet: Sheet) -> None:
    """Large pale washes with blooms in them."""
    rng = sheet.rng
    colours = palette("9fd0d8 c8e0b0 f5d8a8 d8c0e0 a8c8e8 f0c0b8")
    for _ in range(150):
        sheet.wash(
            rng.uniform(0, 768),
            rng.uniform(0, 960),
            shaken(colours[rng.integers(6)], 0.03, rng),
            length=rng.uniform(110, 260),
            width=rng.uniform(80, 180),
            turn=rng.uniform(0, 3.1),
            strength=rng.uniform(0.45, 0.9),
            rough=0.2,
        )
    for _ in range(60):
        sheet.bloom(rng.uniform(0, 768), rng.uniform(0, 960), rng.uniform(40, 110))


def stems(sheet: Sheet) -> None:
    """Stems that gather at the foot of the picture."""
    for x, y, *_ in FLOWERS:
        for share in np.linspace(0.1, 1.0, 14):
            foot_x, foot_y = 385 + (x - 385) * 0.10, 950.0
            at_x = x + (foot_x - x) * share**0.8
            turn = np.arctan2(foot_y - y, (foot_x - x) * 0.9)
            sheet.wash(
                at_x,
                y + (foot_y - y) * share,
                shaken(rgb("#5a9a4a"), 0.05, sheet.rng),
                length=64,
                width=11,
                turn=turn,
                strength=0.55,
            )


def leaves(sheet: Sheet) -> None:
    """Leaves in several greens between and below the flowers."""
    rng = sheet.rng
    greens = palette("4f9a4f 8ab84a 2f7a6a b8c85a 3a6a8a 6aa890")
    for _ in range(260):
        x, y = rng.normal(384, 210), rng.normal(560, 230)
        turn = np.arctan2(y - 640, x - 384) + rng.normal(0, 0.5)
        sheet.wash(
            x,
            y,
            shaken(greens[rng.integers(6)], 0.05, rng),
            length=rng.uniform(80, 160),
            width=rng.uniform(28, 60),
            turn=turn,
            strength=rng.uniform(0.5, 1.0),
            power=1.35,
        )


def flower(sheet: Sheet, x: float, y: float, size: float, colours: list[Field]) -> None:
    """Two rings of petals and a speckled heart, painted over cleared paper."""
    rng = sheet.rng
    window, inside = sheet.oval(x, y, length=size * 2.1, width=size * 2.1, rough=0.12)
    cleared = 1 - 0.86 * smoothstep(-6, 10, inside)
    sheet.density[window] *= cleared[..., None]
    for ring, count, reach in ((0, 11, 0.66), (1, 9, 0.46), (2, 5, 0.26)):
        for turn in rng.uniform(0, 6.28) + np.arange(count) * 2 * np.pi / count + rng.normal(0, 0.12, count):
            sheet.wash(
                x + np.cos(turn) * size * reach,
                y + np.sin(turn) * size * reach * 0.9,
                shaken(colours[(ring + rng.integers(2)) % 3], 0.04, rng),
                length=size * rng.uniform(0.62, 0.85),
                width=size * rng.uniform(0.34, 0.5),
                turn=turn + rng.normal(0, 0.2),
                strength=rng.uniform(0.45, 0.9),
                power=1.75,
            )
    for _ in range(26):
        away = rng.normal(0, size * 0.11, 2)
        sheet.wash(
            x + away[0],
            y + away[1],
            shaken(rgb("#5a2f3a"), 0.08, rng),
            length=rng.uniform(5, 13),
            width=rng.uniform(5, 10),
            strength=0.9,
        )


def splashes(sheet: Sheet) -> None:
    """Drops flung from the brush."""
    rng = sheet.rng
    colours = palette("d83a5a f0a030 3f78d0 4f9a4f 7a5ac8 2a9a9a")
    for _ in range(190):
        size = 4 + rng.exponential(5)
        sheet.wash(
            rng.uniform(0, 768),
            rng.uniform(0, 960),
            colours[rng.integers(6)],
            length=size,
            width=size * rng.uniform(0.7, 1),
            turn=rng.uniform(0, 3),
            strength=rng.uniform(0.4, 0.9),
        )
