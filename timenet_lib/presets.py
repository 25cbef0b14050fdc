"""The three presets: ci proves the path, demo is what a laptop runs, paper is what the paper ran.

Everything that differs between them is a field here.
"""

import difflib
from dataclasses import asdict, dataclass, fields
from typing import Any

from timenet_lib.errors import InputError, shown
from timenet_lib.files import check_fields, check_list, check_name, check_number
from timenet_lib.unet import UNetConfig


@dataclass(frozen=True)
class Preset:
    """One setting of the whole method. Sizes in pixels, t in [0, 1] with 1 the image."""

    name: str
    # the networks
    image_size: int
    base: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    # training: algorithm 1, then algorithm 2
    batch_size: int
    learning_rate: float
    flow_steps: int
    num_couplings: int
    rtol: float  # of RK45, relative and absolute, when couplings are made
    reflow_steps: int
    tpn_steps: int
    tpn_learning_rate: float
    anomalous_share: float  # of a TPN batch; the rest stays normal
    sources: tuple[str, ...]  # of what the synthetic anomalies show; the paper's are textures alone
    lpips: str  # "vgg", the lpips package, or "extractor", its formula on the extractor below
    lpips_share: float | None  # of the gradient at the start; None: MSE + LPIPS with no weight, as the paper prints it
    # reconstruction and scoring
    t: float  # the working point
    extractor: str  # "embedded" or any name that timm knows
    extractor_weights: str  # "shipped", "random", or a file
    levels: tuple[int, ...]  # f_i, the extractor's features of stride 2**i
    weight: float  # w_i of formula (5), one value for all levels
    lam: float  # the weight lambda that joins pixel and feature map

    # drawn data, when no folder is given: images a class
    drawn_train: int
    drawn_good: int
    drawn_defective: int

    @property
    def drawn(self) -> dict[str, int]:
        """What drawn_folder takes: the drawn data set of this preset, when no folder is given."""
        counts = {"train": self.drawn_train, "good": self.drawn_good, "defective": self.drawn_defective}
        return {"size": self.image_size, "seed": 0, **counts}

    def unet_config(self, num_classes: int) -> UNetConfig:
        """Return the shape of flow_0, flow_1 and TPN for so many classes."""
        return UNetConfig(self.image_size, num_classes, self.base, self.multipliers, self.blocks, self.attention)

    def as_dict(self) -> dict[str, object]:
        """Return the fields as plain values that JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def for_stage(self, stage: str) -> dict[str, object]:
        """Return the fields that take part in a stage: what two trainings must share to be the same one."""
        names = STAGE_FIELDS.get(stage, STAGE_FIELDS["reflow"])  # the others are flow_1, flow_2, ...
        return {k: v for k, v in self.as_dict().items() if k in names}


FLOW_FIELDS = (
    "image_size", "base", "multipliers", "blocks", "attention", "batch_size", "learning_rate", "flow_steps",
    "drawn_train",
)  # fmt: skip
REFLOW_FIELDS = (*FLOW_FIELDS, "num_couplings", "rtol", "reflow_steps")
TPN_FIELDS = (
    *REFLOW_FIELDS, "tpn_steps", "tpn_learning_rate", "anomalous_share", "sources", "lpips", "lpips_share", "t",
    "extractor", "extractor_weights", "levels",
)  # fmt: skip
STAGE_FIELDS = {
    "extractor": ("image_size", "drawn_train"),
    "flow_0": FLOW_FIELDS,
    "reflow": REFLOW_FIELDS,
    "tpn": TPN_FIELDS,
    "diffusion": (*FLOW_FIELDS, "reflow_steps"),
    "draem": (*FLOW_FIELDS, "reflow_steps", "sources"),
}

CI = Preset(
    name="ci",
    image_size=32,
    base=8,
    multipliers=(1, 2, 2),
    blocks=1,
    attention=(8,),
    batch_size=8,
    learning_rate=2e-3,
    flow_steps=40,
    num_couplings=32,
    rtol=1e-2,
    reflow_steps=20,
    tpn_steps=20,
    tpn_learning_rate=1e-3,
    anomalous_share=0.5,
    sources=("texture", "transplant", "recolour"),
    lpips="extractor",
    lpips_share=0.5,
    t=0.83,
    extractor="embedded",
    extractor_weights="random",
    levels=(1, 2, 3),
    weight=7.0,
    lam=7.0,
    drawn_train=8,
    drawn_good=3,
    drawn_defective=5,
)

DEMO = Preset(
    name="demo",
    image_size=64,
    base=24,
    multipliers=(1, 2, 3, 4),
    blocks=1,
    attention=(8,),
    batch_size=16,
    learning_rate=1e-3,
    flow_steps=7000,
    num_couplings=1024,
    rtol=1e-3,
    reflow_steps=1500,
    tpn_steps=3600,
    tpn_learning_rate=1e-3,
    anomalous_share=0.75,
    sources=("texture", "transplant", "recolour"),
    lpips="extractor",
    lpips_share=0.5,
    t=0.83,
    extractor="embedded",
    extractor_weights="shipped",
    levels=(1, 2, 3),
    weight=7.0,
    lam=7.0,
    drawn_train=120,
    drawn_good=20,
    drawn_defective=40,
)

PAPER = Preset(
    name="paper",
    image_size=256,
    base=64,
    multipliers=(1, 1, 2, 2, 4, 4),
    blocks=2,
    attention=(8, 16),
    batch_size=16,
    learning_rate=1e-4,
    flow_steps=200_000,
    num_couplings=20_000,
    rtol=1e-3,
    reflow_steps=50_000,
    tpn_steps=50_000,
    tpn_learning_rate=1e-4,
    anomalous_share=0.5,
    sources=("texture",),
    lpips="vgg",
    lpips_share=None,
    t=0.83,
    extractor="wide_resnet101_2",
    extractor_weights="timm",
    levels=(2, 3, 4),
    weight=7.0,
    lam=7.0,
    drawn_train=120,
    drawn_good=20,
    drawn_defective=40,
)

PRESETS = {p.name: p for p in (CI, DEMO, PAPER)}


def get_preset(name: str) -> Preset:
    """Return the preset of that name; an unknown one is an InputError that lists the three."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"no preset {name!r}: choose one of {', '.join(PRESETS)}{hint}")
    return PRESETS[name]


