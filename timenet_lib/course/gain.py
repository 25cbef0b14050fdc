"""How much the TPN adds to flow 1, for the record: on the test draw over noise seeds, and on synthetic pairs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from timenet_lib.data.folder import FolderIndex, load_images
from timenet_lib.detector import TimeNet
from timenet_lib.evidence.diagnostics import measure_failures
from timenet_lib.evidence.evaluate import KEYS, evaluate_method
from timenet_lib.synthesis import Synthesised

Say = Callable[[str], None]


def measure_gain(
    model: TimeNet,
    test: FolderIndex,
    validation: FolderIndex,
    pairs: Synthesised,
    seeds: Sequence[int] = (0, 1, 2),
    ts: Sequence[float] = (0.6, 0.7, 0.75, 0.8, 0.83, 0.88),
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Return both methods' metrics and their error on pairs, over the seeds.

    flow_1 stands at its best t: that of the highest I-AUROC on the validation draw, among ts. TimeNet stands at its
    working point. The validation draw decides nothing else.
    """
    chosen = {}
    images, c = loaded(model, validation)
    for t in ts:
        chosen[str(t)] = evaluate_method(validation, model, images, c, "flow_1", t, seeds[0])["mean"]
        say(f"validation, flow_1 at t = {t}: I-AUROC {100 * chosen[str(t)]['i_auroc']:.1f}")
    best = max(ts, key=lambda t: chosen[str(t)]["i_auroc"])
    at = {"flow_1": best, "timenet": model.preset.t}
    rows: dict[str, Any] = {}
    images, c = loaded(model, test)
    for method, t in at.items():
        say(f"test, {method} at t = {t}, seeds {list(seeds)}")
        runs = [evaluate_method(test, model, images, c, method, t, seed) for seed in seeds]
        rows[method] = {
            "t": t,
            "mean": {key: [run["mean"][key] for run in runs] for key in KEYS},
            "kinds": {
                name: {kind: [run["kinds"][name][kind]["i_auroc"] for run in runs] for kind in kinds}
                for name, kinds in runs[0]["kinds"].items()
            },
        }
    t = model.preset.t
    errors = measure_failures(model, pairs, (t,), seeds[0], tuple(at))["methods"]
    for method in at:
        gauges = ("inside", "outside", "shortcut", "inconsistency", "false_repairs")
        rows[method]["pairs"] = {k: errors[method][k]["mean"][0] for k in gauges}
    return {
        "methods": rows, "validation": chosen, "seeds": list(seeds), "pairs": len(pairs.c), "pairs_t": t,
        "preset": model.preset.name, "weights_sha256": model.hashes, "data_sha256": test.hash(),
    }  # fmt: skip


def loaded(model: TimeNet, index: FolderIndex) -> tuple[Tensor, Tensor]:
    """Return a folder's test images and their class numbers."""
    return load_images(index.test, model.preset.image_size), model.labels([s.class_name for s in index.test])


def format_gain(results: dict[str, Any]) -> str:
    """Return the means over seeds as a table, the errors on pairs, and the kinds of defect that gain and lose most."""
    flow, own = results["methods"]["flow_1"], results["methods"]["timenet"]
    lines = [f"{'test draw, mean over classes':<34} {'I-AUROC':>8} {'P-AUROC':>8} {'PRO':>8}"]
    for name, row in (("flow_1", flow), ("timenet", own)):
        values = [100 * float(np.mean(row["mean"][k])) for k in KEYS]
        lines.append(f"{name} at t = {row['t']:<23}" + "".join(f"{v:9.1f}" for v in values))
    gains = [100 * (np.array(own["mean"][k]) - np.array(flow["mean"][k])) for k in KEYS]
    lines.append(f"{'gain':<34}" + "".join(f"{float(g.mean()):+9.1f}" for g in gains))
    spread = "".join(f"{f'{g.min():+.1f} to {g.max():+.1f}':>16}" for g in gains)
    lines += [f"{'  over the seeds':<20}{spread}", "", f"{results['pairs']} synthetic pairs, t = {results['pairs_t']}"]
    heads = ("inside", "outside", "survives", "false repairs")
    lines.append(f"{'':<10}" + "".join(f"{h:>14}" for h in heads))
    for name, row in (("flow_1", flow), ("timenet", own)):
        p = row["pairs"]
        shown = (
            f"{p['inside']:.4f}",
            f"{p['outside']:.4f}",
            f"{p['shortcut']:.2f}",
            f"{100 * p['false_repairs']:.2f} %",
        )
        lines.append(f"{name:<10}" + "".join(f"{v:>14}" for v in shown))
    ratios = [own["pairs"][k] / flow["pairs"][k] for k in ("inside", "outside")]
    lines += [
        f"{'ratio':<10}" + "".join(f"{r:14.2f}" for r in ratios),
        "",
        "I-AUROC by kind of defect, flow_1 -> timenet",
    ]
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
