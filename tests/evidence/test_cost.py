from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from timenet_lib.data.textures import drawn_textures
from timenet_lib.data.training_set import load_training_set
from timenet_lib.detector import TimeNet
from timenet_lib.engine.stages import Run, train_all
from timenet_lib.errors import InputError
from timenet_lib.evidence import cost
from timenet_lib.evidence.cost import format_throughput, measure_one, measure_throughput, network_costs, route
from timenet_lib.pooling import image_score
from timenet_lib.presets import CI
from timenet_lib.scopes import score_maps


@pytest.fixture(scope="module")
def folder(tmp_path_factory, drawn_ci):
    out = tmp_path_factory.mktemp("throughput")
    data = load_training_set(drawn_ci, CI.image_size)
    train_all(Run(out=out, preset=CI, data=data, textures=drawn_textures(CI.image_size, 12), steps=2, progress=False))
    return out


def test_the_path_is_that_of_the_scores(folder):
    model = TimeNet.from_pretrained(folder)
    x = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    parts = model.parts(x, torch.zeros(3, dtype=torch.long), "timenet")
    assert torch.equal(route(model, "timenet, 1").score(x), image_score(score_maps(parts, model.scoring)))


def test_flop_and_parameters_add_up(folder):
    model = TimeNet.from_pretrained(folder)
    networks = {row.name: row for row in network_costs(CI, len(model.classes))}
    flow, tpn = networks["flow_0, flow_1 (each)"], networks["tpn, with adapters"]
    features, step = networks["extractor embedded"], networks["TimeNet, one step"]
    one, ten, own = (measure_one(str(folder), n, images=2, rounds=1) for n in ("flow_1, 1", "flow_1, 10", "timenet, 1"))
    assert ten["gflop"] - one["gflop"] == pytest.approx(9 * flow.gflop)
    assert own["gflop"] - one["gflop"] == pytest.approx(step.gflop - flow.gflop)
    assert one["gflop"] == pytest.approx(flow.gflop + 2 * features.gflop, rel=0.01)  # the rest is smoothing
    assert own["parameters"] - one["parameters"] == tpn.parameters
    assert (one["evaluations"], ten["evaluations"], own["evaluations"]) == (1, 10, 1)


def test_ten_steps_take_longer_than_one(folder):
    one, ten = (measure_one(str(folder), name, images=32, rounds=2) for name in ("flow_1, 1", "flow_1, 10"))
    assert one["images_per_second"] > 1.5 * ten["images_per_second"]
    assert one["range"][0] <= one["images_per_second"] <= one["range"][1]


def test_a_method_is_measured_in_a_process_of_its_own(folder, monkeypatch):
    monkeypatch.setattr(cost.resource, "getrusage", None)  # which the other process does not see
    results = measure_throughput(str(folder), ("flow_1, 1",), images=2, rounds=1)
    (one,) = results["methods"].values()
    assert 100 < one["peak_mb"] < 4000
    assert len(format_throughput(results).splitlines()) == 2


def test_every_method_gets_a_new_process(folder, monkeypatch):
    """A pool that computes here notes when it is opened and closed."""
    noted = []

    @contextmanager
    def pool(processes):
        noted.append(f"{processes} opened")
        yield SimpleNamespace(apply=lambda function, args, options: noted.append(args[1]) or {})
        noted.append("closed")

    monkeypatch.setattr(cost.multiprocessing, "get_context", {"spawn": SimpleNamespace(Pool=pool)}.get)
    measure_throughput(str(folder), ("flow_1, 1", "flow_1, 10"))
    assert noted == ["1 opened", "flow_1, 1", "closed", "1 opened", "flow_1, 10", "closed"]


def test_what_cannot_be_measured_is_refused(folder):
    model = TimeNet.from_pretrained(folder)
    with pytest.raises(InputError, match="choose one of"):
        route(model, "flow_9")
    with pytest.raises(InputError, match="train_peers"):
        route(model, "ddim, 10")


def test_a_cost_that_is_kept_is_not_measured_again(folder):
    kept = {"gflop": 1.0}
    assert measure_throughput(str(folder), ("flow_1, 1",), keep=lambda name, make: kept)["methods"] == {
        "flow_1, 1": kept
    }
