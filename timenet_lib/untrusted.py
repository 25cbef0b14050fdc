"""What a file from elsewhere may hold: JSON that is read as data only, and values that are checked before any use.

Everything here raises InputError with a sentence on what is wrong; who reads the file adds its name and what to do.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from timenet_lib.errors import InputError

MAX_BYTES = 20_000_000  # of a JSON file; the largest that the project writes has 0.2 MB
LONGEST_NAME = 255


def shown(value: object) -> str:
    """Return a value as messages show it: on one line, printable, and cut where it is long."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def printable(text: str) -> str:
    """Return a text as it is, or with escapes where it holds line ends and the like, as names of files may."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def parse_json(content: bytes | str) -> dict[str, Any]:
    """Return a JSON object; NaN, infinities, a key that is given twice, and endless nesting are refused."""
    try:
        found = json.loads(
            content.decode() if isinstance(content, bytes) else content,
            parse_constant=_no_constant,
            object_pairs_hook=_no_duplicates,
        )
    except RecursionError as error:
        raise InputError("it is not JSON that anybody would write: it is nested too deeply") from error
    except ValueError as error:
        raise InputError(f"it is not JSON: {shown(str(error))}") from error
    if not isinstance(found, dict):
        raise InputError(f"it holds {shown(found)}, not fields with names")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of at most 20 MB."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"it cannot be read ({error.strerror or error})") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"it is larger than {MAX_BYTES // 1_000_000} MB")
    return parse_json(content)


def check_object(what: str, value: Any) -> dict[str, Any]:
    """Return an object, whatever its fields."""
    if not isinstance(value, dict):
        raise InputError(f"{what} is {shown(value)}: fields with names are needed")
    return value


def check_fields(what: str, value: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return an object that has exactly these fields."""
    check_object(what, value)
    wanted = set(names)
    if missing := sorted(wanted - set(value)):
        raise InputError(f"{what} lacks the fields {', '.join(missing)}")
    if odd := sorted(set(value) - wanted):
        raise InputError(f"{what} has the unexpected fields {', '.join(map(shown, odd[:5]))}")
    return value


def check_number(what: str, value: Any, low: float, high: float, whole: bool = False) -> Any:
    """Return a number that lies from low to high, both included."""
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise InputError(f"{what} is {shown(value)}: a {'whole ' * whole}number from {low:g} to {high:g} is needed")
    return value


def check_name(what: str, value: Any) -> str:
    """Return a name: printable text on one line, without a slash, that means no folder."""
    if not isinstance(value, str) or not is_name(value):
        raise InputError(f"{what} is {shown(value)}: a name of printable letters without slashes is needed")
    return value


def is_name(value: str) -> bool:
    """Tell whether a text can stand for a class or a file: 1 to 255 printable characters, no slash, not "." or ".."."""
    plain = value.isprintable() and not set(value) & set("/\\") and value.strip(". ") != ""
    return plain and len(value) <= LONGEST_NAME


def check_list(what: str, value: Any, least: int, most: int) -> list[Any]:
    """Return a list with so many entries."""
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise InputError(f"{what} is {shown(value)}: a list of {least} to {most} entries is needed")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is given twice")
    return found
