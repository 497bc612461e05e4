"""A pointillist afternoon: trees, a river and parasols built of dots of unmixed colour."""

import numpy as np

from .canvas import (
    Canvas,
    Field,
    Picture,
    Scene,
    grid,
    lit,
    mix,
    noise,
    palette,
    placed,
    rgb,
    scattered,
    smooth_curve,
    smoothstep,
)

SIZE = (768, 960)
PURE = np.stack(palette("e0392b f08a24 f7d038 a6c93a 3d9a4a 2a9a9a 3f86c8 2c4aa0 6a4aa8 b84a90 f6f0d8 23306a"))


def draw() -> Picture:
    """The finished picture."""
    rng = np.random.default_rng(1884)
    colours = composition(rng)
    canvas = Canvas(np.broadcast_to(rgb("#e9dcbd"), (*SIZE, 3)), rng)
    for size, spacing, purity in ((15, 8.5, 0.25), (11, 7.0, 0.45), (8, 8.0, 0.65)):
        dots(canvas, colours, size=size, spacing=spacing, purity=purity)
    return lit(canvas.picture, canvas.height, strength=0.35, gloss=0.05)


def dots(canvas: Canvas, colours: Picture, *, size: float, spacing: float, purity: float) -> None:
    """One layer of round dabs."""
    for x, y in scattered(SIZE, spacing, canvas.rng):
        colour = dab_colour(colours[int(y), int(x)], purity, canvas.rng)
        diameter = size * canvas.rng.uniform(0.75, 1.2)
        dot(canvas, x, y, colour, diameter)


def dot(canvas: Canvas, x: float, y: float, colour: Field, diameter: float) -> None:
    """One slightly uneven disc of paint."""
    turn, flat = canvas.rng.uniform(0, np.pi), canvas.rng.uniform(0.8, 1.0)
    window, along, across = canvas.place(x, y, angle=turn, length=diameter, width=diameter)
    distance = np.hypot(along, across / flat)
    cover = np.clip(diameter / 2 - distance + 0.5, 0, 1)
    dome = np.sqrt(np.clip(1 - (distance / diameter * 1.9) ** 2, 0, 1)) * 1.6
    canvas.lay(window, cover, colour, dome)


def dab_colour(wanted: Field, purity: float, rng: np.random.Generator) -> Field:
    """A pure colour near the wanted one, so that neighbours mix in the eye."""
    aim = wanted + rng.normal(0, 0.22, 3)
    pure = PURE[((PURE - aim) ** 2).sum(-1).argmin()]
    return np.asarray(np.clip(wanted + (pure - wanted) * purity + rng.normal(0, 0.03), 0, 1), np.float32)


def composition(rng: np.random.Generator) -> Picture:
    """Colours of the scene."""
    y, _ = grid(SIZE)
    sky = mix(rgb("#7ab0dc"), rgb("#f4cf9c"), smoothstep(0, 360, y + 30 * noise(SIZE, 150, rng, octaves=2)))
    scene = Scene(SIZE, (0, 0, 0))
    bank = [(-10, 330), (200, 310), (460, 325), (700, 300), (970, 320)]
    scene.polygon([*smooth_curve(bank), (970, 800), (-10, 800)], rgb("#6fa05a"))
    river = [(970, 350), (700, 348), (430, 372), (240, 430), (190, 520), (330, 560), (620, 500), (970, 470)]
    scene.polygon(smooth_curve(river), rgb("#7fb4d4"))
    scene.polygon(
        [*smooth_curve([(-10, 560), (300, 590), (620, 540), (970, 500)]), (970, 800), (-10, 800)], rgb("#a9c455")
    )
    land = scene.picture()
    picture = np.where(land.sum(-1, keepdims=True) > 0.02, land, sky)
    picture = trees(picture, rng)
    picture = people(picture)
    light = 0.95 + 0.12 * noise(SIZE, 70, rng, octaves=3)
    return np.asarray(np.clip(picture * light[..., None], 0, 1), np.float32)


def trees(picture: Picture, rng: np.random.Generator) -> Picture:
    """Round crowns, lit from the left, with violet shadows on the grass."""
    y, x = grid(SIZE)
    for middle_x, middle_y, radius in (
        (110, 210, 150),
        (330, 250, 70),
        (800, 190, 140),
        (610, 260, 56),
        (920, 260, 90),
    ):
        foot = middle_y + radius * 1.9
        shadow = np.hypot((x - middle_x - radius * 0.6) / 1.9, (y - foot) * 2.6) / radius
        picture = mix(picture, rgb("#4a4a8a"), 0.75 * (1 - smoothstep(0.6, 0.9, shadow)))
        trunk = (1 - smoothstep(0, 2, np.abs(x - middle_x - 6 * np.sin(y / 40)) - radius * 0.09)) * (y < foot)
        picture = mix(picture, rgb("#5a3550"), trunk * (y > middle_y))
        rough = np.hypot(x - middle_x, (y - middle_y) * 1.1) / radius + 0.10 * noise(SIZE, 36, rng, octaves=2)
        glow = smoothstep(-0.8, 0.8, (x - middle_x + 1.2 * (y - middle_y)) / radius + 0.3 * noise(SIZE, 30, rng))
        crown = mix(rgb("#d8cf4a"), mix(rgb("#3f9a52"), rgb("#23407a"), smoothstep(0.5, 1, glow)), glow)
        picture = mix(picture, crown, 1 - smoothstep(0.93, 1.0, rough))
    return picture


def people(picture: Picture) -> Picture:
    """Three walkers with parasols, and sails on the river."""
    scene = Scene(SIZE, (0, 0, 0))
    for x, y, size, dress, shade in (
        (300, 640, 1.25, "c8343f", "f6c744"),
        (560, 590, 0.95, "2c4aa0", "f0f0e0"),
        (730, 650, 1.3, "7a3f98", "e8743a"),
    ):
        figure = [(-12, -92), (20, -92), (16, -44), (52, 62), (-46, 62), (-6, -44)]
        scene.polygon(placed(figure, x, y, size), rgb(f"#{dress}"))
        scene.line(placed([(16, -80), (36, -52)], x, y, size), rgb(f"#{dress}"), 10)
        scene.disc(x + 4 * size, y - 108 * size, 17 * size, rgb("#f0b890"))
        scene.line(placed([(30, -40), (44, -150)], x, y, size), rgb("#3a2440"), 6)
        parasol = [(-30, -130), (10, -176), (60, -184), (104, -150), (118, -110)]
        scene.polygon(placed(parasol, x, y, size), rgb(f"#{shade}"))
    for x, y in ((480, 400), (660, 380), (860, 410)):
        scene.polygon([(x, y), (x + 6, y - 90), (x + 50, y - 4)], rgb("#fdf3d8"))
        scene.polygon([(x - 30, y), (x + 62, y), (x + 44, y + 16), (x - 18, y + 16)], rgb("#8f3a30"))
    drawn = scene.picture()
    return np.where(drawn.sum(-1, keepdims=True) > 0.02, drawn, picture).astype(np.float32)
