"""Hand a notebook's numbers to whoever runs it."""

import math
from typing import Any, SupportsFloat

from timenet_lib.errors import InputError

METRICS_MIME = "application/vnd.timenet.metrics+json"


def record(**numbers: SupportsFloat) -> None:
    """Emit named numbers as an output of the present cell: shown as text, and collected by `runner.run_notebooks`.

    Takes numbers, NumPy scalars and tensors of one element; NaN and infinity are refused, since JSON has neither.
    """
    from IPython.display import display

    plain = {name: _plain(name, value) for name, value in numbers.items()}
    text = "\n".join(
        f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}" for name, value in plain.items()
    )
    display({METRICS_MIME: plain, "text/plain": text}, raw=True)


def metrics_of(nb: Any) -> dict[str, float | int]:
    """Return all numbers that a notebook's outputs carry; the last one wins where a name recurs."""
    outputs = [output for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs]
    found = [output.get("data", {}).get(METRICS_MIME, {}) for output in outputs]
    return {name: value for numbers in found for name, value in numbers.items()}


def _plain(name: str, value: SupportsFloat) -> int | float:
    if isinstance(value, int):
        return int(value)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"record({name}=...) takes a number, not {type(value).__name__}") from error
    if not math.isfinite(number):
        raise InputError(f"record({name}=...) is {number}: only finite numbers can be recorded")
    return number
