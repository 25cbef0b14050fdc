"""The stages in order, from normal images to flow_0, flow_1, tpn; each is a file that no later one changes."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from timenet_lib import checkpoints
from timenet_lib.couplings import Couplings, make_couplings
from timenet_lib.data.folder import FolderIndex, Sample, load_images
from timenet_lib.data.synthesis import Synthesiser
from timenet_lib.errors import InputError, WeightsError
from timenet_lib.nets.extractors import build_extractor
from timenet_lib.nets.lpips import build_lpips
from timenet_lib.nets.tpn import TPN
from timenet_lib.nets.unet import UNet
from timenet_lib.path import key_seed
from timenet_lib.presets import Preset
from timenet_lib.processes import make_accelerator, own_device
from timenet_lib.training.extractor import extractor_step, make_task
from timenet_lib.training.flow import coupled_pairs, flow_step, independent_pairs
from timenet_lib.training.loop import PRECISIONS, Budget, History, LossOfStep, train_loop
from timenet_lib.training.tpn import balanced_weight, tpn_step

# of the minutes of `all`
SHARES = {"flow_0": 0.40, "couplings": 0.12, "flow_1": 0.16, "tpn": 0.32}


@dataclass(frozen=True)
class TrainingSet:
    """Normal images in memory, and those held out from training, on which a model is calibrated."""

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    held_out: UInt8[Tensor, "m 3 h w"]
    held_out_labels: Int[Tensor, " m"]
    classes: tuple[str, ...]
    data_hash: str


def load_training_set(index: FolderIndex, size: int, every: int = 10) -> TrainingSet:
    """Load the normal training images of a folder; every tenth of a class, at least one of two, is held out."""
    kept: list[Sample] = []
    held_out: list[Sample] = []
    for name in index.classes:
        samples = [s for s in index.train if s.class_name == name]
        out = samples[every // 2 :: every] or samples[1:2]
        held_out += out
        kept += [s for s in samples if s not in out]

    def labels(samples: list[Sample]) -> Tensor:
        return torch.tensor([index.classes.index(s.class_name) for s in samples])

    return TrainingSet(
        images=load_images(kept, size),
        labels=labels(kept),
        held_out=load_images(held_out or kept, size),
        held_out_labels=labels(held_out or kept),
        classes=index.classes,
        data_hash=index.hash(),
    )


@dataclass(frozen=True)
class Run:
    """What all stages of one training have in common."""

    out: Path
    preset: Preset
    data: TrainingSet
    textures: UInt8[Tensor, "m 3 h w"] | None = None
    seed: int = 0
    steps: int | None = None
    minutes: float | None = None  # of this call; `all` shares them out
    resume: bool = False
    device: str = "cpu"
    command: str = ""
    progress: bool = True
    task: str = "dense"  # of the extractor
    precision: str = "auto"
    save_every: float = 60.0  # seconds between checkpoints

    @cached_property
    def accelerator(self) -> Accelerator:
        """What joins this process to the others of an `accelerate launch`; alone it does nothing."""
        return make_accelerator(self.device)

    @cached_property
    def on(self) -> torch.device:
        """The device of this process: the caller's, or this process's own among several."""
        return own_device(self.accelerator, self.device)

    def budget(self, stage: str, steps: int, share: float = 1.0) -> Budget:
        """Return the budget of a stage: the preset's steps unless steps or minutes were asked for."""
        return Budget(self.steps or steps, self.minutes * share if self.minutes else None)

    def record(self, history: History, parents: dict[str, str]) -> dict[str, Any]:
        """Return what is written beside the weights of a stage."""
        return {
            "preset": self.preset.as_dict(),
            "classes": list(self.data.classes),
            "data_sha256": self.data.data_hash,
            "parents": parents,
            "seed": self.seed,
            "command": self.command,
            "training": {
                **history.as_record(),
                "minutes": self.minutes,
                "device": self.device,
                "processes": self.accelerator.num_processes,
                "torch": torch.__version__,
                "python": sys.version.split()[0],
            },
        }

    def fresh(self, stage: str) -> bool:
        """Tell whether a stage is still to be trained; a finished one is an error unless this run resumes."""
        if not checkpoints.has_stage(self.out, stage):
            return True
        if not self.resume:
            raise InputError(f"{self.out} already holds {stage}: add --resume to go on, or choose another --out")
        record = checkpoints.read_record(self.out, stage)
        mine = {**self.preset.for_stage(stage), "data_sha256": self.data.data_hash, "seed": self.seed}
        preset = record.get("preset")
        theirs = {**(preset if isinstance(preset, dict) else {}), **record}
        odd = [k for k, v in mine.items() if theirs.get(k) != v]
        if odd:
            raise InputError(f"{self.out / stage}.json was made with another {', '.join(odd)}: choose another --out")
        self.drop_checkpoint(stage)  # of a run that was killed between the two
        return False

    def drop_checkpoint(self, stage: str) -> None:
        """Remove the checkpoint of a finished stage, which has served its turn."""
        if self.accelerator.is_main_process:
            (self.out / "checkpoints" / f"{stage}.safetensors").unlink(missing_ok=True)

    def precision_now(self) -> str:
        """Return the precision of the next stage: a resumed run that was left the choice keeps to its earlier one."""
        there = [s for s in ("flow_0", "flow_1") if self.resume and checkpoints.has_stage(self.out, s)]
        if self.precision != "auto" or not there:
            return self.precision
        training = checkpoints.read_record(self.out, there[-1]).get("training")
        known = training.get("precision") if isinstance(training, dict) else None
        return known if known in PRECISIONS else self.precision

    def train(
        self, stage: str, module: nn.Module, loss: LossOfStep, budget: Budget, rate: float, batch_size: int = 0
    ) -> History:
        """Run the loop with this stage's checkpoint."""
        return train_loop(
            module,
            loss,
            budget,
            rate,
            self.out / "checkpoints" / f"{stage}.safetensors",
            batch_size or self.preset.batch_size,
            self.resume,
            {"stage": stage, "preset": self.preset.for_stage(stage), "data": self.data.data_hash, "seed": self.seed},
            self.precision_now(),
            self.accelerator,
            self.save_every,
            self.progress,
        )

    def finish(self, stage: str, module: nn.Module, record: dict[str, Any]) -> None:
        """Write the finished stage, by one process for all."""
        if self.accelerator.is_main_process:
            checkpoints.save_stage(self.out, stage, module, record)
        self.drop_checkpoint(stage)
        self.accelerator.wait_for_everyone()


