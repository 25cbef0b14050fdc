"""How much the TPN adds to flow 1, for the record: on the test draw over noise seeds, and on synthetic pairs."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from timenet_lib.console import Say, quiet
from timenet_lib.detector import TimeNet
from timenet_lib.evidence.diagnostics import measure_failures
from timenet_lib.evidence.evaluate import choose_t
from timenet_lib.evidence.experiment import Keep, how_made, keep_nothing, measure, of_model
from timenet_lib.evidence.testset import KEYS, TestSet
from timenet_lib.synthesis import Synthesised

GAUGES = ("inside", "outside", "shortcut", "inconsistency", "false_repairs")


def measure_gain(
    model: TimeNet,
    tests: TestSet,
    validation: TestSet,
    *,
    pairs: Synthesised,
    seeds: Sequence[int] = (0, 1, 2),
    ts: Sequence[float] = (0.6, 0.7, 0.75, 0.8, 0.83, 0.88),
    say: Say = quiet,
    keep: Keep = keep_nothing,
) -> dict[str, Any]:
    """Measure both methods on the test images, and their error on pairs, over the seeds.

    flow_1 stands at its best t: that of the highest I-AUROC on the validation draw, among ts. TimeNet stands at its
    working point. The validation draw decides nothing else.
    """

    def choose() -> dict[str, Any]:
        say(f"flow_1: choosing its best t on {len(validation.images)} validation images")
        return choose_t(validation, partial(of_model, model, "flow_1"), ts=ts, seed=seeds[0])

    chosen = keep("flow_1, its best t", choose)
    at = {"flow_1": chosen["best_t"], "timenet": model.preset.t}
    methods = {name: of_model(model, name, t=t) for name, t in at.items()}
    measured = measure(tests, methods, seeds=seeds, kinds=True, say=say, keep=keep)
    t = model.preset.t
    errors = measure_failures(model, pairs, (t,), seed=seeds[0], methods=tuple(at))["methods"]
    rows: dict[str, Any] = {}
    for name, m in measured.items():
        rows[name] = {
            "t": at[name],
            "mean": {key: [run["mean"][key] for run in m.runs] for key in KEYS},
            "kinds": {
                k: {kind: [run["kinds"][k][kind]["i_auroc"] for run in m.runs] for kind in kinds}
                for k, kinds in m.runs[0]["kinds"].items()
            },
            "pairs": {gauge: errors[name][gauge]["mean"][0] for gauge in GAUGES},
        }
    return {
        "methods": rows, "validation": chosen["i_auroc"], "seeds": list(seeds), "pairs": len(pairs.c), "pairs_t": t,
        **how_made(tests, model, "gain", "diagnostics", "evaluate"),
    }  # fmt: skip


def format_gain(results: Mapping[str, Any]) -> str:
    """Write the means over seeds as a table, the errors on pairs, and the kinds of defect that gain and lose most."""
    flow, own = results["methods"]["flow_1"], results["methods"]["timenet"]
    lines = [f"{'test draw, mean over classes':<34} {'I-AUROC':>8} {'P-AUROC':>8} {'PRO':>8}"]
    for name, row in (("flow_1", flow), ("timenet", own)):
        values = [100 * float(np.mean(row["mean"][k])) for k in KEYS]
        lines.append(f"{name} at t = {row['t']:<23}" + "".join(f"{v:9.1f}" for v in values))
    gains = [100 * (np.array(own["mean"][k]) - np.array(flow["mean"][k])) for k in KEYS]
    lines.append(f"{'gain':<34}" + "".join(f"{float(g.mean()):+9.1f}" for g in gains))
    spread = "".join(f"{f'{g.min():+.1f} to {g.max():+.1f}':>16}" for g in gains)
    lines += [f"{'  over the seeds':<20}{spread}", "", f"{results['pairs']} synthetic pairs, t = {results['pairs_t']}"]
    lines.append(f"{'':<10}" + "".join(f"{h:>14}" for h in ("inside", "outside", "survives", "false repairs")))
    for name, row in (("flow_1", flow), ("timenet", own)):
        p = row["pairs"]
        shares = f"{p['shortcut']:14.2f}{100 * p['false_repairs']:12.2f} %"
        lines.append(f"{name:<10}{p['inside']:14.4f}{p['outside']:14.4f}{shares}")
    ratios = [own["pairs"][k] / flow["pairs"][k] for k in ("inside", "outside")]
    lines += [f"{'ratio':<10}" + "".join(f"{r:14.2f}" for r in ratios), ""]
    lines.append("I-AUROC by kind of defect, flow_1 -> timenet")
    kinds = [
        (f"{name}, {kind.replace('_', ' ')}", 100 * float(np.mean(flow["kinds"][name][kind])), 100 * float(np.mean(v)))
        for name, each in own["kinds"].items()
        for kind, v in each.items()
    ]
    kinds.sort(key=lambda k: k[2] - k[1], reverse=True)
    for title, some in (("most gained", kinds[:6]), ("least gained, or lost", kinds[-6:])):
        lines.append(f"  {title}")
        lines += [f"    {name:<26} {a:5.1f} -> {b:5.1f}" for name, a, b in some]
    return "\n".join(lines)
