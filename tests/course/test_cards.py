"""The cards say what `make run` measured: the script writes them, all or none, and README and notebooks agree."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest

from timenet_lib.course import cards
from timenet_lib.course.notebooks import dump, normalise, sources_hash, stamp
from timenet_lib.course.runner import CellError, RunResult
from timenet_lib.errors import InputError, OutputError

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SAYS = re.compile(r"\*\*It takes\*\* ([\d½]+) minutes? and ([\d.]+) GB of memory, measured by `make run`")


@pytest.fixture
def clone(tmp_path):
    """Copy the README and the notebooks, and put a run's measurements beside them."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copy(ROOT / "README.md", tmp_path)
    taken = {p.stem: {"seconds": 61.0 + i, "mb": 1201 + i} for i, p in enumerate(NOTEBOOKS)}
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "run.json").write_text(
        json.dumps({**cards.MADE, "cores": 2, "notebooks": taken, "failed": []})
    )
    return tmp_path


def change(clone, **values):
    path = clone / "build" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def snapshot(clone):
    return {p.name: p.read_bytes() for p in [clone / "README.md", *(clone / "notebooks").iterdir()]}


def test_cards_and_readme_get_the_numbers_of_the_run(clone):
    cards.write_cards(clone)
    for path in sorted((clone / "notebooks").glob("*.ipynb")):
        nb = nbformat.read(path, as_version=4)
        assert SAYS.search(nb.cells[1].source).groups() == ("1½", "1.3"), path.name
        assert nb.metadata.timenet.sources == sources_hash(nb)
        assert dump(normalise(nb)) == path.read_bytes()
    readme = (clone / "README.md").read_text()
    assert len(re.findall(r"\| 1½ min, 1\.3 GB \|", readme)) == len(NOTEBOOKS)
    total = -(-sum(61 + i for i in range(len(NOTEBOOKS))) // 60)
    assert f"`make run` takes about {total} minutes" in readme
    before = snapshot(clone)
    cards.write_cards(clone)
    assert snapshot(clone) == before


def test_one_minute_is_short_in_the_readme_and_totals_are_rounded_up(clone):
    change(clone, notebooks={p.stem: {"seconds": 46.0, "mb": 900} for p in NOTEBOOKS})
    cards.write_cards(clone)
    readme = (clone / "README.md").read_text()
    assert readme.count("| 1 min, 0.9 GB |") == len(NOTEBOOKS)
    assert f"`make run` takes about {-(-46 * len(NOTEBOOKS) // 60)} minutes" in readme


def test_a_stamp_that_was_not_valid_stays_so(clone):
    path = clone / "notebooks" / NOTEBOOKS[0].name
    nb = nbformat.read(path, as_version=4)
    nb.cells[-1].source += " edited"
    nbformat.write(nb, path)
    cards.write_cards(clone)
    after = nbformat.read(path, as_version=4)
    assert after.metadata.timenet.sources == nb.metadata.timenet.sources != sources_hash(after)


def lose_a_card(clone):
    path = clone / "notebooks" / NOTEBOOKS[-1].name
    nb = nbformat.read(path, as_version=4)
    nb.cells[1].source = "no card"
    nbformat.write(nb, path)


def say_it_twice(clone):
    with (clone / "README.md").open("a") as file:
        file.write("`make run` takes about 3 minutes\n")


REFUSED = {
    "{'preset': 'ci'}": lambda clone: change(clone, preset="ci"),
    "03_x": lambda clone: change(clone, failed=["03_x"]),
    "cuda": lambda clone: change(clone, device="cuda"),
    "True": lambda clone: change(clone, from_scratch=True),
    "{'cores': 8}": lambda clone: change(clone, cores=8),
    "lacks 00_the_answer_first": lambda clone: change(clone, notebooks={}),
    r"run\.json: `make run` writes it": lambda clone: (clone / "build" / "run.json").unlink(),
    f"the card of {NOTEBOOKS[-1].name}: found 0 times": lose_a_card,
    "README's total: found 2 times, not once": say_it_twice,
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_written_whole_is_refused_and_nothing_is_written(clone, words):
    REFUSED[words](clone)
    before = snapshot(clone)
    with pytest.raises(InputError, match=words):
        cards.write_cards(clone)
    assert snapshot(clone) == before


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(clone, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    before = snapshot(clone)
    monkeypatch.setattr("timenet_lib.files.os.fsync", full)
    with pytest.raises(OutputError, match="cannot be written"):
        cards.write_cards(clone)
    assert snapshot(clone) == before


def test_a_run_writes_what_it_took(tmp_path):
    fine = RunResult(Path("00_a.ipynb"), tmp_path / "00_a.ipynb", seconds=12.34, peak_memory_mb=900.6)
    bad = RunResult(Path("01_b.ipynb"), tmp_path / "01_b.ipynb", error=CellError(1, "x", "y"))
    cards.write_run(tmp_path, {"preset": "demo", "seed": 0, "from_scratch": True}, [fine, bad])
    assert json.loads((tmp_path / "run.json").read_text()) == {
        "preset": "demo",
        "device": "cpu",
        "from_scratch": True,
        "cores": cards.cores(),
        "notebooks": {"00_a": {"seconds": 12.3, "mb": 901}, "01_b": {"seconds": 0.0, "mb": 0}},
        "failed": ["01_b"],
    }


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20, "½ minute"),
        (60, "1 minute"),
        (61, "1½ minutes"),
        (120, "2 minutes"),
        (270, "4½ minutes"),
        (299, "5 minutes"),
        (301, "6 minutes"),
    ],
)
def test_minutes_are_rounded_up(seconds, words):
    assert cards.minutes(seconds) == words


def test_readme_and_cards_agree():
    readme = (ROOT / "README.md").read_text()
    for path in NOTEBOOKS:
        number, memory = SAYS.search(nbformat.read(path, as_version=4).cells[1].source).groups()
        row = next(line for line in readme.splitlines() if line.startswith(f"| [{path.name[:2]} "))
        assert f"| {number} min, {memory} GB |" in row


def test_the_stamp_follows_the_card(clone):
    path = clone / "notebooks" / NOTEBOOKS[1].name
    before = nbformat.read(path, as_version=4)
    stamp(before)
    nbformat.write(before, path)
    path.write_bytes(cards.with_card(path, "**It takes** no time\n> at all on two cores"))
    path.write_bytes(cards.with_card(path, "**It takes** no time at all on two cores"))
    after = nbformat.read(path, as_version=4)
    assert after.metadata["timenet"]["sources"] == sources_hash(after) != sources_hash(before)
