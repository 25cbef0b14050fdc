import pytest
import torch

from timenet_lib.errors import InputError
from timenet_lib.evidence import peers as baselines


def test_a_missing_library_is_said_with_its_cure():
    with pytest.raises(InputError, match=r"nowhere is not installed: pip install -e '.\[peers\]'"):
        baselines.peer("nowhere.at_all")


def test_the_networks_t_is_1_at_the_image():
    assert baselines.as_t(torch.tensor([0, 999])).tolist() == [1.0, 0.0]
