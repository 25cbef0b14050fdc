"""The stages in order, from normal images to flow_0, flow_1, tpn; each is a file that no later one changes."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import UInt8
from torch import Tensor, nn

from timenet_lib.data.training_set import TrainingSet
from timenet_lib.engine.couplings import Couplings, Manifest, make_couplings
from timenet_lib.engine.extractor import make_task
from timenet_lib.engine.feeding import default_workers
from timenet_lib.engine.loop import Budget, run_job
from timenet_lib.engine.processes import make_accelerator, own_device
from timenet_lib.errors import InputError
from timenet_lib.features import build_extractor, build_lpips
from timenet_lib.files import convert, sha256, user_path
from timenet_lib.keyed import key_seed
from timenet_lib.losses import Distance, balanced_weight, flow_loss, repair_errors, tpn_loss
from timenet_lib.models import load_network, recorded_network
from timenet_lib.path import Repairs
from timenet_lib.presets import Preset
from timenet_lib.synthesis import SOURCES, Synthesiser
from timenet_lib.tpn import TPN, SteeredFlow
from timenet_lib.train import Loss, coupled_pairs, independent_pairs, repairs
from timenet_lib.unet import UNet
from timenet_lib.weights import has_stage, read_record, save_stage

STARTED = ("flow_0", "tpn")  # the stages that Run.start is for
SHARES = {"flow_0": 0.40, "couplings": 0.12, "flow_1": 0.16, "tpn": 0.32}  # of the minutes of `all`
BALANCED_ON = 32  # images on which the weight of LPIPS is found


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all stages of one training have in common."""

    out: Path
    preset: Preset
    data: TrainingSet
    textures: UInt8[Tensor, "m 3 h w"] | None = None
    seed: int = 0
    steps: int | None = None
    minutes: float | None = None  # of this call; `all` shares them out
    start: Path | None = None  # a folder whose flow_0 and tpn these start from, with new class embeddings
    resume: bool = False
    device: str = "cpu"
    command: str = ""
    progress: bool = True
    task: str = "dense"  # of the extractor
    precision: str = "float32"
    save_every: float = 60.0  # seconds between checkpoints
    workers: int | None = None  # that draw batches, for each process; None: by default_workers
    say: Callable[[str], None] = lambda line: None  # takes what a resumed run keeps, and where it goes on

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", user_path(self.out))

    @cached_property
    def accelerator(self) -> Accelerator:
        """What joins this process to the others of an `accelerate launch`; alone it does nothing."""
        return make_accelerator(self.device)

    @cached_property
    def on(self) -> torch.device:
        """The device of this process: the caller's or, among several processes, this process's own."""
        return own_device(self.accelerator, self.device)

    def synthesiser(self, share: float, *, stage: str, sources: tuple[str, ...]) -> Synthesiser:
        """Make what draws synthetic defects; raises InputError without textures."""
        if self.textures is None:
            raise InputError(f"training {stage} needs textures for the synthetic anomalies")
        return Synthesiser(
            self.data.images, self.data.labels, self.textures,
            anomalous_share=share, seed=self.seed, stage=stage, sources=sources,
        )  # fmt: skip

    def choices(self, stage: str) -> dict[str, Any]:
        """Get what two trainings of a stage must share to be the same one, whatever their budgets."""
        task = {"task": self.task} if stage == "extractor" else {}
        start = read_record(self.start, stage)["sha256"] if self.start and stage in STARTED else None
        own = {"data_sha256": self.data.data_hash, "seed": self.seed, "start": start}
        return {**self.preset.for_stage(stage), **own, **task}

    def fresh(self, stage: str) -> bool:
        """Tell whether a stage is still to be trained.

        Raises InputError if it is finished and this run does not resume, or it was made with other choices or in fewer
        steps: its learning rate has fallen to zero.
        """
        if not has_stage(self.out, stage):
            return True
        if not self.resume:
            raise InputError(f"{self.out} already holds {stage}: add --resume to go on, or choose another --out")
        record = read_record(self.out, stage)
        mine = self.choices(stage)
        preset = record.get("preset")
        start = record.get("parents", {}).get("start")
        theirs = {**(preset if isinstance(preset, dict) else {}), **record, "start": start}
        odd = [k for k, v in mine.items() if theirs.get(k) != v]
        if odd:
            raise InputError(f"{self.out / stage}.json was made with another {', '.join(odd)}: choose another --out")
        steps = convert("training", record.get("training"), dict[str, Any]).get("steps")
        if isinstance(steps, int) and steps < (self.steps or 0):
            raise InputError(
                f"{self.out / stage}.json is finished, in {steps} steps, and does not go on to {self.steps}: "
                "choose another --out, or delete it to start afresh"
            )
        self.say(f"{stage} is finished already, in {steps} steps: nothing is trained")
        self.checkpoint(stage).unlink(missing_ok=True)  # of a run that was killed between the two
        return False

    def checkpoint(self, stage: str) -> Path:
        """Name the file that a stage is resumed from; a finished one has none."""
        return self.out / "checkpoints" / f"{stage}.safetensors"

    def train(
        self,
        stage: str,
        module: nn.Module,
        loss: Loss,
        *,
        draw: Callable[..., Any],
        steps: int,
        rate: float,
        share: float = 1.0,
        batch_size: int = 0,
        saved: nn.Module | None = None,
        made: nn.Module | None = None,
        parents: Mapping[str, str] | None = None,
        found: Mapping[str, Any] | None = None,
    ) -> None:
        """Train one stage, resumable from its checkpoint, and write it next to its record.

        steps and rate are the preset's, share is of the minutes. The checkpoint holds the weights of saved, the stage
        those of made, by default all of module. found goes into the record.
        """
        preset, data, processes = self.preset, self.data, self.accelerator.num_processes
        minutes = None if self.minutes is None else self.minutes * share
        budget = Budget(steps if self.steps is None else self.steps, minutes)
        textures = None if stage.startswith(("flow", "diffusion")) else self.textures
        identity = {
            "stage": stage, **self.choices(stage), "budget": str(budget), "number of processes": processes,
            "set of textures": "" if textures is None else sha256(textures.numpy().tobytes()),
        }  # fmt: skip
        history = run_job(
            module, loss, draw,
            budget=budget, peak_rate=rate,
            batch_size=batch_size or preset.batch_size, checkpoint=self.checkpoint(stage), identity=identity,
            saved=saved, precision=self.precision, resume=self.resume, accelerator=self.accelerator,
            workers=default_workers(self.on, processes) if self.workers is None else self.workers,
            save_every=self.save_every, progress=self.progress, say=self.say,
        )  # fmt: skip
        record = {
            "preset": preset.as_dict(),
            "classes": list(data.classes),
            "data_sha256": data.data_hash,
            "parents": parents or {},
            "seed": self.seed,
            "command": self.command,
            "training": {
                **history.as_record(),
                "minutes": self.minutes,
                "device": self.device,
                "processes": processes,
                "torch": torch.__version__,
                "python": sys.version.split()[0],
            },
            **(found or {}),
        }
        if self.accelerator.is_main_process:  # for all
            save_stage(self.out, stage, made or saved or module, record=record)
            self.checkpoint(stage).unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()


