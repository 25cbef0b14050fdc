"""Arrays, tensors and PIL images of any kind: they are taken as what they are, or an error says why not."""

import numpy as np
import pytest
import torch
from fuzzing import RUNS, fuzz, one_line
from hypothesis import strategies as st
from PIL import Image

from timenet_lib.data.images import MIN_SIDE, MODES, image_batch
from timenet_lib.errors import TimeNetError

SIZE = 16
DTYPES = [*["uint8"] * 12, "int8", "uint16", "int32", "int64", "bool", "float16", "float32", "float64",
          "complex64", "U1", "O"]  # fmt: skip
RANGES = [(-1, 1), (-1, 1), (0, 1), (0, 255), (0, 0.3), (-0.06, 1.07), (-2.1, 2.6), (-0.5, 0.5), (0.2, 0.9), (0, 65535),
          (0, 0), (1, 1), (-1, -1), (float("nan"), 1), (0, float("inf"))]  # fmt: skip
IN_OURS = [(-1, 1), (-0.5, 0.5), (-1, -1)]
SIDES = st.sampled_from([1, 3, 7, 8, 9, 16, 20, 60])


@st.composite
def arrays(draw):
    if draw(st.integers(0, 3)) == 0:
        shape = draw(st.lists(st.integers(0, 9), max_size=5))
    else:  # meant to be an image, or some
        many, sides = draw(st.sampled_from([(), (), (0,), (1,), (3,)])), draw(st.tuples(SIDES, SIDES))
        shape = [*many, *sides, *draw(st.sampled_from([(), (1,), (3,), (3,), (3,), (4,), (2,)]))]
    values = np.random.default_rng(0).integers(0, draw(st.sampled_from([1, 2, 256])), shape)
    x = np.asarray(values, dtype=draw(st.sampled_from(DTYPES)))
    return draw(st.sampled_from([x, x, x.T, x[..., ::-1], x[::2]])) if x.ndim else x


@RUNS
def test_arrays_are_read_as_they_are_or_an_error_says_why_not(examples):
    outcomes = {"read": 0, "refused": 0}

    def array(x):
        try:
            batch = image_batch(x, SIZE)
        except TimeNetError as error:
            for line in str(error).split("\n"):  # several where the array is one of objects
                one_line(line)
            outcomes["refused"] += 1
            return
        outcomes["read"] += 1
        assert x.dtype == np.uint8
        pixels = x.reshape(-1, *(x.shape[-3:] if x.ndim > 2 else (*x.shape, 1)))
        assert min(pixels.shape[1:3]) >= MIN_SIDE
        assert pixels.shape[-1] in (1, 3)
        same = [Image.fromarray(np.ascontiguousarray(p[..., 0] if p.shape[-1] == 1 else p)) for p in pixels]
        assert torch.equal(batch, image_batch(same, SIZE))

    fuzz(array, examples, x=arrays())
    print(outcomes)
    assert min(outcomes.values()) > examples // 50


@st.composite
def tensors(draw):
    """A tensor and whether its values are ours."""
    low, high = draw(st.sampled_from(RANGES))
    shape = (*draw(st.sampled_from([(), (1,), (3,)])), 3, SIZE, SIZE)
    x = low + (high - low) * torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    x = x.to(draw(st.sampled_from([torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.float64])))
    if draw(st.integers(0, 9)) == 0:
        return x.nan_to_num(posinf=0).to(draw(st.sampled_from([torch.uint8, torch.bool, torch.cfloat]))), False
    return x, (low, high) in IN_OURS


@RUNS
def test_tensors_of_another_range_never_pass_as_ours(examples):
    def tensor(x):
        x, ours = x
        try:
            batch = image_batch(x, SIZE)
        except TimeNetError as error:
            one_line(error)
            assert not ours
            return
        assert ours
        assert torch.equal(batch, x.reshape(-1, 3, SIZE, SIZE).float())

    fuzz(tensor, examples, x=tensors())


@RUNS
def test_pil_images_of_any_mode_are_taken_or_an_error_says_why_not(examples):
    modes = ["1", "L", "P", "RGB", "RGB", "L", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"]
    outcomes = {"read": 0, "refused": 0}

    def picture(mode, sides, info):
        image = Image.new(mode, sides)
        image.info |= info
        sound = mode in MODES and min(sides) >= MIN_SIDE and "transparency" not in info
        try:
            batch = image_batch(image, SIZE)
        except TimeNetError as error:
            one_line(error)
            assert not sound
            outcomes["refused"] += 1
            return
        assert sound
        assert batch.shape == (1, 3, SIZE, SIZE)
        outcomes["read"] += 1

    infos = st.sampled_from([{}, {}, {}, {"transparency": 0}, {"exif": b"Exif\0\0broken"}, {"exif": b""}])
    fuzz(picture, examples, mode=st.sampled_from(modes), sides=st.tuples(SIDES, SIDES), info=infos)
    print(outcomes)
    assert min(outcomes.values()) > examples // 50


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's on odd EXIF, which stay warnings
