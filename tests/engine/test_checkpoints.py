import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from timenet_lib.engine import checkpoints
from timenet_lib.engine.checkpoints import History, load_checkpoint, save_checkpoint
from timenet_lib.errors import TimeNetError, WeightsError

IDENTITY = {"stage": "flow_0", "levels": (1, 2)}


def fresh():
    net = nn.Linear(3, 2)
    return net, torch.optim.AdamW(net.parameters(), lr=1e-3)


def load(path, identity=IDENTITY):
    return load_checkpoint(path, *fresh(), identity=identity)


@pytest.fixture
def path(tmp_path):
    net, optimizer = fresh()
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    file = tmp_path / "flow_0.safetensors"
    save_checkpoint(file, net, optimizer, history=History(step=1, losses=[0.5]), identity=IDENTITY)
    return file


def change(path, **fields):
    """Put other fields into the header; those of its history are named history_X."""
    with safe_open(path, "pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["header"])
    header["history"] |= {k.removeprefix("history_"): v for k, v in fields.items() if k.startswith("history_")}
    header |= {k: v for k, v in fields.items() if not k.startswith("history_")}
    save_file(tensors, path, {"header": json.dumps(header)})


def test_a_checkpoint_comes_back(path):
    assert load(path) == History(step=1, losses=[0.5])
    change(path, history_step=2, history_losses=[0.5, 1])
    assert load(path).losses == [0.5, 1]


HISTORIES = [
    ("precision", "load"), ("precision", None), ("step", -1), ("seconds", 1e10), ("losses", [2e30]), ("losses", []),
    ("losses", [0.5, 0.5]), ("t_sums", [0.0]), ("t_counts", [0.5] * 10), ("epochs", 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "message"),
    [*[({f"history_{field}": value}, rf"cannot be resumed from \(.*{field}.*delete it") for field, value in HISTORIES],
     ({"history": {}}, "'header.history.losses', .*: missing"), ({"identity": 1}, "header.identity: expected `object`"),
     ({"sha256": "0"}, "header.sha256"), ({"sha256": "0" * 64}, "does not fit its SHA-256"),
     ({"more": 1}, "'header.more'"), ({"identity": {"stage": "flow_1"}}, "another stage, levels")],
)  # fmt: skip
def test_a_header_that_does_not_fit_is_refused(path, fields, message):
    change(path, **fields)
    with pytest.raises(WeightsError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lambda whole: b"not a checkpoint", r"flow_0\.safetensors cannot be resumed from"),
     (lambda whole: whole[:-10], "delete it to start this stage afresh"),
     (lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]), "does not fit its SHA-256")],
)  # fmt: skip
def test_a_damaged_checkpoint_is_refused_by_name(path, damage, message):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=message):
        load(path)


@pytest.mark.parametrize("failure", [OSError(24, "Too many open files"), RuntimeError("can't allocate memory")])
def test_nobody_is_told_to_delete_a_sound_checkpoint(path, monkeypatch, failure):
    def fail(*args):
        raise failure

    monkeypatch.setattr(checkpoints, "safe_open", fail)
    with pytest.raises(TimeNetError, match=r"flow_0\.safetensors(: out of memory| cannot be read now)") as error:
        load(path)
    assert "delete it" not in str(error.value)
