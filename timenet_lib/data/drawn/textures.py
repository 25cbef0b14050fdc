"""Paint four surfaces that fill the frame: mosaic, leather, fabric, wood."""

import numpy as np

from .canvas import Array, Canvas, Pose, Rng, Spec, box, cells, colours, hsv, noise, smoothstep

glaze = colours((0, 1), (0.35, 0.85), (0.35, 0.95))
timber = colours((0.04, 0.12), (0.35, 0.7), (0.4, 0.92))  # from maple to walnut


def mosaic(rng: Rng) -> Spec:
    """Square glazed tiles in a handful of hues, set in mortar."""
    hue, spread = rng.random(), rng.uniform(0.1, 0.5)
    hues = (hue + rng.uniform(-spread, spread) for _ in range(6))
    palette = [hsv(each, rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.95)) for each in hues]
    mortar = hsv(0.1, rng.uniform(0, 0.15), rng.uniform(0.25, 0.75))
    pose = Pose.sample(rng, shift=0.15, turn=0.3, scale=(0.9, 1.15))
    spec = {"pose": pose, "palette": palette, "mortar": mortar, "seed": int(rng.integers(2**31))}
    return {**spec, "missing": (), "turned": ()}


PITCH = 0.46


def paint_mosaic(c: Canvas, s: Spec) -> None:
    """Paint every tile with its own colour and tilt; missing ones show rough mortar, turned ones stand on a corner."""
    column, row = np.floor(c.u / PITCH).astype(int), np.floor(c.v / PITCH).astype(int)
    u, v = c.u - (column + 0.5) * PITCH, c.v - (row + 0.5) * PITCH
    draw = np.random.default_rng(s["seed"]).random((3, 32, 32), dtype=np.float32)[:, row % 32, column % 32]
    shape = box(u, v, (0.2, 0.2), corner=0.04)
    for i, j in s["turned"]:
        turned = box((u + v) * 0.7071, (u - v) * 0.7071, (0.16, 0.16), corner=0.03)
        shape = np.where((column == i) & (row == j), turned, shape)
    for i, j in s["missing"]:
        shape = np.where((column == i) & (row == j), 9, shape)
    rough = noise(c.u * 9, c.v * 9, s["seed"] + 1, octaves=2)
    c.rgb[:] = c.lit(0.02 * rough, s["mortar"] * (0.85 + 0.1 * rough)[..., None])
    colour = np.array(s["palette"])[(draw[0] * 6).astype(int)] * (0.85 + 0.3 * draw[1])[..., None]
    c.solid(shape, colour, bevel=0.06, rise=0.05, gloss=0.3, relief=0.03 * noise(c.u * 5, c.v * 5, s["seed"] + 2))


def hide(rng: Rng) -> Array:
    """Draw a leather's colour: tan to red, sometimes dyed."""
    hue = rng.uniform(-0.02, 0.11) if rng.random() < 0.6 else rng.random()
    return hsv(hue, rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.85))


def leather(rng: Rng) -> Spec:
    """Embossed leather with cells of some size, dyed unevenly."""
    pose = Pose.sample(rng, shift=0.1, turn=np.pi, scale=(0.8, 1.3))
    return {"pose": pose, "colour": hide(rng), "seed": int(rng.integers(2**31)), "dye": rng.uniform(0.1, 0.35)}


def paint_leather(c: Canvas, s: Spec) -> None:
    """Paint domed cells between creases."""
    bend = 0.25 * noise(c.u * 2 + 20, c.v * 2 + 20, s["seed"] + 1)
    first, second, _ = cells(c.u * 5 + bend + 50, c.v * 5 - bend + 50, s["seed"])
    crease = smoothstep((second - first) / 0.45)
    dye = 1 + s["dye"] * noise(c.u * 1.3 + 70, c.v * 1.3 + 70, s["seed"] + 2, octaves=2)
    colour = s["colour"] * (dye * (0.62 + 0.38 * crease))[..., None]
    c.rgb[:] = c.lit(0.045 * crease, colour, gloss=0.16, shine=16)


def fabric(rng: Rng) -> Spec:
    """Plain weave with a check of two colours."""
    hue, stripe = rng.random(), int(rng.integers(3, 6))
    ground = hsv(hue, rng.uniform(0.15, 0.7), rng.uniform(0.45, 0.95))
    other = hsv(hue + rng.uniform(-0.3, 0.3), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.9))
    pose = Pose.sample(rng, shift=0.1, turn=0.3, scale=(0.9, 1.2))
    return {"pose": pose, "yarns": [ground, other], "stripe": stripe, "missing": (), "seed": int(rng.integers(2**31))}


YARN = 0.14


def paint_fabric(c: Canvas, s: Spec) -> None:
    """Paint round yarns that pass over and under each other; a missing warp yarn leaves the weft bare over the dark."""
    fibre = 0.02 * noise(c.u * 6, c.v * 6, s["seed"])
    gu, gv = (c.u + fibre) / YARN, (c.v - fibre) / YARN
    warp, weft = np.floor(gu).astype(int), np.floor(gv).astype(int)
    fu, fv = gu - warp - 0.5, gv - weft - 0.5
    bare = np.isin(warp, s["missing"])
    over, yarns = ((warp + weft) % 2 == 0) & ~bare, np.stack(s["yarns"])
    colour = np.where(over[..., None], yarns[(warp // s["stripe"]) % 2], yarns[(weft // s["stripe"]) % 2])
    across, along = np.where(over, fu, fv), np.where(over, fv, fu)
    round_ = np.sqrt(np.clip(1 - (across / 0.52) ** 2, 0.02, 1))
    bow = np.where(bare, -0.25 - 0.6 * smoothstep(1 - np.abs(across) / 0.3), np.cos(np.pi * along))
    twist = 0.06 * np.sin(2 * np.pi * (3 * along + 2 * across))
    shade = (0.42 + 0.62 * round_ * (0.45 + 0.55 * bow)) * (1 + twist)
    c.rgb[:] = c.lit(0.03 * round_ * bow, colour * shade[..., None])


def wood(rng: Rng) -> Spec:
    """A planed board with wavy year rings along it."""
    pose = Pose.sample(rng, shift=0.1, turn=0.35, scale=(0.85, 1.3))
    board = {"colour": timber(rng), "rings": rng.uniform(3, 6), "wave": rng.uniform(0.4, 1.2)}
    return {"pose": pose, **board, "seed": int(rng.integers(2**31))}


def paint_wood(c: Canvas, s: Spec) -> None:
    """Paint rings, fibres and pores."""
    wave = s["wave"] * noise(c.u * 0.7 + 30, c.v * 1.2 + 30, s["seed"], octaves=2)
    ring = (c.v * s["rings"] + wave * 1.6) % 1
    late = smoothstep(1 - np.abs(ring - 0.6) / np.where(ring < 0.6, 0.5, 0.3))
    fibre = noise(c.u * 2.2 + 60, c.v * 22 + 60, s["seed"] + 1, octaves=2)
    tone = 1.05 - 0.27 * late + 0.13 * fibre + 0.1 * noise(c.u + 80, c.v + 80, s["seed"] + 2)
    colour = s["colour"] ** (1 + 0.35 * late[..., None])
    c.rgb[:] = c.lit(0.004 * fibre, colour * tone[..., None], gloss=0.06, shine=10)
