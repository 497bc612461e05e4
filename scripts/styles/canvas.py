"""What the pictures share: noise, vector scenes, a brush with bristles, contours, light on relief.

Pictures are float32 arrays (H, W, 3), RGB, in [0, 1]; fields are (H, W). Lengths are pixels of the finished picture,
angles are radians with y pointing down.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageColor, ImageDraw
from scipy import interpolate, ndimage

Field = NDArray[np.floating[Any]]
Picture = NDArray[np.floating[Any]]
Labels = NDArray[np.signedinteger[Any]]
Mask = NDArray[np.bool_]
Point = tuple[float, float]
Window = tuple[slice, slice]
Angle = Callable[[float, float], float]

LIGHT = -2.4  # the angle that it comes from
BRISTLE_LENGTH, BRISTLE_COUNT, BRISTLE_KINDS = 96, 32, 48


def rgb(name: str) -> Field:
    """(3,) colour of a name that Pillow knows, such as "#ffcc00"."""
    return np.asarray(ImageColor.getrgb(name)[:3], np.float32) / 255


def palette(names: str) -> list[Field]:
    """Colours from hexadecimal names separated by blanks."""
    return [rgb(f"#{name}") for name in names.split()]


def smoothstep(low: float, high: float, value: ArrayLike) -> Field:
    """Field rising smoothly from 0 at `low` to 1 at `high`."""
    t = np.clip((np.asarray(value, np.float32) - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def mix(first: ArrayLike, second: ArrayLike, share: ArrayLike) -> Picture:
    """Picture going from `first` to `second` as the field `share` goes from 0 to 1."""
    share = np.asarray(share, np.float32)[..., None]
    return np.asarray(np.asarray(first) * (1 - share) + np.asarray(second) * share, np.float32)


def grid(size: tuple[int, int]) -> tuple[Field, Field]:
    """Fields of y and of x."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    return y, x


def noise(
    size: tuple[int, int], scale: float | tuple[float, float], rng: np.random.Generator, *, octaves: int = 1
) -> Field:
    """Smooth noise, mean 0, deviation 1; `scale` is the size of its largest features (one number, or y and x)."""
    scale_y, scale_x = scale if isinstance(scale, tuple) else (scale, scale)
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        step_y, step_x = max(scale_y / 2**octave, 1), max(scale_x / 2**octave, 1)
        rows, columns = int(size[0] / step_y) + 4, int(size[1] / step_x) + 4
        coarse = rng.standard_normal((rows, columns)).astype(np.float32)
        total += enlarge(coarse, size, step_y, step_x) * 0.6**octave
    return np.asarray((total - total.mean()) / total.std(), np.float32)


def enlarge(coarse: Field, size: tuple[int, int], step_y: float, step_x: float) -> Field:
    """Cubic interpolation of a coarse lattice."""
    rows = np.arange(size[0], dtype=np.float32) / step_y + 1
    columns = np.arange(size[1], dtype=np.float32) / step_x + 1
    where = np.meshgrid(rows, columns, indexing="ij")
    return np.asarray(ndimage.map_coordinates(coarse, where, order=3, mode="nearest"), np.float32)


def smooth_curve(points: Sequence[Point], *, count: int = 120, closed: bool = False) -> list[Point]:
    """Points along a spline through `points`."""
    ring = [*points, points[0]] if closed else list(points)
    x, y = np.asarray(ring, np.float64).T
    spline, _ = interpolate.splprep([x, y], s=0, per=closed, k=min(3, len(ring) - 1))
    sampled = interpolate.splev(np.linspace(0, 1, count), spline)
    return list(zip(*(axis.tolist() for axis in sampled), strict=True))


def placed(points: Iterable[Point], x: float, y: float, size: float) -> list[Point]:
    """Points around (0, 0), scaled by `size` and moved to (x, y)."""
    return [(x + size * right, y + size * down) for right, down in points]


class Scene:
    """Flat colour shapes drawn at three times the size and shrunk, so that edges are smooth."""

    def __init__(self, size: tuple[int, int], background: ArrayLike, *, scale: int = 3):
        self.size, self.scale = size, scale
        full = Image.new("RGB", (size[1] * scale, size[0] * scale), _bytes(background))
        self.image, self.pen = full, ImageDraw.Draw(full)

    def polygon(self, points: Iterable[Point], colour: ArrayLike) -> None:
        """Fills a polygon."""
        self.pen.polygon(self._scaled(points), fill=_bytes(colour))

    def blob(self, points: Sequence[Point], colour: ArrayLike) -> None:
        """Fills the smooth closed curve through `points`."""
        self.polygon(smooth_curve(points, closed=True), colour)

    def line(self, points: Iterable[Point], colour: ArrayLike, width: float) -> None:
        """Draws a line of even width with round joints."""
        scaled, radius = self._scaled(points), width * self.scale / 2
        self.pen.line(scaled, fill=_bytes(colour), width=max(1, round(2 * radius)), joint="curve")
        for x, y in (scaled[0], scaled[-1]):
            self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_bytes(colour))

    def disc(self, x: float, y: float, radius: float, colour: ArrayLike) -> None:
        """Fills a circle."""
        box = (x - radius, y - radius, x + radius, y + radius)
        self.pen.ellipse([value * self.scale for value in box], fill=_bytes(colour))

    def picture(self) -> Picture:
        """The finished picture."""
        small = self.image.resize((self.size[1], self.size[0]), Image.Resampling.BOX)
        return np.asarray(small, np.float32) / 255

    def _scaled(self, points: Iterable[Point]) -> list[Point]:
        return [(x * self.scale, y * self.scale) for x, y in points]


