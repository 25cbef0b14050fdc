"""What `timenet train` does, as a function: data and textures, the stages, the calibration."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from timenet_lib import checkpoints
from timenet_lib.console import quiet
from timenet_lib.data.drawn import drawn_folder
from timenet_lib.data.folder import FolderIndex, index_folder
from timenet_lib.data.images import as_float
from timenet_lib.data.synthesis import drawn_textures, folder_textures
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError
from timenet_lib.nets.extractors import build_extractor
from timenet_lib.nets.lpips import build_lpips
from timenet_lib.presets import Preset, get_preset
from timenet_lib.processes import make_accelerator
from timenet_lib.training.stages import TRAIN, Run, load_training_set, reflow

NEEDS = {"tpn": "flow_1"}
MAKES = {
    "all": ("flow_0", "flow_1", "tpn"),
    "flow": ("flow_0",),
    "tpn": ("tpn",),
    "extractor": ("extractor",),
}


def train_command(
    stage: str,
    out: Path,
    resume: bool,
    device: str,
    data: Path | None = None,
    textures: Path | None = None,
    preset: str = "demo",
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    extractor_weights: str = "",
    command: str = "",
    say: Callable[[str], None] = quiet,
    progress: bool = True,
    task: str = "dense",
    k: int = 1,
    batch_size: int | None = None,
    precision: str = "auto",
    lpips: str = "",
    anomalous_share: float | None = None,
    save_every: float = 60.0,
    couplings: int | None = None,
) -> None:
    """Train a stage, or all, into the folder out; calibrate once a TPN is there.

    Under `accelerate launch` every process calls this; batch_size is that of one process, the first one writes. A
    folder that another run is writing into is an InputError.
    """
    chosen = get_preset(preset)
    if batch_size is not None:
        chosen = replace(chosen, batch_size=batch_size)
    if extractor_weights:
        chosen = replace(chosen, extractor_weights=extractor_weights)
    if lpips:
        chosen = replace(chosen, lpips=lpips, lpips_share=None if lpips == "vgg" else 0.5)
    if anomalous_share is not None:
        chosen = replace(chosen, anomalous_share=anomalous_share)
    if couplings is not None:
        chosen = replace(chosen, num_couplings=couplings)
    if stage in ("all", "tpn"):  # what is missing or does not fit is said now, not after flow_0 and flow_1
        build_lpips(chosen.lpips, build_extractor(chosen.extractor, chosen.extractor_weights, chosen.levels))
    if steps is not None and minutes is not None:
        raise InputError("--steps and --minutes exclude each other: give one")
    if k < 1 or (k > 1 and stage != "reflow"):
        raise InputError(f"k = {k}: 1 makes flow_1 of flow_0; more than 1 is for the stage reflow alone")
    needs = f"flow_{k - 1}" if stage == "reflow" else NEEDS.get(stage)
    if needs and not checkpoints.has_stage(out, needs):
        raise InputError(f"{stage} needs {needs}, which {out} does not hold: train that first, or `train all`")
    if stage == "extractor" and data is not None:
        raise InputError("the extractor is trained on drawn data only: leave --data out")
    makes = (f"flow_{k}",) if stage == "reflow" else MAKES[stage]
    there = [name for name in makes if checkpoints.has_stage(out, name)]
    if there and not resume:
        raise InputError(f"{out} already holds {', '.join(there)}: add --resume to go on, or choose another --out")
    accelerator = make_accelerator(device)
    main = accelerator.is_main_process
    with accelerator.main_process_first():  # what is drawn is drawn once and cached
        index = training_index(data, chosen)
        images = texture_images(textures, chosen) if stage not in ("flow", "reflow") else None
    say = say if main else quiet
    with checkpoints.claimed(out) if main else nullcontext():
        accelerator.wait_for_everyone()
        say(f"{len(index.train)} normal images of {len(index.classes)} classes at {chosen.image_size} px")
        run = Run(
            out,
            chosen,
            load_training_set(index, chosen.image_size),
            images,
            seed,
            steps,
            minutes,
            resume,
            device,
            command,
            progress,
            task,
            precision,
            save_every,
        )
        if stage == "reflow":
            reflow(run, k=k)
        else:
            TRAIN[stage](run)
        if stage in ("all", "tpn") and main:
            say("calibrating on held-out normal images")
            calibrate(run)
    say(f"finished: {out}")


def calibrate(run: Run) -> None:
    """Calibrate the trained model on the images held out from training, and write that beside the weights."""
    model = TimeNet.from_pretrained(run.out, run.device, run.preset.extractor_weights)
    held_out = [model.classes[i] for i in run.data.held_out_labels]
    model.calibrate(as_float(run.data.held_out), held_out, run.textures, run.seed)
    model.save_calibration(run.out)


def training_index(data: Path | None, preset: Preset) -> FolderIndex:
    """Index the training images of a folder, or of the drawn data set."""
    if data is None:
        data = drawn_folder(preset.image_size, 0, preset.drawn_train, preset.drawn_good, preset.drawn_defective)
    return index_folder(data, parts=("train",))


def texture_images(textures: Path | None, preset: Preset) -> Tensor:
    """Load the textures of a folder, or draw some."""
    return drawn_textures(preset.image_size) if textures is None else folder_textures(textures, preset.image_size)
