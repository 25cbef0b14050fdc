"""For maintainers: run every notebook at preset demo and refresh figures/ or notebooks/; measure the data again."""

import shutil
import sys
import tempfile
from pathlib import Path

from timenet_lib.course.notebooks import normalise_file
from timenet_lib.course.runner import find_notebooks, format_table, run_notebooks

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = ("figures", "notebooks", "all", "difficulty")


def refresh(part: str, repository: Path = REPOSITORY, preset: str = "demo") -> int:
    """Run the notebooks; when all succeed, replace figures/, the notebooks' outputs, or both. Return the exit code."""
    notebooks = find_notebooks(repository / "notebooks")
    with tempfile.TemporaryDirectory() as folder:
        out, figures = Path(folder) / "run", Path(folder) / "figures"
        results = run_notebooks(notebooks, out, {"preset": preset, "figure_dir": str(figures)}, stream=sys.stderr)
        sys.stdout.write(format_table(results) + "\n")
        if any(result.error for result in results):
            return 1
        if part in ("figures", "all"):
            shutil.rmtree(repository / "figures", ignore_errors=True)
            shutil.copytree(figures, repository / "figures")
        if part in ("notebooks", "all"):
            for result in results:
                normalise_file(result.output)
                shutil.copyfile(result.output, repository / "notebooks" / result.notebook.name)
    return 0


def record_difficulty() -> int:
    """Measure how hard the drawn data set is for the shipped weights, and write it beside them.

    What it was when the data were frozen, for the weights of that day, stays in data/drawn/difficulty.json.
    """
    from timenet_lib import checkpoints
    from timenet_lib.course.difficulty import measure_difficulty
    from timenet_lib.detector import TimeNet

    record = measure_difficulty(TimeNet.from_pretrained("demo"), "python -m timenet_lib.course.maintain difficulty")
    checkpoints.write_json(REPOSITORY / "timenet_lib" / "weights" / "demo" / "difficulty.json", record)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in [[part] for part in PARTS]:
        sys.exit(f"usage: python -m timenet_lib.course.maintain {'|'.join(PARTS)}")
    sys.exit(record_difficulty() if sys.argv[1] == "difficulty" else refresh(sys.argv[1]))