def _bytes(colour: ArrayLike) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.clip(np.asarray(colour) * 255 + 0.5, 0, 255))
    return red, green, blue


def mask(size: tuple[int, int], points: Sequence[Point]) -> Mask:
    """Field that is true inside a polygon."""
    image = Image.new("1", (size[1], size[0]))
    ImageDraw.Draw(image).polygon(list(points), fill=1)
    return np.asarray(image, bool)


class Canvas:
    """A picture under the brush, with the height of its paint."""

    def __init__(self, ground: Picture, rng: np.random.Generator):
        self.picture = ground.astype(np.float32).copy()
        self.height: Field = np.zeros(ground.shape[:2], np.float32)
        self.rng, self.bristles = rng, _bristles(rng)

    def stroke(
        self,
        x: float,
        y: float,
        colour: Field,
        *,
        angle: float,
        length: float,
        width: float,
        bend: float = 0.0,
        dry: float = 0.3,
        body: float = 0.6,
        regions: Labels | None = None,
    ) -> None:
        """Lays one stroke centred on (x, y); `bend` is its curvature, `dry` 0..1 bares bristles, `body` is thickness.

        With `regions`, the stroke stays in the region that holds its centre.
        """
        window, along, across = self.place(x, y, angle=angle, length=length, width=width, bend=bend)
        bristle = self.bristles[self.rng.integers(BRISTLE_KINDS)]
        grain = bristle[_index(along / length, BRISTLE_LENGTH), _index(across / width, BRISTLE_COUNT)]
        cover = np.clip(width / 2 - np.abs(across) + 0.5, 0, 1)
        end = length / 2 * (0.75 + 0.25 * grain) - across * across / width
        cover *= np.clip((end - np.abs(along)) / 2 + 0.5, 0, 1)
        cover *= np.clip((grain - dry * (0.35 + along / length)) * 6 + 0.5, 0, 1)
        if regions is not None:
            cover *= regions[window] == regions[int(y), int(x)]
        tint = colour * (0.86 + 0.28 * grain[..., None])
        edge = np.clip(np.abs(across) * 2 / width, 0, 1) ** 4
        self.lay(window, cover, tint, body * (0.4 + 0.8 * grain + 0.35 * edge))

    def lay(self, window: Window, cover: Field, tint: Picture, body: Field) -> None:
        """Puts paint of colour `tint` and thickness `body` into a window where `cover` is above 0."""
        self.picture[window] += cover[..., None] * (tint - self.picture[window])
        self.height[window] += cover * (0.35 * self.height[window] + body - self.height[window])

    def place(
        self, x: float, y: float, *, angle: float, length: float, width: float, bend: float = 0.0
    ) -> tuple[Window, Field, Field]:
        """The window that holds a stroke, and there the distances along it and across it from its middle."""
        side = width / 2 + abs(bend) * length * length / 4 + 1
        half_x = abs(np.cos(angle)) * length / 2 + abs(np.sin(angle)) * side + 1
        half_y = abs(np.sin(angle)) * length / 2 + abs(np.cos(angle)) * side + 1
        rows, columns = self.height.shape
        top, bottom = max(int(y - half_y), 0), max(min(int(y + half_y) + 2, rows), 0)
        left, right = max(int(x - half_x), 0), max(min(int(x + half_x) + 2, columns), 0)
        down = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)
        over = np.arange(left, right, dtype=np.float32)[None] - np.float32(x)
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        along = over * cosine + down * sine
        across = down * cosine - over * sine - np.float32(bend) * along * along
        return (slice(top, bottom), slice(left, right)), along, across

    def cover(
        self,
        colours: Picture,
        angle: Angle,
        *,
        width: float,
        length: float,
        spacing: float,
        jitter: float = 0.06,
        sway: float = 0.12,
        where: Field | None = None,
        dry: float = 0.3,
        body: float = 0.6,
        regions: Labels | None = None,
    ) -> None:
        """Lays strokes all over, along `angle`, each in the colour under its centre.

        `where` is the chance 0..1 that a stroke is laid; `sway` is the deviation of its angle.
        """
        for x, y in scattered((self.height.shape[0], self.height.shape[1]), spacing, self.rng):
            row, column = int(y), int(x)
            if where is not None and self.rng.random() > where[row, column]:
                continue
            stretch = self.rng.uniform(0.7, 1.3)
            turn, bend = _turn_and_bend(angle, x, y, length * stretch)
            self.stroke(
                x,
                y,
                shaken(colours[row, column], jitter, self.rng),
                angle=turn + self.rng.normal(0, sway),
                length=length * stretch,
                width=width * self.rng.uniform(0.75, 1.25),
                bend=bend,
                dry=dry,
                body=body,
                regions=regions,
            )


