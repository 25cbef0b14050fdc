"""For maintainers: run every notebook at preset demo and refresh figures/ or notebooks/; indices, cards, the live page.

What is measured is made anew by `timenet reproduce`.
"""

import sys
import tempfile
from pathlib import Path

import nbformat

from timenet_lib.console import print_anything
from timenet_lib.course.cards import write_cards, write_run
from timenet_lib.course.equations import write_index
from timenet_lib.course.figures import LIVE_PAGE, MANIFEST, read_manifest, write_manifest
from timenet_lib.course.live_page import build_page
from timenet_lib.course.notebooks import dump, is_injected, normalise
from timenet_lib.course.runner import find_notebooks, format_table, run_notebooks
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError
from timenet_lib.files import sha256, write_atomically

REPOSITORY = Path(__file__).resolve().parents[2]


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
                content = dump(normalise(nbformat.read(result.output, as_version=4)))
                write_atomically(repository / "notebooks" / result.notebook.name, content)
    return 0


def complete_manifest(figure_dir: Path, notebooks_dir: Path) -> None:
    """Add to each entry the hash of the code that made the file, so that code changed since is found out."""
    entries = read_manifest(figure_dir)
    for source in {entry["source"] for entry in entries}:
        if not (notebooks_dir / source).is_file():
            raise InputError(f"{MANIFEST}: the source {source!r} is no notebook that is there: correct its Show(...)")
    hashes = {entry["source"]: code_hash(notebooks_dir / entry["source"]) for entry in entries}
    write_manifest(figure_dir, [{**entry, "source_sha256": hashes[entry["source"]]} for entry in entries])


def code_hash(notebook: Path) -> str:
    """Compute the SHA-256 of a notebook's code cells, joined with newlines, without what papermill put in."""
    cells = nbformat.read(notebook, as_version=4).cells
    return sha256("\n".join(c.source for c in cells if c.cell_type == "code" and not is_injected(c)).encode())


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


def main(arguments: list[str]) -> int:
    print_anything()
    match arguments:
        case ["figures" | "notebooks" | "all" as part]:
            return refresh(part)
        case ["index"]:  # of the equations, into notebooks/README.md
            write_index(REPOSITORY)
        case ["cards"]:  # what the last `make run` measured
            write_cards(REPOSITORY)
        case ["page", folder]:
            make_page(folder)
        case _:
            program = "python -m timenet_lib.course.maintain"
            sys.stderr.write(f"usage: {program} figures|notebooks|all|index|cards, or {program} page FOLDER\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
