"""Hand a notebook's numbers to whoever runs it."""

import math
from typing import SupportsFloat

from IPython.display import display

from timenet_lib.errors import InputError

NUMBERS_MIME = "application/vnd.timenet.metrics+json"  # of what a cell records


def record(**numbers: SupportsFloat) -> None:
    """Emit named numbers as an output of the present cell: shown as text, and collected by the runner.

    Takes numbers, NumPy scalars and tensors of one element; raises InputError for NaN and infinity, which JSON lacks.
    """
    plain = {name: _plain(name, value) for name, value in numbers.items()}
    text = "\n".join(
        f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}" for name, value in plain.items()
    )
    display({NUMBERS_MIME: plain, "text/plain": text}, raw=True)


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
