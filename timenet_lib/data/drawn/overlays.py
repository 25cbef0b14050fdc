"""Defects painted over a finished part; structural.py has the others."""

import numpy as np

from .canvas import Array, Canvas, Point, Rng, hsv, noise, smoothstep
from .part import Part


def spot(part: Part, rng: Rng) -> Point:
    """Draw a place within the part's reach, in its own coordinates."""
    return rng.uniform(-part.reach[0], part.reach[0]), rng.uniform(-part.reach[1], part.reach[1])


def walk(start: Point, heading: float, rng: Rng, *, step: float, count: int, turn: float) -> list[Point]:
    """Walk with a heading that changes at random, by up to `turn` radians per step."""
    points = [start]
    for bend in rng.uniform(-turn, turn, count):
        heading += bend
        u, v = points[-1]
        points.append((u + step * float(np.cos(heading)), v + step * float(np.sin(heading))))
    return points


def blob(c: Canvas, centre: Point, rng: Rng, *, radius: float, ragged: float) -> Array:
    """Measure the distance to a round shape with a wavy outline."""
    du, dv = c.u - centre[0], c.v - centre[1]
    angle, outline = np.arctan2(dv, du), np.ones_like(c.u)
    for k in range(1, 6):
        outline += ragged / k**0.7 * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(du, dv) - radius * outline


def dye(c: Canvas, alpha: Array, colour: Array) -> None:
    """Tint the part and keep its light and shade."""
    tone = c.rgb.mean(-1, keepdims=True)
    c.paint(alpha * c.body, colour * (0.4 + 0.9 * tone))


def crack(c: Canvas, part: Part, rng: Rng) -> None:
    """Split the surface along a jagged, branching line."""
    centre, heading = spot(part, rng), rng.uniform(0, 2 * np.pi)
    size = 0.6 + part.reach[1]
    main = walk((0, 0), heading, rng, step=0.17 * size, count=7, turn=0.95)
    shift_u, shift_v = (centre[k] * 0.6 - main[3][k] for k in range(2))
    main = [(u + shift_u, v + shift_v) for u, v in main]
    branch = walk(main[3], heading + rng.choice([-1, 1]) * 0.9, rng, step=0.15 * size, count=3, turn=0.5)
    width = 0.034 + 0.018 * noise(c.u * 6, c.v * 6, c.seed + 3)
    distance = np.minimum(c.polyline(main), c.polyline(branch) + 0.012) - width
    c.paint(0.35 * c.body * smoothstep(1 - distance / 0.05), np.ones(3) * 0.95)
    c.paint(c.body * c.coverage(distance), c.rgb * 0.16)


def worm(c: Canvas, part: Part, rng: Rng) -> None:
    """Draw a smooth, thick scratch in one of the class's colours, with a raised edge."""
    start = spot(part, rng)
    bend = rng.choice([-1, 1]) * 0.25
    heading = float(np.arctan2(-start[1], -start[0])) + rng.uniform(-0.8, 0.8)
    points = walk(start, heading, rng, step=0.11, count=11, turn=0.3)
    points = [(u + bend * 0.01 * k * k * 0.11, v) for k, (u, v) in enumerate(points)]
    distance = c.polyline(points) - 0.055
    ridge = c.lit(0.05 * smoothstep(-distance / 0.05), part.colour(rng), gloss=0.25)
    c.paint(c.coverage(distance) * c.body, ridge)


def stain(c: Canvas, part: Part, rng: Rng) -> None:
    """Spill a blotch of one of the class's colours."""
    centre, radius = spot(part, rng), rng.uniform(0.22, 0.32)
    distance = blob(c, centre, rng, radius=radius, ragged=0.16)
    alpha = c.coverage(distance, 0.04) * (0.8 + 0.15 * smoothstep(1 + distance / 0.08))
    dye(c, alpha, part.colour(rng))


