"""The paper's configuration from end to end, without its data: 256 px, MVTec-AD's 15 classes, no option overridden.

The pictures are drawn, the ImageNet weights are stand-ins of the right names and shapes in the cache of the Hugging
Face hub, and no connection is allowed. A few steps of one image each are no training: what is shown is that every
stage runs, that its loss falls on fixed samples, and what a step costs.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import psutil
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from timenet_lib.data.drawn import write_drawn
from timenet_lib.data.folder import index_folder
from timenet_lib.data.mvtec import MVTEC_COUNTS
from timenet_lib.data.textures import drawn_textures, load_textures
from timenet_lib.data.training_set import load_training_set
from timenet_lib.engine.couplings import Couplings
from timenet_lib.features import build_extractor, build_lpips
from timenet_lib.losses import flow_loss, tpn_loss
from timenet_lib.models import load_network
from timenet_lib.presets import PAPER
from timenet_lib.synthesis import Synthesiser
from timenet_lib.tpn import TPN, SteeredFlow
from timenet_lib.train import coupled_pairs, independent_pairs, repairs
from timenet_lib.weights import load_stage, read_record, save_stage

pytestmark = pytest.mark.slow

STEPS = 4
COUPLINGS = 1
FEW = ("--steps", STEPS, "--batch-size", 1, "--couplings", COUPLINGS)
UNSEEN = 10**9  # a step that no training reaches, so that its samples are new
OFFLINE = "from timenet_lib.course import offline; offline.install(); from timenet_lib.__main__ import main; main()"
STAGES = ("flow_0", "flow_1", "tpn", "calibration")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder for a gigabyte of stand-ins, which does not outlive the tests."""
    folder = tmp_path_factory.mktemp("paper")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def mvtec(home):
    """Drawn pictures under MVTec-AD's class names: one to train on, in the first class two, one good, one defective."""
    drawn = [write_drawn(home / f"drawn {seed}", size=256, seed=seed, train=2, good=1, defective=1) for seed in (0, 1)]
    of_class = sorted(p for root in drawn for p in root.iterdir() if p.is_dir())
    for number, (name, source) in enumerate(zip(MVTEC_COUNTS, of_class, strict=False)):
        shutil.copytree(source, home / "mvtec" / name)
        if number:
            (home / "mvtec" / name / "train" / "good" / "001.png").unlink()
    return home / "mvtec"


@pytest.fixture(scope="module")
def dtd(home):
    """Drawn textures, laid out as the Describable Textures are."""
    for i, texture in enumerate(drawn_textures(256, 4)):
        folder = home / "dtd" / "images" / ("banded", "woven")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(texture.permute(1, 2, 0).numpy()).save(folder / f"{folder.name}_{i:04d}.jpg")
    return home / "dtd" / "images"


@pytest.fixture(scope="module")
def hub(home):
    """The cache of the Hugging Face hub with both networks, whole, as timm would fetch them; weights are random."""
    for number, name in enumerate(("wide_resnet101_2", "vgg16")):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            state = timm.create_model(name, pretrained=False).state_dict()
        folder = home / "hub" / f"models--timm--{name}.tv_in1k"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("abc")
        (folder / "snapshots" / "abc").mkdir(parents=True)
        save_file(state, folder / "snapshots" / "abc" / "model.safetensors")
    return home / "hub"


