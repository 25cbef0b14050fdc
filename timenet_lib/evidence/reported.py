"""What others report, from reported.csv, each number with its source: to be shown next to ours, never as ours."""

import csv
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from timenet_lib.data.mvtec import MVTEC_COUNTS

FILE = Path(__file__).with_name("reported.csv")
OURS = {"timenet": "TimeNet", "patchcore": "PatchCore"}  # methods of ours by the paper's names


class Reported(NamedTuple):
    """One reported number, in percent. table: of the paper, "others" for what was published elsewhere."""

    table: str
    class_name: str
    method: str
    metric: str
    value: float
    source: str


@cache
def reported() -> tuple[Reported, ...]:
    """Read every reported number, in the order of the file."""
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return tuple(Reported._make([*key, float(value), source]) for *key, value, source in rows[1:])


def reported_value(table: str, class_name: str, method: str, metric: str) -> float | None:
    """Look up one number in percent, None where the source has none."""
    return next((row.value for row in reported() if row[:4] == (table, class_name, method, metric)), None)


def format_beside(results: dict[str, Any]) -> str:
    """Format the paper's tables 1 and 2 next to evaluate's results on MVTec-AD, in percent; "" for other data.

    Paper: tables 1 and 2, which were made with all 15 classes in one model.
    """
    methods = {m: name for m, name in OURS.items() if m in results["methods"]}
    classes = next(iter(results["methods"].values()))["classes"]
    if set(classes) != set(MVTEC_COUNTS) or not methods:
        return ""
    columns = [(m, k) for m in methods for k in ("i_auroc", "p_auroc")]
    heads = [f"{methods[m]} {'I' if k == 'i_auroc' else 'P'}-AUROC" for m, k in columns]
    lines = [
        "MVTec-AD: ours, then as reported by the paper (tables 1 and 2), percent",
        f"{'class':<12}" + "".join(f"{h:>20}" for h in heads),
    ]
    for name in [*classes, "mean"]:
        cells = [beside(results["methods"][m], "1", name, method=methods[m], metric=k) for m, k in columns]
        lines.append(f"{name:<12}" + "".join(f"{c:>20}" for c in cells))
    for m, name in methods.items():
        lines.append(
            f"{f'{name} PRO':<12}" + f"{beside(results['methods'][m], '2', 'mean', method=name, metric='pro'):>20}"
        )
    return "\n".join(lines)


def beside(ours: dict[str, Any], table: str, class_name: str, method: str, metric: str) -> str:
    """Format our number and the reported one, as "95.8 / 97.5"."""
    mine = (ours["mean"] if class_name == "mean" else ours["classes"][class_name])[metric]
    theirs = reported_value(table, class_name, method, metric=metric)
    shown = [f"{100 * mine:.1f}" if mine is not None else "n/a", f"{theirs:.1f}" if theirs is not None else "n/a"]
    return " / ".join(shown)
