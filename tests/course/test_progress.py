"""Progress lines, in place on a terminal and apart from one another elsewhere."""

import io
import time

from timenet_lib.course import progress
from timenet_lib.course.progress import Watch


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_line_rewritten(monkeypatch):
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.02)
    stream = Terminal()
    with Watch("00_a", 9, stream) as watch:
        watch.cell = 4
        end = time.monotonic() + 20
        while "cell 4/9" not in stream.getvalue() and time.monotonic() < end:
            time.sleep(0.02)
    watch.end("done")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "\r\x1b[K00_a  cell 4/9  " in text
    assert text.rpartition("\r\x1b[K")[2].startswith("00_a  done")


def test_elsewhere_lines_come_at_intervals(monkeypatch):
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.1)
    stream = io.StringIO()
    with Watch("00_a", 9, stream) as watch:
        watch.cell = 2
        end = time.monotonic() + 20
        while stream.getvalue().count("cell 2/9") < 2 and time.monotonic() < end:
            time.sleep(0.02)
    assert 2 <= stream.getvalue().count("00_a  cell 2/9") <= watch.seconds / 0.1
    assert "\r" not in stream.getvalue()


def test_no_stream_means_silence(capfd):
    with Watch("00_a", 1, None) as watch:
        pass
    watch.end("done")
    assert capfd.readouterr() == ("", "")
