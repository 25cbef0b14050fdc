"""Weights, checkpoints and couplings of strangers: whatever is in the files, they load, or an error says why not."""

import collections
import functools
import json
import shutil
import struct
from dataclasses import replace

import pytest
import torch
from fuzzing import RUNS, Altered, altered_json, altered_safetensors, fuzz_loading
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from timenet_lib import features as extractors
from timenet_lib import models
from timenet_lib.detector import TimeNet
from timenet_lib.engine.checkpoints import digest, load_checkpoint
from timenet_lib.engine.couplings import Couplings, Manifest, make_couplings
from timenet_lib.engine.loop import Budget, run_job
from timenet_lib.errors import TimeNetError
from timenet_lib.features import build_extractor
from timenet_lib.files import sha256
from timenet_lib.path import Pairs
from timenet_lib.presets import CI
from timenet_lib.tpn import TPN
from timenet_lib.unet import UNet
from timenet_lib.weights import save_stage

STAGES = ("flow_0", "flow_1", "tpn")
FILES = (*(f"{s}.json" for s in STAGES), *(f"{s}.safetensors" for s in STAGES), "calibration.json",
         "extractor.safetensors", "extractor.json")  # fmt: skip


SIZE = 16
PRESET = replace(CI, image_size=SIZE, base=4, multipliers=(1,), attention=(), extractor_weights="extractor.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a small calibrated model and its own extractor, as save_pretrained writes it."""
    made = tmp_path_factory.mktemp("made")
    config, parent = PRESET.unet_config(2), {}
    g = torch.Generator().manual_seed(0)
    for name, net in zip(STAGES, (UNet(config), UNet(config), TPN(config)), strict=True):
        for p in net.parameters():
            p.data = 0.1 * torch.randn(p.shape, generator=g)
        about = {"preset": PRESET.as_dict(), "classes": ["die", "gear"], "parents": parent, "seed": 0}
        parent = {name: save_stage(made, name, net, record=about)}
    net = build_extractor("embedded", "random", PRESET.levels).net
    save_stage(made, "extractor", net, record={"classes": ["die"]})
    model = TimeNet.from_pretrained(made)
    x = torch.rand(4, 3, SIZE, SIZE, generator=g) * 2 - 1
    model.calibrate(x, "die", textures=torch.randint(256, (2, 3, SIZE, SIZE), generator=g, dtype=torch.uint8))
    model.save_calibration(made)
    return made


def write(folder, whole, altered):
    """Make a folder of the whole files, those that are altered in their altered state."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in whole.iterdir():
        if path.name not in altered:
            (folder / path.name).symlink_to(path)
    for name, content in altered.items():
        path = folder / name
        if content == "folder":
            path.mkdir()
        elif content == "loop":
            path.symlink_to(path)
        elif content is not None:
            path.write_bytes(content)


def alterations(whole):
    """Draw what is altered in a folder of weights; in half of the cases the records' hashes fit again."""
    contents = {name: (whole / name).read_bytes() for name in FILES}

    @st.composite
    def altered(draw):
        files = Altered()
        for name in draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=2, unique=True)):
            if name.endswith(".json"):
                files[name] = draw(altered_json(json.loads(contents[name])))
            else:
                files[name] = draw(altered_safetensors(contents[name]))
                if draw(st.booleans()):
                    old, new = (sha256(c[name]).encode() for c in (contents, files))
                    records = {k: files.get(k, contents[k]) for k in FILES if k.endswith(".json")}
                    files |= {k: v.replace(old, new) for k, v in records.items() if old in v}
        if draw(st.integers(0, 29)) == 0:
            files[draw(st.sampled_from(FILES))] = draw(st.sampled_from([None, "folder", "loop"]))
        return files

    return altered()


def in_turn(network, count=2):
    """Return what builds so many networks of a shape and then gives these in turn: most of what an input would cost."""
    made = {}

    def build(*shape):
        pool = made.setdefault(shape, collections.deque())
        if len(pool) < count:
            pool.append(network(*shape))
        else:
            pool.append(pool.popleft().to_empty(device="meta"))
        return pool[-1]

    return build


@RUNS
def test_weights_load_or_say_why_not(whole, scratch, monkeypatch, examples):
    monkeypatch.setattr(models, "UNet", in_turn(UNet))
    monkeypatch.setattr(models, "TPN", in_turn(TPN))
    monkeypatch.setattr(extractors, "_whole_network", functools.cache(extractors._whole_network))
    x = -torch.ones(1, 3, SIZE, SIZE)

    def weights(files):
        write(scratch / "w", whole, files)
        model = TimeNet.from_pretrained(scratch / "w")
        if model.preset.image_size == SIZE:
            model.predict(x, model.classes[0])

    fuzz_loading(weights, examples, files=alterations(whole))


