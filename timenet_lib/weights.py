"""Stages on disk: NAME.safetensors in half precision, and NAME.json, its record. Nothing is ever unpickled.

A stage is rounded to half precision as it is saved, and the next stage trains on what was saved. The record holds
the SHA-256 of the weights, and loading checks it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from timenet_lib.errors import InputError, WeightsError, is_name, printable, shown
from timenet_lib.files import Digest, convert, read_json, reading, sha256, user_path, write_atomically, write_json

BROKEN = (SafetensorError, KeyError, TypeError, ValueError, RuntimeError)  # of a file that is no safetensors
Device = str | int | torch.device


def check_device(device: Device) -> str:
    """Return torch's name of a device. Raises InputError for one that this machine lacks, with those it has."""
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count = {"cpu": 1, "cuda": cuda, "mps": int(torch.backends.mps.is_available())}
    try:
        found = torch.device(device)
        there = (found.index or 0) < count.get(found.type, 0)
    except (RuntimeError, TypeError):
        there = False
    if not there:
        have = [kind if i == 0 else f"{kind}:{i}" for kind, n in count.items() for i in range(n)]
        raise InputError(f"no device {shown(device)} on this machine: choose {' or '.join(have)}")
    return str(found)


def shipped_weights(name: str) -> Path:
    """Find the folder of weights that the package ships under this name. Raises WeightsError for an unknown one."""
    home = Path(__file__).parent / "weights"
    shipped = sorted(p.name for p in home.iterdir() if p.is_dir())
    if name not in shipped:
        raise WeightsError(f"no shipped weights {name!r}: there is {', '.join(shipped)}, or give a folder")
    return home / name


def weights_folder(name_or_folder: str | Path) -> Path:
    """Find a folder of weights, or shipped weights by their name. Raises WeightsError where there is neither."""
    folder = user_path(name_or_folder)
    if folder.is_dir():
        return folder
    if len(folder.parts) > 1:
        raise WeightsError(f"no weights folder {folder}")
    return shipped_weights(str(name_or_folder))


def round_to_half(module: nn.Module) -> None:
    """Round every weight to half precision in place, still stored in float32."""
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half().float())


def save_stage(folder: Path, name: str, module: nn.Module, record: Mapping[str, Any]) -> str:
    """Write a stage and its record; return the SHA-256 of the weights. The record is written last."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in module.state_dict().items()}
    content = save({k: v.contiguous().cpu() for k, v in state.items()})
    folder = user_path(folder)
    write_atomically(folder / f"{name}.safetensors", content)
    digest = sha256(content)
    write_json(folder / f"{name}.json", {"stage": name, "sha256": digest, **record})
    return digest


def read_record(folder: Path, name: str) -> dict[str, Any]:
    """Read a stage's record. Raises WeightsError if it is missing, unreadable, or names no proper SHA-256."""
    folder = user_path(folder)
    path = folder / f"{name}.json"
    if not path.is_file():
        raise WeightsError(f"{folder} holds no record {name}.json: is it a folder that `timenet train` wrote?")
    try:
        record = read_json(path)
        convert("sha256", record.get("sha256"), Digest)
        convert("parents", record.get("parents", {}), dict[str, Digest])
    except InputError as error:
        raise WeightsError(f"{path} is no record of a stage: {error}") from error
    return record


def own_extractor(folder: Path, recorded: str) -> str:
    """Find the extractor weights that a folder's record names. Raises WeightsError for a file outside the folder."""
    if recorded in ("shipped", "random", "timm"):
        return recorded
    if not is_name(recorded) or not (folder / recorded).is_file():
        raise WeightsError(
            f"{folder} was trained with the extractor weights {shown(recorded)}, which do not lie in it: say where "
            "they are with --extractor-weights, in Python extractor_weights="
        )
    return str(folder / recorded)


def has_stage(folder: Path, name: str) -> bool:
    """Tell whether a stage was finished in this folder."""
    folder = user_path(folder)
    return (folder / f"{name}.json").is_file() and (folder / f"{name}.safetensors").is_file()


def load_stage(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a stage's weights, in float32, and its record. Raises WeightsError for an altered file."""
    folder = user_path(folder)
    record = read_record(folder, name)
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise WeightsError(f"{folder} holds no {path.name}: train this stage, or choose another folder")
    try:
        with reading(path):
            content = path.read_bytes()
        if sha256(content) != record["sha256"]:
            raise WeightsError(f"{path} does not fit its record (SHA-256): the file was altered or cut short")
        state = load(content)
    except BROKEN as error:
        raise WeightsError(f"{path} is not a safetensors file, and nothing else is read: {error!r}") from error
    check_finite(state, path)
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, record


def check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse, with a WeightsError, weights that hold NaN or infinite values, or are complex."""
    for name, value in state.items():
        if value.is_complex() or not torch.isfinite(value.float()).all():
            raise WeightsError(f"{path} holds NaN, infinite or complex values in {shown(name)}: take another file")


def load_into(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Put weights into a module, which may be on the meta device.

    Raises WeightsError for weights of another configuration.
    """
    wanted = module.state_dict()
    odd = [k for k, v in state.items() if k in wanted and v.dtype != wanted[k].dtype]
    if odd:
        raise WeightsError(f"{path}: {odd[0]} is {state[odd[0]].dtype}, not {wanted[odd[0]].dtype}: take another file")
    try:
        module.load_state_dict(state, assign=any(p.is_meta for p in module.parameters()))
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise WeightsError(f"{path} was made for another configuration: {printable(first)}") from error
