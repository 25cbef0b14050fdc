"""What notebook 07 needs: the command line from inside a notebook, and pictures of a folder and of thresholds."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from IPython.display import display
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import Image
from torch import Tensor

from timenet_lib.course.models import load_example
from timenet_lib.course.style import COLOURS, image_grid, new_figure
from timenet_lib.data.folder import FolderIndex
from timenet_lib.errors import InputError, TimeNetError
from timenet_lib.files import user_path
from timenet_lib.path import as_float, as_uint8

RUN = (  # listens to interrupts even where whoever started the notebook does not
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from timenet_lib.__main__ import main; main()"
)
STEP = re.compile(r"step (\d+)")
SHOW_EVERY = 0.5  # seconds


def timenet(*words: object, folder: str | Path = ".", stop_at: int | None = None) -> str:
    """Run a command of `timenet` in a folder, show what it prints while it runs, and return it.

    With stop_at it is interrupted, as by Ctrl-C, once a stage has reached that step. Raises TimeNetError with the
    command's last line if it fails otherwise.
    """
    command = [sys.executable, "-c", RUN, *map(str, words)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"}
    process = subprocess.Popen(
        command, bufsize=0, cwd=user_path(folder), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    stopped = False
    try:
        with process.stdout as stream, Screen(f"$ timenet {' '.join(map(str, words))}") as screen:
            while text := read_some(stream):
                screen.add(text)
                if stop_at is not None and not stopped and screen.step() >= stop_at:
                    process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
                    stopped = True
    finally:  # the reader's own interrupt reaches the command too
        if process.poll() is None:
            process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        code = process.wait()
    as_asked = stopped and (code == 130 or os.name != "posix")
    if code and not as_asked:
        raise TimeNetError(f"timenet {words[0]} ended with {code}: {screen.text().splitlines()[-1]}")
    return screen.text()


def read_some(stream: IO[bytes]) -> str:
    """Read the next piece of a stream, to the end of a line or of a progress bar's state; "" at the stream's end."""
    piece = b""
    while (byte := stream.read(1)) and byte not in b"\r\n":
        piece += byte
    return (piece + byte).decode(errors="replace")


class Screen:
    """What a terminal would show of a command: lines, and of a progress bar its last state."""

    def __init__(self, title: str) -> None:
        self.lines, self.title, self.shown = [""], title, 0.0

    def __enter__(self) -> "Screen":
        self.handle = display({"text/plain": self.title}, raw=True, display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.update({"text/plain": self.text()}, raw=True)

    def add(self, piece: str) -> None:
        """Take in a piece of output, and show everything anew if the last time is a while ago."""
        body = piece.rstrip("\r\n")
        if body:
            self.lines[-1] = body
        if piece.endswith("\n"):
            self.lines.append("")
        if time.monotonic() - self.shown > SHOW_EVERY:
            self.handle.update({"text/plain": self.text()}, raw=True)
            self.shown = time.monotonic()

    def step(self) -> int:
        """Read the step of the last progress bar; 0 without one."""
        found = STEP.findall(self.lines[-1] or self.lines[max(0, len(self.lines) - 2)])
        return int(found[-1]) if found else 0

    def text(self) -> str:
        return "\n".join([self.title, *(line for line in self.lines if line)])


def sheet_figure(index: FolderIndex, size: int, columns: int = 6) -> Figure:
    """Draw a folder's first pictures: sound ones for training, and from the test side one of each kind."""
    kinds = {s.kind: s for s in reversed(index.test) if s.defective}
    rows = {"train/good": index.train[:columns], "test/good": [s for s in index.test if not s.defective][:columns]}
    rows["test/KIND"] = [kinds[k] for k in sorted(kinds)][:columns]
    cells = {name: [load_example(s, size).outlined for s in samples] for name, samples in rows.items() if samples}
    return image_grid(cells, size=1.0)


def workplace(folder: str | Path, *again: str) -> Path:
    """Make a folder of this notebook's own, or clear the parts of it that are named by `again`.

    Raises InputError if the folder is not empty and this notebook did not make it: nothing in it is touched.
    """
    folder = user_path(folder)
    mark = folder / "made-by-notebook-07.txt"
    if folder.exists() and not mark.is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} holds something else: name another work_dir")
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text("Notebook 07 made this folder, and makes it anew when it is run again.\n", encoding="utf-8")
    for name in again:
        shutil.rmtree(folder / name, ignore_errors=True)
    return folder


