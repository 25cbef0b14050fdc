"""Paint six small parts on a table: capsule, cable end, gear, resistor, button, die."""

import numpy as np

from .canvas import Array, Canvas, Point, Pose, Rng, Spec, box, colours, hsv, noise, smoothstep

TAU = 2 * np.pi
vivid = colours((0, 1), (0.45, 0.85), (0.4, 0.9))  # of plastics


def table(rng: Rng, part: Array) -> Spec:
    """Draw what every object has: a table top that stands off from the part, and the seed of its unevenness."""
    while True:
        tone = hsv(rng.random(), rng.uniform(0.02, 0.3), rng.uniform(0.32, 0.85))
        if np.abs(tone - part).mean() > 0.18:
            break
    return {"table": tone, "seed": int(rng.integers(2**31))}


def lay(c: Canvas, s: Spec, shape: Array, *, lift: float, strength: float) -> None:
    """Fill the frame with the table top, which is not quite even, and cast the part's shadow on it."""
    uneven = 1 + 0.07 * noise(c.x * 1.5 + 9, c.y * 1.5 + 9, s["seed"], octaves=3)
    c.rgb[:] = s["table"] * uneven[..., None]
    c.shadow(shape, lift, strength)


def around(radius: float, count: int, first: float = 0.0) -> list[Point]:
    """Place points evenly on a circle."""
    angles = first + TAU * np.arange(count) / count
    return [(float(radius * np.cos(a)), float(radius * np.sin(a))) for a in angles]


def capsule(rng: Rng) -> Spec:
    """A two-piece capsule: one half of any hue, the other ivory."""
    ivory = hsv(rng.uniform(0.08, 0.16), rng.uniform(0.05, 0.22), rng.uniform(0.85, 0.98))
    pose = Pose.sample(rng, shift=0.1, turn=np.pi, scale=(0.9, 1.1))
    return {**table(rng, ivory), "pose": pose, "halves": [vivid(rng), ivory], "seam": rng.uniform(-0.06, 0.06)}


def paint_capsule(c: Canvas, s: Spec) -> None:
    """Paint both halves as one glossy body; a half that is None is missing and leaves an open end."""
    shape = c.polyline([(-0.4, 0), (0.4, 0)]) - 0.3
    if s["halves"][1] is None:
        shape = np.maximum(shape, c.u - s["seam"])
    shape = c.bitten(shape)
    lay(c, s, shape, lift=0.16, strength=0.55)
    colour = np.ones_like(c.rgb) * s["halves"][0]
    if s["halves"][1] is not None:
        right = c.coverage(s["seam"] - c.u)[..., None]
        colour = colour * (1 - right) + s["halves"][1] * right
    sleeve = 0.018 * smoothstep((s["seam"] - c.u) / 0.03 + 0.5)
    c.solid(shape, colour, bevel=0.33, rise=0.3, gloss=0.5, relief=sleeve)
    if s["halves"][1] is None:
        mouth = np.hypot((c.u - s["seam"] + 0.03) / 0.3, c.v) - 0.29
        c.paint(c.coverage(mouth * 0.3) * c.coverage(shape), s["halves"][0] * 0.3)
    c.body = c.coverage(shape)


CORES = (hsv(0.06, 0.75, 0.5), hsv(0.6, 0.8, 0.75), hsv(0.2, 0.8, 0.8))


def cable(rng: Rng) -> Spec:
    """The end of a three-core cable: brown, blue, yellow-green, in this order."""
    sheath = hsv(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.25, 0.8))
    pose = Pose.sample(rng, shift=0.06, turn=0.5, scale=(0.92, 1.08))
    strands = hsv(rng.uniform(0.05, 0.09), rng.uniform(0.3, 0.6), rng.uniform(0.8, 0.95))
    filler = hsv(rng.uniform(0.05, 0.15), 0.12, rng.uniform(0.55, 0.85))
    tones = {"sheath": sheath, "strands": strands, "filler": filler}
    return {**table(rng, sheath), "pose": pose, "cores": [0, 1, 2], **tones}


