"""A kernel of its own for a run: this interpreter, nobody's settings, fixed hashes, no network if so wished."""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest.mock import patch

import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.output_widget import OutputWidget

from timenet_lib.course import offline

_POLL_SECONDS = 0.3
_ARGV = [
    "-m",
    "ipykernel_launcher",
    "-f",
    "{connection_file}",
    "--HistoryManager.enabled=False",
    "--log-level=CRITICAL",
]
# What is deprecated is reported for the library too, as IPython does for a cell.
_WARN = "--IPKernelApp.exec_lines=__import__('warnings').filterwarnings('default', module='timenet_lib|__main__')"


@contextlib.contextmanager
def private_kernel(env: Mapping[str, str] | None = None, no_network: bool = False) -> Iterator[type]:
    """Offer a kernel manager class for as long as the context lasts; `env` is added to the kernels' environment.

    Output widgets are kept from answering the kernel: that makes headless runs hang at random (nbclient issue 312).
    """
    with tempfile.TemporaryDirectory(prefix="timenet-kernel-") as folder:
        values = {
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "PYTHONHASHSEED": "0",
            "IPYTHONDIR": str(Path(folder, "ipython")),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            **(env or {}),
        }
        if no_network:  # in each process that a kernel starts, too
            guard = Path(offline.__file__).read_text(encoding="utf-8") + "\n\ninstall()\n"
            Path(folder, "sitecustomize.py").write_text(guard, encoding="utf-8")
            paths = [folder, values.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))]
            values["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        argv = [sys.executable, *_ARGV, _WARN]
        spec = KernelSpec(argv=argv, display_name="timenet-run", language="python", env=values)
        with patch.object(OutputWidget, "sync_state", lambda self: None):
            yield type("PrivateKernel", (AsyncKernelManager,), {"kernel_spec": spec})


@contextlib.contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Follow the memory of the processes started within the context: a list of what they take together, in MB."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    taken, done = [0.0], threading.Event()

    def follow() -> None:
        while not done.wait(_POLL_SECONDS):
            total = 0
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it may have ended since
                    total += child.memory_info().rss if child.pid not in before else 0
            taken.append(total / 1e6)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        done.set()
        thread.join()
