"""How many images MVTec-AD has, and in what a folder differs from it."""

from typing import NamedTuple

from timenet_lib.data.folder import FolderIndex


class Counts(NamedTuple):
    """How many images a class has, and how many kinds of defect."""

    train_good: int
    test_good: int
    test_defective: int
    kinds: int


MVTEC_COUNTS = {
    "bottle": Counts(209, 20, 63, kinds=3),
    "cable": Counts(224, 58, 92, kinds=8),
    "capsule": Counts(219, 23, 109, kinds=5),
    "carpet": Counts(280, 28, 89, kinds=5),
    "grid": Counts(264, 21, 57, kinds=5),
    "hazelnut": Counts(391, 40, 70, kinds=4),
    "leather": Counts(245, 32, 92, kinds=5),
    "metal_nut": Counts(220, 22, 93, kinds=4),
    "pill": Counts(267, 26, 141, kinds=7),
    "screw": Counts(320, 41, 119, kinds=5),
    "tile": Counts(230, 33, 84, kinds=5),
    "toothbrush": Counts(60, 12, 30, kinds=1),
    "transistor": Counts(213, 60, 40, kinds=4),
    "wood": Counts(247, 19, 60, kinds=5),
    "zipper": Counts(240, 32, 119, kinds=7),
}


def compare_with_mvtec(index: FolderIndex) -> list[str]:
    """Name each number that deviates from MVTec-AD's; one line when the classes are not its 15."""
    if set(index.classes) != set(MVTEC_COUNTS):
        return [f"not MVTec-AD: its class names are not the {len(MVTEC_COUNTS)} of MVTec-AD, so no count was compared"]
    lines = []
    for name, expected in MVTEC_COUNTS.items():
        counts = index.counts(name)
        for field, wanted in expected._asdict().items():
            if counts[field] != wanted:
                lines.append(f"{name}: {field} is {counts[field]}, MVTec-AD has {wanted}")
    return lines