def burn(c: Canvas, part: Part, rng: Rng) -> None:
    """Char a place: dark in the middle, brown at the edge."""
    distance = blob(c, spot(part, rng), rng, radius=rng.uniform(0.24, 0.34), ragged=0.14)
    dye(c, 0.85 * c.coverage(distance, 0.16), hsv(0.06, 0.75, 0.36))
    dye(c, 0.85 * c.coverage(distance + 0.12, 0.16), hsv(0.06, 0.4, 0.1))


def hole(c: Canvas, part: Part, rng: Rng) -> None:
    """Bore through the surface; the far rim catches the light."""
    distance = blob(c, spot(part, rng), rng, radius=rng.uniform(0.16, 0.26), ragged=0.1)
    c.paint(0.4 * smoothstep(1 - distance / 0.07), c.rgb * 0.55)
    c.hole(distance, c.rgb.mean((0, 1)) * 0.22)


def tear(c: Canvas, part: Part, rng: Rng) -> None:
    """Open a slit with frayed edges, dark below."""
    (cu, cv), angle = spot(part, rng), rng.uniform(0, np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    along, across = (c.u - cu) * cos + (c.v - cv) * sin, (c.v - cv) * cos - (c.u - cu) * sin
    half, wide = rng.uniform(0.45, 0.65), rng.uniform(0.13, 0.2)
    opening = wide * np.clip(1 - (along / half) ** 2, 0, 1)
    frayed = 0.05 * noise(along * 14, np.sign(across) * 3 + 8, c.seed + 4)
    distance = np.where(np.abs(along) < half, np.abs(across) - np.maximum(opening + frayed, 0), 9)
    c.paint(0.5 * smoothstep(1 - distance / 0.05), c.rgb * 0.7)
    c.hole(distance, c.rgb.mean((0, 1)) * 0.2)


def thread(c: Canvas, part: Part, rng: Rng) -> None:
    """Drop a loose fibre in one of the class's colours, with its shadow."""
    start = spot(part, rng)
    points = walk(start, rng.uniform(0, 2 * np.pi), rng, step=0.12, count=14, turn=0.55)
    middle = np.mean(points, 0) * 0.8
    points = [(float(u - middle[0]), float(v - middle[1])) for u, v in points]
    distance = c.polyline(points) - 0.04
    c.shadow(distance, 0.05, 0.6)
    c.paint(c.coverage(distance), c.lit(0.06 * smoothstep(-distance / 0.04), part.colour(rng), gloss=0.2))


def fold(c: Canvas, part: Part, rng: Rng) -> None:
    """Press a crease with a lit and a dark flank across the surface."""
    start = spot(part, rng)
    heading = float(np.arctan2(-start[1], -start[0])) + rng.uniform(-0.5, 0.5)
    points = walk(start, heading, rng, step=0.16, count=8, turn=0.3)
    distance = c.polyline(points)
    flank = np.exp(-((distance / 0.085) ** 2))
    dy, dx = np.gradient(flank, c.pixel)
    light = -(dx * c.toward[0] + dy * c.toward[1])
    c.rgb *= np.clip(1 + 0.085 * light - 0.6 * np.exp(-((distance / 0.04) ** 2)), 0.1, 1.8)[..., None]


def transplant(c: Canvas, part: Part, rng: Rng) -> None:
    """Patch in a piece of another sample of the same class, under the same light."""
    spec = part.sample(rng)
    donor = Canvas(c.size, rng, spec["pose"])
    donor.toward, donor.elevation, donor.ambient = c.toward, c.elevation, c.ambient
    part.paint(donor, spec)
    centre, turn = spot(part, rng), rng.uniform(0, np.pi)
    half = rng.uniform(0.24, 0.34), rng.uniform(0.24, 0.34)
    cos, sin = np.cos(turn), np.sin(turn)
    du, dv = c.u - centre[0], c.v - centre[1]
    uneven = 0.05 * noise(c.u * 3, c.v * 3, c.seed + 6)
    distance = np.maximum(np.abs(du * cos + dv * sin) - half[0], np.abs(dv * cos - du * sin) - half[1]) + uneven
    c.paint(c.coverage(distance), donor.rgb)
