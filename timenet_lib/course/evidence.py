"""The recorded evidence as tables: 1 to 5 of the paper, ours next to what the paper and others report.

Ours are of the drawn data set, the reported ones of MVTec-AD: the order of the methods compares, the values do not.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from timenet_lib.course.figures import markdown_table
from timenet_lib.evidence.benchmark import SAYS, row_name
from timenet_lib.evidence.experiment import own_gain
from timenet_lib.evidence.findings import CLAIMS, verdict
from timenet_lib.evidence.intervals import gain_words
from timenet_lib.evidence.records import OLDER, note, read, record_path
from timenet_lib.evidence.reported import reported, reported_value
from timenet_lib.evidence.testset import KEYS
from timenet_lib.files import sha256

NAMES = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "pro": "PRO"}
PAPERS = ("DRAEM", "PatchCore", "UniAD", "OmniAL", "HVQ-Trans", "DiAD", "TimeNet", "TimeNet, tuned per class")
TABLE_1 = {  # our method: the paper's name, None where the paper has none
    "class_mean": None, "nearest": None, "draem": "DRAEM", "patchcore": "PatchCore", "ddim": None, "flow_0": None,
    "flow_1": None, "timenet": "TimeNet", "timenet_tuned": "TimeNet, tuned per class",
}  # fmt: skip
NARROW = "Our DRAEM is a quarter as wide as usual."


class Table(NamedTuple):
    """A table as Jupyter shows it and as `Show` writes it."""

    caption: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def _repr_markdown_(self) -> str:
        return f"{self.caption}\n\n{markdown_table(self.header, self.rows)}"


def read_evidence(name: str) -> dict[str, Any]:
    """Read a record of the shipped weights by its name, or "ablations"; it says whether it is of older pictures."""
    record = "evaluation" if name == "ablations" else name
    results = read(record)
    part = {**results["ablations"], "command": results["command"]} if name == "ablations" else results
    return {**part, "older": note(record)}


def evidence_hashes(*names: str) -> dict[str, str]:
    """Hash the files of records, for the manifest of what is drawn from them."""
    paths = [record_path("evaluation" if n == "ablations" else n) for n in names]
    return {path.name: sha256(path.read_bytes()) for path in paths}


def first_words(*names: str) -> str:
    """Begin a caption: "Recorded", or "Recorded on older pictures" where a record is of those."""
    return OLDER.capitalize() if note(*names) else "Recorded"


def by(results: Mapping[str, Any]) -> str:
    """Say how a record was made, as the first words of a caption."""
    made = f"preset {results['preset']}, {results['images']} test images, by `{results['command']}`."
    return f"{(results.get('older') or 'recorded').capitalize()}: {made}"


def percents(*values: float | None) -> str:
    """Write fractions as percentages, "95.8/93.9"."""
    return "/".join("n/a" if v is None else f"{100 * v:.1f}" for v in values)


def with_interval(row: Mapping[str, Any], key: str) -> str:
    """Write a mean with its interval, "95.8 (94.2 to 97.2)"."""
    value = row["mean"][key] if "mean" in row else row[key]
    if value is None or key not in row["interval"]:
        return percents(value)
    low, high = row["interval"][key]
    return f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def said(table: str, class_name: str, method: str, *metrics: str) -> str:
    """Write reported numbers, "97.5/97.9"; "" where nothing is reported."""
    values = [reported_value(table, class_name, method, metric=m) for m in metrics]
    return "" if all(v is None for v in values) else "/".join("n/a" if v is None else f"{v:.1f}" for v in values)


def table_1(benchmark: Mapping[str, Any]) -> Table:
    """Make table 1: I-AUROC / P-AUROC per class: ours on the drawn classes, then the paper's on MVTec-AD's."""
    methods = {m: row for m, row in benchmark["methods"].items() if m in TABLE_1}
    columns = [m for m in TABLE_1 if m in methods]
    others = [p for p in PAPERS if p not in TABLE_1.values()]
    rows = []
    for name in [*next(iter(methods.values()))["classes"], "mean"]:
        each = [methods[m]["mean"] if name == "mean" else methods[m]["classes"][name] for m in columns]
        rows.append(("ours", name, *(percents(e["i_auroc"], e["p_auroc"]) for e in each), *("" for _ in others)))
    for name in dict.fromkeys(r.class_name for r in reported() if r.table == "1"):
        papers = [TABLE_1[m] or "" for m in columns] + others
        rows.append(("reported", name, *(said("1", name, p, "i_auroc", "p_auroc") for p in papers)))
    return Table(
        f"Table 1, I-AUROC/P-AUROC in percent. Ours: drawn data. {by(benchmark)} Means over {len(benchmark['seeds'])} "
        f"noise seeds. {NARROW} Reported: MVTec-AD, table 1 of the paper.",
        ("data", "class", *(row_name(benchmark, m) for m in columns), *others),
        rows,
    )


def table_2(benchmark: Mapping[str, Any]) -> Table:
    """Make table 2: PRO of every method with its interval, and what is reported on MVTec-AD."""
    ours = {p: m for m, p in TABLE_1.items() if p}
    rows: list[tuple[str, ...]] = [
        (row_name(benchmark, m), with_interval(row, "pro"), said("2", "mean", TABLE_1.get(m) or "", "pro"))
        for m, row in benchmark["methods"].items()
    ]
    rows += [
        (p, "", said("2", "mean", p, "pro"))
        for p in dict.fromkeys(r.method for r in reported() if r.table == "2")
        if p not in ours
    ]
    return Table(
        f"Table 2, PRO in percent, 95 % interval over the test images. Ours: drawn data. {by(benchmark)} {NARROW} "
        "Reported: MVTec-AD, table 2 of the paper.",
        ("method", "ours", "reported"),
        rows,
    )


def section_table(
    ablations: Mapping[str, Any], section: str, title: str, number: str = "", papers: Mapping[str, str] | None = None
) -> Table:
    """Make a section's table: ours with intervals, the gain in I-AUROC, and what is reported for the rows in papers."""
    part, papers = ablations["sections"][section], papers or {}
    weights = any("weights" in r for r in part["rows"].values())
    rows = []
    for name, row in part["rows"].items():
        cells = [name, *(with_interval(row, k) for k in KEYS), own_gain(part, name)]
        if weights:
            cells.append(row.get("weights", ""))
        if papers:
            cells.append(said(number, "mean", papers[name], *KEYS) if name in papers else "")
        rows.append(tuple(cells))
    header = ["", *NAMES.values(), f"I-AUROC, gain over {part['against']}"]
    header += ["weights"] * weights + ["reported: I/P/PRO"] * bool(papers)
    return Table(f"{title}, percent, 95 % interval over the test images. {by(ablations)}", tuple(header), rows)


