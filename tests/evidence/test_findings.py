import pytest

from timenet_lib.course.evidence import findings_table, read_evidence, speed_row
from timenet_lib.evidence.findings import CLAIMS, MARGIN, inside, verdict

UP, DOWN, WIDE = (0.03, 0.01, 0.05), (-0.03, -0.05, -0.02), (0.03, -0.01, 0.07)


@pytest.mark.parametrize(
    ("shipped", "trainings", "margin", "expected"),
    [
        (UP, [UP, UP, UP], 0.0, "holds"),
        (WIDE, [UP, UP, UP], 0.0, "undecided"),  # the interval reaches 0
        (UP, [UP, DOWN, UP], 0.0, "undecided"),  # one training says otherwise
        (UP, [WIDE, WIDE, WIDE], 0.0, "holds"),  # of a training the value counts
        (DOWN, [DOWN, DOWN, DOWN], 0.0, "does not"),
        (DOWN, [DOWN, DOWN, UP], 0.0, "undecided"),
        ((0.0, -0.005, 0.005), [(0.0, 0, 0)] * 3, 0.0, "undecided"),
        ((0.0, -0.005, 0.005), [(0.0, 0, 0)] * 3, MARGIN, "holds"),  # as good, within a point
        ((0.0, -0.015, 0.005), [(0.0, 0, 0)] * 3, MARGIN, "undecided"),
        (DOWN, [DOWN] * 3, MARGIN, "does not"),
    ],
)
def test_the_verdict_follows_the_rule(shipped, trainings, margin, expected):
    assert verdict(shipped, trainings, margin) == expected


def test_inside_is_measured_against_the_better_end():
    gains = {0.5: [-0.06, -0.08, -0.04], 0.8: [0, 0, 0], 0.95: [-0.02, -0.03, 0.01]}
    sections = {"t": {"rows": {f"timenet, {t}": {"gain": {"pro": g}} for t, g in gains.items()}}}
    assert inside(sections, "pro") == [0.02, -0.01, 0.03]


def test_speed_needs_accuracy_too():
    fast, slow = ({"images_per_second": v, "range": [0.9 * v, 1.1 * v]} for v in (80.0, 20.0))
    costs = {"methods": {"flow_1, 1": fast, "flow_1, 10": slow}}
    assert speed_row(costs, "holds", "holds")[-3:] == ("4.0 times (3.3 to 4.9)", "one machine", "holds")
    assert speed_row(costs, "holds", "undecided")[-1] == "undecided"
    assert speed_row({"methods": {"flow_1, 1": slow, "flow_1, 10": fast}}, "holds", "holds")[-1] == "undecided"


def test_the_table_reads_the_records():
    ablations, trainings, benchmark = (read_evidence(n) for n in ("ablations", "trainings", "benchmark"))
    table = findings_table(ablations, trainings, benchmark["costs"])
    assert len(table.rows) == 2 * len(CLAIMS) + 1
    of = {row[:2]: row for row in table.rows}
    gain = ablations["sections"]["steps"]["gains"]["timenet, 1 over flow_1, 1"]["i_auroc"]
    row = of["The TPN helps", "I-AUROC"]
    assert row[2] == "+5.2"  # 97.4 - 92.2, table 3 of the paper
    assert row[3] == "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * g for g in gain))
    others = [r["sections"]["steps"]["gains"]["timenet, 1 over flow_1, 1"]["i_auroc"] for r in trainings["runs"]]
    assert row[4] == ", ".join(f"{100 * g[0]:+.1f}" for g in others)
    assert row[5] == verdict(gain, others)
    assert of["One step is as good as ten (flow 1)", "PRO"][2] == "+0.1"
    assert all(len(row) == len(table.header) for row in table.rows)
