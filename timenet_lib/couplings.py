"""Reflow's couplings (x0, x1 = ODE[v](x0 | c)), streamed to disk in fixed ranges of indices; nothing trains here.

Paper: section 2.1.3, algorithm 1. Noise is kept as its seed, images in half precision. A range is solved as one
batch, written whole or not at all, and found again by a restart, so that the range alone decides who shares a
solver call.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from timenet_lib.checkpoints import write_atomically, write_json
from timenet_lib.errors import DataError
from timenet_lib.path import generator
from timenet_lib.solvers import rk45

RANGE = 32


def coupling_noise(seed: int, indices: range, size: int) -> Float[Tensor, "b 3 h w"]:
    """Return the noise x0 of the couplings of these indices."""
    return torch.stack([torch.randn(3, size, size, generator=generator(seed, "coupling", i)) for i in indices])


def make_couplings(
    v: nn.Module,
    folder: Path,
    count: int,
    size: int,
    num_classes: int,
    flow_hash: str,
    seed: int = 0,
    tol: float = 1e-3,
    minutes: float | None = None,
    progress: bool = True,
) -> dict[str, object]:
    """Solve the flow from noise for so many couplings, classes in turn; return the manifest.

    What is already there is kept; a folder made by another flow, seed or tolerance is a DataError. With minutes,
    no range is begun after they are over, but at least one is made.
    """
    manifest: dict[str, object] = {"flow_sha256": flow_hash, "seed": seed, "tol": tol, "range": RANGE, "size": size}
    check_manifest(folder, manifest)
    device = next(v.parameters()).device
    begin = time.monotonic()
    evaluations: list[int] = []
    ranges = [range(i, min(i + RANGE, count)) for i in range(0, count, RANGE)]
    for indices in tqdm(ranges, desc="couplings", disable=not progress, bar_format=BAR):
        path = folder / f"{indices.start:06d}-{indices.stop - 1:06d}.safetensors"
        if path.is_file():
            continue
        if minutes is not None and evaluations and time.monotonic() - begin > 60 * minutes:
            break
        x0 = coupling_noise(seed, indices, size).to(device)
        c = torch.tensor([i % num_classes for i in indices], device=device)
        with torch.no_grad():
            x1, nfe = rk45(v, x0, 0.0, c, tol)
        evaluations.append(nfe)
        write_atomically(path, save({"x1": x1.half().cpu(), "c": c.cpu()}))
    made = sum(r.stop - r.start for r in ranges if (folder / f"{r.start:06d}-{r.stop - 1:06d}.safetensors").is_file())
    return manifest | {"count": made, "nfe": evaluations, "seconds": round(time.monotonic() - begin, 1)}


BAR = "{desc:>9} {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}"


def check_manifest(folder: Path, manifest: dict[str, object]) -> None:
    """Write the manifest of a new folder; refuse one that differs."""
    path = folder / "manifest.json"
    if not path.is_file():
        write_json(path, manifest)
    elif json.loads(path.read_text()) != manifest:
        raise DataError(f"{folder} holds couplings of another flow, seed or tolerance: delete it or choose another")


class Couplings:
    """The couplings of a folder, in memory: images in half precision, noise drawn anew from its seed."""

    def __init__(self, folder: Path):
        self.manifest = json.loads((folder / "manifest.json").read_text())
        parts = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
        self.x1 = torch.cat([p["x1"] for p in parts])
        self.c = torch.cat([p["c"] for p in parts])

    def __len__(self) -> int:
        return len(self.c)

    def __getitem__(self, i: int) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"], Int[Tensor, ""]]:
        """Return x0, x1 and c of one coupling."""
        x0 = coupling_noise(self.manifest["seed"], range(i, i + 1), self.manifest["size"])[0]
        return x0, self.x1[i].float(), self.c[i]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return (self[i] for i in range(len(self)))
