"""List the classes, and which defects each can have."""

from . import objects, overlays, structural, textures
from .objects import around, vivid
from .part import Part

CAPSULE_EDGE = (*((u, v) for u in (-0.45, -0.2, 0.2, 0.45) for v in (-0.3, 0.3)), (-0.7, 0.0), (0.7, 0.0))
RESISTOR_EDGE = tuple((u, v) for u in (-0.5, -0.4, -0.3, 0.3, 0.4, 0.5) for v in (-0.3, 0.3))
DIE_EDGE = tuple((u, v) for u in (-0.56, 0.56) for v in (-0.56, 0.56))

OBJECT_PARTS = {
    "capsule": Part(
        objects.capsule,
        objects.paint_capsule,
        vivid,
        reach=(0.5, 0.16),
        alter={"wrong_half": structural.recolour_half, "missing_half": structural.drop_half},
        overlay=(overlays.crack, overlays.stain),
        edge=CAPSULE_EDGE,
    ),
    "cable": Part(
        objects.cable,
        objects.paint_cable,
        vivid,
        reach=(0.35, 0.35),
        alter={
            "missing_core": structural.drop_core,
            "swapped_cores": structural.swap_cores,
        },
        overlay=(overlays.crack, overlays.thread, overlays.worm, overlays.burn),
        edge=tuple(around(0.82, 24)),
    ),
    "gear": Part(
        objects.gear,
        objects.paint_gear,
        vivid,
        reach=(0.42, 0.42),
        alter={
            "missing_tooth": structural.drop_teeth,
            "bent_tooth": structural.bend_teeth,
        },
        overlay=(overlays.crack, overlays.thread, overlays.worm, overlays.stain),
    ),
    "resistor": Part(
        objects.resistor,
        objects.paint_resistor,
        vivid,
        reach=(0.4, 0.1),
        alter={
            "swapped_bands": structural.swap_bands,
            "bent_lead": structural.bend_lead,
        },
        overlay=(overlays.burn, overlays.crack, overlays.thread),
        edge=RESISTOR_EDGE,
    ),
    "button": Part(
        objects.button,
        objects.paint_button,
        vivid,
        reach=(0.42, 0.42),
        alter={"misplaced_hole": structural.shift_hole},
        overlay=(overlays.crack, overlays.thread, overlays.worm, overlays.stain),
        edge=tuple(around(0.78, 24)),
    ),
    "die": Part(
        objects.die,
        objects.paint_die,
        vivid,
        reach=(0.35, 0.35),
        alter={
            "missing_pip": structural.drop_pips,
            "extra_pip": structural.add_pips,
            "misplaced_pip": structural.shift_pip,
        },
        overlay=(overlays.crack, overlays.thread, overlays.worm, overlays.stain),
        edge=DIE_EDGE,
    ),
}

TEXTURE_PARTS = {
    "mosaic": Part(
        textures.mosaic,
        textures.paint_mosaic,
        textures.glaze,
        reach=(0.5, 0.5),
        alter={"missing_tile": structural.drop_tiles, "turned_tile": structural.turn_tiles},
        overlay=(overlays.crack, overlays.worm, overlays.transplant),
    ),
    "leather": Part(
        textures.leather,
        textures.paint_leather,
        textures.hide,
        reach=(0.5, 0.5),
        overlay=(overlays.hole, overlays.worm, overlays.stain, overlays.fold, overlays.transplant),
    ),
    "fabric": Part(
        textures.fabric,
        textures.paint_fabric,
        textures.glaze,
        reach=(0.5, 0.5),
        alter={"missing_yarn": structural.drop_yarns},
        overlay=(overlays.tear, overlays.thread, overlays.worm, overlays.stain, overlays.transplant),
    ),
    "wood": Part(
        textures.wood,
        textures.paint_wood,
        textures.timber,
        reach=(0.5, 0.5),
        overlay=(overlays.hole, overlays.worm, overlays.crack, overlays.burn, overlays.transplant),
    ),
}

PARTS = {**OBJECT_PARTS, **TEXTURE_PARTS}
OBJECTS: tuple[str, ...] = tuple(OBJECT_PARTS)
TEXTURES: tuple[str, ...] = tuple(TEXTURE_PARTS)
CLASSES: tuple[str, ...] = (*OBJECTS, *TEXTURES)
KINDS: dict[str, tuple[str, ...]] = {name: part.kinds for name, part in PARTS.items()}
