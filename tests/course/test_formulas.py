"""The pages' formulas are MathML that says what it should; that a browser sets it is tested in tests/browser."""

import re
from xml.etree import ElementTree

import pytest

from timenet_lib.course import formulas

SAID = {
    "NOISED": "xt=tx1+(1-t)x0",
    "ONE_STEP": "x^1=xt+(1-t)v(xt,t,c)",
    "STEERED_STEP": "x^1=xt+(1-T)v(xt,t,c)",
    "ODE": "dxtdt=v(xt,t,c)",
    "LEVELS": "F(d1,d2,w)=wmaxd2maxd1d1+d2",
    "PIXELS": "S=F(Sp,Sf,λ)=λmaxSfmaxSpSp+Sf",
    "ABOVE": "S≥τ",
    "F1": "F1=2TP2TP+FP+FN",
}


def test_every_formula_is_looked_at():
    assert {
        name for name, value in vars(formulas).items() if isinstance(value, str) and value.startswith("<math")
    } == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_it_is_well_formed_and_says(name):
    math = ElementTree.fromstring(getattr(formulas, name))
    assert (math.tag, math.get("display")) == ("math", "block")
    assert "".join(math.itertext()).replace("\u2212", "-") == SAID[name]
    for leaf in math.iter():
        if len(leaf) == 0:
            assert leaf.tag in ("mi", "mn", "mo")
            assert (leaf.tag == "mn") == bool(re.fullmatch(r"\d+", leaf.text))