def fresh():
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
    return net, torch.optim.AdamW(net.parameters(), lr=1e-3)


@RUNS
def test_checkpoints_are_resumed_from_or_say_why_not(scratch, examples):
    """Also: what was accepted can be trained on."""
    path = scratch / "flow_0.safetensors"
    identity = {"stage": "flow_0", "seed": 0}
    x = torch.ones(2, 3, 8, 8)

    def draw(step, samples, stop=-1):
        if step == stop:
            raise KeyboardInterrupt
        return Pairs(x, x, torch.tensor([0.1, 1.0]), c=torch.tensor([0, 0]))

    def train(steps, draw, **options):
        return run_job(
            fresh()[0], lambda net, batch: net(batch.x1).square().mean(dim=(1, 2, 3)), draw,
            budget=Budget(steps), peak_rate=1e-3, batch_size=2, checkpoint=path, identity=identity,
            progress=False, **options,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        train(10, functools.partial(draw, stop=6))
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(json.loads(whole[8 : 8 + size])["__metadata__"]["header"])
    assert header["history"]["step"] == 6

    @st.composite
    def files(draw):
        if draw(st.booleans()):
            content = draw(altered_safetensors(whole))
        else:  # the header within the header
            outer = json.loads(whole[8 : 8 + size])
            outer["__metadata__"]["header"] = draw(altered_json(header)).decode(errors="replace")
            text = json.dumps(outer).encode()
            content = struct.pack("<Q", len(text)) + text + whole[8 + size :]
        path.write_bytes(content)
        return fitted(path, header) if draw(st.booleans()) else content

    def checkpoint(content):
        path.write_bytes(content)
        history = load_checkpoint(path, *fresh(), identity=identity)
        if history.step < 10:
            train(history.step + 1, draw, resume=True)

    fuzz_loading(checkpoint, examples, content=files())


def fitted(path, header):
    """Return the file with the digest of its own tensors, where it can be read at all."""
    content = path.read_bytes()
    try:
        with safe_open(path, "pt") as file:
            new = digest({k: file.get_tensor(k) for k in file.keys()})  # noqa: SIM118
    except Exception:  # it cannot
        return content
    return content.replace(header["sha256"].encode(), new.encode())


class Growth(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, t, c):
        return self.a * x


@RUNS
def test_couplings_are_read_or_say_why_not(scratch, examples):
    manifest = Manifest(flow_sha256="abc", size=8, classes=3, tol=1e-1, range=2)
    make_couplings(Growth(), scratch / "made", manifest, count=5, progress=False)
    whole = scratch / "made"
    contents = {p.name: p.read_bytes() for p in whole.iterdir()}
    names = sorted(contents)

    @st.composite
    def changed(draw):
        name = draw(st.sampled_from(names))
        how = (
            altered_json(json.loads(contents[name])) if name.endswith(".json") else altered_safetensors(contents[name])
        )
        files = Altered({name: draw(how)})
        odd = draw(st.sampled_from([None, None, None, "remove", "rename", "swap", "folder"]))
        if odd == "remove":
            files[draw(st.sampled_from(names))] = None
        elif odd == "rename":
            gone = draw(st.sampled_from(names))
            new = draw(st.sampled_from(["x", "000001-000002", "-", "9-9"])) + ".safetensors"
            files |= {gone: None, new: contents[gone]}
        elif odd == "swap":
            files |= {names[0]: contents[names[1]], names[1]: contents[names[0]]}
        elif odd == "folder":
            files[name] = "folder"
        return files

    def couplings(files):
        write(scratch / "c", whole, files)
        for x0, x1, c in Couplings(scratch / "c"):
            assert x0.shape == x1.shape == (3, 8, 8)
            assert 0 <= int(c) < 3

    fuzz_loading(couplings, examples, files=changed())


def test_a_stage_needs_no_memory_before_its_weights_are_known_to_fit(tmp_path):
    """A record that names a network of hundreds of gigabytes, beside a few bytes of weights."""
    preset = CI.as_dict() | {"base": 1024, "multipliers": [64] * 3, "attention": []}
    for name, net in (("flow_0", UNet(CI.unet_config(1))), ("tpn", TPN(CI.unet_config(1)))):
        save_stage(tmp_path, name, net, record={"preset": preset, "classes": ["die"]})
    with pytest.raises(TimeNetError, match=r"flow_0\.safetensors was made for another configuration"):
        TimeNet.from_pretrained(tmp_path)