def timenet(hub, *args, watch=None):
    """Run the command line without a connection; return what it printed, its seconds, and the peak GiB by stage."""
    env = {**os.environ, "HF_HUB_CACHE": str(hub)}
    env.pop("TIMENET_EXTRACTOR_WEIGHTS", None)
    begin, peaks = time.monotonic(), dict.fromkeys(STAGES, 0.0)
    command = [sys.executable, "-c", OFFLINE, *map(str, args)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        while child.poll() is None:
            if watch is not None:
                stage = next((s for s in STAGES if not (watch / f"{s}.json").is_file()), STAGES[-1])
                peaks[stage] = max(peaks[stage], psutil.Process(child.pid).memory_info().rss / 2**30)
            time.sleep(0.5)
        printed = child.stdout.read()
    assert child.returncode == 0, printed[-3000:]
    return printed, time.monotonic() - begin, peaks


@pytest.fixture(scope="module")
def trained(home, hub, mvtec, dtd):
    """What `timenet train all --preset paper` leaves after a few steps, with minutes and the peaks of memory."""
    out = home / "run"
    options = ("--preset", "paper", "--data", mvtec, "--textures", dtd, *FEW, "--out", out)
    _, seconds, peaks = timenet(hub, "train", "all", *options, watch=out)
    return out, seconds, peaks


@pytest.fixture(scope="module")
def data(mvtec):
    return load_training_set(index_folder(mvtec, parts=("train",)), 256)


def records(out):
    return {name: read_record(out, name) for name in STAGES[:3]}


def test_every_stage_is_the_papers(trained):
    out, _, _ = trained
    for name, record in records(out).items():
        expected = {**PAPER.as_dict(), "batch_size": 1, "num_couplings": COUPLINGS}
        assert record["preset"] == expected
        assert record["classes"] == sorted(MVTEC_COUNTS)
        assert record["training"]["steps"] == STEPS, name
    state = {name: load_stage(out, name)[0] for name in STAGES[:3]}
    millions = {name: sum(v.numel() for v in tensors.values()) / 1e6 for name, tensors in state.items()}
    assert millions["flow_0"] == pytest.approx(29.77, abs=0.005)
    assert millions["flow_1"] + millions["tpn"] == pytest.approx(59.98, abs=0.005)
    made = records(out)["flow_1"]["couplings"]
    assert (made["count"], made["size"], made["tol"]) == (COUPLINGS, 256, PAPER.rtol)
    assert min(made["nfe"]) >= 8
    calibration = json.loads((out / "calibration.json").read_text())
    assert set(calibration["methods"]) == {"flow_0", "flow_1", "timenet"}
    assert calibration["extractor"]["name"] == "wide_resnet101_2"
    assert calibration["extractor"]["file"] == "timm/wide_resnet101_2.tv_in1k/model.safetensors"
    assert calibration["extractor"]["levels"] == [2, 3, 4]


def test_what_a_step_costs_is_told(trained, record_property):
    out, seconds, peaks = trained
    for name, record in records(out).items():
        spent = record["training"]["seconds"] / STEPS
        print(f"{name}: {spent:.1f} s a step of one image, {peaks[name]:.2f} GiB at most")
        record_property(f"{name}, seconds a step", spent)
        record_property(f"{name}, GiB", peaks[name])
    print(f"all stages and the calibration: {seconds / 60:.1f} minutes, {max(peaks.values()):.2f} GiB at most")
    record_property("minutes", seconds / 60)
    assert 1 < peaks["flow_0"] < peaks["tpn"] < 8


@torch.no_grad()
def test_the_loss_of_flow_0_falls(trained, data):
    flow_0, _ = load_network(trained[0], "flow_0")
    pairs = independent_pairs(data.held_out, data.held_out_labels, step=UNSEEN, samples=range(1), seed=0)
    before, after = flow_loss(lambda xt, t, c: torch.zeros_like(xt), pairs), flow_loss(flow_0, pairs)
    print(f"flow_0 on unseen samples: {before.tolist()} untrained, {after.tolist()} after {STEPS} steps")
    assert (after < before).all()


def loss_before_and_after_reflow(out):
    flow_0, flow_1 = (load_network(out, name)[0] for name in ("flow_0", "flow_1"))
    pairs = coupled_pairs(Couplings(out / "couplings" / "flow_1"), step=UNSEEN, samples=range(1), seed=0)
    before, after = flow_loss(flow_0, pairs), flow_loss(flow_1, pairs)
    print(f"flow_1 on its couplings: {before.tolist()} as flow_0, {after.tolist()} after {STEPS} steps")
    return before, after


@torch.no_grad()
def test_reflow_has_nothing_to_do_after_so_few_steps(trained):
    """Such a flow_0 is straight: its own couplings leave a loss of rounding alone, and flow_1 keeps it."""
    before, after = loss_before_and_after_reflow(trained[0])
    assert before.max() < 1e-5
    assert after.max() < 1e-5


@torch.no_grad()
def test_the_loss_of_flow_1_falls_where_flow_0_is_bent(trained, home, hub, mvtec):
    flow_0, record = load_network(trained[0], "flow_0")
    head = flow_0.backbone.head[-1].weight
    head.copy_(0.03 * torch.randn(head.shape, generator=torch.Generator().manual_seed(0)))
    del record["sha256"]
    (home / "bent").mkdir()
    save_stage(home / "bent", "flow_0", flow_0, record=record)
    timenet(hub, "train", "reflow", "--preset", "paper", "--data", mvtec, *FEW, "--out", home / "bent")
    before, after = loss_before_and_after_reflow(home / "bent")
    assert before.min() > 1e-4
    assert (after < before).all()


@torch.no_grad()
def test_the_loss_of_the_tpn_falls(trained, data, dtd, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    flow_1, tpn = load_network(trained[0], "flow_1")[0], load_network(trained[0], "tpn")[0]
    lpips = build_lpips(PAPER.lpips, build_extractor(PAPER.extractor, PAPER.extractor_weights, PAPER.levels))
    synthesiser = Synthesiser(
        data.held_out, data.held_out_labels, load_textures(dtd, 256), anomalous_share=1.0, sources=("texture",)
    )
    batch = repairs(synthesiser, PAPER.t, step=UNSEEN, samples=range(1))
    nets = (TPN.from_flow(flow_1, PAPER.t), tpn)
    before, after = (tpn_loss(SteeredFlow(flow_1, net), batch, lpips=lpips) for net in nets)
    print(f"tpn on unseen samples: {before.tolist()} untrained, {after.tolist()} after {STEPS} steps")
    assert (after < before).all()


def test_evaluate_ends_in_the_table(trained, hub, mvtec, home):
    few = home / "few"
    for part in ("test", "ground_truth"):
        shutil.copytree(mvtec / "screw" / part, few / "screw" / part)
    printed, seconds, _ = timenet(hub, "evaluate", "--data", few, "--weights", trained[0], "--json", few / "r.json")
    print(f"{printed}\n2 images by three methods: {seconds:.0f} s")
    results = json.loads((few / "r.json").read_text())
    assert results["extractor"]["weights"] == "timm"
    assert set(results["methods"]) == {"flow_0", "flow_1", "timenet"}
    for method in results["methods"].values():
        assert set(method["classes"]) == {"screw"}
        assert all(0 <= method["mean"][key] <= 1 for key in ("i_auroc", "p_auroc", "pro"))
    assert re.search(r"^mean( +\d+\.\d){9}$", printed, re.MULTILINE)
