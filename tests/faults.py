"""Real processes to be killed, forked from one that has imported the library already, and watched by their files."""

import multiprocessing
import os
import signal
import sys
import threading
import time

from tqdm import tqdm

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["timenet_lib.engine.command", "timenet_lib.course.maintain"])


def inside(task, home, log):
    """Run a task in this process, in the folder home, what it says on stderr appended to the file log."""
    os.chdir(home)
    os.dup2(os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed process would leave behind
    task()


class Command:
    """A command of timenet with its arguments, as a task; prepare is called before."""

    def __init__(self, *arguments, prepare=None):
        self.arguments, self.prepare = list(map(str, arguments)), prepare

    def __call__(self):
        from timenet_lib.__main__ import main

        if self.prepare:
            self.prepare()
        sys.argv = ["timenet", *self.arguments]
        main(prog_name="timenet")


class Child:
    """A process that does a task in a folder; log is what it said."""

    def __init__(self, task, home):
        home.mkdir(exist_ok=True)
        self.log_file = home / f"log-{len(list(home.glob('log-*')))}"
        self.log_file.touch()
        self.process = processes.Process(target=inside, args=(task, home, self.log_file))
        self.process.start()

    @property
    def log(self):
        return self.log_file.read_text().replace("\r", "\n")

    def end(self, timeout=300):
        """Wait for its end; return the exit code, which is minus the signal that killed it."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"it has not ended: {self.log}"
        return self.process.exitcode

    def stop_when(self, seen, number=signal.SIGKILL):
        """Send a signal as soon as seen() is true; return whether that came before the end, and the exit code."""
        while not (there := seen()) and self.process.exitcode is None:
            time.sleep(0.001)
        if there and self.process.exitcode is None:
            os.kill(self.process.pid, number)
        return bool(there), self.end()


def state(folder):
    """Return what can be seen of a folder's files from outside: names, sizes, times."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            try:
                about = os.stat(path)
            except FileNotFoundError:
                continue
            found[path] = (about.st_mtime_ns, about.st_size, about.st_ino)
    return found


class Changes:
    """Tells when a folder has changed for the n-th time since this was made."""

    def __init__(self, folder, n):
        self.folder, self.left, self.before = folder, n, state(folder)

    def __call__(self):
        now = state(self.folder)
        self.left -= now != self.before
        self.before = now
        return self.left <= 0
