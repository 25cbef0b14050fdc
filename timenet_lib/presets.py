"""The three presets: ci proves the path, demo is what a laptop runs, paper is the paper's network and working point.

Everything that differs between them is a field here. The paper prints the image size, t, w, lambda, the extractor and
its levels, textures as the source of defects, and MSE + LPIPS without weights. It prints no batch size, learning rate,
number of steps or of couplings, tolerance, blocks per level, or share of synthetic defects: in preset paper these are
ours.
"""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from msgspec import Meta

from timenet_lib.errors import InputError, nearest, shown
from timenet_lib.files import Count, Positive, Share, check_name, convert
from timenet_lib.unet import UNetConfig

Size = Annotated[int, Meta(ge=1, le=1024)]
Upto8 = Meta(min_length=1, max_length=8)
Rate = Annotated[float, Meta(ge=0, le=10)]
Weight = Annotated[float, Meta(ge=0, le=1e9)]


@dataclass(frozen=True)
class Preset:
    """One setting of the whole method, by default that of preset demo. Sizes in pixels, t in [0, 1] with 1 the image.

    The ranges are checked where a record is read, not for a preset that a program makes.
    """

    name: str = "demo"
    # the networks
    image_size: Annotated[int, Meta(ge=8, le=1024)] = 64
    base: Annotated[int, Meta(ge=4, le=1024)] = 24
    multipliers: Annotated[tuple[Annotated[int, Meta(ge=1, le=64)], ...], Upto8] = (1, 2, 3, 4)
    blocks: Annotated[int, Meta(ge=1, le=8)] = 1
    attention: Annotated[tuple[Size, ...], Meta(max_length=8)] = (8,)
    # training: algorithm 1, then algorithm 2
    batch_size: Positive = 16
    learning_rate: Rate = 1e-3
    flow_steps: Positive = 7000
    num_couplings: Positive = 1024
    rtol: Annotated[float, Meta(ge=1e-9, le=1)] = 1e-3  # of RK45, relative and absolute, when couplings are made
    reflow_steps: Positive = 1500
    tpn_steps: Positive = 3600
    tpn_learning_rate: Rate = 1e-3
    anomalous_share: Share = 0.75  # of a TPN batch; the rest stays normal
    sources: Annotated[tuple[str, ...], Upto8] = ("texture", "transplant", "recolour")  # what synthetic defects show
    lpips: str = "extractor"  # "vgg", the lpips package, or "extractor", its formula on the extractor below
    lpips_share: Share | None = 0.5  # of the gradient at the start; None: MSE + LPIPS, as the paper prints it
    # reconstruction and scoring
    t: Annotated[float, Meta(ge=1e-6, le=1 - 1e-6)] = 0.83  # the working point
    extractor: str = "embedded"  # "embedded", "imagenet" or any name that timm knows
    extractor_weights: str = "shipped"  # "shipped", "random", "timm", or a file
    levels: Annotated[tuple[Annotated[int, Meta(ge=0, le=8)], ...], Upto8] = (1, 2, 3)  # f_i, features of stride 2**i
    weight: Weight = 7.0  # w_i of formula (5), one value for all levels
    lam: Weight = 7.0  # the weight lambda that joins pixel and feature map

    # drawn data, when no folder is given: images per class
    drawn_train: Count = 120
    drawn_good: Count = 20
    drawn_defective: Count = 40

    @property
    def drawn(self) -> dict[str, int]:
        """What drawn_folder takes: the drawn data set of this preset, when no folder is given."""
        counts = {"train": self.drawn_train, "good": self.drawn_good, "defective": self.drawn_defective}
        return {"size": self.image_size, "seed": 0, **counts}

    def unet_config(self, num_classes: int) -> UNetConfig:
        """Get the shape of flow_0, flow_1 and TPN for this number of classes."""
        return UNetConfig(
            self.image_size, num_classes, self.base,
            multipliers=self.multipliers, blocks=self.blocks, attention=self.attention,
        )  # fmt: skip

    def as_dict(self) -> dict[str, object]:
        """Get the fields as plain values that JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def for_stage(self, stage: str) -> dict[str, object]:
        """Get the fields that take part in a stage: what two trainings must share to be the same one."""
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

DEMO = Preset()

CI = replace(
    DEMO, name="ci",
    image_size=32, base=8, multipliers=(1, 2, 2),
    batch_size=8, learning_rate=2e-3, flow_steps=40, num_couplings=32, rtol=1e-2, reflow_steps=20, tpn_steps=20,
    anomalous_share=0.5, extractor_weights="random",
    drawn_train=8, drawn_good=3, drawn_defective=5,
)  # fmt: skip

PAPER = replace(
    DEMO, name="paper",
    image_size=256, base=64, multipliers=(1, 1, 2, 2, 4, 4), blocks=2, attention=(8, 16),
    learning_rate=1e-4, flow_steps=200_000, num_couplings=20_000, reflow_steps=50_000,
    tpn_steps=50_000, tpn_learning_rate=1e-4, anomalous_share=0.5, sources=("texture",), lpips="vgg", lpips_share=None,
    extractor="wide_resnet101_2", extractor_weights="timm", levels=(2, 3, 4),
)  # fmt: skip

PRESETS = {p.name: p for p in (CI, DEMO, PAPER)}


def get_preset(name: str) -> Preset:
    """Get the preset of this name. Raises InputError with the nearest name, or all three, for an unknown one."""
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}: {nearest(name, PRESETS)}")
    return PRESETS[name]


def preset_from_dict(values: Any) -> Preset:
    """Rebuild a preset from a record. Raises InputError for a field that is missing, unexpected or out of its range.

    Whether the extractor, its weights and the sources exist is checked where they are looked for.
    """
    preset = convert("preset", values, Preset)
    for field in ("name", "lpips", "extractor"):
        check_name(f"preset.{field}", getattr(preset, field))
    for source in preset.sources:
        check_name("preset.sources", source)
    if not preset.extractor_weights.isprintable():  # it may be a path
        raise InputError(f"preset.extractor_weights is {shown(preset.extractor_weights)}: it cannot be printed")
    return preset
