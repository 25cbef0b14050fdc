"""What `timenet train` does, as a function: check the choices, load data and textures, train the stages."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timenet_lib.data.textures import load_textures
from timenet_lib.data.training_set import load_training_set, training_index
from timenet_lib.engine.feeding import check_workers
from timenet_lib.engine.processes import claimed, make_accelerator
from timenet_lib.engine.stages import TRAIN, Run, check_start, reflow
from timenet_lib.errors import InputError
from timenet_lib.features import build_extractor, build_lpips
from timenet_lib.files import user_path
from timenet_lib.presets import DEMO, Preset, get_preset
from timenet_lib.weights import check_device, has_stage, read_record, shipped_weights, weights_folder

MAKES = {"all": ("flow_0", "flow_1", "tpn"), "flow": ("flow_0",), "tpn": ("tpn",), "extractor": ("extractor",)}


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What may be asked of a training; None and "" leave it to the preset."""

    preset: str = "demo"
    batch_size: int | None = None  # of one process
    couplings: int | None = None
    anomalous_share: float | None = None
    extractor_weights: str = ""
    lpips: str = ""

    def apply(self) -> Preset:
        """Get the preset with these choices in it."""
        preset = get_preset(self.preset)
        named: dict[str, Any] = {
            "batch_size": self.batch_size, "num_couplings": self.couplings, "anomalous_share": self.anomalous_share,
            "extractor_weights": self.extractor_weights or None, "lpips": self.lpips or None,
        }  # fmt: skip
        preset = replace(preset, **{k: v for k, v in named.items() if v is not None})
        return replace(preset, lpips_share=None if self.lpips == "vgg" else 0.5) if self.lpips else preset


def train_stages(
    stage: str,
    out: Path,
    choices: Choices,
    *,
    data: Path | None = None,
    textures: Path | None = None,
    start: str | Path | None = None,
    k: int = 1,
    say: Callable[[str], None] = lambda line: None,
    calibrate: Callable[..., None] | None = None,
    **options: Any,
) -> None:
    """Train a stage, or all, into the folder out; call calibrate on it once a TPN is there.

    start names shipped weights or a folder that flow_0 and tpn start from, or "scratch"; by default a folder of data
    starts from demo's where its network is the preset's. options are those of Run: seed, steps, minutes, resume,
    device, ... Under `accelerate launch` every process calls this, and the first one writes. Raises InputError for
    choices that exclude each other or lack an earlier stage, for a start of another network, and if another run is
    writing into the folder.
    """
    preset, out = choices.apply(), user_path(out)
    check_request(stage, out, k=k, drawn=data is None, options=options)
    options["device"] = check_device(options.get("device", "cpu"))
    if start is not None and stage in ("reflow", "extractor"):
        raise InputError(f"{stage} has no other start: leave --start out; it is for all, flow and tpn")
    begin = find_start(start, out, preset=preset, drawn=data is None)
    if stage in ("all", "tpn"):  # what is missing or does not fit is said now, not after flow_0 and flow_1
        build_lpips(preset.lpips, build_extractor(preset.extractor, preset.extractor_weights, preset.levels))
    accelerator = make_accelerator(options["device"])
    main = accelerator.is_main_process
    tell = say if main else lambda line: None
    with accelerator.main_process_first():  # what is drawn is drawn once and cached
        index = training_index(data, preset.drawn)
        notes = list(index.notes)
        pictures = None
        if stage not in ("flow", "reflow"):
            pictures = load_textures(textures, preset.image_size, say=notes.append)
    with claimed(out) if main else nullcontext():
        accelerator.wait_for_everyone()
        run = Run(
            out=out, preset=preset, data=load_training_set(index, preset.image_size), textures=pictures,
            start=begin, say=tell, **options,
        )  # fmt: skip
        for note in notes:
            tell(f"note: {note}")
        tell(f"{len(index.train)} normal images of {len(index.classes)} classes at {preset.image_size} px")
        if begin is not None and stage != "reflow":
            tell(f"flow_0 and tpn start from the weights in {begin.name} (--start scratch: from none)")
        begun = [(run.checkpoint(s), out / f"{s}.json", out / "couplings" / s) for s in stages_of(stage, k)]
        if run.resume and not any(path.exists() for paths in begun for path in paths):
            tell(f"{out} holds nothing to go on from: the training starts afresh")
        if stage == "reflow":
            reflow(run, k=k)
        else:
            TRAIN[stage](run)
        if calibrate is not None and stage in ("all", "tpn") and main:
            tell("calibrating on held-out normal images")
            weights = choices.extractor_weights
            calibrate(out, run.data, pictures, seed=run.seed, device=run.device, extractor_weights=weights)
    tell(f"finished: {out}")


def find_start(start: str | Path | None, out: Path, *, preset: Preset, drawn: bool) -> Path | None:
    """Find the folder of weights to start from; None: from none. Raises InputError for those of another network.

    Where none is named, a TPN starts as the flow_0 beside it did.
    """
    if start == "scratch":
        return None
    if start is not None:
        check_start(folder := weights_folder(start), preset)
        return folder
    demo = shipped_weights("demo")
    if not has_stage(out, "flow_0"):
        return None if drawn or preset.unet_config(1) != DEMO.unet_config(1) else demo
    began = read_record(out, "flow_0").get("parents", {}).get("start")
    if began not in (None, read_record(demo, "flow_0")["sha256"]):
        raise InputError(f"flow_0 in {out} started from other weights than demo: name them again with --start")
    return demo if began else None


def stages_of(stage: str, k: int) -> tuple[str, ...]:
    """List what a call makes."""
    return (f"flow_{k}",) if stage == "reflow" else MAKES[stage]


def check_request(stage: str, out: Path, *, k: int, drawn: bool, options: Mapping[str, Any]) -> None:
    """Refuse, with an InputError, what cannot be trained, before any work; options are those of Run."""
    check_workers(options.get("workers") or 0)
    if options.get("steps") is not None and options.get("minutes") is not None:
        raise InputError("--steps and --minutes exclude each other: give one")
    if k < 1 or (k > 1 and stage != "reflow"):
        raise InputError(f"k = {k}: 1 makes flow_1 of flow_0; more than 1 is for the stage reflow alone")
    needs = {"reflow": f"flow_{k - 1}", "tpn": "flow_1"}.get(stage)
    if needs and not has_stage(out, needs):
        raise InputError(f"{stage} needs {needs}, which {out} does not hold: train that first, or `train all`")
    if stage == "extractor" and not drawn:
        raise InputError("the extractor is trained on drawn data only: leave --data out")
    there = [name for name in stages_of(stage, k) if has_stage(out, name)]
    if there and not options.get("resume"):
        raise InputError(f"{out} already holds {', '.join(there)}: add --resume to go on, or choose another --out")