def _bristles(rng: np.random.Generator) -> list[Field]:
    kinds = []
    for _ in range(BRISTLE_KINDS):
        raw = rng.standard_normal((BRISTLE_LENGTH, BRISTLE_COUNT))
        streaks = ndimage.gaussian_filter(raw, (14, 0.8), mode="wrap")
        streaks = streaks / streaks.std() * 0.22 + 0.55
        kinds.append(np.clip(streaks, 0, 1).astype(np.float32))
    return kinds


def _index(share: Field, count: int) -> NDArray[np.intp]:
    return np.asarray(np.clip((share + 0.5) * count, 0, count - 1), np.intp)


def _turn_and_bend(angle: Angle, x: float, y: float, length: float) -> tuple[float, float]:
    turn = angle(x, y)
    step_x, step_y = np.cos(turn) * length / 3, np.sin(turn) * length / 3
    ahead, behind = angle(x + step_x, y + step_y), angle(x - step_x, y - step_y)
    change = (ahead - behind + np.pi / 2) % np.pi - np.pi / 2  # a stroke has no direction
    return turn, float(np.clip(change, -1.2, 1.2)) * 0.75 / length


def scattered(size: tuple[int, int], spacing: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points (x, y) of a shaken lattice in random order, all inside the picture."""
    y, x = np.mgrid[spacing / 2 : size[0] : spacing, spacing / 2 : size[1] : spacing]
    points = np.stack([x.ravel(), y.ravel()], 1) + rng.uniform(-0.5, 0.5, (x.size, 2)) * spacing
    points = np.clip(points, 0, (size[1] - 1, size[0] - 1))
    return np.asarray(rng.permutation(points), np.float64)


def shaken(colour: Field, amount: float, rng: np.random.Generator) -> Field:
    """Colour changed at random: lightness by `amount`, each channel by half of that."""
    change = rng.normal(0, amount) + rng.normal(0, amount / 2, 3)
    return np.asarray(np.clip(colour + change, 0, 1), np.float32)


def along_field(angles: Field) -> Angle:
    """Function that looks up an angle field, at the nearest pixel."""
    rows, columns = angles.shape

    def look_up(x: float, y: float) -> float:
        return float(angles[min(max(int(y), 0), rows - 1), min(max(int(x), 0), columns - 1)])

    return look_up


def regions_of(flat: Picture, *, over: int = 0) -> Labels:
    """A number per colour of more than `over` pixels; the others, mixed at smooth edges, join their neighbours."""
    codes = np.round(flat * 255).astype(np.int64) @ np.asarray([65536, 256, 1])
    found, counts = np.unique(codes, return_counts=True)
    plain = np.isin(codes, found[counts > over])
    nearest = ndimage.distance_transform_edt(~plain, return_distances=False, return_indices=True)
    _, regions = np.unique(codes[tuple(nearest)], return_inverse=True)
    return np.asarray(regions.reshape(codes.shape), np.int32)


def medians(picture: Picture, labels: Labels) -> Field:
    """(labels, 3) colour of each label."""
    every = np.arange(labels.max() + 1)
    return np.stack([ndimage.median(picture[..., channel], labels, every) for channel in range(3)], -1)


def edge_distance(labels: Labels) -> Field:
    """Distance to the nearest pixel whose right or lower neighbour has another label."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    edge[:-1] |= labels[1:] != labels[:-1]
    return np.asarray(ndimage.distance_transform_edt(~edge), np.float32)


def lit(picture: Picture, height: Field, *, strength: float, gloss: float = 0.0) -> Picture:
    """Picture with the light and shade of its relief; `gloss` adds highlights."""
    slope_y, slope_x = np.gradient(height)
    slope = (slope_x * np.cos(LIGHT) + slope_y * np.sin(LIGHT)) * strength
    shade = np.clip(1 - slope, 0.45, 1.6)[..., None]
    shine = gloss * np.clip(-slope - 0.25, 0, 1)[..., None]
    return np.asarray(np.clip(picture * shade + shine, 0, 1), np.float32)


def paper(size: tuple[int, int], rng: np.random.Generator) -> Field:
    """Height of paper: fine tooth over soft unevenness, mean 0, deviation 1."""
    tooth = noise(size, 5, rng, octaves=3) + 0.5 * noise(size, 40, rng)
    return np.asarray(tooth / tooth.std(), np.float32)
