"""The house as readers find it: what may import what, how high it is, how long modules are, how calls are written."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "timenet_lib"
READING = (
    "path", "solvers", "losses", "layers", "unet", "tpn", "perlin", "synthesis", "train", "pooling", "score", "scopes",
)  # fmt: skip
METHOD = {*READING, "errors", "keyed"}
OUTSIDE = {"torch", "torchdiffeq", "jaxtyping"}  # what the method may import, besides Python's own modules
PAPERS_SYMBOLS = {"one_step", "euler", "rk45"}  # called with v, xt, t, c


def room(file: Path) -> str:
    """The module or package directly below timenet_lib that a file belongs to."""
    return file.relative_to(LIBRARY).parts[0].removesuffix(".py")


@cache
def trees() -> dict[Path, ast.Module]:
    return {file: ast.parse(file.read_text()) for file in LIBRARY.rglob("*.py")}


def imports(tree: ast.Module):
    """Each imported module with whether it is imported at the top of the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"timenet_lib.{a.name}" for a in node.names] if node.module == "timenet_lib" else [node.module]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        for name in names:
            yield name, node in tree.body


@cache
def below() -> dict[str, set[str]]:
    """The rooms that each room imports; the package's own face is none of them."""
    rooms = {room(file) for file in trees()} - {"__init__"}
    found = {name: set() for name in rooms}
    for file, tree in trees().items():
        own = {name.split(".")[1] for name, _ in imports(tree) if name.startswith("timenet_lib.")}
        if room(file) in rooms:
            found[room(file)] |= (own & rooms) - {room(file)}
    return found


def floor(name: str, above: tuple[str, ...] = ()) -> int:
    assert name not in above, f"a circle of imports: {' -> '.join((*above, name))}"
    return 1 + max((floor(other, (*above, name)) for other in below()[name]), default=0)


def test_it_has_eight_floors_and_no_circle():
    floors = {name: floor(name) for name in below()}
    assert max(floors.values()) <= 8, floors


def test_no_import_hides_in_a_function():
    """But for the command line, where it saves everybody the time to import torch."""
    hidden = [
        f"{file.relative_to(LIBRARY)}: {name}"
        for file, tree in trees().items()
        for name, top in imports(tree)
        if name.startswith("timenet_lib") and not top and room(file) != "__main__"
    ]
    assert hidden == []


def test_the_method_imports_torch_and_itself_alone():
    for name in sorted(METHOD):
        tree = trees()[LIBRARY / f"{name}.py"]
        for module, _ in imports(tree):
            first, *rest = module.split(".")
            assert first != "timenet_lib" or rest[0] in METHOD, f"{name} imports {module}"
            known = first in OUTSIDE or first == "timenet_lib" or first in sys.stdlib_module_names
            assert known, f"{name} imports {module}"


def test_nothing_but_the_command_line_imports_the_course():
    assert {name for name, others in below().items() if "course" in others} == {"__main__"}


@pytest.mark.parametrize("name", READING)
def test_a_module_of_the_method_is_read_in_one_sitting(name):
    assert len((LIBRARY / f"{name}.py").read_text().splitlines()) <= 150


def test_text_files_are_utf_8_whatever_the_locale():
    calls = [(f, n) for f, tree in trees().items() for n in ast.walk(tree) if isinstance(n, ast.Call)]
    found = []
    for file, call in calls:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        binary = any("b" in mode for mode in modes) or ast.unparse(call.func) in ("Image.open", "webbrowser.open")
        if name in ("read_text", "write_text") or (name == "open" and not binary):
            found += [] if any(k.arg == "encoding" for k in call.keywords) else [f"{file.name}:{call.lineno}"]
    assert found == []


def test_the_training_loop_is_seen_at_once():
    (loop,) = [n for n in trees()[LIBRARY / "train.py"].body if isinstance(n, ast.FunctionDef) and n.name == "train"]
    assert loop.end_lineno - loop.lineno < 40
    text = ast.unparse(loop)
    assert (
        text.index("draw(step)") < text.index("loss(module, batch)") < text.index("backward()") < text.index(".step()")
    )


def test_no_call_passes_more_than_three_arguments_by_position():
    """Of our own functions and classes; a solver is called with the paper's four symbols."""
    definitions = [
        n for tree in trees().values() for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)
    ]
    any_number = {n.name for n in definitions if isinstance(n, ast.FunctionDef) and n.args.vararg is not None}
    ours = {n.name for n in definitions} - any_number - PAPERS_SYMBOLS
    found = []
    for file, tree in trees().items():
        if "drawn" in file.parts:  # geometry: points, radii and angles in the order of the page
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and len(node.args) > 3:
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in ours:
                    found.append(f"{file.relative_to(LIBRARY)}:{node.lineno} {name}")
    assert found == []
