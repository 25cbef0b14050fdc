"""Numbers that leave a notebook."""

import nbformat
import numpy as np
import pytest
import torch

from timenet_lib.course.record import METRICS_MIME, metrics_of, record
from timenet_lib.errors import InputError


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: calls.append(data))
    return calls


def test_numbers_become_plain_json_and_a_text_to_read(shown):
    record(auroc=np.float32(0.5), n=3, loss=torch.tensor(0.25))
    assert shown == [
        {METRICS_MIME: {"auroc": 0.5, "n": 3, "loss": 0.25}, "text/plain": "auroc = 0.5\nn = 3\nloss = 0.25"}
    ]
    assert type(shown[0][METRICS_MIME]["auroc"]) is float


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "high", None, torch.zeros(2)])
def test_what_is_no_finite_number_is_refused(shown, value):
    with pytest.raises((InputError, *_type_errors()), match=r"auroc|not an instance|violates"):
        record(auroc=value)
    assert not shown


def test_metrics_are_gathered_from_all_cells_and_the_last_one_wins():
    def cell(**numbers):
        output = nbformat.v4.new_output("display_data", {METRICS_MIME: numbers})
        return nbformat.v4.new_code_cell("", outputs=[output])

    nb = nbformat.v4.new_notebook(cells=[cell(a=1, b=2), nbformat.v4.new_markdown_cell("x"), cell(b=3)])
    assert metrics_of(nb) == {"a": 1, "b": 3}


def _type_errors():
    """Return the errors that checked signatures raise, where they are checked."""
    import jaxtyping
    from beartype.roar import BeartypeCallHintViolation

    return jaxtyping.TypeCheckError, BeartypeCallHintViolation