def paint_cable(c: Canvas, s: Spec) -> None:
    """Paint sheath, filler and cores; a core that is None is a dark channel."""
    outer = c.bitten(c.circle((0, 0), 0.82))
    lay(c, s, outer, lift=0.14, strength=0.5)
    c.solid(outer, s["sheath"], bevel=0.1, rise=0.07, gloss=0.25)
    inner = np.maximum(outer + 0.1, c.circle((0, 0), 0.71))
    fibre = 0.012 * noise(c.u * 16, c.v * 16, s["seed"] + 1)
    c.solid(inner, s["filler"] * 0.8, bevel=0.02, rise=-0.02, gloss=0.0, relief=fibre)
    for centre, core in zip(around(0.385, 3, -TAU / 4), s["cores"], strict=True):
        ring = np.maximum(c.circle(centre, 0.3), inner)
        if core is None:
            c.hole(ring, s["filler"] * 0.22)
            continue
        c.solid(ring, CORES[core], bevel=0.1, rise=0.08, gloss=0.25)
        copper = np.maximum(c.circle(centre, 0.185), inner)
        strands = [c.circle((centre[0] + p, centre[1] + q), 0.06) for p, q in [(0, 0), *around(0.12, 6)]]
        dome = 0.05 * smoothstep(-np.minimum.reduce(strands) / 0.06)
        c.solid(copper, s["strands"] * 0.85, bevel=0.02, rise=-0.01, gloss=0.35, relief=dome)
    c.body = c.coverage(outer)


TEETH, WINDOWS = 12, 5


def gear(rng: Rng) -> Spec:
    """A gear wheel of steel, brass or coloured plastic with twelve teeth and five windows."""
    metal = hsv(rng.choice([0.1, 0.6]), rng.uniform(0.05, 0.55), rng.uniform(0.6, 0.9))
    colour = metal if rng.random() < 0.5 else vivid(rng)
    pose = Pose.sample(rng, shift=0.06, turn=np.pi, scale=(0.86, 1.02))
    return {**table(rng, colour), "pose": pose, "colour": colour, "missing": [], "bent": {}}


def paint_gear(c: Canvas, s: Spec) -> None:
    """Paint the wheel by folding the plane: one tooth and one window stand for all, except for the altered ones."""
    radius, angle = np.hypot(c.u, c.v), np.arctan2(c.v, c.u)
    sector = np.round(angle * TEETH / TAU)
    folded = angle - sector * TAU / TEETH
    tooth = box(radius * np.cos(folded) - 0.7, radius * np.sin(folded), (0.19, 0.085), corner=0.03)
    for k in s["missing"]:
        tooth = np.where(sector % TEETH == k, 9, tooth)
    for k, lean in s["bent"].items():
        tooth = np.where(sector % TEETH == k, 9, tooth)
        start = around(0.6, 1, k * TAU / TEETH)[0]
        tip = around(0.85, 1, k * TAU / TEETH + lean)[0]
        tooth = np.minimum(tooth, c.polyline([start, tip]) - 0.08)
    shape = np.minimum(radius - 0.68, tooth)
    turned = angle - np.round(angle * WINDOWS / TAU) * TAU / WINDOWS
    window = np.hypot(radius * np.cos(turned) - 0.42, radius * np.sin(turned)) - 0.12
    opening = np.minimum(window, np.minimum(radius - 0.13, box(c.u - 0.12, c.v, (0.07, 0.05))))
    shape = np.maximum(shape, -opening)
    lay(c, s, shape, lift=0.1, strength=0.55)
    ring = 0.03 * (smoothstep((radius - 0.58) / 0.05) + smoothstep((0.25 - radius) / 0.05))
    turning = 0.0012 * np.sin(radius * 70)
    c.solid(shape, s["colour"], bevel=0.05, rise=0.045, gloss=0.35, relief=ring + turning)
    c.hole(opening, s["table"] * 0.4)
    c.body = c.coverage(shape)


BANDS = (hsv(0.14, 0.85, 0.9), hsv(0.78, 0.6, 0.55), hsv(0.0, 0.85, 0.75), hsv(0.11, 0.55, 0.6))
BAND_PLACES = (-0.42, -0.15, 0.12, 0.42)


def resistor(rng: Rng) -> Spec:
    """A resistor of 4.7 kilohms: yellow, violet, red, gold on a body of beige, blue or green."""
    hue = rng.choice([0.1, 0.55, 0.4]) + rng.uniform(-0.04, 0.04)
    colour = hsv(hue, rng.uniform(0.2, 0.5), rng.uniform(0.6, 0.92))
    pose = Pose.sample(rng, shift=0.08, turn=0.4, scale=(0.9, 1.1))
    return {**table(rng, colour), "pose": pose, "colour": colour, "bands": [0, 1, 2, 3], "bend": [0.0, 0.0]}


