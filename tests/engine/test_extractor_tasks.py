import pytest
import torch

from timenet_lib.data.drawn import FAMILY_NAMES, draw_texture
from timenet_lib.data.textures import drawn_textures
from timenet_lib.engine.extractor import degrade, drawn_families, make_task
from timenet_lib.errors import InputError
from timenet_lib.synthesis import Synthesiser


def loss(task, step, samples):
    return task(task.draw(step=step, samples=samples))


@pytest.fixture(scope="module")
def synthesiser():
    textures = drawn_textures(32, 12)
    return Synthesiser(textures, torch.arange(12) % 3, textures.flip(0), anomalous_share=0.7, seed=0, stage="extractor")


@pytest.mark.parametrize("name", ["dense", "contrast", "families"])
def test_a_task_is_learnt_and_its_loss_depends_on_the_step_alone(name, synthesiser):
    torch.manual_seed(0)
    task = make_task(name, synthesiser).train()
    assert torch.equal(loss(task, 3, range(6)), loss(task, 3, range(6)))
    assert not torch.equal(loss(task, 3, range(6)), loss(task, 4, range(6)))
    optimizer = torch.optim.AdamW(task.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        mean = loss(task, 0, range(6)).mean()
        mean.backward()
        optimizer.step()
        losses.append(mean.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.parameters())


def test_the_contrast_is_zero_apart_from_its_bias_for_an_unchanged_copy(synthesiser, monkeypatch):
    """With nothing pasted and a copy that is the image itself, every distance is 0 and only the bias is left."""
    from dataclasses import replace

    monkeypatch.setattr("timenet_lib.engine.extractor.degrade", lambda x, **key: x)
    task = make_task("contrast", replace(synthesiser, anomalous_share=0.0)).eval()
    alike = torch.nn.functional.softplus(torch.tensor(-2.0))
    assert torch.allclose(loss(task, 0, range(4)), 6 * alike.expand(4), atol=1e-3)


def test_a_task_that_there_is_not_is_refused(synthesiser):
    with pytest.raises(InputError, match="no task 'colour': choose dense, contrast or families"):
        make_task("colour", synthesiser)


def test_families_are_as_many_of_each_and_named(synthesiser):
    textures, families = drawn_families(32, 20)
    assert textures.shape == (20, 3, 32, 32)
    assert torch.bincount(families).tolist() == [2] * len(FAMILY_NAMES)
    assert not any(torch.equal(a, b) for i, a in enumerate(textures) for b in textures[:i])
    with pytest.raises(InputError, match="did you mean 'stripes'"):
        draw_texture(0, 32, "stripe")


def test_degrading_blurs_noises_or_leaves_alone():
    x = torch.rand(30, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = degrade(x, seed=0, step=0, samples=range(30))
    roughness = [float(d.diff(dim=-1).square().mean()) for d in (x[0], *y)]
    same = sum(torch.equal(a, b) for a, b in zip(x, y, strict=True))
    assert 4 <= same <= 16
    assert min(roughness) < 0.7 * roughness[0]
    assert torch.equal(y, degrade(x, seed=0, step=0, samples=range(30)))
