"""The processes of an `accelerate launch`: how they are joined, which device each has, and work that they share out."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object


def make_accelerator(device: str = "cpu") -> Accelerator:
    """Return what joins this process to the others of an `accelerate launch`, on the device that was asked for."""
    return Accelerator(cpu=torch.device(device).type == "cpu", mixed_precision="no", device_placement=False)


def own_device(workers: Accelerator, device: str) -> torch.device:
    """Return the device of this process: the one that was asked for, or, among several processes, its own."""
    return workers.device if workers.num_processes > 1 else torch.device(device)


def share_out(workers: Accelerator | None, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Return work(item) of each item, in order and in every process; process i of n does items i, i + n, ...

    All processes have to come here. None, or one process, does everything itself.
    """
    if workers is None or workers.num_processes == 1:
        return [work(item) for item in items]
    n = workers.num_processes
    done = gather_object([work(item) for item in items[workers.process_index :: n]])  # one process after the other
    places = [k for i in range(n) for k in range(i, len(items), n)]
    return [result for _, result in sorted(zip(places, done, strict=True), key=lambda pair: pair[0])]
