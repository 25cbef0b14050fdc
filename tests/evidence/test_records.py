"""The shipped records: which are of today's weights and pictures, and that those which are not are listed as such."""

import json

import pytest

from timenet_lib.course.evidence import by, first_words, read_evidence
from timenet_lib.course.models import recorded, recorded_extractors
from timenet_lib.data.drawn import drawn_folder
from timenet_lib.data.folder import index_folder
from timenet_lib.evidence import records
from timenet_lib.evidence.difficulty import PER_CLASS, VALIDATION_SEED
from timenet_lib.evidence.records import OLDER, RECORDS, STALE, code_sha256, made_with, note, read
from timenet_lib.presets import get_preset
from timenet_lib.weights import read_record, shipped_weights

DEMO = get_preset("demo")
SHIPPED = {stage: read_record(shipped_weights("demo"), stage)["sha256"] for stage in ("flow_0", "flow_1", "tpn")}
WEIGHTS = {"flow_0": "a" * 64, "tpn": "b" * 64}
OF_TODAY = {"weights_sha256": WEIGHTS, "data_sha256": "d" * 64}
PICTURES = {  # the hashes of the test images as the code draws them today, see the slow test
    "test": "6d21625f2afe5f0d68e70db47f3ecdee89380f1f0c9285f632f76c1a916daab0",
    "validation": "e062b4b7489d98b99d59701ad6c202b739d25c64b640d7037ade0b8ffe8f3a9e",
}
OF_VALIDATION = ("difficulty", "extractors")  # measured on another draw of the same data set
OF_OWN_WEIGHTS = ("trainings", "extractors")


def why_stale(record, weights, data_sha256):
    """What a record was made with that is not today's; weights {}: of its own."""
    data = record.get("data_sha256") or record.get("validation", {}).get("data_sha256")
    made, found = record.get("weights_sha256") or {}, []
    if weights and not made:
        found.append("weights unknown")
    elif weights and any(weights.get(name) != digest for name, digest in made.items()):
        found.append("weights")
    if data != data_sha256:
        found.append("pictures" if data else "pictures unknown")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_the_hashes_of_todays_pictures_are_those_of_what_is_drawn(name):
    """Training images play no part. A few pictures of every class are held to the bit in data/test_drawn.py."""
    of = {"test": {**DEMO.drawn, "train": 0}, "validation": {"seed": VALIDATION_SEED, **PER_CLASS}}[name]
    assert index_folder(drawn_folder(**{"size": DEMO.image_size, **of}), parts=("test",)).hash() == PICTURES[name]


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_of_todays_weights_and_pictures_or_is_listed_as_older(name):
    """Never add to STALE: make the record anew with `timenet reproduce`, and take it off the list."""
    weights = {} if name in OF_OWN_WEIGHTS else SHIPPED
    reasons = why_stale(read(name), weights, PICTURES["validation" if name in OF_VALIDATION else "test"])
    assert bool(reasons) == (name in STALE), reasons or "it is of today: take it off records.STALE"
    if name != "variants":  # names flow 1 alone, in a field of its own
        assert not {"weights", "weights unknown"} & set(reasons), "only the pictures may be older"


def test_the_benchmark_and_the_evaluation_agree():
    benchmark, evaluation = read("benchmark"), read("evaluation")
    for record in (benchmark, evaluation, evaluation["ablations"]):
        assert record["weights_sha256"] == SHIPPED
        assert record["data_sha256"] == benchmark["data_sha256"]
    for name in ("flow_1", "timenet"):
        for key in ("i_auroc", "pro"):
            assert benchmark["methods"][name]["seeds"][key][0] == evaluation["methods"][name]["mean"][key]


def test_every_record_that_is_shipped_is_known():
    stages = {"calibration.json", "extractor.json", "flow_0.json", "flow_1.json", "tpn.json"}
    files = {path.name for path in shipped_weights("demo").glob("*.json")} - stages
    assert files == set(RECORDS.values())
    assert set(STALE) <= set(RECORDS)


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"weights_sha256": {"flow_0": "a" * 64}}, []),  # measured with a part of the weights
        ({"weights_sha256": {**WEIGHTS, "tpn": "c" * 64}}, ["weights"]),
        ({"weights_sha256": {**WEIGHTS, "other": "c" * 64}}, ["weights"]),
        ({"weights_sha256": None}, ["weights unknown"]),
        ({"data_sha256": "e" * 64}, ["pictures"]),
        ({"data_sha256": None}, ["pictures unknown"]),
        ({"data_sha256": None, "validation": {"data_sha256": "d" * 64}}, []),  # where difficulty.json had it
    ],
)
def test_what_makes_a_record_stale(changes, reasons):
    assert why_stale({**OF_TODAY, **changes}, WEIGHTS, "d" * 64) == reasons


def test_a_record_with_weights_of_its_own_is_judged_by_its_pictures():
    assert why_stale({"data_sha256": "d" * 64}, {}, "d" * 64) == []
    assert why_stale({}, {}, "d" * 64) == ["pictures unknown"]


def test_the_hash_of_the_code_follows_the_files_that_decide_a_number(tmp_path, monkeypatch):
    for name in (*records.METHOD, "evidence/tables", "evidence/flows", "data/drawn/draw", "console"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.setattr(records, "LIBRARY", tmp_path)

    def digest(*modules):
        code_sha256.cache_clear()
        return code_sha256(*modules)

    before = digest("tables")
    assert digest("tables") == before != digest("flows")
    for name, counts in (("console", False), ("evidence/flows", False), ("score", True), ("data/drawn/draw", True),
                         ("evidence/tables", True), ("evidence/experiment", True)):  # fmt: skip
        text = (tmp_path / f"{name}.py").read_text()
        (tmp_path / f"{name}.py").write_text(text + "#")
        assert (digest("tables") != before) == counts, name
        (tmp_path / f"{name}.py").write_text(text)
    code_sha256.cache_clear()


def test_a_record_carries_three_hashes():
    made = made_with(WEIGHTS, "d" * 64, "tables")
    assert made == {**OF_TODAY, "code_sha256": code_sha256("tables")}
    assert why_stale(json.loads(json.dumps(made)), WEIGHTS, "d" * 64) == []


def test_tables_of_older_records_say_so(monkeypatch):
    monkeypatch.setattr(records, "STALE", ("benchmark", "gain", "extractors"))
    assert [note(n) for n in ("benchmark", "gain", "flows")] == [OLDER, OLDER, ""]
    assert by(read_evidence("benchmark")).startswith("Recorded on older pictures: preset demo, 600 test images")
    assert by(read_evidence("ablations")).startswith("Recorded: preset demo")
    assert (first_words("trainings", "benchmark"), first_words("trainings")) == (
        "Recorded on older pictures",
        "Recorded",
    )
    assert recorded("demo", "gain", lambda r: "").startswith("recorded on older pictures: preset demo")
    assert recorded("demo", "flows", lambda r: "").startswith("recorded: preset demo")
    assert recorded_extractors().startswith("recorded on older pictures: preset demo")
