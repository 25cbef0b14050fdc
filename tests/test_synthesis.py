import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from timenet_lib import perlin, synthesis
from timenet_lib.data.textures import drawn_textures, load_textures
from timenet_lib.errors import DataError, InputError
from timenet_lib.keyed import generator
from timenet_lib.path import as_float
from timenet_lib.perlin import perlin_mask, perlin_noise
from timenet_lib.synthesis import SOURCES, VISIBLE, Synthesiser, blend, recolour, turn
from timenet_lib.train import repairs

SIZE = 32


@pytest.fixture(scope="module")
def synthesiser():
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (6, 3, SIZE, SIZE), generator=g, dtype=torch.uint8)
    return Synthesiser(images, torch.arange(6), drawn_textures(SIZE, 8), anomalous_share=0.5)


def test_perlin_noise_vanishes_on_its_lattice_and_is_smooth():
    noise = perlin_noise(64, generator("perlin"), cells=(4, 4), angle=0.0)
    assert noise.abs().max() <= 1.0
    assert noise.std() > 0.1
    assert (noise[:, 1:] - noise[:, :-1]).abs().max() < 0.3
    fine = perlin_noise(512, generator("perlin"), cells=(4, 4), angle=0.0)
    assert fine[::128, ::128].abs().max() < 0.02  # half a pixel beside the lattice


@pytest.mark.parametrize(("size", "cells", "angle"), [(64, (4, 8), 0.3), (256, (32, 32), -1.5), (33, (1, 16), 1.57)])
def test_perlin_noise_is_its_formula_at_every_place(size, cells, angle):
    """The formula with two indices into the lattice, as it is written everywhere; the library's has one, for speed."""
    axis = (torch.arange(size) + 0.5) / size - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    py = (math.cos(angle) * y - math.sin(angle) * x + 1) * cells[0]
    px = (math.sin(angle) * y + math.cos(angle) * x + 1) * cells[1]
    direction = 2 * math.pi * torch.rand(2 * cells[0] + 2, 2 * cells[1] + 2, generator=generator("perlin"))
    iy, ix = py.floor().long(), px.floor().long()
    fy, fx = py - iy, px - ix

    def corner(dy, dx):
        d = direction[iy + dy, ix + dx]
        return d.sin() * (fy - dy) + d.cos() * (fx - dx)

    wy, wx = (6 * f**5 - 15 * f**4 + 10 * f**3 for f in (fy, fx))
    rows = [torch.lerp(corner(dy, 0), corner(dy, 1), wx) for dy in (0, 1)]
    noise = perlin_noise(size, generator("perlin"), cells=cells, angle=angle)
    assert torch.allclose(noise, math.sqrt(2) * torch.lerp(*rows, wy), atol=1e-5)


def test_a_mask_is_never_empty_nor_everything():
    sizes = [int(perlin_mask(SIZE, generator("mask", i)).sum()) for i in range(200)]
    assert min(sizes) >= 3
    assert max(sizes) < 0.9 * SIZE * SIZE


def test_outside_the_mask_the_image_is_untouched_and_inside_it_changed(synthesiser):
    batch = synthesiser.batch(step=0, samples=range(40))
    outside = ~batch.masks[:, None].expand_as(batch.x1)
    assert torch.equal(batch.x_a[outside], batch.x1[outside])
    changed = [(a - b)[:, m].abs().max() for a, b, m in zip(batch.x_a, batch.x1, batch.masks, strict=True) if m.any()]
    assert all(value > 0 for value in changed)
    normal = ~batch.masks.flatten(1).any(1)
    assert torch.equal(batch.x_a[normal], batch.x1[normal])


def test_a_sample_depends_on_its_step_and_number_alone(synthesiser):
    few, many = synthesiser.batch(2, range(4)), synthesiser.batch(2, range(8))
    assert torch.equal(few.x_a, many.x_a[:4])
    assert not torch.equal(few.x_a, synthesiser.batch(3, range(4)).x_a)


def test_half_of_the_images_stay_normal_and_all_in_range(synthesiser):
    batch = synthesiser.batch(step=1, samples=range(300))
    assert 0.42 < float(batch.masks.flatten(1).any(1).float().mean()) < 0.58
    assert batch.x_a.abs().max() <= 1
    x = torch.rand(3, 8, 8) * 2 - 1
    assert all(recolour(x, generator("r", i)).abs().max() <= 1 for i in range(50))


