"""A kernel of its own for a run: this interpreter, nobody's settings, fixed hashes, and no network if so wished."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbclient.output_widget

from timenet_lib.course import offline

NAME = "timenet-run"
_ARGV = [
    "-m",
    "ipykernel_launcher",
    "-f",
    "{connection_file}",
    "--HistoryManager.enabled=False",
    "--log-level=CRITICAL",
    # What is deprecated is reported for the library too, as IPython does for a cell.
    "--IPKernelApp.exec_lines=__import__('warnings').filterwarnings('default', module='timenet_lib|__main__')",
]


@contextlib.contextmanager
def private_kernel(env: Mapping[str, str] | None = None, no_network: bool = False) -> Iterator[str]:
    """Offer a kernel under the name that is yielded, for as long as the context lasts.

    `env` is added to the kernel's environment. The environment of this process changes while the context lasts (that is
    how Jupyter finds a kernel). Output widgets are kept from answering the kernel, which makes headless runs hang at
    random (nbclient issue 312).
    """
    with tempfile.TemporaryDirectory(prefix="timenet-kernel-") as folder:
        root = Path(folder)
        _write_spec(root, _kernel_env(root, env or {}, no_network))
        jupyter = {
            "JUPYTER_PATH": str(root / "data"),
            "JUPYTER_DATA_DIR": str(root / "data"),
            "JUPYTER_RUNTIME_DIR": str(root / "runtime"),
        }
        with _environ(jupyter), _silent_output_widgets():
            yield NAME


def _kernel_env(root: Path, env: Mapping[str, str], no_network: bool) -> dict[str, str]:
    values = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONHASHSEED": "0",
        "IPYTHONDIR": str(root / "ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        **env,
    }
    if no_network:
        guard = root / "guard"
        guard.mkdir()
        shutil.copy(offline.__file__, guard / "timenet_offline.py")
        (guard / "sitecustomize.py").write_text("import timenet_offline\n\ntimenet_offline.install()\n")
        paths = [str(guard), values.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))]
        values["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return values


def _write_spec(root: Path, env: Mapping[str, str]) -> None:
    folder = root / "data" / "kernels" / NAME
    folder.mkdir(parents=True)
    (root / "runtime").mkdir(mode=0o700)
    spec = {"argv": [sys.executable, *_ARGV], "display_name": NAME, "language": "python", "env": dict(env)}
    (folder / "kernel.json").write_text(json.dumps(spec))


@contextlib.contextmanager
def _environ(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _silent_output_widgets() -> Iterator[None]:
    widget = nbclient.output_widget.OutputWidget
    before = widget.sync_state
    widget.sync_state = lambda self: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        widget.sync_state = before  # type: ignore[method-assign]
