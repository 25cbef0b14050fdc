"""The course's one interactive piece: pictures side by side, a slider over them, a choice among several sets.

The widget holds all its frames and its front end does everything, so it moves without a kernel too, as an exported
page.
"""

import base64
import io
import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from timenet_lib.course.figures import render
from timenet_lib.course.style import COLOURS, new_figure, styled, to_display
from timenet_lib.errors import InputError
from timenet_lib.pictures import Number

_IN_A_ROW = 5
_PANEL_WIDTH, _ROW_WIDTH, _GAP = 192, 900, 12  # JupyterLab on a small screen leaves about 920 pixels
_HERE = Path(__file__).parent
_WEBP: tuple[dict[str, Any], ...] = ({"quality": 80}, {"lossless": True})  # the smaller one is kept
_MARGIN = 2  # around every frame in a sheet, so that none bleeds into the next


@dataclass(frozen=True)
class Panel:
    """One titled picture of the viewer.

    `frames` is one uint8 image (H, W, 3) that stays, or one for each value of the slider; `readouts` the same for short
    texts under it. `colour` marks the panel's method (`style.COLOURS`).
    """

    title: str
    frames: Sequence[np.ndarray] | np.ndarray
    caption: str = ""
    readouts: Sequence[str] = ()
    colour: str = ""


def rebuilt_panel(
    title: str, method: str, images: Sequence[Tensor], *, readouts: Sequence[str], caption: str = ""
) -> Panel:
    """Show what a method rebuilds, an image in [-1, 1] for each value of the slider, in its colour."""
    return Panel(title, to_display(torch.stack(list(images))), caption, readouts=readouts, colour=COLOURS[method])