def table_3(ablations: Mapping[str, Any]) -> Table:
    papers = {f"{m}, {n}": f"{m} {n} step{'s' * (n > 1)}" for m in ("flow_0", "flow_1") for n in (1, 3, 5, 10)}
    papers["timenet, 1"] = "TimeNet 1 step"
    return section_table(ablations, "steps", "Table 3, sampling steps at t = 0.80", number="3", papers=papers)


def table_4(ablations: Mapping[str, Any]) -> Table:
    names = [n for n in ablations["sections"]["extractors"]["rows"] if n != "embedded"]
    return section_table(ablations, "extractors", "Table 4, extractors", number="4", papers={n: n for n in names})


def table_5(ablations: Mapping[str, Any]) -> Table:
    wide = [n for n in ablations["sections"]["levels"]["rows"] if n.startswith("Wide")]
    return section_table(ablations, "levels", "Table 5, levels", number="5", papers={n: n.split()[-1] for n in wide})


def standing() -> Table:
    """Show where TimeNet stands on MVTec-AD by reported numbers: the paper's, independent ones, today's best."""
    sources: dict[tuple[str, str], dict[str, float]] = {}
    for r in reported():
        if r.class_name == "mean" and r.table in ("1", "2", "others"):
            sources.setdefault((r.method, r.source), {})[r.metric] = r.value
    rows = [
        (method, *(f"{v[k]:.1f}" if k in v else "" for k in KEYS), source)
        for (method, source), v in sorted(sources.items(), key=lambda e: -e[1].get("i_auroc", 0))
    ]
    caption = (
        "One model for all 15 classes of MVTec-AD, percent, as reported by the source that is named; none is ours."
    )
    return Table(caption, ("method", *NAMES.values(), "source"), rows)


