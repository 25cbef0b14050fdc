"""A kernel of its own for a run: this interpreter, nobody's settings, fixed hashes, no network if so wished."""

import contextlib
import os
import shutil
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
    # What is deprecated is reported for the library too, as IPython does for a cell.
    "--IPKernelApp.exec_lines=__import__('warnings').filterwarnings('default', module='timenet_lib|__main__')",
]


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
        if no_network:
            guard = _write_guard(Path(folder, "guard"))
            paths = [str(guard), values.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))]
            values["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        spec = KernelSpec(argv=[sys.executable, *_ARGV], display_name="timenet-run", language="python", env=values)
        with patch.object(OutputWidget, "sync_state", lambda self: None):
            yield type("PrivateKernel", (AsyncKernelManager,), {"kernel_spec": spec})


def _write_guard(folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(offline.__file__, folder / "timenet_offline.py")
    (folder / "sitecustomize.py").write_text("import timenet_offline\n\ntimenet_offline.install()\n")
    return folder


class PeakMemory:
    """The most memory, in MB, that the processes started within the context have taken together."""

    def __enter__(self) -> "PeakMemory":
        self.mb = 0.0
        self._before = {child.pid for child in psutil.Process().children(recursive=True)}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._done.wait(_POLL_SECONDS):
            total = 0
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it may have ended since
                    total += child.memory_info().rss if child.pid not in self._before else 0
            self.mb = max(self.mb, total / 1e6)
