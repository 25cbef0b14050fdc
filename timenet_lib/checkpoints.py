"""Stages on disk: NAME.safetensors in half precision, and NAME.json, its record. Nothing is ever unpickled.

A stage is rounded to half precision as it is saved, and the next stage trains on what was saved. The record holds
the SHA-256 of the weights, and loading checks it.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from timenet_lib.errors import InputError, OutputError, WeightsError
from timenet_lib.nets.unet import UNetConfig
from timenet_lib.presets import Preset, preset_from_dict
from timenet_lib.untrusted import check_list, check_name, check_object, is_name, printable, read_json, shown

if sys.platform != "win32":
    import fcntl

HASH = re.compile(r"[0-9a-f]{64}")
BROKEN = (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError)  # of a file that is no safetensors
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def shipped_weights(name: str) -> Path:
    """Return the folder of weights that the package ships under this name; an unknown one is a WeightsError."""
    home = Path(__file__).parent / "weights"
    shipped = sorted(p.name for p in home.iterdir() if p.is_dir())
    if name not in shipped:
        raise WeightsError(f"no shipped weights {name!r}: there is {', '.join(shipped)}, or give a folder")
    return home / name


def weights_folder(name_or_folder: str | Path) -> Path:
    """Return an existing folder as it is, anything else as the name of shipped weights."""
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder
    if len(folder.parts) > 1:
        raise WeightsError(f"no weights folder {folder}")
    return shipped_weights(str(name_or_folder))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all; what the system refuses is an OutputError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> OutputError:
    """Return the error that says why a file or folder cannot be written, and what to do."""
    advice = "free some space, then go on with --resume" if error.errno in FULL else "choose another folder"
    return OutputError(f"{path} cannot be written ({error.strerror or error}): {advice}")


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a training's folder, keep other runs out of it, and remove what a killed one left half-written.

    A folder that another run holds is an InputError, one that cannot be written an OutputError. The lock goes with
    the process, however that ends; Windows and some network file systems have none, and there nothing is refused.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise cannot_write(folder, error) from error
    with lock:
        if locked(lock):
            for inside in ("", "checkpoints/", "couplings/*/"):
                for part in folder.glob(f"{inside}.*.part"):
                    part.unlink()
        yield


def locked(file: IO[str]) -> bool:
    """Lock a file until it is closed; False where the system has no locks, an InputError where another holds it."""
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


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a draft to be filled, and put it in the place of a new or empty folder, all or nothing.

    A folder that holds something, or that the process stands in, is an InputError; what the system refuses is an
    OutputError.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and not empty: name a new folder")
    if folder.exists() and folder.samefile(Path.cwd()):
        raise InputError(f"{folder} is the folder that you are in: name a new one")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror or error}): choose another folder") from error
    try:
        draft.chmod(0o755)  # mkdtemp's are for this user alone
        yield draft
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON atomically, keys in the given order; NaN is refused."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def sha256(content: bytes) -> str:
    """Return the SHA-256 as a hexadecimal string."""
    return hashlib.sha256(content).hexdigest()


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
    write_atomically(folder / f"{name}.safetensors", content)
    digest = sha256(content)
    write_json(folder / f"{name}.json", {"stage": name, "sha256": digest, **record})
    return digest


def read_record(folder: Path, name: str) -> dict[str, Any]:
    """Return a stage's record; a missing or unreadable one, or one with a wrong hash or parent, is a WeightsError."""
    path = folder / f"{name}.json"
    if not path.is_file():
        raise WeightsError(f"{folder} holds no record {name}.json: is it a folder that `timenet train` wrote?")
    try:
        record = read_json(path)
        if "sha256" not in record:
            raise InputError("it has no sha256")
        parents = check_object("parents", record.get("parents", {}))
        for what, digest in {"sha256": record["sha256"], **parents}.items():
            if not isinstance(digest, str) or not HASH.fullmatch(digest):
                raise InputError(f"its {shown(what)} is {shown(digest)}: 64 hexadecimal digits are needed")
    except InputError as error:
        raise WeightsError(f"{path} is no record of a stage: {error}") from error
    return record


def recorded_network(record: Mapping[str, Any], path: Path) -> tuple[Preset, UNetConfig, tuple[str, ...]]:
    """Return a record's preset, the shape of its network, and its classes; what does not fit is a WeightsError."""
    try:
        preset = preset_from_dict(record.get("preset"))
        classes = tuple(check_name("a class", name) for name in check_list("classes", record.get("classes"), 1, 10_000))
        if len(set(classes)) < len(classes):
            raise InputError("a class is named twice")
        return preset, preset.unet_config(len(classes)), classes
    except InputError as error:
        raise WeightsError(
            f"the record of {path} does not fit: {error}; train with this version, or mend it"
        ) from error


def recorded_family(folder: Path, records: Mapping[str, Mapping[str, Any]]) -> tuple[Preset, tuple[str, ...]]:
    """Return the preset and the classes of stages that go together; unlike networks or classes are a WeightsError."""
    said = {name: recorded_network(record, folder / f"{name}.safetensors") for name, record in records.items()}
    preset, *first = next(iter(said.values()))
    odd = [name for name, (_, *others) in said.items() if others != first]
    if odd:
        raise WeightsError(f"{folder} is a mixture: {odd[0]} has another network, image size or classes than flow_0")
    return preset, said["flow_0"][2]


def own_extractor(folder: Path, recorded: str) -> str:
    """Return the extractor weights that a folder's record names; a file outside the folder is a WeightsError."""
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
    return (folder / f"{name}.json").is_file() and (folder / f"{name}.safetensors").is_file()


def load_stage(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a stage's weights, in float32, and its record; an altered file is a WeightsError."""
    record = read_record(folder, name)
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise WeightsError(f"{folder} holds no {path.name}: train this stage, or choose another folder")
    try:
        content = path.read_bytes()
        if sha256(content) != record["sha256"]:
            raise WeightsError(f"{path} does not fit its record (SHA-256): the file was altered or cut short")
        state = load(content)
    except BROKEN as error:
        raise WeightsError(f"{path} is not a safetensors file, and nothing else is read: {error!r}") from error
    check_finite(state, path)
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, record


def check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that hold NaN or infinite values, or are complex, with a WeightsError."""
    for name, value in state.items():
        if value.is_complex() or not torch.isfinite(value.float()).all():
            raise WeightsError(f"{path} holds NaN, infinite or complex values in {shown(name)}: take another file")


def load_into(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Put weights into a module, which may be on the meta device; those of another configuration are a WeightsError."""
    wanted = module.state_dict()
    odd = [k for k, v in state.items() if k in wanted and v.dtype != wanted[k].dtype]
    if odd:
        raise WeightsError(f"{path}: {odd[0]} is {state[odd[0]].dtype}, not {wanted[odd[0]].dtype}: take another file")
    try:
        module.load_state_dict(state, assign=any(p.is_meta for p in module.parameters()))
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise WeightsError(f"{path} was made for another configuration: {printable(first)}") from error