def test_textures_of_a_folder_and_folders_without(tmp_path):
    (tmp_path / "striped").mkdir()
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "striped" / "a.JPG", format="jpeg")
    Image.new("L", (20, 20), 128).save(tmp_path / "b.png")
    (tmp_path / "._b.png").write_bytes(b"what some systems leave behind")
    textures = load_textures(str(tmp_path), SIZE)
    assert (textures.shape, textures.dtype) == ((2, 3, SIZE, SIZE), torch.uint8)
    (tmp_path / "c.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    for folder, problem in ((".", r"c\.png"), ("empty", "holds no image"), ("none", "no texture folder")):
        with pytest.raises(DataError, match=problem):
            load_textures(tmp_path / folder, SIZE)


@pytest.mark.parametrize(("size", "finest"), [(32, 4), (64, 8), (256, 32), (512, 32)])
def test_the_lattice_has_1_to_32_cells_and_at_most_size_over_8(size, finest, monkeypatch):
    """DRAEM's scales, 2^0 to 2^5, each axis on its own."""
    seen = []

    def noise(size, g, *, cells, angle):
        seen.append((*cells, angle))
        return torch.ones(size, size)

    monkeypatch.setattr(perlin, "perlin_noise", noise)
    for i in range(300):
        perlin_mask(size, generator("cells", i))
    rows, columns, angles = zip(*seen, strict=True)
    powers = {2**k for k in range(6) if 2**k <= finest}
    assert set(rows) == set(columns) == powers
    assert len(set(zip(rows, columns, strict=True))) == len(powers) ** 2
    assert -1.58 < min(angles) < -1.4
    assert 1.4 < max(angles) < 1.58


def test_the_threshold_is_a_half():
    own, half, lower = (perlin_mask(64, generator("half"), **kw) for kw in ({}, {"threshold": 0.5}, {"threshold": 0.3}))
    assert torch.equal(own, half)
    assert lower.sum() > own.sum()


def test_opacity_is_0_2_to_1_and_blends_linearly(synthesiser, monkeypatch):
    seen = []
    monkeypatch.setattr(synthesis, "blend", lambda *a, opacity: seen.append(opacity) or blend(*a, opacity=opacity))
    synthesiser.batch(0, range(300))
    assert 0.2 <= min(seen) < 0.22
    assert 0.98 < max(seen) <= 1
    x1, content = torch.full((3, 4, 4), -0.5), torch.full((3, 4, 4), 0.5)
    half = blend(x1, content, torch.eye(4, dtype=torch.bool), opacity=0.25)
    assert torch.allclose(half, torch.where(torch.eye(4, dtype=torch.bool), -0.25, -0.5).expand(3, 4, 4))


@pytest.mark.parametrize("source", SOURCES)
def test_what_the_mask_calls_anomalous_can_be_seen(source):
    """Flat images of one colour: a transplant from the same image shows nothing, and becomes a texture."""
    images = torch.full((4, 3, SIZE, SIZE), 90, dtype=torch.uint8)
    s = Synthesiser(
        images, torch.zeros(4, dtype=torch.long), drawn_textures(SIZE, 8), anomalous_share=1.0, sources=(source,)
    )
    x_a, x1, masks, _ = s.batch(0, range(100))
    assert masks.flatten(1).any(1).all()
    seen = ((x_a - x1).abs().amax(1) > VISIBLE) & masks
    assert (seen.flatten(1).sum(1) > 0).float().mean() > 0.97


def test_each_source_shows_what_it_says():
    g = torch.Generator().manual_seed(1)
    images = torch.randint(256, (9, 3, SIZE, SIZE), generator=g, dtype=torch.uint8)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    s = Synthesiser(images, labels, drawn_textures(SIZE, 8), anomalous_share=1.0)

    def is_of(content, some):
        """Tell whether a picture is one of these, up to a shift around the borders: then the sorted values agree."""
        values = content.flatten().sort().values
        return any(torch.allclose(values, as_float(i).flatten().sort().values, atol=1e-6) for i in some)

    transplants = [s.content("transplant", 1, generator("t", i)) for i in range(60)]
    assert all(is_of(x, images) for x in transplants)
    same = sum(is_of(x, images[labels == 1]) for x in transplants)
    assert 30 < same < 55  # every second time by choice, and a third of the other times
    in_place = sum(any(torch.allclose(x, as_float(i)) for i in images) for x in transplants)
    assert 15 < in_place < 45
    textures = [s.content("texture", 1, generator("x", i)) for i in range(20)]
    assert not any(is_of(x, images) for x in textures)


def test_turning_keeps_the_values_and_recolouring_the_places():
    x = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    turned = [turn(x, generator("turn", i)) for i in range(60)]
    assert len({t.numpy().tobytes() for t in turned}) == 8
    assert all(torch.equal(t.flatten().sort().values, x.flatten().sort().values) for t in turned)
    flat = torch.full((3, 8, 8), 0.3)
    flat[:, :4] = -0.3
    recoloured = [recolour(flat, generator("colour", i)) for i in range(20)]
    assert all((r[:, :4] == r[:, :1, :1]).all() and (r[:, 4:] == r[:, 4:5, :1]).all() for r in recoloured)


def test_an_image_of_8_bits_is_recoloured_as_the_same_image_of_floats():
    x = torch.randint(256, (3, SIZE, SIZE), generator=generator("8 bits"), dtype=torch.uint8)
    for i in range(20):
        eight, floats = (recolour(picture, generator("colour", i)) for picture in (x, as_float(x)))
        assert torch.equal(eight, floats)


def test_a_batch_is_the_same_on_any_number_of_threads():
    """A worker has one, the training process as many as there are cores."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4, 3, 200, 200), generator=g, dtype=torch.uint8)
    s = Synthesiser(images, torch.arange(4) % 2, images.flip(0), anomalous_share=1.0)
    before, batches = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            batches.append(repairs(s, 0.83, step=0, samples=range(12)))
    finally:
        torch.set_num_threads(before)
    for other in batches[1:]:
        assert all(torch.equal(a, b) for a, b in zip(batches[0], other, strict=True))


@pytest.mark.timed
def test_500_samples_of_64_px_a_second_on_one_thread(record_property):
    """In a process of its own, where no shapes are checked; 500 a second where (a * b + a).clamp(0, 1) takes 11 us."""
    measure = """
import time, torch
from timenet_lib.synthesis import Synthesiser; from timenet_lib.data.textures import drawn_textures
torch.set_num_threads(1)
images = torch.randint(256, (20, 3, 64, 64), dtype=torch.uint8)
s = Synthesiser(images, torch.arange(20) % 4, drawn_textures(64, 8), anomalous_share=1.0)
a, b = torch.rand(2, 3, 64, 64)

def seconds(times, work):
    begin = time.process_time()
    for i in range(times):
        work(i)
    return (time.process_time() - begin) / times

seconds(20, lambda i: s.batch(1, [i]))
for _ in range(5):
    print(seconds(100, lambda i: s.batch(0, [i])), seconds(1000, lambda i: (a * b + a).clamp(0, 1)))
"""
    done = subprocess.run([sys.executable, "-c", measure], capture_output=True, text=True, check=True)
    sample, step = np.array(done.stdout.split(), float).reshape(-1, 2).min(axis=0)
    record_property("samples a second", 1 / sample)
    assert sample / step < (1 / 500) / 11e-6  # so that a machine that is slow, or slow today, does not count


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sources": ("texture", "paint")}, r"sources \['paint'\]: choose from texture, transplant, recolour"),
        ({"sources": ()}, "sources none"),
        ({"anomalous_share": 1.2}, "a share lies between 0 and 1"),
        ({"labels": torch.arange(3)}, "6 images and 3 labels"),
        ({"images": torch.zeros(0, 3, SIZE, SIZE, dtype=torch.uint8), "labels": torch.arange(0)}, "0 images"),
        ({"textures": torch.zeros(2, 3, 16, 16, dtype=torch.uint8)}, "of the same size"),
        ({"textures": torch.zeros(0, 3, SIZE, SIZE, dtype=torch.uint8)}, "at least one is needed"),
    ],
)
def test_what_does_not_fit_is_refused(synthesiser, change, words):
    with pytest.raises(InputError, match=words):
        replace(synthesiser, **change)


@pytest.mark.parametrize(("content", "mask", "words"), [(16, 8, r"a mask of \(8, 8\) do"), (8, 16, r"of \(3, 8, 8\)")])
def test_masks_and_images_of_different_size_are_refused(images, content, mask, words):
    with pytest.raises(InputError, match=words):
        blend(images[0], images[1][:, :content, :content], torch.ones(mask, mask, dtype=torch.bool), opacity=1.0)