def costs_table(benchmark: Mapping[str, Any]) -> Table:
    """Show cost next to accuracy: the whole path from an image to its score."""
    names = {"timenet, 1": "timenet", "flow_1, 1": "flow_1", "ddim, 10": "ddim"}
    costs = benchmark["costs"]
    rows: list[tuple[str, ...]] = []
    for name, r in costs["methods"].items():
        known = benchmark["methods"].get(names.get(name, name))
        low, high = r["range"]
        rows.append((
            name, f"{r['parameters'] / 1e6:.1f}", f"{r['gflop']:.2f}", str(r["evaluations"]),
            f"{r['images_per_second']:.1f} ({low:.1f} to {high:.1f})", f"{r['peak_mb']:.0f}",
            "" if known is None else percents(*(known["mean"][k] for k in KEYS)),
        ))  # fmt: skip
    caption = (
        f"The whole path from an image to its score, all in one run on {costs['threads']} CPU threads, batches of "
        f"{costs['batch']}. {by(benchmark)}"
    )
    header = ("method, steps", "M parameters", "GFLOP", "evaluations", "images/s", "peak MB", "I/P/PRO")
    return Table(caption, header, rows)


def chosen_words(benchmark: Mapping[str, Any]) -> str:
    """Say what was chosen on validation images, one line per method or, where it is tuned, per class."""
    lines = []
    for name, found in benchmark["chosen_on_validation"].items():
        if "best_t" in found:
            lines.append(f"{SAYS.get(name, name)}: t = {found['best_t']}")
        else:
            lines.append(f"{SAYS.get(name, name)}:")
            lines += ["  {:<10} t = {}, w = {:g}, lambda = {:g}".format(c, *s["setting"]) for c, s in found.items()]
    return "\n".join(lines)


def results_table(benchmark: Mapping[str, Any]) -> Table:
    """Show every method's three means over classes and noise seeds, with intervals."""
    rows = [(row_name(benchmark, m), *(with_interval(row, k) for k in KEYS)) for m, row in benchmark["methods"].items()]
    return Table(
        f"Percent, 95 % interval over the test images. {by(benchmark)} {NARROW}", ("method", *NAMES.values()), rows
    )


def lead_table(benchmark: Mapping[str, Any]) -> Table:
    """Show TimeNet's lead over every other method in points, with its paired interval."""
    rows = [
        (row_name(benchmark, name), *(gain_words(row["against_timenet"][k]) for k in KEYS))
        for name, row in benchmark["methods"].items()
        if name != "timenet"
    ]
    caption = (
        f"TimeNet's lead in points, 95 % interval over the same draws of test images for both methods. {by(benchmark)}"
    )
    return Table(caption, ("TimeNet ahead of", *NAMES.values()), rows)


def findings_table(ablations: Mapping[str, Any], trainings: Mapping[str, Any], costs: Mapping[str, Any]) -> Table:
    """Make the table of verdicts, a row for each claim and metric, effects in points."""
    rows: list[tuple[str, ...]] = []
    for claim in CLAIMS.values():
        for key in ("i_auroc", "pro"):
            own = claim.effect(ablations["sections"], key)
            others = [claim.effect(run["sections"], key) for run in trainings["runs"]]
            theirs = claim.reported(key)
            rows.append((
                claim.says, NAMES[key], "not in numbers" if theirs is None else f"{theirs:+.1f}",
                gain_words(own),
                ", ".join(f"{100 * e[0]:+.1f}" for e in others), verdict(own, others, claim.margin),
            ))  # fmt: skip
    rows.append(speed_row(costs, rows[2][-1], rows[3][-1]))
    seeds = ", ".join(str(run["training_seed"]) for run in trainings["runs"])
    caption = (
        f"Effects in points. Ours: the shipped model, {ablations['images']} test images, 95 % interval over them. "
        f"Trainings: seeds {seeds} at a reduced budget, {trainings['images']} test images. "
        f"{first_words('evaluation', 'trainings', 'benchmark')}, by `{ablations['command']}` and "
        f"`{trainings['command']}`. Reported: Jiang et al. 2025, on MVTec-AD."
    )
    return Table(caption, ("finding", "in", "reported", "ours", "trainings", "verdict"), rows)


def speed_row(costs: Mapping[str, Any], *as_good: str) -> tuple[str, ...]:
    """Give the verdict on speed: whole paths, flow 1 in one step against ten, if one is as good."""
    one, ten = (costs["methods"][f"flow_1, {n}"] for n in (1, 10))
    ratio = one["images_per_second"] / ten["images_per_second"]
    low, high = one["range"][0] / ten["range"][1], one["range"][1] / ten["range"][0]
    holds = low > 1 and all(v == "holds" for v in as_good)
    says = "One step is faster than ten, as accurate (flow 1)"
    shown = f"{ratio:.1f} times ({low:.1f} to {high:.1f})"
    return (says, "images/s", "no timing", shown, "one machine", "holds" if holds else "undecided")
