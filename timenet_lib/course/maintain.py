"""For maintainers: run every notebook at preset demo and refresh figures/ or notebooks/; indices, cards, the live page.

What is measured is made anew by `timenet reproduce`.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from timenet_lib.course.cards import write_cards, write_run
from timenet_lib.course.equations import write_index
from timenet_lib.course.figures import LIVE_PAGE, MANIFEST
from timenet_lib.course.live_page import build_page
from timenet_lib.course.manifest import complete_manifest
from timenet_lib.course.notebooks import normalise_file
from timenet_lib.course.runner import find_notebooks, format_table, run_notebooks
from timenet_lib.detector import TimeNet
from timenet_lib.files import write_atomically

REPOSITORY = Path(__file__).resolve().parents[2]
WEIGHTS = REPOSITORY / "timenet_lib" / "weights" / "demo"


def refresh(part: str, repository: Path = REPOSITORY, preset: str = "demo") -> int:
    """Run the notebooks; when all succeed, replace figures/, the notebooks' outputs, or both. Give the exit code."""
    notebooks = find_notebooks(repository / "notebooks")
    with tempfile.TemporaryDirectory() as folder:
        out, figures = Path(folder) / "run", Path(folder) / "figures"
        parameters = {"preset": preset, "figure_dir": str(figures)}
        results = run_notebooks(notebooks, out, parameters, stream=sys.stderr)
        sys.stdout.write(format_table(results) + "\n")
        write_run(repository / "build", parameters, results)  # as `make run` does, for the cards
        if any(result.error for result in results):
            return 1
        if part in ("figures", "all"):
            complete_manifest(figures, out)  # with the code that ran, should a notebook have been edited meanwhile
            replace_figures(repository / "figures", figures)
        if part in ("notebooks", "all"):
            for result in results:
                normalise_file(result.output)
                write_atomically(repository / "notebooks" / result.notebook.name, result.output.read_bytes())
    return 0


def replace_figures(folder: Path, new: Path) -> None:
    """Make a folder hold the new files and the live page; whenever this is killed, each file is whole.

    The manifest is the last to be written and only then are files removed: a killed run is repeated.
    """
    files = {p.relative_to(new) for p in new.rglob("*") if p.is_file()}
    for file in sorted(files, key=lambda p: (p.name == MANIFEST, p)):
        write_atomically(folder / file, (new / file).read_bytes())
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        if path.relative_to(folder) not in {*files, Path(LIVE_PAGE)}:
            path.unlink()


def make_page(runtime: str) -> None:
    """Make the page that runs the network; runtime is the unpacked npm package onnxruntime-web."""
    page = build_page(TimeNet.from_pretrained("demo"), runtime, REPOSITORY / "figures" / LIVE_PAGE)
    sys.stderr.write(f"{page}: {page.stat().st_size / 1e6:.1f} MB\n")


REFRESH = ("figures", "notebooks", "all")
WRITE: dict[str, Callable[[], object]] = {
    "manifest": lambda: complete_manifest(REPOSITORY / "figures", REPOSITORY / "notebooks"),  # cells, hashes of code
    "index": lambda: write_index(REPOSITORY),  # of the equations, into notebooks/README.md
    "cards": lambda: write_cards(REPOSITORY),  # what the last `make run` measured
}


def main(arguments: list[str]) -> int:
    """Do one part; give the exit code."""
    if len(arguments) == 2 and arguments[0] == "page":
        make_page(arguments[1])
        return 0
    if len(arguments) != 1 or arguments[0] not in (*REFRESH, *WRITE):
        program = "python -m timenet_lib.course.maintain"
        sys.stderr.write(f"usage: {program} {'|'.join((*REFRESH, *WRITE))}, or {program} page FOLDER\n")
        return 2
    if arguments[0] in REFRESH:
        return refresh(arguments[0])
    WRITE[arguments[0]]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
