"""The classes, and which defects each can have."""

from . import objects, textures
from .objects import around, vivid
from .overlays import burn, crack, fold, hole, stain, tear, thread, transplant, worm
from .part import Part

CAPSULE_EDGE = (*((u, v) for u in (-0.45, -0.2, 0.2, 0.45) for v in (-0.3, 0.3)), (-0.7, 0.0), (0.7, 0.0))
RESISTOR_EDGE = tuple((u, v) for u in (-0.5, -0.4, -0.3, 0.3, 0.4, 0.5) for v in (-0.3, 0.3))
DIE_EDGE = tuple((u, v) for u in (-0.56, 0.56) for v in (-0.56, 0.56))

# fmt: off
PARTS = {
    "capsule": Part(
        objects.capsule, objects.paint_capsule, vivid, reach=(0.5, 0.16), edge=CAPSULE_EDGE,
        altered=("wrong_half", "missing_half"), overlay=(crack, stain),
    ),
    "cable": Part(
        objects.cable, objects.paint_cable, vivid, reach=(0.35, 0.35), edge=tuple(around(0.82, 24)),
        altered=("missing_core", "swapped_cores"), overlay=(crack, thread, worm, burn),
    ),
    "gear": Part(
        objects.gear, objects.paint_gear, vivid, reach=(0.42, 0.42),
        altered=("missing_tooth", "bent_tooth"), overlay=(crack, thread, worm, stain),
    ),
    "resistor": Part(
        objects.resistor, objects.paint_resistor, vivid, reach=(0.4, 0.1), edge=RESISTOR_EDGE,
        altered=("swapped_bands", "bent_lead"), overlay=(burn, crack, thread),
    ),
    "button": Part(
        objects.button, objects.paint_button, vivid, reach=(0.42, 0.42), edge=tuple(around(0.78, 24)),
        altered=("misplaced_hole",), overlay=(crack, thread, worm, stain),
    ),
    "die": Part(
        objects.die, objects.paint_die, vivid, reach=(0.35, 0.35), edge=DIE_EDGE,
        altered=("missing_pip", "extra_pip", "misplaced_pip"),
        overlay=(crack, thread, worm, stain),
    ),
    "mosaic": Part(
        textures.mosaic, textures.paint_mosaic, textures.glaze,
        altered=("missing_tile", "turned_tile"), overlay=(crack, worm, transplant),
    ),
    "leather": Part(
        textures.leather, textures.paint_leather, textures.hide,
        overlay=(hole, worm, stain, fold, transplant),
    ),
    "fabric": Part(
        textures.fabric, textures.paint_fabric, textures.glaze,
        altered=("missing_yarn",), overlay=(tear, thread, worm, stain, transplant),
    ),
    "wood": Part(
        textures.wood, textures.paint_wood, textures.timber,
        overlay=(hole, worm, crack, burn, transplant),
    ),
}
# fmt: on

CLASSES: tuple[str, ...] = tuple(PARTS)
KINDS: dict[str, tuple[str, ...]] = {name: part.kinds for name, part in PARTS.items()}
