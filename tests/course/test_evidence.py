import numpy as np
import pytest
import torch

from timenet_lib.course import evidence, evidence_figures
from timenet_lib.data.folder import Sample
from timenet_lib.evidence import peer_pictures
from timenet_lib.evidence.benchmark import SAYS, row_name
from timenet_lib.files import sha256
from timenet_lib.weights import shipped_weights

DEMO = shipped_weights("demo")


@pytest.fixture(scope="module")
def benchmark():
    return evidence.read_evidence("benchmark")


@pytest.fixture(scope="module")
def ablations():
    return evidence.read_evidence("ablations")


def column(table, name):
    return table.header.index(name)


def test_table_1_holds_ours_and_the_reported_ones(benchmark):
    table = evidence.table_1(benchmark)
    rows = {row[:2]: row for row in table.rows}
    own = benchmark["methods"]["timenet"]["classes"]["die"]
    shown = rows["ours", "die"][column(table, "TimeNet")]
    assert shown == f"{100 * own['i_auroc']:.1f}/{100 * own['p_auroc']:.1f}"
    assert rows["reported", "mean"][column(table, "TimeNet")] == "97.5/97.9"
    assert rows["reported", "cable"][column(table, "DRAEM")] == "57.8/71.3"
    assert rows["reported", "carpet"][column(table, "TimeNet, tuned per class")] == ""
    assert rows["reported", "mean"][column(table, "HVQ-Trans")] == "98.0/97.3"
    assert rows["ours", "mean"][column(table, "HVQ-Trans")] == ""
    assert len(table.rows) == 11 + 18  # ten classes and their mean; fifteen and three means
    assert benchmark["command"] in table.caption


def test_the_mean_of_table_1_is_that_of_its_classes(benchmark):
    for row in benchmark["methods"].values():
        for key in ("i_auroc", "p_auroc", "pro"):
            assert row["mean"][key] == pytest.approx(np.mean([c[key] for c in row["classes"].values()]))
            assert row["mean"][key] == pytest.approx(np.mean(row["seeds"][key]))
            low, high = row["interval"][key]
            assert low < row["mean"][key] < high


def test_table_2_has_every_method_once(benchmark):
    table = evidence.table_2(benchmark)
    rows = {row[0]: row for row in table.rows}
    assert len(rows) == len(table.rows)
    assert rows["TimeNet"][2] == "93.9"
    assert rows["RAN"][1:] == ("", "93.0")
    assert rows["DDIM, 10 steps, t = 0.92"][2] == ""


@pytest.mark.parametrize(
    ("make", "row", "reported"),
    [
        (evidence.table_3, "flow_0, 10", "88.6/95.3/85.9"),
        (evidence.table_3, "timenet, 1", "97.4/97.9/93.8"),
        (evidence.table_4, "VGG16", "95.2/96.8/91.7"),
        (evidence.table_5, "WideResNet101 f2-4", "97.5/97.9/93.9"),
    ],
)
def test_tables_3_to_5_hold_ours_and_the_reported_ones(ablations, make, row, reported):
    table = make(ablations)
    found = next(r for r in table.rows if r[0] == row)
    assert found[-1] == reported
    section = {evidence.table_3: "steps", evidence.table_4: "extractors", evidence.table_5: "levels"}[make]
    own = ablations["sections"][section]["rows"][row]
    assert found[1].startswith(f"{100 * own['i_auroc']:.1f} ({100 * own['interval']['i_auroc'][0]:.1f} to ")
    if "weights" in own:
        assert found[column(table, "weights")] == own["weights"]
    assert all(len(r) == len(table.header) for r in table.rows)


def test_a_table_is_shown_as_markdown():
    table = evidence.Table("Words.", ("a", "b"), [("1", "2")])
    assert table._repr_markdown_() == "Words.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_standing_is_sorted_and_names_its_sources():
    table = evidence.standing()
    values = [float(r[1]) for r in table.rows if r[1]]
    assert values == sorted(values, reverse=True)
    assert ("TimeNet", "97.5", "97.9", "93.9", "Jiang et al. 2025") in table.rows
    assert ("PatchCore", "98.8", "98.3", "94.2", "ADer") in table.rows


def test_the_hashes_are_those_of_the_records():
    hashes = evidence.evidence_hashes("benchmark", "ablations")
    assert hashes == {n: sha256((DEMO / n).read_bytes()) for n in ("benchmark.json", "evaluation.json")}


def test_one_step_is_four_times_as_fast_as_ten_ddim_steps(benchmark):
    costs = benchmark["costs"]["methods"]
    table = evidence.costs_table(benchmark)
    rows = {r[0]: r for r in table.rows}
    assert set(rows) == set(costs)
    assert rows["timenet, 1"][3] == "1"
    assert rows["ddim, 10"][3] == "10"
    assert float(rows["flow_1, 10"][2]) > 5 * float(rows["flow_1, 1"][2])
    assert costs["timenet, 1"]["images_per_second"] >= 4 * costs["ddim, 10"]["images_per_second"]


