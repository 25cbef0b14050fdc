import pytest
import torch
from PIL import Image

from timenet_lib.data.synthesis import (
    Synthesiser,
    drawn_textures,
    folder_textures,
    perlin_mask,
    perlin_noise,
    recolour,
)
from timenet_lib.errors import DataError
from timenet_lib.path import generator

SIZE = 32


@pytest.fixture(scope="module")
def synthesiser():
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (6, 3, SIZE, SIZE), generator=g, dtype=torch.uint8)
    return Synthesiser(images, torch.arange(6), drawn_textures(SIZE, 8), anomalous_share=0.5)


def test_perlin_noise_vanishes_on_its_lattice_and_is_smooth():
    noise = perlin_noise(64, (4, 4), 0.0, generator("perlin"))
    assert noise.abs().max() <= 1.0
    assert noise.std() > 0.1
    assert (noise[:, 1:] - noise[:, :-1]).abs().max() < 0.3
    fine = perlin_noise(512, (4, 4), 0.0, generator("perlin"))
    assert fine[::128, ::128].abs().max() < 0.02  # half a pixel beside the lattice


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


def test_half_of_the_images_stay_normal(synthesiser):
    masks = synthesiser.batch(step=1, samples=range(300)).masks
    assert 0.42 < float(masks.flatten(1).any(1).float().mean()) < 0.58


def test_a_sample_depends_on_its_step_and_number_alone(synthesiser):
    few, many = synthesiser.batch(2, range(4)), synthesiser.batch(2, range(8))
    assert torch.equal(few.x_a, many.x_a[:4])
    assert not torch.equal(few.x_a, synthesiser.batch(3, range(4)).x_a)


def test_values_stay_in_range(synthesiser):
    assert synthesiser.batch(5, range(60)).x_a.abs().max() <= 1
    x = torch.rand(3, 8, 8) * 2 - 1
    assert all(recolour(x, generator("r", i)).abs().max() <= 1 for i in range(50))


def test_textures_of_a_folder(tmp_path):
    (tmp_path / "striped").mkdir()
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "striped" / "a.JPG", format="jpeg")
    Image.new("L", (20, 20), 128).save(tmp_path / "b.png")
    textures = folder_textures(tmp_path, SIZE)
    assert textures.shape == (2, 3, SIZE, SIZE)
    assert textures.dtype == torch.uint8


def test_folders_without_textures_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no image"):
        folder_textures(tmp_path, SIZE)
    with pytest.raises(DataError, match="no texture folder"):
        folder_textures(tmp_path / "none", SIZE)