def seeded(make: Callable[[], nn.Module], seed: int, stage: str) -> Any:
    """Build a network whose start depends on (seed, stage) alone; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key_seed(seed, stage, "start"))
        return make()


def check_start(folder: Path, preset: Preset) -> None:
    """Refuse, with an InputError, to start from a folder whose network is not the preset's; classes may differ."""
    for stage in STARTED:
        _, theirs, classes = recorded_network(read_record(folder, stage), folder / f"{stage}.safetensors")
        mine = preset.unet_config(len(classes))
        odd = [f"{k} {getattr(theirs, k)}, not {v}" for k, v in vars(mine).items() if getattr(theirs, k) != v]
        if odd:
            raise InputError(
                f"training cannot start from {folder / stage}.safetensors ({'; '.join(odd)}): add --start scratch"
            )


def take_start(run: Run, stage: str, net: nn.Module) -> dict[str, str]:
    """Give a network the weights that run.start has of this stage, but for the class embeddings; return its parents."""
    if run.start is None:
        return {}
    given, record = load_network(run.start, stage, run.on)
    net.load_state_dict({k: v for k, v in given.state_dict().items() if k != "classes.weight"}, strict=False)
    return {"start": record["sha256"]}


def train_flow_0(run: Run, share: float = 1.0) -> None:
    """Train flow_0 on independent pairs.

    Paper: eq. (4).
    """
    if not run.fresh("flow_0"):
        return
    preset, data = run.preset, run.data
    flow = seeded(lambda: UNet(preset.unet_config(len(data.classes))), run.seed, "flow_0").to(run.on)
    parents = take_start(run, "flow_0", flow)
    draw = partial(independent_pairs, data.images, data.labels, seed=run.seed)
    run.train(
        "flow_0", flow, flow_loss,
        draw=draw, steps=preset.flow_steps, rate=preset.learning_rate, share=share, parents=parents,
    )  # fmt: skip


