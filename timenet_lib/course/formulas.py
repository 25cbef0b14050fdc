"""The formulas of the exported pages, in MathML, which a browser sets without a library or a network."""

_MINUS = "\u2212"
_OPERATORS = frozenset("=+-()[],≥") | {"max"}


def _token(text: str) -> str:
    """Leave MathML as it is; mark a bare word as a number, an operator or a name."""
    if text.startswith("<"):
        return text
    if text in _OPERATORS:
        return f"<mo>{_MINUS if text == '-' else text}</mo>"
    tag = "mn" if text.isdigit() else "mi"
    return f"<{tag}>{text}</{tag}>"


def _row(*parts: str) -> str:
    return f"<mrow>{''.join(map(_token, parts))}</mrow>"


def _sub(name: str, index: str) -> str:
    return f"<msub>{_token(name)}{_token(index)}</msub>"


def _over(above: str, below: str) -> str:
    return f"<mfrac>{_token(above)}{_token(below)}</mfrac>"


def _block(*parts: str) -> str:
    return f'<math display="block">{_row(*parts)}</math>'


def _f(d1: str, d2: str, w: str) -> tuple[str, ...]:
    """F(d1, d2, w) = w (max d2 / max d1) d1 + d2."""
    return ("F", "(", d1, ",", d2, ",", w, ")", "=", w, _over(_row("max", d2), _row("max", d1)), d1, "+", d2)


def _step(t: str) -> tuple[str, ...]:
    """xt + (1 - t) v(xt, t, c), with another name for the first t."""
    xt = _sub("x", "t")
    return (xt, "+", "(", "1", "-", t, ")", "v", "(", xt, ",", "t", ",", "c", ")")


_X1_HAT = _sub("<mover><mi>x</mi><mo>^</mo></mover>", "1")
NOISED = _block(_sub("x", "t"), "=", "t", _sub("x", "1"), "+", "(", "1", "-", "t", ")", _sub("x", "0"))
ONE_STEP = _block(_X1_HAT, "=", *_step("t"))  # eq. (3)
STEERED_STEP = _block(_X1_HAT, "=", *_step("T"))  # eq. (3) with T in place of t; v is steered
ODE = _block(_over(_row("d", _sub("x", "t")), _row("d", "t")), "=", "v", "(", _sub("x", "t"), ",", "t", ",", "c", ")")
LEVELS = _block(*_f(_sub("d", "1"), _sub("d", "2"), "w"))  # eq. (5)
PIXELS = _block("S", "=", *_f(_sub("S", "p"), _sub("S", "f"), "λ"))  # eq. (5)
ABOVE = _block("S", "≥", "τ")
F1 = _block(_sub("F", "1"), "=", _over(_row("2", "TP"), _row("2", "TP", "+", "FP", "+", "FN")))
