"""What goes wrong when a part of algorithm 2 is left out: TPNs trained alike but for one change, and measured alike."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from timenet_lib.console import Say, quiet
from timenet_lib.detector import TimeNet
from timenet_lib.engine.stages import lpips_weight, seeded
from timenet_lib.errors import InputError
from timenet_lib.evidence.diagnostics import measure_failures
from timenet_lib.evidence.experiment import Keep, check_names, how_made, keep_nothing, measure, of_model, percent
from timenet_lib.evidence.testset import KEYS, Scored, TestSet
from timenet_lib.features import build_lpips
from timenet_lib.losses import tpn_loss
from timenet_lib.presets import Preset
from timenet_lib.synthesis import Synthesised, Synthesiser
from timenet_lib.tpn import TPN, Adapter, SteeredFlow
from timenet_lib.train import count_steps, repairs, train
from timenet_lib.unet import UNet
from timenet_lib.weights import round_to_half


class TWithoutFeatures(TPN):
    """Hands nothing across: T alone has to do it."""

    def forward(self, xt: Tensor, c: Tensor) -> tuple[Tensor, list[Tensor]]:
        t_map, steering = super().forward(xt, c)
        return t_map, [0 * s for s in steering]


class FeaturesWithoutT(TPN):
    """Perceives the working point everywhere: the features alone have to do it."""

    def forward(self, xt: Tensor, c: Tensor) -> tuple[Tensor, list[Tensor]]:
        t_map, steering = super().forward(xt, c)
        return torch.full_like(t_map, self.working_point) + 0 * t_map, steering


class CutOff(nn.Module):
    """A flow under no_grad: frozen too, but no gradient passes through it to the adapters."""

    def __init__(self, flow: UNet):
        super().__init__()
        self.flow = flow

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Tensor:
        return self.flow(*inputs)


def loud_adapters(flow: UNet, t: float) -> TPN:
    """Build a TPN whose adapters start as any convolution does, and not at zero."""
    tpn = TPN.from_flow(flow, t)
    for adapter in tpn.adapters:
        assert isinstance(adapter, Adapter)
        adapter.conv.reset_parameters()
    return tpn


@dataclass(frozen=True)
class Variant:
    """One change: how the TPN is built, whether gradients pass through the flow, what the anomalies show."""

    says: str
    build: Callable[[UNet, float], TPN] = TPN.from_flow
    cut_off: bool = False
    changes: tuple[tuple[str, Any], ...] = ()


VARIANTS = {
    "whole": Variant("algorithm 2 as it is"),
    "no_grad": Variant("the flow's decoder under no_grad", cut_off=True),
    "loud": Variant("adapters not started at zero", loud_adapters),
    "t_only": Variant("T without features", TWithoutFeatures.from_flow),
    "features_only": Variant("features without T", FeaturesWithoutT.from_flow),
    "fresh": Variant("TPN from random weights, not flow 1's", lambda flow, t: TPN(flow.config, t)),
    "textures": Variant("textures only (the paper's)", changes=(("sources", ("texture",)),)),
    "mse": Variant("MSE alone", changes=(("lpips_share", 0.0),)),
    "plain_sum": Variant("MSE + LPIPS unweighted (the paper's)", changes=(("lpips_share", None),)),
    "half": Variant("half of the images normal (DRAEM's)", changes=(("anomalous_share", 0.5),)),
}


class Material(NamedTuple):
    """What the variants are trained on: normal images, their classes, and textures for the synthetic defects."""

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    textures: UInt8[Tensor, "m 3 h w"]


def train_variant(
    model: TimeNet, name: str, material: Material, *, steps: int, seed: int = 0
) -> tuple[TPN, list[float]]:
    """Train a TPN for the model's flow_1 with one change, for so many steps; give it, frozen, and its losses."""
    check_names([name], VARIANTS, "variant")
    variant, flow = VARIANTS[name], model.models.flow_1
    if flow is None:
        raise InputError("these weights hold no flow_1: train it with `timenet train reflow`")
    if steps < 1:
        raise InputError(f"{steps} steps: at least one is needed")
    preset: Preset = replace(model.preset, **dict(variant.changes))
    tpn = seeded(lambda: variant.build(flow, preset.t), seed, "variant")
    synthesiser = Synthesiser(*material, anomalous_share=preset.anomalous_share, seed=seed, sources=preset.sources)
    lpips = build_lpips(preset.lpips, model.features)
    draw = partial(repairs, synthesiser, preset.t)
    start = SteeredFlow(flow, TPN.from_flow(flow, preset.t))
    weight = lpips_weight(start, draw, lpips=lpips, share=preset.lpips_share)
    v = SteeredFlow(CutOff(flow) if variant.cut_off else flow, tpn).to(memory_format=torch.channels_last)
    batches = train(
        v, partial(tpn_loss, lpips=lpips, lpips_weight=weight),
        lambda step: draw(step=step, samples=range(preset.batch_size)),
        schedule=count_steps(steps), peak_rate=preset.tpn_learning_rate, name=name,
    )  # fmt: skip
    losses = [float(each.mean()) for _, each in batches]
    round_to_half(tpn)
    return tpn.eval().requires_grad_(False), losses


