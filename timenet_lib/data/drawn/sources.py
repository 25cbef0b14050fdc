"""Colourful textures of any kind: what anomalies are made of without a collection of textures."""

import numpy as np

from .canvas import Array, Canvas, Rng, cells, hsv, noise, smoothstep

Shares = tuple[Array, Array]  # two fields in [0, 1]: the first mixes colours of a palette, the second is relief
FAMILY_NAMES = ("stripes", "checks", "blobs", "mosaics", "marble", "dots", "rings", "bricks", "speckle", "plaid")


def shares(name: str, u: Array, v: Array, *, seed: int, rng: Rng) -> Shares:
    """Compute the two fields of one of FAMILY_NAMES. Raises ValueError for another name."""
    match name:
        case "stripes":
            wave = 0.5 + 0.5 * np.sin(2 * np.pi * (u + rng.uniform(0, 0.6) * noise(u * 0.3, v * 0.3, seed)))
            return smoothstep((wave - 0.5) * rng.uniform(1, 6) + 0.5), wave
        case "checks":
            share = (np.floor(u) % 2 + np.floor(v) % 2) / 2
            return share, np.abs(np.sin(np.pi * u) * np.sin(np.pi * v))
        case "blobs":
            field = 0.5 + 0.5 * noise(u * 0.6, v * 0.6, seed, octaves=3)
            return np.clip(np.round(field * 4) / 4, 0, 1), field
        case "mosaics":  # cells of random colours with dark seams
            first, second, number = cells(u * 0.7 + 40, v * 0.7 + 40, seed)
            return ((number * 7919) % 101 / 100), smoothstep((second - first) / 0.2)
        case "marble":
            bend = rng.uniform(1.5, 3) * noise(u * 0.35, v * 0.35, seed, octaves=4)
            wave = 0.5 + 0.5 * np.sin(u * 1.5 + 2 * bend)
            return wave, np.abs(wave - 0.5) * 2
        case "dots":
            fu, fv = (u + 0.5 * (np.floor(v) % 2)) % 1 - 0.5, v % 1 - 0.5
            inside = smoothstep((rng.uniform(0.25, 0.42) - np.hypot(fu, fv)) / 0.08 + 0.5)
            return inside, inside
        case "rings":
            first, _, _ = cells(u * 0.3 + 40, v * 0.3 + 40, seed)
            wave = 0.5 + 0.5 * np.sin(first * rng.uniform(14, 30))
            return wave, wave
        case "bricks":
            row = np.floor(v)
            shifted = u * 0.5 + 0.5 * (row % 2)
            edge = np.minimum((0.5 - np.abs(v % 1 - 0.5)), (0.5 - np.abs(shifted % 1 - 0.5)) * 2)
            tone = np.clip(0.5 + 0.5 * noise(np.floor(shifted) * 3.7, row * 5.3, seed), 0, 1)
            return tone, smoothstep((edge - 0.06) / 0.1)
        case "speckle":  # granite: grains of several sizes
            field = 0.5 + 0.45 * noise(u * 3, v * 3, seed, octaves=2)
            return np.clip(field + 0.4 * (noise(u * 1.4, v * 1.4, seed + 1) > 0.35), 0, 1), field
        case "plaid":  # a tartan of thin and broad lines
            waves = [(np.sin(w * np.pi / 3), np.sin(w * np.pi * 2 / 3 + 1)) for w in (u, v)]
            x, y = (np.abs(broad) ** 6 + 0.5 * (np.abs(thin) > 0.9) for broad, thin in waves)
            return np.clip((x + y) / 2, 0, 1), 0.5 + 0.5 * np.sin((u + v) * 20)
    raise ValueError(f"no family {name!r}")


def paint_source(c: Canvas, rng: Rng, family_name: str | None = None) -> None:
    """Fill the canvas with one family, random unless named, at a random scale, in a random palette of four colours."""
    scale, seed = float(np.exp(rng.uniform(np.log(1.5), np.log(9)))), int(rng.integers(2**31))
    drawn = rng.integers(len(FAMILY_NAMES))  # also where the family is named: the rest stays the same
    share, relief = shares(family_name or FAMILY_NAMES[drawn], c.u * scale, c.v * scale, seed=seed, rng=rng)
    palette = np.array([hsv(rng.random(), rng.uniform(0.1, 0.95), rng.uniform(0.1, 1)) for _ in range(4)])
    place = np.clip(share, 0, 1) * 2.999
    index = place.astype(int)
    mix = (place - index)[..., None]
    colour = palette[index] * (1 - mix) + palette[index + 1] * mix
    c.rgb[:] = c.lit(rng.uniform(0, 0.3) / scale * relief, colour, gloss=rng.uniform(0, 0.2))