ANY = 1e9
RANGES = {  # of a recorded preset's numbers: wide enough for every use, and none that a machine would choke on
    "image_size": (8, 1024), "base": (4, 1024), "blocks": (1, 8), "batch_size": (1, ANY), "learning_rate": (0, 10),
    "flow_steps": (1, ANY), "num_couplings": (1, ANY), "rtol": (1e-9, 1), "reflow_steps": (1, ANY),
    "tpn_steps": (1, ANY), "tpn_learning_rate": (0, 10), "anomalous_share": (0, 1), "t": (1e-6, 1 - 1e-6),
    "weight": (0, ANY), "lam": (0, ANY), "drawn_train": (0, ANY), "drawn_good": (0, ANY), "drawn_defective": (0, ANY),
}  # fmt: skip
LISTS = {  # of whole numbers: how many at least and at most, and from where to where each
    "multipliers": (1, 8, 1, 64),
    "attention": (0, 8, 1, 1024),
    "levels": (1, 8, 0, 8),
}


def preset_from_dict(values: object) -> Preset:
    """Rebuild a preset from a checkpoint's record; a field that is missing, unexpected or out of its range is an error.

    Whether the extractor, its weights and the sources exist is for those to say who look for them. Raise InputError.
    """
    given = check_fields("the recorded preset", values, (f.name for f in fields(Preset)))
    whole = {f.name for f in fields(Preset) if f.type is int}
    made: dict[str, Any] = {}
    for field, value in given.items():
        what = f"the recorded preset's {field}"
        if field in RANGES:
            made[field] = check_number(what, value, *RANGES[field], whole=field in whole)
        elif field in LISTS:
            least, most, low, high = LISTS[field]
            made[field] = tuple(check_number(what, v, low, high, True) for v in check_list(what, value, least, most))
        elif field == "sources":
            made[field] = tuple(check_name(what, v) for v in check_list(what, value, 1, 8))
        elif field == "lpips_share":
            made[field] = None if value is None else check_number(what, value, 0, 1)
        elif field == "extractor_weights":  # may be a path
            if not isinstance(value, str) or not value.isprintable():
                raise InputError(f"{what} is {shown(value)}: shipped, random, timm or a file is needed")
            made[field] = value
        else:
            made[field] = check_name(what, value)
    return Preset(**made)
