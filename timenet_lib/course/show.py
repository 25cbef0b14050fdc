"""One call per figure of a notebook: show it, write it under its name with its alt text, hand on its numbers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsFloat

from IPython.display import display
from matplotlib.figure import Figure

from timenet_lib.course.evidence import Table, evidence_hashes
from timenet_lib.course.figures import check_words, render, render_table, write_files
from timenet_lib.course.record import record
from timenet_lib.course.viewer import Viewer
from timenet_lib.errors import InputError

# alt texts, by name
CAPTIONS: dict[str, str] = json.loads(Path(__file__).with_name("captions.json").read_text(encoding="utf-8"))


class Show:
    """Shows what one notebook draws and keeps it in figure_dir; about says what it is of (preset, seed, weights)."""

    def __init__(self, source: str, figure_dir: str | Path, **about: Any):
        self.source, self.figure_dir, self.about = source, figure_dir, about

    def of(self, *records: str) -> "Show":
        """Show figures that are drawn from recorded evidence: "benchmark", "ablations", "trainings"."""
        return Show(self.source, self.figure_dir, **{**self.about, "data": evidence_hashes(*records)})

    def __call__(
        self,
        drawn: Figure | Viewer | Table,
        name: str,
        *,
        alt: str = "",
        title: str = "",
        formats: Sequence[str] = ("png",),
        **numbers: SupportsFloat,
    ) -> None:
        """Show a figure, a viewer or a table, write it under its name, and record numbers.

        The alt text is a viewer's own, or alt, or the one in captions.json. A figure carries it to where it is shown.
        A viewer is written as a page, interactive/name.html, which needs neither kernel nor network.
        """
        alt = drawn.alt if isinstance(drawn, Viewer) else alt or CAPTIONS.get(name, "")
        check_words(name, alt)
        if isinstance(drawn, Viewer):
            contents = {f"interactive/{name}.html": drawn.page(title).encode()}
        elif isinstance(drawn, Figure):
            if not formats:
                raise InputError(f"figure {name!r} needs at least one format")
            drawn.set_label(alt)
            contents = {f"{name}.{format}": render(drawn, format) for format in formats}
        else:
            contents = render_table(name, *drawn)
        about = {"record": self.about} if self.about else {}
        write_files(self.figure_dir, contents, alt=alt.strip(), source=self.source, **about)
        display(drawn)
        if numbers:
            record(**numbers)