def test_failures_are_the_worst_ones_and_on_the_wrong_side(tmp_path):
    """Four test images: two missed, one false alarm, one found."""
    kinds = [("a", "crack", True), ("a", "good", False), ("b", "crack", True), ("b", "hole", True)]
    samples = tuple(
        Sample(tmp_path / f"{i}.png", c, k, mask_path=tmp_path / "m.png" if d else None)
        for i, (c, k, d) in enumerate(kinds)
    )
    judged = evidence_figures.Judged(samples, torch.tensor([0.4, 0.9, 0.2, 0.8]), 0.5)
    assert judged.defective.tolist() == [True, False, True, True]
    missed = evidence_figures.failures(judged, missed=True)
    assert [s.path.name for s in missed] == ["2.png", "0.png"]  # the lowest first, and not the found one
    assert [s.path.name for s in evidence_figures.failures(judged, missed=False)] == ["1.png"]
    assert len(evidence_figures.failures(judged, missed=True, count=1)) == 1
    shown = evidence_figures.kinds_table(judged)
    assert "b, crack" in shown
    assert "100 %" in shown


def test_the_range_of_a_map_s_colours():
    maps = torch.arange(1001.0).reshape(1, 7, 143)
    assert peer_pictures.map_range(maps).tolist() == pytest.approx([500, 998])


def test_the_peers_pictures_are_of_the_images_of_figures_2_to_4():
    pictures = peer_pictures.read_peer_pictures()
    count = peer_pictures.KINDS * sum(len(c) for c in peer_pictures.FIGURES.values())
    assert {len(v) for k, v in pictures.items() if not k.endswith("range")} == {count}
    assert set(pictures) >= {f"{n}/score_map" for n in evidence_figures.PEER_ROWS}


def test_every_method_has_its_row_of_results_and_timenet_a_lead_over_each_other(benchmark):
    methods = benchmark["methods"]
    results = {row[0]: row[1:] for row in evidence.results_table(benchmark).rows}
    leads = {row[0]: row[1:] for row in evidence.lead_table(benchmark).rows}
    assert list(results) == [row_name(benchmark, m) for m in methods]
    assert list(leads) == [row_name(benchmark, m) for m in methods if m != "timenet"]
    for name, row in methods.items():
        low, high = row["interval"]["pro"]
        assert (
            results[row_name(benchmark, name)][2]
            == f"{100 * row['mean']['pro']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
        )
        if name != "timenet":
            lead = methods["timenet"]["mean"]["p_auroc"] - row["mean"]["p_auroc"]
            assert row["against_timenet"]["p_auroc"][0] == pytest.approx(lead)
            assert leads[row_name(benchmark, name)][1].startswith(f"{100 * lead:+.1f} (")


def test_what_was_chosen_on_validation_has_a_line_a_method_or_a_class(benchmark):
    chosen = benchmark["chosen_on_validation"]
    lines = evidence.chosen_words(benchmark).splitlines()
    assert f"{SAYS['ddim']}: t = {chosen['ddim']['best_t']}" in lines
    t, w, lam = chosen["timenet_tuned"]["die"]["setting"]
    assert f"  die        t = {t}, w = {w:g}, lambda = {lam:g}" in lines
    assert len(lines) == len(chosen) + len(chosen["timenet_tuned"])


def test_a_section_that_the_paper_does_not_have_has_no_column_for_it(ablations):
    table = evidence.section_table(ablations, "choices", "Choices")
    assert table.header == ("", "I-AUROC", "P-AUROC", "PRO", "I-AUROC, gain over default")
    assert {len(row) for row in table.rows} == {5}


@pytest.mark.parametrize("older", ["", "recorded on older pictures"])
def test_figures_of_older_records_say_so(benchmark, ablations, older):
    draw = evidence_figures
    for figure in (
        draw.benchmark_figure({**benchmark, "older": older}), draw.over_t_figure({**ablations, "older": older})
    ):  # fmt: skip
        assert figure.get_supxlabel() == older


def test_ddim_says_its_t_wherever_it_has_a_row(benchmark):
    for table in (evidence.table_2(benchmark), evidence.results_table(benchmark), evidence.lead_table(benchmark)):
        assert "DDIM, 10 steps, t = 0.92" in [row[0] for row in table.rows]
    assert "DDIM, 10 steps, t = 0.92" in evidence.table_1(benchmark).header
    labels = [text.get_text() for text in evidence_figures.benchmark_figure(benchmark).axes[0].get_yticklabels()]
    assert "DDIM, 10 steps, t = 0.92" in labels
