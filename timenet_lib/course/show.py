"""One call per figure of a notebook: show it, write it under its name with its alt text, hand on its numbers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsFloat

from IPython.display import display
from matplotlib.figure import Figure

from timenet_lib.course.evidence import Table, evidence_hashes
from timenet_lib.course.figures import save_figure, save_table, save_viewer
from timenet_lib.course.record import record
from timenet_lib.course.viewer import Viewer

CAPTIONS: dict[str, str] = json.loads(Path(__file__).with_name("captions.json").read_text())  # alt texts, by name


class Show:
    """Shows what one notebook draws and keeps it in figure_dir; about says what it is of (preset, seed, weights)."""

    def __init__(self, source: str, figure_dir: str | Path, **about: Any):
        self.source, self.figure_dir, self.about = source, figure_dir, about

    def of(self, *records: str) -> "Show":
        """Show figures that are drawn from recorded evidence: "benchmark", "ablations", "trainings"."""
        return Show(self.source, self.figure_dir, **{**self.about, "data": evidence_hashes(*records)})

    def __call__(
        self,
        shown: Figure | Viewer | Table,
        name: str,
        *,
        alt: str = "",
        title: str = "",
        formats: Sequence[str] = ("png",),
        **numbers: SupportsFloat,
    ) -> None:
        """Show a figure, viewer or table; alt is that of captions.json unless given, numbers go to the runner."""
        kept: dict[str, Any] = {"source": self.source, "record": self.about}
        if isinstance(shown, Viewer):
            save_viewer(shown, name, title, self.figure_dir, **kept)
        elif isinstance(shown, Figure):
            save_figure(shown, name, alt or CAPTIONS.get(name, ""), self.figure_dir, formats, **kept)
        else:
            save_table(shown.header, shown.rows, shown.caption, name, alt or CAPTIONS[name], self.figure_dir, **kept)
        display(shown)
        if numbers:
            record(**numbers)
