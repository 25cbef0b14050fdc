"""How many images MVTec-AD has, and in what a folder differs from it."""

from timenet_lib.data.folder import FolderIndex

FIELDS = ("train_good", "test_good", "test_defective", "kinds")  # as FolderIndex.counts names them
MVTEC_COUNTS = {
    "bottle": (209, 20, 63, 3),
    "cable": (224, 58, 92, 8),
    "capsule": (219, 23, 109, 5),
    "carpet": (280, 28, 89, 5),
    "grid": (264, 21, 57, 5),
    "hazelnut": (391, 40, 70, 4),
    "leather": (245, 32, 92, 5),
    "metal_nut": (220, 22, 93, 4),
    "pill": (267, 26, 141, 7),
    "screw": (320, 41, 119, 5),
    "tile": (230, 33, 84, 5),
    "toothbrush": (60, 12, 30, 1),
    "transistor": (213, 60, 40, 4),
    "wood": (247, 19, 60, 5),
    "zipper": (240, 32, 119, 7),
}


def compare_with_mvtec(index: FolderIndex) -> list[str]:
    """Name each number that deviates from MVTec-AD's; one line when the classes are not its 15."""
    if set(index.classes) != set(MVTEC_COUNTS):
        return [f"not MVTec-AD: its class names are not the {len(MVTEC_COUNTS)} of MVTec-AD, so no count was compared"]
    lines = []
    for name, expected in MVTEC_COUNTS.items():
        counts = index.counts(name)
        for field, wanted in zip(FIELDS, expected, strict=True):
            if counts[field] != wanted:
                lines.append(f"{name}: {field} is {counts[field]}, MVTec-AD has {wanted}")
    return lines
