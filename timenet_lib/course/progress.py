"""Watch a notebook while it runs: a line for whoever waits, and the most memory that its kernel took."""

import threading
import time
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import psutil

_POLL_SECONDS = 0.3
_LINE_SECONDS = 15.0


@runtime_checkable
class Stream(Protocol):
    """What progress can be written to: `sys.stderr`, and whatever is like it."""

    def write(self, text: str, /) -> Any: ...
    def flush(self) -> Any: ...
    def isatty(self) -> bool: ...


class Watch:
    """Follow one notebook from a thread: `with Watch(...) as watch`, and `watch.cell = n` whenever cell n begins.

    On a terminal one line is rewritten in place; elsewhere there is a line about every 15 seconds. Memory is the sum
    over the processes that this one started since, so two watches at a time would count each other's.
    """

    def __init__(self, name: str, cells: int, stream: Stream | None) -> None:
        self.name = name
        self.cells = cells
        self.cell = 0
        self.peak_mb = 0.0
        self._stream = stream
        self._in_place = stream is not None and stream.isatty()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Watch":
        self._start = time.monotonic()
        self._before = {child.pid for child in psutil.Process().children(recursive=True)}
        if not self._in_place:
            self._write(f"{self.name}  {self.cells} cells")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def end(self, outcome: str) -> None:
        """Write the notebook's last line."""
        self._write(f"{self.name}  {outcome}  {self.seconds:.0f} s  {self.peak_mb:.0f} MB", last=True)

    def _follow(self) -> None:
        next_line = 0.0 if self._in_place else _LINE_SECONDS
        while not self._done.wait(_POLL_SECONDS):
            self.peak_mb = max(self.peak_mb, self._memory_mb())
            if self.seconds >= next_line:
                self._write(f"{self.name}  cell {self.cell}/{self.cells}  {self.seconds:.0f} s")
                next_line += _POLL_SECONDS if self._in_place else _LINE_SECONDS

    def _memory_mb(self) -> float:
        total = 0
        for child in psutil.Process().children(recursive=True):
            if child.pid not in self._before:
                try:
                    total += child.memory_info().rss
                except psutil.Error:  # it has ended since
                    continue
        return total / 1e6

    def _write(self, line: str, last: bool = False) -> None:
        if self._stream is None:
            return
        if self._in_place:
            self._stream.write(f"\r\x1b[K{line}" + ("\n" if last else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
