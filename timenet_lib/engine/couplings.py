"""Reflow's couplings (x0, x1 = ODE[v](x0 | c)), streamed to disk in fixed ranges of indices; nothing trains here.

Paper: section 2.1.3, algorithm 1. Noise is kept as its seed, images in half precision. A range is solved as one
batch, written whole or not at all, and found again by a restart, so that the range alone decides who shares a
solver call. One range at a time is in memory, when they are made and when they are read.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float, Int
from msgspec import Meta
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from timenet_lib.errors import DataError, InputError, printable
from timenet_lib.files import (
    Digest,
    Positive,
    Share,
    convert,
    parse_json,
    read_json,
    reading,
    sha256,
    user_path,
    write_atomically,
    write_json,
)
from timenet_lib.keyed import generator
from timenet_lib.solvers import rk45
from timenet_lib.weights import BROKEN

RANGE = 32  # couplings that share a solver call
FILES = "[0-9]*.safetensors"  # not ._NAME, which a Mac may leave beside them
BAR = "{desc:>9} {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}{postfix}"


def coupling_noise(seed: int, k: int, indices: range, size: int) -> Float[Tensor, "b 3 h w"]:
    """Draw the noise x0 of the couplings of these indices; each k has noise of its own.

    Paper: section 2.1.3, algorithm 1.
    """
    return torch.stack([torch.randn(3, size, size, generator=generator(seed, "coupling", k, i)) for i in indices])


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What decides a set of couplings, whatever its number; kept in the folder as manifest.json."""

    flow_sha256: str  # of v_{k-1}
    size: Annotated[int, Meta(ge=1, le=1024)]  # px
    classes: Annotated[int, Meta(ge=1, le=10_000)]
    k: Annotated[int, Meta(ge=1, le=1000)] = 1
    seed: int = 0
    tol: Share = 1e-3
    range: Annotated[int, Meta(ge=1, le=10_000)] = RANGE

    @classmethod
    def of(cls, folder: Path) -> "Manifest":
        """Read the manifest of a folder of couplings. Raises DataError if it is missing or does not fit."""
        path = folder / "manifest.json"
        try:
            return convert("manifest", read_json(path), cls)
        except InputError as error:
            raise DataError(
                f"{path} is no manifest of couplings ({error}): delete {folder} and make them again"
            ) from error

    def settle(self, folder: Path) -> None:
        """Write the manifest of a new folder. Raises DataError, with what differs, if another one is there."""
        if not (folder / "manifest.json").is_file():
            write_json(folder / "manifest.json", asdict(self))
        there = asdict(Manifest.of(folder))
        if odd := [name for name, value in asdict(self).items() if there[name] != value]:
            raise DataError(f"{folder} holds couplings with another {', '.join(odd)}: delete it or choose another")


def make_couplings(
    v: nn.Module,
    folder: Path,
    manifest: Manifest,
    *,
    count: int,
    minutes: float | None = None,
    progress: bool = True,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Solve v = v_{k-1} from noise for this number of couplings, classes in turn, and leave them in the folder.

    Paper: algorithm 1. What is there already is kept. With minutes, no range is begun after they are over, but at
    least one is made. share = (i, n) makes the i-th of n shares of the ranges; all shares together are what (0, 1)
    makes. Raises DataError if the folder was made with another manifest, or for more.
    """
    folder = user_path(folder)
    manifest.settle(folder)
    device, seed, k = next(v.parameters()).device, manifest.seed, manifest.k
    begin, done = time.monotonic(), 0
    ranges = [range(start, min(start + manifest.range, count)) for start in range(0, count, manifest.range)]
    if odd := {*folder.glob(FILES)} - {range_file(folder, indices) for indices in ranges}:
        raise DataError(
            f"{min(odd)} is of another number of couplings than {count}: delete it, or ask for as many again"
        )
    for indices in tqdm(ranges[share[0] :: share[1]], desc="couplings", disable=not progress, bar_format=BAR):
        path = range_file(folder, indices)
        if path.is_file():
            continue
        if minutes is not None and done and time.monotonic() - begin > 60 * minutes:
            break
        x0 = coupling_noise(seed, k, indices, size=manifest.size).to(device)
        c = torch.tensor([i % manifest.classes for i in indices], device=device)
        with torch.no_grad():
            x1, nfe = rk45(v, x0, torch.zeros(len(c), device=device), c, tol=manifest.tol)
        x1 = x1.half().cpu().contiguous()
        about = json.dumps(asdict(About(sha256(x1.numpy().tobytes()), nfe)))  # one entry: their order is not kept
        write_atomically(path, save({"x1": x1, "c": c.cpu()}, metadata={"range": about}))
        done += 1


def range_file(folder: Path, indices: range) -> Path:
    """Name the file of one range."""
    return folder / f"{indices.start:06d}-{indices.stop - 1:06d}.safetensors"


@dataclass(frozen=True)
class About:
    """What a range holds besides its tensors."""

    sha256: Digest  # of x1
    nfe: Positive  # function evaluations


class Couplings:
    """The couplings of a folder: images are read from disk one by one, noise is drawn anew from its seed.

    Opening it reads every range once. Raises DataError that names a range that is cut short or altered.
    """

    def __init__(self, folder: Path):
        folder = user_path(folder)
        self.manifest = Manifest.of(folder)
        self.nfe: list[int] = []  # function evaluations of each range
        self.files: list[Path] = []
        self.count = 0
        for path in sorted(folder.glob(FILES)):
            if self.count % self.manifest.range:
                raise DataError(f"{self.files[-1]} is shorter than a range, though not the last: delete it")
            count, nfe = check_range(path, self.manifest)
            self.files.append(path)
            self.count += count
            self.nfe.append(nfe)
        if not self.files:
            raise DataError(f"{folder} holds no couplings yet")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"], Int[Tensor, ""]]:
        """Read x0, x1 and c of one coupling."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        number, place = divmod(i, self.manifest.range)
        with safe_open(self.files[number], "pt") as file:
            x1, c = file.get_slice("x1")[place], file.get_slice("c")[place : place + 1][0]
        index = int(self.files[number].stem.split("-")[0]) + place
        x0 = coupling_noise(self.manifest.seed, self.manifest.k, range(index, index + 1), size=x1.shape[-1])[0]
        return x0, x1.float(), c


def check_range(path: Path, manifest: Manifest) -> tuple[int, int]:
    """Read one range, compare it with its name, its digest and the manifest; get its length and evaluations."""
    try:
        with reading(path), safe_open(path, "pt") as file:
            x1, c = file.get_tensor("x1"), file.get_tensor("c")
            about = convert("range", parse_json(file.metadata()["range"]), About)
        first, count, size = int(path.stem.split("-")[0]), len(x1), manifest.size
        if path != range_file(path.parent, range(first, first + count)) or first % manifest.range:
            raise ValueError(f"{count} couplings do not fit its name")
        if tuple(x1.shape) != (count, 3, size, size) or x1.dtype != torch.float16 or not torch.isfinite(x1).all():
            raise ValueError(f"x1 of {x1.dtype} and shape {tuple(x1.shape)} does not fit the manifest")
        if sha256(x1.numpy().tobytes()) != about.sha256:
            raise ValueError("it does not fit its SHA-256")
        if not torch.equal(c, torch.arange(first, first + count) % manifest.classes):
            raise ValueError("its classes are not in turn")
        return count, about.nfe
    except (InputError, *BROKEN) as error:
        why = printable(str(error))
        raise DataError(f"{path} was altered or cut short ({why}): delete it, --resume makes it again") from error