def reflow(run: Run, shares: tuple[float, float] = (0.4, 0.6), k: int = 1) -> None:
    """Make couplings with flow_{k-1} and train flow_k on them, starting from flow_{k-1}'s weights.

    Paper: algorithm 1, there with k = 1 only. shares: of the minutes, for couplings and for training.
    """
    before, stage = f"flow_{k - 1}", f"flow_{k}"
    if not run.fresh(stage):
        return
    preset, processes = run.preset, run.accelerator
    v, record = load_network(run.out, before, run.on)
    folder = run.out / "couplings" / stage
    manifest = Manifest(
        flow_sha256=record["sha256"], size=preset.image_size, classes=len(run.data.classes),
        k=k, seed=run.seed, tol=preset.rtol,
    )  # fmt: skip
    make_couplings(
        v, folder, manifest,
        count=preset.num_couplings, minutes=None if run.minutes is None else run.minutes * shares[0],
        progress=run.progress and processes.is_main_process,
        share=(processes.process_index, processes.num_processes),
    )  # fmt: skip
    processes.wait_for_everyone()
    couplings = Couplings(folder)
    flow = seeded(lambda: UNet(v.config), run.seed, stage).to(run.on)
    flow.load_state_dict(v.state_dict())
    draw = partial(coupled_pairs, couplings, seed=run.seed, k=k)
    run.train(
        stage, flow, flow_loss,
        draw=draw, steps=preset.reflow_steps, rate=preset.learning_rate / 2, share=shares[1],
        parents={before: record["sha256"]},
        found={"couplings": {**asdict(couplings.manifest), "count": len(couplings), "nfe": couplings.nfe}},
    )  # fmt: skip


def train_tpn(run: Run, share: float = 1.0) -> None:
    """Train the TPN on flow_1, which stays as it is.

    Paper: algorithm 2.
    """
    if not run.fresh("tpn"):
        return
    preset = run.preset
    synthesiser = run.synthesiser(preset.anomalous_share, stage="tpn", sources=preset.sources)
    flow_1, record = load_network(run.out, "flow_1", run.on)
    tpn = TPN.from_flow(flow_1, preset.t).to(run.on)
    parents = take_start(run, "tpn", tpn)
    features = build_extractor(preset.extractor, preset.extractor_weights, preset.levels).to(run.on)
    lpips = build_lpips(preset.lpips, features, device=run.on)
    draw = partial(repairs, synthesiser, preset.t)
    v = SteeredFlow(flow_1, tpn)
    weight = lpips_weight(v, draw, lpips=lpips, share=preset.lpips_share)
    loss = partial(tpn_loss, lpips=lpips, lpips_weight=weight)
    run.train(
        "tpn", v, loss,
        draw=draw, steps=preset.tpn_steps, rate=preset.tpn_learning_rate, share=share, saved=tpn,
        parents={"flow_1": record["sha256"], **parents}, found={"lpips_weight": weight},
    )  # fmt: skip


def lpips_weight(v: SteeredFlow, draw: Callable[..., Repairs], *, lpips: Distance, share: float | None) -> float:
    """Find the weight that gives LPIPS this share of the untrained TPN's gradient; 1 where share is None."""
    if share is None:
        return 1.0
    params = list(v.tpn.parameters())
    batch = Repairs._make(x.to(params[0].device) for x in draw(step=0, samples=range(BALANCED_ON)))
    return balanced_weight(repair_errors(v, batch, lpips), params, share)


def train_extractor(run: Run) -> None:
    """Train the embedded extractor, by run.task, on the run's images, which are to be drawn ones."""
    if not run.fresh("extractor"):
        return
    synthesiser = run.synthesiser(0.7, stage="extractor", sources=SOURCES)
    task = seeded(lambda: make_task(run.task, synthesiser), run.seed, "extractor").to(run.on)
    batch_size = 32 if run.task == "families" else 16
    run.train(
        "extractor", task, lambda module, batch: module(batch),
        draw=task.draw, steps=1500, rate=1e-3, batch_size=batch_size, made=task.net, found={"task": run.task},
    )  # fmt: skip


def train_all(run: Run) -> None:
    """Train flow_0, flow_1 and the TPN, one after the other."""
    train_flow_0(run, SHARES["flow_0"])
    reflow(run, (SHARES["couplings"], SHARES["flow_1"]))
    train_tpn(run, SHARES["tpn"])


TRAIN = {"all": train_all, "flow": train_flow_0, "tpn": train_tpn, "extractor": train_extractor}
