"""The device that the caller names, or an error that says what this machine has."""

import torch

from timenet_lib.errors import InputError


def check_device(name: str) -> str:
    """Return the device's name; one that this machine lacks is an InputError."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"no device {name!r}: choose cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"no device {name!r}: choose cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise InputError(f"--device {name}: this machine has {count} CUDA devices; use --device cpu")
    return name
