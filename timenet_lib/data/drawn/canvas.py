"""Draw in continuous coordinates: distances, lattice noise, light and shadow, at any resolution.

All is computed in float64, so that the last bit of a function, which differs between processors, moves no grey level.
"""

import colorsys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from timenet_lib.keyed import key_seed

Array = npt.NDArray[np.floating]
Point = tuple[float, float]
Rng = np.random.Generator
Spec = dict[str, Any]  # how a sample of a part looks, always with a "pose"
VERSION = "1"  # of what is drawn; frozen, see difficulty.json
SEEDS = "0"  # of the lots: version 1 has other kinds of defect than version 0, and the same normal pictures
FEWEST_SAMPLES = 128
LATTICE = 128


def generator(*key: object) -> Rng:
    """Make a generator whose stream depends on the key alone."""
    return np.random.default_rng(key_seed(SEEDS, *key))


def hsv(hue: float, saturation: float, value: float) -> Array:
    """Convert a colour to RGB in [0, 1]; the hue wraps around."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def colours(hue: Point, saturation: Point, value: Point) -> Callable[[Rng], Array]:
    """Make what draws a colour from these ranges."""
    return lambda rng: hsv(rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value))


def smoothstep(value: Array) -> Array:
    """Ease from 0 to 1 as the value does; flat outside."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def noise(x: Array, y: Array, seed: int, *, octaves: int = 1) -> Array:
    """Interpolate random values on the integer lattice; each further octave is twice as fine and half as strong."""
    table = np.random.default_rng(seed).random((LATTICE, LATTICE), dtype=np.float32) * 2 - 1
    total = np.zeros(np.broadcast(x, y).shape)
    for octave in range(octaves):
        gx, gy = x * 2**octave + 31.7 * octave, y * 2**octave + 17.3 * octave
        ix, iy = np.floor(gx).astype(np.int32), np.floor(gy).astype(np.int32)
        fx, fy = smoothstep(gx - ix), smoothstep(gy - iy)
        x0, x1, y0, y1 = ix % LATTICE, (ix + 1) % LATTICE, iy % LATTICE, (iy + 1) % LATTICE
        top = table[y0, x0] * (1 - fx) + table[y0, x1] * fx
        total += (top * (1 - fy) + (table[y1, x0] * (1 - fx) + table[y1, x1] * fx) * fy) * 0.5**octave
    return total


def cells(x: Array, y: Array, seed: int) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """Give the distances to the nearest two of the jittered lattice points, and the nearest's number."""
    offsets = np.random.default_rng(seed).random((2, LATTICE, LATTICE), dtype=np.float32) * 0.8
    first, second = np.full(x.shape, 9.0), np.full(x.shape, 9.0)
    number = np.zeros(x.shape, np.int64)
    ix, iy = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            cx, cy = ix + dx, iy + dy
            wx, wy = cx % LATTICE, cy % LATTICE
            distance = np.hypot(cx + offsets[0, wy, wx] - x, cy + offsets[1, wy, wx] - y)
            second = np.minimum(second, np.maximum(first, distance))
            number = np.where(distance < first, wy * LATTICE + wx, number)
            first = np.minimum(first, distance)
    return first, second, number


def box(u: Array, v: Array, half: Point, *, corner: float = 0.0) -> Array:
    """Measure the signed distance to a centred box with rounded corners."""
    qu, qv = np.abs(u) - half[0] + corner, np.abs(v) - half[1] + corner
    return np.hypot(np.maximum(qu, 0), np.maximum(qv, 0)) + np.minimum(np.maximum(qu, qv), 0) - corner


class Pose(NamedTuple):
    """Where a part lies: shift in half frames, angle in radians, scale."""

    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0
    scale: float = 1.0

    @classmethod
    def sample(cls, rng: Rng, *, shift: float, turn: float, scale: Point) -> "Pose":
        """Draw a pose within the given bounds."""
        x, y, angle = rng.uniform(-shift, shift), rng.uniform(-shift, shift), rng.uniform(-turn, turn)
        return cls(x, y, angle, rng.uniform(*scale))