def spoil(folder: str | Path, copy: str | Path) -> Path:
    """Copy a folder and spoil four of its files in ways that happen; return the copy."""
    folder, copy = user_path(folder), user_path(copy)
    if copy.exists():
        raise InputError(f"{copy} is there already: name a new folder")
    places = [sorted(folder.glob(kind))[:2] for kind in ("*/train/good/*.*", "*/ground_truth/*/*.*")]
    if min(map(len, places)) < 2:
        raise InputError(f"{folder} is too small to be spoilt: two sound photographs and two masks are needed")
    shutil.copytree(folder, copy)
    sound, masks = ([copy / path.relative_to(folder) for path in each] for each in places)
    sound[0].write_bytes(sound[0].read_bytes()[:100])  # cut short by a full card
    sound[1].write_text("see the other folder\n", encoding="utf-8")  # a note with the wrong ending
    masks[0].unlink()
    with Image.open(masks[1]) as mask:
        half = mask.resize((mask.width // 2, mask.height // 2), Image.Resampling.NEAREST)
    half.save(masks[1])
    return copy


def thresholds_figure(rows: Mapping[str, Float[np.ndarray, "_"]], limits: Mapping[str, float]) -> Figure:
    """Draw image scores, one row per group of images, with thresholds as lines; defective groups say so by name."""
    figure, axes = new_figure(1, 1, (8.0, 0.55 * len(rows) + 1.0))
    ax = axes[0, 0]
    spread = np.random.default_rng(0)
    for place, (name, scores) in enumerate(rows.items()):
        y = len(rows) - place + spread.uniform(-0.22, 0.22, len(scores))
        ax.scatter(scores, y, s=16, color=COLOURS["mask" if "defect" in name else "flow_0"], alpha=0.6, linewidths=0)
    for (name, limit), style in zip(limits.items(), itertools.cycle(("-", "--", ":")), strict=False):
        ax.axvline(limit, color="black", linestyle=style, linewidth=1.2, label=f"{name}: {limit:.2f}")
    ax.set_yticks(range(len(rows), 0, -1), list(rows))
    ax.set_ylim(0.5, len(rows) + 0.5)
    ax.set_xlabel("image score")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def stages_figure(losses: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the recorded losses of the stages next to each other."""
    figure, axes = new_figure(1, len(losses), (2.8, 2.1))
    for ax, (name, loss) in zip(axes[0], losses.items(), strict=True):
        ax.plot(loss, color=COLOURS.get(name, COLOURS["timenet"]), linewidth=1.2)
        ax.set(title=name, xlabel="record", ylim=(0, None))
    axes[0, 0].set_ylabel("loss")
    return figure


def relight(images: Float[Tensor, "b 3 h w"], gain: float) -> Float[Tensor, "b 3 h w"]:
    """Light images by another lamp: multiply every brightness by gain, in 8 bits."""
    return as_float(as_uint8(((images + 1) * gain - 1).clamp(-1, 1)))


def share(scores: Float[Tensor, "_"] | Float[np.ndarray, "_"], threshold: float) -> str:
    """Say how many of the scores reach a threshold."""
    count = int((np.asarray(scores) >= threshold).sum())
    return f"{count} of {len(scores)}"


def heat_map_figure(folder: str | Path, rows: Sequence[Mapping[str, Any]], count: int = 3) -> Figure:
    """Draw some of the heat maps that `timenet detect --out folder` wrote: those of the highest scores."""
    scored = [row for row in rows if row["heat_map"]]
    if not scored:
        raise InputError("no photographs: there is no heat map to draw")
    best = sorted(scored, key=lambda row: -row["score"])[:count]
    figure, axes = new_figure(1, len(best), (3.6, 2.1))
    for ax, row in zip(axes[0], best, strict=True):
        with Image.open(user_path(folder) / row["heat_map"]) as picture:
            ax.imshow(np.asarray(picture))
        said = "defective" if row["defective"] else "good"
        ax.set(xticks=[], yticks=[], title=f"{Path(row['image']).parent.name}: {row['score']:.2f}, {said}")
    return figure
