"""Structural defects, which alter a part's spec: missing, bent, misplaced, wrong in number or order of colours."""

import numpy as np

from .canvas import Pose, Rng, Spec
from .objects import FIVE, TAU, TEETH, around, vivid
from .textures import PITCH


def alter(kind: str, s: Spec, rng: Rng) -> None:
    """Change a spec by a structural defect. Raises ValueError for an unknown one."""
    match kind:
        case "wrong_half":
            s["halves"][1] = vivid(rng)
        case "missing_half":
            s["halves"][1] = None
        case "missing_core":
            s["cores"][pick(rng, 1, 3)[0]] = None
        case "swapped_cores":
            swap(s["cores"], rng)
        case "missing_tooth":
            first = pick(rng, 1, TEETH)[0]
            s["missing"] = [(first + k) % TEETH for k in range(int(rng.integers(2, 4)))]
        case "bent_tooth":  # bend two neighbouring teeth over, to the same side
            first, lean = pick(rng, 1, TEETH)[0], rng.choice([-1, 1]) * rng.uniform(0.2, 0.28)
            s["bent"] = {first: lean, (first + 1) % TEETH: lean}
        case "swapped_bands":
            swap(s["bands"], rng)
        case "bent_lead":
            s["bend"][int(rng.integers(2))] = float(rng.choice([-1, 1]) * rng.uniform(0.45, 0.75))
        case "misplaced_hole":
            k = pick(rng, 1, 4)[0]
            s["holes"][k] = around(0.47, 1, k * TAU / 4 + TAU / 8 + rng.choice([-1, 1]) * rng.uniform(0.25, 0.6))[0]
        case "missing_pip":
            s["pips"] = [FIVE[k] for k in pick(rng, int(rng.integers(3, 5)), 5)]
        case "extra_pip":  # add one or two pips between the corners
            extra = [(-0.31, 0.0), (0.31, 0.0), (0.0, -0.31), (0.0, 0.31)]
            s["pips"] = FIVE + [extra[k] for k in pick(rng, int(rng.integers(1, 3)), 4)]
        case "misplaced_pip":  # put one of the outer pips halfway along an edge of the face
            k, (along, across) = int(rng.choice([0, 1, 3, 4])), rng.uniform(0.6, 1.0, 2)
            u, v = FIVE[k]
            s["pips"] = [pip for i, pip in enumerate(FIVE) if i != k] + [
                (u * (1 - along), v) if across < 0.8 else (u, v * (1 - along))
            ]
        case "missing_tile":  # break one or two neighbouring tiles out
            i, j = tile_near(s, rng)
            s["missing"] = ((i, j), (i + 1, j))[: int(rng.integers(1, 3))]
        case "turned_tile":  # set two neighbouring tiles on their corners
            i, j = tile_near(s, rng)
            s["turned"] = ((i, j), (i, j + 1))
        case "missing_yarn":
            first = int(rng.integers(-4, 4))
            s["missing"] = (first, first + 2)[: int(rng.integers(1, 3))]
        case _:
            raise ValueError(f"no structural defect {kind!r}")


def pick(rng: Rng, count: int, among: int) -> list[int]:
    """Draw different numbers below `among`, as plain integers."""
    return [int(i) for i in rng.permutation(among)[:count]]


def swap(items: list[int], rng: Rng) -> None:
    i, j = pick(rng, 2, len(items))
    items[i], items[j] = items[j], items[i]


def tile_near(s: Spec, rng: Rng) -> tuple[int, int]:
    """Find the tile under a point that is drawn near the middle of the frame."""
    pose: Pose = s["pose"]
    x, y = (rng.uniform(-0.6, 0.6, 2) - pose[:2]) / pose.scale
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    return int(np.floor((x * cos + y * sin) / PITCH)), int(np.floor((y * cos - x * sin) / PITCH))
