from collections import defaultdict

import pytest

from timenet_lib.data.mvtec import MVTEC_COUNTS
from timenet_lib.evidence.reported import format_beside, reported, reported_value


def test_the_papers_rows_average_to_its_means():
    rows = defaultdict(dict)
    for r in reported():
        if r.table == "1":
            rows[r.method, r.metric][r.class_name] = r.value
    whole = {k: v for k, v in rows.items() if set(MVTEC_COUNTS) <= set(v)}
    assert len(whole) == 14  # seven methods, two metrics; "tuned per class" is not known for the textures
    for (method, _), values in whole.items():
        mean = sum(values[name] for name in MVTEC_COUNTS) / 15
        assert mean == pytest.approx(values["mean"], abs=0.061), method


def test_every_number_is_a_percentage_with_its_source_and_stands_once():
    keys = [r[:4] for r in reported()]
    assert len(set(keys)) == len(keys)
    assert all(0 < r.value <= 100 and r.source and r.metric in ("i_auroc", "p_auroc", "pro") for r in reported())
    assert reported_value("2", "mean", "TimeNet", metric="pro") == 93.9
    assert reported_value("1", "wood", "TimeNet, tuned per class", metric="i_auroc") is None


def test_the_papers_table_stands_beside_ours_on_mvtec_only():
    row = {"i_auroc": 0.5, "p_auroc": None, "pro": 0.25}
    results = {"methods": {"timenet": {"mean": row, "classes": dict.fromkeys(MVTEC_COUNTS, row)}}}
    lines = format_beside(results).splitlines()
    assert "50.0 / 97.5" in next(line for line in lines if line.startswith("mean"))
    assert "n/a / 94.0" in next(line for line in lines if line.startswith("transistor"))
    assert "25.0 / 93.9" in lines[-1]
    assert format_beside({"methods": {"timenet": {"mean": row, "classes": {"die": row}}}}) == ""