def measure_variants(
    model: TimeNet,
    tests: TestSet,
    material: Material,
    *,
    pairs: Synthesised,
    steps: int = 300,
    names: Sequence[str] = tuple(VARIANTS),
    seed: int = 0,
    say: Say = quiet,
    keep: Keep = keep_nothing,
) -> dict[str, Any]:
    """Train each variant, then measure it on test images and on pairs.

    inside and outside are squared errors in units of flow_1's, at the model's working point.
    """

    def score(name: str, images: UInt8[Tensor, "n 3 h w"], c: Int[Tensor, " n"], seed: int) -> Scored:
        t = model.preset.t
        base = measure_failures(model, pairs, (t,), seed=seed, methods=("flow_1",))["methods"]["flow_1"]
        tpn, losses = train_variant(model, name, material, steps=steps, seed=seed)
        changed = with_tpn(model, tpn)
        gauges = measure_failures(changed, pairs, (t,), seed=seed, methods=("timenet",))["methods"]["timenet"]
        row = {
            "says": VARIANTS[name].says,
            "first_loss": sum(losses[:10]) / len(losses[:10]),
            "last_loss": sum(losses[-50:]) / len(losses[-50:]),
            **{k: gauges[k]["mean"][0] / base[k]["mean"][0] for k in ("inside", "outside")},
            **{k: gauges[k]["mean"][0] for k in ("t_inside", "t_outside")},
        }
        return of_model(changed, "timenet")(images, c, seed)._replace(about={"row": row})

    measured = measure(tests, {name: partial(score, name) for name in names}, seeds=(seed,), say=say, keep=keep)
    return {
        "variants": {name: {**m.runs[0]["row"], **m.mean()} for name, m in measured.items()},
        "steps": steps, "seed": seed, "t": model.preset.t, "pairs": len(pairs.c),
        **how_made(tests, model, "variants", "diagnostics"),
        "flow_1_sha256": model.hashes.get("flow_1"),
    }  # fmt: skip


def with_tpn(model: TimeNet, tpn: TPN) -> TimeNet:
    """Make a model with another TPN, and everything else shared with the one that is given."""
    changed = copy.copy(model)
    changed.models = model.models._replace(tpn=tpn)
    return changed


def format_variants(results: Mapping[str, Any]) -> str:
    """Write the results as a table, one row per variant."""
    width = max(len(r["says"]) for r in results["variants"].values())
    heads = ("loss 1-10", "last 50", "inside", "outside", "T in", "T out", "I-AUROC", "P-AUROC", "PRO")
    lines = [f"{'':<{width}}" + "".join(f"{h:>10}" for h in heads)]
    for r in results["variants"].values():
        values = [f"{r['first_loss']:.4f}", f"{r['last_loss']:.4f}"]
        values += [f"{r[k]:.2f}" for k in ("inside", "outside", "t_inside", "t_outside")]
        values += [percent(r[k]) for k in KEYS]
        lines.append(f"{r['says']:<{width}}" + "".join(f"{v:>10}" for v in values))
    return "\n".join(lines)