class Canvas:
    """Hold a picture in the making: samples on a square from -1 to 1, one light, the part's own coordinates (u, v)."""

    def __init__(self, size: int, rng: Rng, pose: Pose) -> None:
        """Sample the light and lay out the grid; `body` is the part's coverage, which defects stay within."""
        self.size, self.fine = size, max(2, -(-FEWEST_SAMPLES // size))
        self.count = self.size * self.fine
        axis = (np.arange(self.count) + 0.5) * (2 / self.count) - 1
        self.y, self.x = np.meshgrid(axis, axis, indexing="ij")
        cos, sin = float(np.cos(pose.angle)) / pose.scale, float(np.sin(pose.angle)) / pose.scale
        self.u = (self.x - pose.x) * cos + (self.y - pose.y) * sin
        self.v = (self.y - pose.y) * cos - (self.x - pose.x) * sin
        self.pixel = 2 / self.count / pose.scale
        self.rgb: Array = np.zeros((self.count, self.count, 3))
        self.body: Array = np.ones((self.count, self.count))
        self.bites: list[tuple[Point, float]] = []
        azimuth, self.elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1.1)
        self.toward = (float(np.cos(azimuth)), float(np.sin(azimuth)))
        self.slope, self.slope_angle = rng.uniform(0.05, 0.38), rng.uniform(0, 2 * np.pi)
        self.exposure, self.warmth = rng.uniform(0.8, 1.18), rng.uniform(-0.07, 0.07)
        self.ambient, self.seed = rng.uniform(0.32, 0.5), int(rng.integers(2**31))

    def circle(self, centre: Point, radius: float) -> Array:
        """Measure the signed distance to a circle, negative inside."""
        return np.hypot(self.u - centre[0], self.v - centre[1]) - radius

    def polyline(self, points: Sequence[Point]) -> Array:
        """Measure the distance to a chain of segments."""
        u, v, nearest = self.u, self.v, np.full(self.u.shape, 9.0)
        for (au, av), (bu, bv) in pairwise(points):
            du, dv = bu - au, bv - av
            along = np.clip(((u - au) * du + (v - av) * dv) / (du * du + dv * dv + 1e-9), 0, 1)
            nearest = np.minimum(nearest, np.hypot(u - au - along * du, v - av - along * dv))
        return nearest

    def coverage(self, distance: Array, soft: float = 0.0) -> Array:
        """Turn a signed distance into coverage in [0, 1], over one sample or the given softness."""
        return np.clip(0.5 - distance / max(self.pixel, soft), 0, 1)

    def paint(self, alpha: Array, colour: Array) -> None:
        """Lay a colour, or a picture, over what is there."""
        self.rgb += (colour - self.rgb) * alpha[..., None]

    def lit(self, height: Array, colour: Array, *, gloss: float = 0.0, shine: float = 24.0) -> Array:
        """Light a surface by its height: ambient, diffuse and a specular highlight."""
        dy, dx = np.gradient(height, self.pixel)
        norm = 1 / np.sqrt(dx * dx + dy * dy + 1)
        flat, up = float(np.cos(self.elevation)), float(np.sin(self.elevation))
        facing = (-(dx * self.toward[0] + dy * self.toward[1]) * flat + up) * norm
        halfway = (-(dx * self.toward[0] + dy * self.toward[1]) * flat + up + 1) * norm / np.sqrt(2 + 2 * up)
        diffuse = self.ambient + (1.08 - self.ambient) * np.maximum(facing, 0)
        return colour * diffuse[..., None] + (gloss * np.clip(halfway, 0, 1) ** shine)[..., None]

    def solid(
        self, distance: Array, colour: Array, *, bevel: float, rise: float, gloss: float, relief: Array | float = 0.0
    ) -> None:
        """Paint a shape whose edge is rounded off over `bevel` and stands `rise` high."""
        height = rise * (1 - (1 - np.clip(-distance / bevel, 0, 1)) ** 2) + relief
        self.paint(self.coverage(distance), self.lit(height, colour, gloss=gloss))

    def hole(self, distance: Array, colour: Array) -> None:
        """Sink a hole: dark on the side of the light, lit on the far rim."""
        dy, dx = np.gradient(distance, self.pixel)
        side = -(dx * self.toward[0] + dy * self.toward[1])
        rim = smoothstep(1 + distance / 0.1)
        self.paint(self.coverage(distance), colour * (1 + 0.55 * rim * side)[..., None])

    def bitten(self, distance: Array) -> Array:
        """Take the bites of a chipped edge out of a shape."""
        for centre, radius in self.bites:
            ragged = 0.25 * radius * noise(self.u / radius * 1.6, self.v / radius * 1.6, self.seed + 5)
            distance = np.maximum(distance, -self.circle(centre, radius) + ragged)
        return distance

    def shadow(self, distance: Array, lift: float, strength: float) -> None:
        """Cast a soft shadow away from the light, before the part itself is painted."""
        samples = lift / self.pixel
        shape = self.coverage(distance)
        moved = ndimage.shift(shape, (-self.toward[1] * samples, -self.toward[0] * samples), order=1)
        wide, near = ndimage.gaussian_filter(moved, 0.55 * samples), ndimage.gaussian_filter(shape, 0.8 * samples)
        self.rgb *= (1 - strength * (wide * 0.7 + near * 0.3))[..., None]

    def finish(self) -> npt.NDArray[np.uint8]:
        """Apply light falloff, tint, grain and a soft shoulder, and average down to the picture."""
        fall = np.cos(self.slope_angle) * self.x + np.sin(self.slope_angle) * self.y
        level = self.exposure * (1 + self.slope * fall - 0.06 * (self.x**2 + self.y**2))
        tint = np.array([1 + self.warmth, 1, 1 - self.warmth])
        octaves = [f for f in (20, 40, 80, 160) if f <= 0.75 * self.size]
        grain = sum((noise(self.x * f, self.y * f, self.seed + f) for f in octaves), np.zeros_like(self.x))
        rgb = self.rgb * level[..., None] * tint + (0.022 * grain)[..., None]
        rgb = np.where(rgb > 0.75, 0.75 + 0.25 * np.tanh((rgb - 0.75) / 0.25), np.maximum(rgb, 0))
        rgb = rgb.reshape(self.size, self.fine, self.size, self.fine, 3).mean((1, 3))
        return np.round(rgb * 255).astype(np.uint8)
