"""For maintainers: run every notebook at preset demo and refresh what is committed, figures/ or notebooks/."""

import shutil
import sys
import tempfile
from pathlib import Path

from timenet_lib.course.notebooks import normalise_file
from timenet_lib.course.runner import find_notebooks, format_table, run_notebooks

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = ("figures", "notebooks")


def refresh(part: str, repository: Path = REPOSITORY, preset: str = "demo") -> int:
    """Run the notebooks; when all succeed, replace figures/ or the notebooks' outputs. Return the exit code."""
    notebooks = find_notebooks(repository / "notebooks")
    with tempfile.TemporaryDirectory() as folder:
        out, figures = Path(folder) / "run", Path(folder) / "figures"
        results = run_notebooks(notebooks, out, {"preset": preset, "figure_dir": str(figures)}, stream=sys.stderr)
        sys.stdout.write(format_table(results) + "\n")
        if any(result.error for result in results):
            return 1
        if part == "figures":
            shutil.rmtree(repository / "figures", ignore_errors=True)
            shutil.copytree(figures, repository / "figures")
        else:
            for result in results:
                normalise_file(result.output)
                shutil.copyfile(result.output, repository / "notebooks" / result.notebook.name)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in [[part] for part in PARTS]:
        sys.exit(f"usage: python -m timenet_lib.course.maintain {'|'.join(PARTS)}")
    sys.exit(refresh(sys.argv[1]))