def paint_resistor(c: Canvas, s: Spec) -> None:
    """Paint leads, each with its end off the axis by its bend, body and bands."""
    ends = [
        c.polyline([(0, 0), (k * 0.72, 0), (k * 0.85, b * 0.6), (k * 1.5, b)])
        for k, b in zip((-1, 1), s["bend"], strict=True)
    ]
    lead = np.minimum(*ends) - 0.05
    bulge = np.minimum(c.circle((-0.42, 0), 0.31), c.circle((0.42, 0), 0.31))
    shape = c.bitten(np.minimum(box(c.u, c.v, (0.6, 0.25), corner=0.1), bulge))
    lay(c, s, np.minimum(lead, shape), lift=0.12, strength=0.5)
    c.solid(lead, hsv(0.6, 0.04, 0.75), bevel=0.05, rise=0.05, gloss=0.5)
    colour = np.ones_like(c.rgb) * s["colour"]
    for place, band in zip(BAND_PLACES, s["bands"], strict=True):
        alpha = c.coverage(np.abs(c.u - place - 0.03 * c.v**2) - 0.075)[..., None]
        colour += (BANDS[band] - colour) * alpha
    c.solid(shape, colour, bevel=0.26, rise=0.22, gloss=0.4)
    c.body = c.coverage(shape)


def button(rng: Rng) -> Spec:
    """A button of any hue with four holes."""
    pose, colour = Pose.sample(rng, shift=0.1, turn=np.pi, scale=(0.9, 1.1)), vivid(rng)
    holes, marble = around(0.25, 4, TAU / 8), rng.uniform(0, 0.3)
    return {**table(rng, colour), "pose": pose, "colour": colour, "holes": holes, "marble": marble}


def paint_button(c: Canvas, s: Spec) -> None:
    """Paint a raised rim, a dish, marbling, and the holes that show the table."""
    shape = c.bitten(c.circle((0, 0), 0.78))
    holes = np.minimum.reduce([c.circle(hole, 0.12) for hole in s["holes"]])
    lay(c, s, np.maximum(shape, -holes), lift=0.12, strength=0.55)
    radius = np.hypot(c.u, c.v)
    veins = noise(c.u * 2 + 40, c.v * 2 + 40, s["seed"] + 2, octaves=3)
    colour = s["colour"] * (1 + s["marble"] * veins)[..., None]
    dish = -0.07 * smoothstep((0.58 - radius) / 0.12)
    c.solid(shape, colour, bevel=0.16, rise=0.11, gloss=0.45, relief=dish - 0.05 * smoothstep((0.05 - holes) / 0.05))
    c.hole(holes, s["table"] * 0.35)
    c.body = np.minimum(c.coverage(shape), 1 - c.coverage(holes))


FIVE = [(-0.31, -0.31), (0.31, -0.31), (0.0, 0.0), (-0.31, 0.31), (0.31, 0.31)]


def die(rng: Rng) -> Spec:
    """A die of any hue that shows five."""
    colour = vivid(rng) if rng.random() < 0.75 else hsv(0.12, rng.uniform(0.03, 0.2), rng.uniform(0.85, 0.98))
    dark = float(colour.mean()) > 0.62 or (float(colour.mean()) > 0.5 and rng.random() < 0.5)
    pips = hsv(0.65, 0.3, 0.12) if dark else hsv(0.12, 0.06, 0.95)
    pose = Pose.sample(rng, shift=0.08, turn=np.pi, scale=(0.92, 1.1))
    return {**table(rng, colour), "pose": pose, "colour": colour, "ink": pips, "pips": FIVE[:]}


def paint_die(c: Canvas, s: Spec) -> None:
    """Paint a rounded block with dimpled pips."""
    shape = c.bitten(box(c.u, c.v, (0.62, 0.62), corner=0.16))
    lay(c, s, shape, lift=0.2, strength=0.6)
    c.solid(shape, s["colour"], bevel=0.18, rise=0.1, gloss=0.4)
    pips = np.minimum.reduce([c.circle(pip, 0.135) for pip in s["pips"]])
    dimple = c.lit(-0.06 * smoothstep(-pips / 0.12), s["ink"], gloss=0.3)
    c.paint(c.coverage(np.maximum(pips, shape)), dimple)
    c.body = c.coverage(shape)