def seeded(make: Callable[[], nn.Module], seed: int, stage: str) -> Any:
    """Build a network whose start depends on (seed, stage) alone; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_seed(seed, stage, "start"))
        return make()


def load_flow(folder: Path, name: str, device: str | torch.device = "cpu") -> tuple[UNet, dict[str, Any]]:
    """Return flow_0 or flow_1 of a folder, frozen, and its record."""
    state, record = checkpoints.load_stage(folder, name)
    path = folder / f"{name}.safetensors"
    _, config, _ = checkpoints.recorded_network(record, path)
    with torch.device("meta"):  # no memory before the weights are known to fit
        flow = UNet(config)
    checkpoints.load_into(flow, state, path)
    return flow.to(device).eval().requires_grad_(False), record


def load_tpn(folder: Path, device: str = "cpu") -> tuple[TPN, dict[str, Any]]:
    """Return the TPN of a folder, frozen, and its record; one that was trained on another flow_1 is refused."""
    state, record = checkpoints.load_stage(folder, "tpn")
    path = folder / "tpn.safetensors"
    preset, config, _ = checkpoints.recorded_network(record, path)
    mine, theirs = checkpoints.read_record(folder, "flow_1")["sha256"], record.get("parents", {}).get("flow_1")
    if mine != theirs:
        raise WeightsError(f"{path} was trained on another flow_1 than the one beside it")
    with torch.device("meta"):
        tpn = TPN(config, preset.t)
    checkpoints.load_into(tpn, state, path)
    return tpn.to(device).eval().requires_grad_(False), record


def train_flow_0(run: Run, share: float = 1.0) -> None:
    """Train flow_0 on independent pairs.

    Paper: eq. (4).
    """
    if not run.fresh("flow_0"):
        return
    preset, data = run.preset, run.data
    flow = seeded(lambda: UNet(preset.unet_config(len(data.classes))), run.seed, "flow_0").to(run.on)
    loss = flow_step(lambda step, samples: independent_pairs(data.images, data.labels, step, samples, run.seed))
    history = run.train("flow_0", flow, loss, run.budget("flow_0", preset.flow_steps, share), preset.learning_rate)
    run.finish("flow_0", flow, run.record(history, {}))


def reflow(run: Run, shares: tuple[float, float] = (0.4, 0.6), k: int = 1) -> None:
    """Make couplings with flow_{k-1} and train flow_k on them, starting from flow_{k-1}'s weights.

    Paper: algorithm 1, there with k = 1 only. shares: of the minutes, for couplings and for training.
    """
    before, stage = f"flow_{k - 1}", f"flow_{k}"
    if not run.fresh(stage):
        return
    preset, classes = run.preset, len(run.data.classes)
    v, record = load_flow(run.out, before, run.on)
    folder = run.out / "couplings" / stage
    workers = run.accelerator
    make_couplings(
        v,
        folder,
        preset.num_couplings,
        preset.image_size,
        classes,
        record["sha256"],
        run.seed,
        k,
        preset.rtol,
        run.minutes * shares[0] if run.minutes else None,
        run.progress and workers.is_main_process,
        (workers.process_index, workers.num_processes),
    )
    workers.wait_for_everyone()
    couplings = Couplings(folder)
    flow = UNet(v.config).to(run.on)
    flow.load_state_dict(v.state_dict())
    loss = flow_step(lambda step, samples: coupled_pairs(couplings, step, samples, run.seed))
    history = run.train(stage, flow, loss, run.budget(stage, preset.reflow_steps, shares[1]), preset.learning_rate / 2)
    made = {**couplings.manifest, "count": len(couplings), "nfe": couplings.nfe}
    run.finish(stage, flow, run.record(history, {before: record["sha256"]}) | {"couplings": made})


def train_tpn(run: Run, share: float = 1.0) -> None:
    """Train the TPN on flow_1.

    Paper: algorithm 2.
    """
    if not run.fresh("tpn"):
        return
    if run.textures is None:
        raise InputError("training the TPN needs textures for the synthetic anomalies")
    preset, data = run.preset, run.data
    flow_1, record = load_flow(run.out, "flow_1", run.on)
    tpn = TPN.from_flow(flow_1, preset.t).to(run.on)
    features = build_extractor(preset.extractor, preset.extractor_weights, preset.levels).to(run.on)
    lpips = build_lpips(preset.lpips, features, run.on)
    synthesiser = Synthesiser(
        data.images, data.labels, run.textures, preset.anomalous_share, run.seed, sources=preset.sources
    )
    weight = balanced_weight(flow_1, tpn, preset.t, lpips, synthesiser, preset.lpips_share)
    loss = tpn_step(flow_1, preset.t, lpips, synthesiser, weight)
    history = run.train("tpn", tpn, loss, run.budget("tpn", preset.tpn_steps, share), preset.tpn_learning_rate)
    run.finish("tpn", tpn, run.record(history, {"flow_1": record["sha256"]}) | {"lpips_weight": weight})


def train_extractor(run: Run, default_steps: int = 1500) -> None:
    """Train the embedded extractor, by run.task, on the run's images, which are to be drawn ones."""
    if not run.fresh("extractor"):
        return
    if run.textures is None:
        raise InputError("training the extractor needs textures for the synthetic anomalies")
    data = run.data
    synthesiser = Synthesiser(data.images, data.labels, run.textures, 0.7, run.seed, "extractor")
    task = seeded(lambda: make_task(run.task, synthesiser, run.preset.image_size), run.seed, "extractor").to(run.on)
    batch_size = 32 if run.task == "families" else 16
    budget = run.budget("extractor", default_steps)
    history = run.train("extractor", task, extractor_step, budget, 1e-3, batch_size)
    run.finish("extractor", task.net, {**run.record(history, {}), "task": run.task})


def train_all(run: Run) -> None:
    """Train flow_0, flow_1 and the TPN, one after the other."""
    train_flow_0(run, SHARES["flow_0"])
    reflow(run, (SHARES["couplings"], SHARES["flow_1"]))
    train_tpn(run, SHARES["tpn"])


TRAIN = {"all": train_all, "flow": train_flow_0, "tpn": train_tpn, "extractor": train_extractor}
