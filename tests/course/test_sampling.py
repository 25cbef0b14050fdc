"""What notebooks 01 and 02 show of the flows on images."""

import numpy as np
import pytest
import torch

from timenet_lib.course import sampling
from timenet_lib.course.models import Example
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError
from timenet_lib.features import build_extractor
from timenet_lib.models import Models
from timenet_lib.presets import CI
from timenet_lib.unet import UNet


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = CI.unet_config(3)
    features = build_extractor("embedded", "random", CI.levels)
    return TimeNet(CI, ("die", "gear", "wood"), Models(UNet(config).eval(), UNet(config).eval()), features=features)


def test_class_noise_has_every_class_and_depends_on_the_seed(model):
    x0, c = sampling.class_noise(model, 0)
    assert x0.shape == (3, 3, 32, 32)
    assert c.tolist() == [0, 1, 2]
    assert not torch.equal(x0, sampling.class_noise(model, 1)[0])


def test_the_loss_by_t_of_an_untrained_flow_is_that_of_v_0(model):
    x1 = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    by_t = sampling.loss_by_t(model.models.flow_0, x1, torch.zeros(8, dtype=torch.long), seed=0)
    assert len(by_t) == 10
    assert by_t == pytest.approx([1 + float(x1.square().mean())] * 10, abs=0.05)
    asked = []
    sampling.loss_by_t(lambda xt, t, c: asked.append(t.unique()) or xt, x1, torch.arange(8), seed=0, bins=4)
    assert torch.cat(asked).tolist() == [0.125, 0.375, 0.625, 0.875]


def test_losses_are_drawn_as_dots_and_smoothed_and_levels_carry_their_value():
    losses = [3.0] + [1.0, 1.0, 1.0, 1.0, 3.5] * 20
    ax = sampling.losses_figure({"flow_0": losses}, {"v = 0": 3.0, "exact v": 1.5}).axes[0]
    dots, curve, *levels = (np.asarray(line.get_ydata()) for line in ax.lines)
    assert dots.tolist() == losses
    assert len(curve) == len(losses)
    assert curve[0] == 3.0
    assert np.abs(curve[60:] - 1.5).max() < 0.03
    assert [text.get_text() for text in ax.texts] == ["v = 0: 3.00", "exact v: 1.50"]
    assert [line[0] for line in levels] == [3.0, 1.5]


def test_the_training_figure_shows_record_and_loss_by_t():
    records = {"flow_0": {"training": {"steps": 100, "loss": [1.0, 0.5, 0.25]}}}
    figure = sampling.training_figure(records, {"flow_0": [0.4, 0.3, 0.2, 0.6]})
    loss, by_t = figure.axes
    assert loss.lines[0].get_xdata().tolist() == [0, 50, 100]
    assert by_t.lines[0].get_xdata().tolist() == [0.125, 0.375, 0.625, 0.875]
    assert by_t.lines[0].get_ydata() == pytest.approx([0.4, 0.3, 0.2, 0.6])


def test_the_classes_figure_has_a_bar_for_each_flow_and_class():
    figure = sampling.classes_figure({"flow_0": [1.0, 2.0], "flow_1": [0.1, 0.2]}, ["die", "gear"], "S")
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1.0, 2.0, 0.1, 0.2]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["die", "gear"]


def test_the_steps_explorer_shows_every_flow_in_one_step_and_in_ten(model):
    g = torch.Generator().manual_seed(0)
    example = Example("die, good", "die", torch.rand(3, 32, 32, generator=g) * 2 - 1, mask=torch.zeros(32, 32).bool())
    viewer = sampling.steps_explorer(model, [example], [0.5, 0.8], seed=0, start=0.8, methods=["flow_0", "flow_1"])
    (item,) = viewer.content["items"]
    titles = [panel["title"] for panel in item["panels"]]
    assert titles == ["image", "noised", "flow 0, 1 step", "flow 0, 10 steps", "flow 1, 1 step",
                      "flow 1, 10 steps"]  # fmt: skip
    error = float(
        (model.reconstruct(example.x1[None], torch.tensor([0]), "flow_0", t=0.8, seed=0).x1_hat - example.x1)
        .square()
        .mean()
    )
    assert item["panels"][2]["readouts"][1] == f"squared error {error:.4f}"
    assert viewer.step == 1
    with pytest.raises(InputError, match="2 images are named 'die, good'"):
        sampling.steps_explorer(model, [example, example], [0.5], seed=0, start=0.5, methods=["flow_0"])


def test_recorded_training_names_steps_couplings_and_command(model, monkeypatch):
    training = {"steps": 7, "seconds": 90.0, "device": "cpu", "precision": "float32", "loss": [1.2, 0.3]}
    record = {"preset": {"name": "ci"}, "seed": 3, "training": training, "command": "timenet train all"}
    made = {"count": 40, "nfe": [50, 70]}
    monkeypatch.setattr(model, "records", {"flow_0": record, "flow_1": {**record, "couplings": made}, "tpn": {}})
    text = sampling.recorded_training(model)
    assert "recorded: flow_0, preset ci, seed 3\n  7 steps, 2 min on cpu in float32" in text
    assert "loss 1.200 over the first 1 steps, 0.3000 over the last" in text
    assert "on 40 couplings, 60 function evaluations each" in text
    assert text.count("by: timenet train all") == 2


def test_nothing_is_recorded_for_other_presets():
    assert "nothing is recorded for preset ci" in sampling.recorded_flows("ci")


def test_samples_are_drawn_a_row_a_name(model):
    x = torch.zeros(2, 3, 8, 8)
    figure = sampling.samples_figure({"noise x0": x, "rk45": x + 1}, ["die", "gear"])
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["noise x0", "rk45"]
    assert np.ptp(figure.axes[0].images[0].get_array()) == 0
