"""The processes of an `accelerate launch`: how they are joined, which device each has, and work that they share out."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from timenet_lib.errors import InputError
from timenet_lib.files import writing
from timenet_lib.weights import Device, check_device

if sys.platform != "win32":
    import fcntl


def make_accelerator(device: Device = "cpu") -> Accelerator:
    """Join this process to the others of an `accelerate launch`, on the device that was asked for."""
    return Accelerator(
        cpu=torch.device(check_device(device)).type == "cpu", mixed_precision="no", device_placement=False
    )


def own_device(accelerator: Accelerator, device: str) -> torch.device:
    """Get the device of this process: the one that was asked for or, among several processes, its own."""
    return accelerator.device if accelerator.num_processes > 1 else torch.device(device)


def share_out(accelerator: Accelerator, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Compute work(item) of each item, in order and in every process; process i of n does items i, i + n, ...

    All processes have to call it.
    """
    mine = range(accelerator.process_index, len(items), accelerator.num_processes)
    return [result for _, result in sorted(gather_object([(k, work(items[k])) for k in mine]), key=itemgetter(0))]


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a training's folder, keep other runs out of it, and remove what a killed one left half-written.

    The lock ends with the process, however that ends; Windows and some network file systems have none, and there
    nothing is refused. Raises InputError if another run holds the folder, OutputError if it cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a", encoding="utf-8")
    with lock:
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lock.close)  # a worker that outlives a killed run holds nothing
        if locked(lock):
            for inside in ("", "checkpoints/", "couplings/*/"):
                for part in folder.glob(f"{inside}.*.part"):
                    part.unlink()
        yield


def locked(file: IO[str]) -> bool:
    """Lock a file until it is closed; False where the system has no locks. Raises InputError if it is held."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        folder = Path(file.name).parent
        raise InputError(f"another run is writing into {folder}: wait for its end, or choose another --out") from error
    except OSError:
        return False
    return True