class Viewer(anywidget.AnyWidget):
    """Panels in a row, moved by one slider (one value needs none); with several items, a list to choose from.

    `panels` are the panels of the only item, or those of each item by its name; all items have the same titles.
    `values` are the slider's, `value` the nearest to start at; `label` is its name, as in "t = 0.83". `size` is the
    panels' greatest width in CSS pixels (192, or what lets five stand in one row): frames are enlarged by whole and
    half numbers only. `formulas` are MathML (see `formulas.py`), which the exported page shows above the pictures.
    """

    _esm = _HERE / "viewer.js"
    _css = _HERE / "viewer.css"
    content = traitlets.Dict().tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    item = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        panels: Sequence[Panel] | Mapping[str, Sequence[Panel]],
        values: Sequence[Number] | np.ndarray,
        label: str,
        *,
        alt: str,
        value: Number | None = None,
        choice_label: str = "image",
        format: str = ".2f",
        size: int | None = None,
        formulas: Sequence[str] = (),
    ) -> None:
        items = {key: list(each) for key, each in panels.items()} if isinstance(panels, Mapping) else {"": list(panels)}
        _check(items, values, alt)
        count = len(next(iter(items.values())))
        columns = math.ceil(count / math.ceil(count / _IN_A_ROW))
        content = {
            "label": label,
            "steps": [f"{number:{format}}" for number in values],
            "choiceLabel": choice_label,
            "columns": columns,
            "size": size or min(_PANEL_WIDTH, _ROW_WIDTH // columns - _GAP),
            "alt": alt,
        }
        step = 0 if value is None else int(np.argmin(np.abs(np.asarray(values, dtype=float) - value)))
        self.alt, self._formulas = alt, tuple(formulas)
        super().__init__(content=content | self._encoded(items), step=step)

    def _encoded(self, items: Mapping[str, Sequence[Panel]]) -> dict[str, Any]:
        """Encode the items for the front end, and keep them for the still picture."""
        self._panels = list(items.values())
        return {"items": [{"name": name, "panels": list(map(_encode, each))} for name, each in items.items()]}

    def __repr__(self) -> str:
        return f"Viewer: {self.alt}"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Add a still picture to the live view, for places that run nothing."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        picture = {"text/plain": repr(self), "image/png": base64.b64encode(render(self.still_figure())).decode()}
        return data | picture, metadata | {"image/png": {"alt": self.alt}}

    @styled()
    def still_figure(self) -> Figure:
        """Draw the present state: every panel with its title and readout, and the slider's value."""
        panels = self._panels[self.item]
        columns = self.content["columns"]
        rows = math.ceil(len(panels) / columns)
        state = textwrap.fill(self._state(), 19 * columns)
        readouts = [textwrap.fill(_at(p.readouts, self.step), 18) if p.readouts else "" for p in panels]
        further = max(each.count("\n") for each in readouts) + state.count("\n") * 1.2 / rows
        figure, axes = new_figure(rows, columns, (1.6, 2.1 + 0.25 * further))
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        for ax, panel, readout in zip(axes.flat, panels, readouts, strict=False):
            ax.imshow(_at(_frames(panel), self.step))
            ax.set_title(panel.title, wrap=True)
            ax.set(xticks=[], yticks=[], xlabel=readout)
            for spine in ax.spines.values():
                spine.set(visible=True, color=panel.colour or "#B0B0B0", linewidth=2 if panel.colour else 0.8)
        figure.suptitle(state)
        return figure

    def _state(self) -> str:
        """Say the present state in words, as the title of the still picture."""
        name = self.content["items"][self.item]["name"]
        now = f"{self.content['label']} = {self.content['steps'][self.step]}"
        return ", ".join(filter(None, [name, now])) + "   (a slider, where the notebook runs)"

    def page(self, title: str) -> str:
        """Write the viewer as one HTML page that needs neither kernel nor network."""
        state = {"content": self.content, "step": self.step, "item": self.item}
        return fill(
            _HERE / "viewer.html",
            title=escape(title),
            alt=escape(self.alt),
            formula="".join(f'<div class="timenet-formula">{each}</div>\n' for each in self._formulas),
            css=(_HERE / "viewer.css").read_text(encoding="utf-8"),
            script=(_HERE / "viewer.js").read_text(encoding="utf-8"),
            state=json.dumps(state, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        )


def fill(template: Path, **parts: str) -> str:
    """Put parts into a page's template, each in place of @@its name@@."""
    return re.sub(r"@@(\w+)@@", lambda found: parts[found[1]], template.read_text(encoding="utf-8"))


def _check(items: Mapping[str, Sequence[Panel]], values: Sequence[Number] | np.ndarray, alt: str) -> None:
    """Refuse what the front end could not show, with the panel's name."""
    if not alt.strip():
        raise InputError("a viewer needs an alt text: say in words what it shows")
    if len(values) == 0 or not items or not all(items.values()):
        raise InputError("a viewer needs at least one value and one panel")
    titles = [[panel.title for panel in panels] for panels in items.values()]
    if any(other != titles[0] for other in titles):
        raise InputError("all items of a viewer need panels of the same titles, in the same order")
    for panel in (panel for panels in items.values() for panel in panels):
        frames = _frames(panel)
        if any(f.dtype != np.uint8 or f.ndim != 3 or f.shape[-1] != 3 or f.shape != frames[0].shape for f in frames):
            raise InputError(f"panel {panel.title!r}: frames are uint8 (H, W, 3) of one size; `to_display` makes such")
        if len(frames) not in (1, len(values)):
            raise InputError(f"panel {panel.title!r}: {len(frames)} frames for {len(values)} values; give one, or all")
        if len(panel.readouts) not in (0, 1, len(values)):
            raise InputError(f"panel {panel.title!r}: {len(panel.readouts)} readouts for {len(values)} values")


def _frames(panel: Panel) -> list[np.ndarray]:
    """List a panel's frames; a single image is a list of one."""
    single = isinstance(panel.frames, np.ndarray) and panel.frames.ndim == 3
    return [np.asarray(panel.frames)] if single else [np.asarray(frame) for frame in panel.frames]


def _at(frames: Sequence[Any], step: int) -> Any:
    return frames[min(step, len(frames) - 1)]


def _encode(panel: Panel) -> dict[str, Any]:
    """Encode a panel for the front end, its frames in one sheet: `columns` per row, each in a margin."""
    frames = _frames(panel)
    height, width = frames[0].shape[:2]
    columns = math.ceil(math.sqrt(len(frames)))
    across, down = width + 2 * _MARGIN, height + 2 * _MARGIN
    sheet = np.zeros((math.ceil(len(frames) / columns) * down, columns * across, 3), np.uint8)
    for index, frame in enumerate(frames):
        y, x = divmod(index, columns)
        padded = np.pad(frame, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), mode="edge")
        sheet[y * down : (y + 1) * down, x * across : (x + 1) * across] = padded
    return {
        "title": panel.title,
        "caption": panel.caption,
        "colour": panel.colour,
        "readouts": list(panel.readouts),
        "width": width,
        "height": height,
        "count": len(frames),
        "columns": columns,
        "margin": _MARGIN,
        "sheet": min((data_uri(Image.fromarray(sheet), "webp", method=4, **how) for how in _WEBP), key=len),
    }


def data_uri(picture: Image.Image, format: str, **options: Any) -> str:
    """Write a picture as an address that holds it."""
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return f"data:image/{format};base64,{base64.b64encode(buffer.getvalue()).decode()}"
