"""Do the paper's findings hold? Each with the reported effect, ours with its interval, and a verdict by a fixed rule.

The rule needs the shipped model and three trainings at a reduced budget, measured alike. A claim of "more" holds where
the shipped effect's interval lies above 0 and each training's effect does too; it does not hold where all lie below. A
claim of "as good" holds where they all lie above minus one point, and does not where all lie below. Else: undecided.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from timenet_lib.console import Say, quiet
from timenet_lib.data.drawn import drawn_folder
from timenet_lib.data.folder import FolderIndex, index_folder
from timenet_lib.data.textures import drawn_textures
from timenet_lib.data.training_set import load_training_set, training_index
from timenet_lib.detector import TimeNet
from timenet_lib.engine.stages import Run, train_all
from timenet_lib.evidence.experiment import Keep, how_made, keep_nothing, run_experiment
from timenet_lib.evidence.reported import reported_value
from timenet_lib.evidence.tables import levels_table, steps_table, t_table
from timenet_lib.evidence.testset import TestSet, stratified
from timenet_lib.presets import get_preset

REDUCED = {"flow_steps": 1000, "num_couplings": 192, "reflow_steps": 300, "tpn_steps": 500}
FEWER_TS = (0.5, 0.65, 0.75, 0.8, 0.85, 0.95)
MARGIN = -0.01  # of "as good": one point
GOOD, DEFECTIVE = 10, 20  # test images of a class on which the trainings are measured


def measure_trainings(
    folder: Path, seeds: Sequence[int] = (1, 2, 3), *, say: Say = quiet, keep: Keep = keep_nothing
) -> dict[str, Any]:
    """Train all stages once per seed at a reduced budget, resumed from the folder; measure what verdicts need."""
    preset = replace(get_preset("demo"), **REDUCED)  # type: ignore[arg-type]
    data = load_training_set(training_index(None, preset.drawn), preset.image_size)
    index = index_folder(drawn_folder(**preset.drawn), parts=("test",))
    textures = drawn_textures(preset.image_size)
    runs = []
    for seed in seeds:
        out = folder / str(seed)
        say(f"training seed {seed}")
        train_all(Run(out=out, preset=preset, data=data, textures=textures, seed=seed, resume=True, say=say))
        model = TimeNet.from_pretrained(out)
        runs.append({"training_seed": seed, **measure_training(model, index, say=say, keep=keep)})
    return {
        "runs": runs, "reduced": REDUCED, "preset": "demo", "seed": 0, "images": runs[0]["images"],
        "classes": len(data.classes), "data_sha256": index.hash(), "code_sha256": runs[0]["code_sha256"],
    }  # fmt: skip


def measure_training(
    model: TimeNet, index: FolderIndex, *, say: Say = quiet, keep: Keep = keep_nothing
) -> dict[str, Any]:
    """Measure the sections that verdicts need, on a stratified half of the test images."""
    tests = TestSet.load(stratified(index, GOOD, DEFECTIVE), model)
    experiments = {
        "steps": steps_table(model, (1, 10)), "t": t_table(model, ("timenet",), FEWER_TS), "levels": levels_table(model)
    }  # fmt: skip
    of = next(iter(model.hashes.values()))[:8]
    sections = {
        name: run_experiment(tests, e, say=say, keep=lambda row, make, name=name: keep(f"{of}, {name}, {row}", make))
        for name, e in experiments.items()
    }
    return {"sections": sections, **how_made(tests, model, "findings", "tables")}


Effect = Sequence[float]  # value, low, high, as fractions
Sections = Mapping[str, Any]


class Claim(NamedTuple):
    """A finding of the paper: how it is read from measured sections, and the paper's table with the two methods."""

    says: str
    effect: Callable[[Sections, str], Effect]
    papers: tuple[str, str, str] | None = None
    margin: float = 0.0

    def reported(self, key: str) -> float | None:
        """Look up how far the first method is reported above the second, in points."""
        if self.papers is None:
            return None
        table, *methods = self.papers
        first, second = (reported_value(table, "mean", m, metric=key) for m in methods)
        return None if first is None or second is None else first - second


def of_pair(section: str, pair: str) -> Callable[[Sections, str], Effect]:
    """Say how a recorded gain of one row over another is read."""
    return lambda sections, key: sections[section]["gains"][pair][key]


def inside(sections: Sections, key: str) -> Effect:
    """Find how far t = 0.8 is above the better of the two ends, 0.5 and 0.95."""
    rows = sections["t"]["rows"]
    gains = [rows[f"timenet, {end}"]["gain"][key] for end in (0.5, 0.95)]  # of the ends over 0.8
    value, low, high = max(gains, key=lambda g: g[0])
    return [-value, -high, -low]


CLAIMS = {
    "one_step_flow_0": Claim(
        "One step is as good as ten (flow 0)", of_pair("steps", "flow_0, 1 over flow_0, 10"),
        ("3", "flow_0 1 step", "flow_0 10 steps"), margin=MARGIN,
    ),
    "one_step_flow_1": Claim(
        "One step is as good as ten (flow 1)", of_pair("steps", "flow_1, 1 over flow_1, 10"),
        ("3", "flow_1 1 step", "flow_1 10 steps"), margin=MARGIN,
    ),
    "reflow": Claim(
        "Reflow helps the one step", of_pair("steps", "flow_1, 1 over flow_0, 1"),
        ("3", "flow_1 1 step", "flow_0 1 step"),
    ),
    "tpn": Claim(
        "The TPN helps", of_pair("steps", "timenet, 1 over flow_1, 1"),
        ("3", "TimeNet 1 step", "flow_1 1 step"),
    ),
    "optimum": Claim("t has its best inside: 0.8 above 0.5 and 0.95", inside),
    "levels": Claim(
        "f2-4 are as good as f1-5 (WideResNet101)", of_pair("levels", "WideResNet101 f2-4 over WideResNet101 f1-5"),
        ("5", "f2-4", "f1-5"), margin=MARGIN,
    ),
}  # fmt: skip


def verdict(shipped: Effect, trainings: Sequence[Effect], margin: float = 0.0) -> str:
    """Say "holds", "does not" or "undecided"; the module's first lines say when."""
    values = [e[0] for e in trainings]
    if shipped[1] > margin and all(v > margin for v in values):
        return "holds"
    if shipped[2] < margin and all(v < margin for v in values):
        return "does not"
    return "undecided"
