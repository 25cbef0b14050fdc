"""Making records anew: whole, resumable, each in its own file, its cost said first."""

import json
from functools import partial

import pytest
from click.testing import CliRunner

from timenet_lib.__main__ import main
from timenet_lib.errors import InputError
from timenet_lib.evidence import flows as measured
from timenet_lib.evidence import reproduce as made
from timenet_lib.evidence.flows import measure_flows
from timenet_lib.evidence.records import RECORDS, code_sha256
from timenet_lib.evidence.reproduce import BY_HAND, RECIPES, Recipe, Work, check_records, cost_words, reproduce
from timenet_lib.metrics import bootstrap_interval


@pytest.fixture
def work(model, tests, few, tmp_path):
    found = Work(model, tmp_path / "work")
    found.index, found.tests = few, tests  # the small folder in place of the preset's data
    return found


@pytest.fixture
def counted(monkeypatch):
    """A record of two parts in place of the gain's; its maker fails in the second as long as it is told to."""
    made_parts, state = [], {"fails": True}

    def part(name):
        made_parts.append(name)
        if name == "b" and state["fails"]:
            raise KeyboardInterrupt
        return {"name": name}

    def make(work, keep):
        return {"parts": [keep(name, lambda name=name: part(name)) for name in ("a", "b")]}

    monkeypatch.setitem(RECIPES, "gain", Recipe(make, lambda r: f"{len(r['parts'])} parts", 7))
    return made_parts, state


def test_every_record_has_a_recipe_or_says_why_not():
    assert set(RECIPES) | set(BY_HAND) == set(RECORDS)
    assert not set(RECIPES) & set(BY_HAND)


def test_a_killed_run_goes_on_where_it_was(work, counted, tmp_path):
    made_parts, state = counted
    with pytest.raises(KeyboardInterrupt):
        reproduce(["gain"], work, out=tmp_path)
    assert not (tmp_path / "gain.json").exists()
    state["fails"], said = False, []
    reproduce(["gain"], work, out=tmp_path, show=said.append)
    assert made_parts == ["a", "b", "b"]
    record = json.loads((tmp_path / "gain.json").read_text())
    assert record["parts"] == [{"name": "a"}, {"name": "b"}]
    assert record["command"] == "timenet reproduce gain"
    assert record["seconds"] >= 0
    assert said == [f"2 parts\n{tmp_path / 'gain.json'}"]


def test_the_time_of_kept_parts_counts(work, counted, tmp_path):
    _, state = counted
    state["fails"] = False
    reproduce(["gain"], work, out=tmp_path)
    path = work.folder / "gain" / "a.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 1000}))
    reproduce(["gain"], work, out=tmp_path)
    assert json.loads((tmp_path / "gain.json").read_text())["seconds"] in (1000, 1001)


@pytest.mark.parametrize("changed", ["weights", "images", "code"])
def test_a_part_of_other_weights_images_or_code_is_made_again(work, counted, tmp_path, monkeypatch, changed, with_test):
    made_parts, state = counted
    state["fails"] = False
    reproduce(["gain"], work, out=tmp_path)
    if changed == "weights":
        monkeypatch.setattr(work.model, "records", {"flow_0": {"sha256": "f" * 64}})
    elif changed == "images":
        work.index = with_test(work.index, work.index.test[1:])
    else:
        monkeypatch.setattr("timenet_lib.evidence.records.code_sha256", lambda *modules: "c" * 64)
    reproduce(["gain"], work, out=tmp_path)
    assert made_parts == ["a", "b", "a", "b"]


def test_what_is_put_together_from_kept_parts_is_what_was_measured(work, few, model, monkeypatch):
    monkeypatch.setattr(measured, "bootstrap_interval", partial(bootstrap_interval, num_samples=40))

    def flows():
        return measure_flows(few, model, seeds=(0, 1), num_steps=(1, 2), samples=1, keep=work.keep("flows"))

    first = flows()
    assert json.loads(json.dumps(first)) == first == flows()
    assert len(list((work.folder / "flows").glob("*.json"))) == 4 + 4  # from noise, from t
    assert first["code_sha256"] == code_sha256("flows")


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"^no record 'gian'; did you mean 'gain'\?$"):
        check_records(["flows", "gian"])
    with pytest.raises(InputError, match=r"extractors: no command makes extractor_tasks\.json: part of it is measured"):
        check_records(["extractors"])


def test_the_cost_is_what_the_record_says_or_what_was_noted(monkeypatch):
    monkeypatch.setattr(made, "read", lambda name: {"seconds": 600} if name == "gain" else {})
    assert cost_words(["gain", "variants"]) == "on one core: gain 10 min, variants 30 min; 40 min in all"
    assert cost_words(["flows", "variants"]).endswith(
        "flows not recorded, variants 30 min; 30 min and those not recorded in all"
    )


def test_the_command_lists_the_records_and_says_the_cost_before_it_begins(counted, tmp_path, monkeypatch):
    listed = CliRunner().invoke(main, ["reproduce"])
    assert listed.exit_code == 0
    for name, file in RECORDS.items():
        (line,) = [each for each in listed.output.splitlines() if f" {file} " in each]
        assert line.startswith(name)
    assert "flow_0 " in listed.output
    refused = CliRunner().invoke(main, ["reproduce", "gian"])
    assert (refused.exit_code, refused.output) == (2, "error: no record 'gian'; did you mean 'gain'?\n")
    options = ["reproduce", "gain", "--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    monkeypatch.setattr(Work, "index", property(lambda self: type("Index", (), {"hash": lambda self: "d" * 64})()))
    stopped = CliRunner().invoke(main, options)
    assert stopped.exit_code == 130
    assert "on one core: gain 7 min; 7 min in all" in stopped.output
    assert "interrupted: the same command goes on with what" in stopped.output
    counted[1]["fails"] = False
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 0, done.output
    assert "a: kept from an earlier run" in done.output
    assert (tmp_path / "gain.json").is_file()
