"""What the fuzz tests share: how often, how long one input may take, and how a good file is made a bad one."""

import contextlib
import faulthandler
import json
import random
import signal
import struct
import time

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from timenet_lib.errors import TimeNetError

SECONDS = 20  # that one input may take, on a busy machine
# in CI always the same 500; `make test-slow` draws 10,000 others each time, and says from which seed
RUNS = pytest.mark.parametrize("examples", [500, pytest.param(10_000, marks=pytest.mark.slow)])


class Stuck(BaseException):
    """Not an Exception, so that no `except Exception` takes it for a damaged file."""


class Altered(dict):
    """File names and new contents; shown in short."""

    def __repr__(self):
        return "; ".join(f"{k!r}: {v[:200]!r}" if isinstance(v, bytes) else f"{k!r}: {v}" for k, v in self.items())


@contextlib.contextmanager
def limited(seconds=SECONDS):
    """Fail loudly when an input takes longer: by a signal, and where C code does not let that in, by the process."""

    def stop(*args):
        raise Stuck

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(5 * seconds, exit=True)
    try:
        yield
    except Stuck:
        raise AssertionError(f"one input took more than {seconds} s") from None
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(body, examples, **strategies):
    """Call body with so many drawn inputs."""

    def one(**values):
        with limited():
            body(**values)

    repeatable = examples == 500
    one.__name__ = one.__qualname__ = body.__name__
    test = given(**strategies)(one)
    if not repeatable:
        number = random.SystemRandom().randrange(2**32)
        print(f"{body.__name__}: seed {number}", flush=True)
        test = hypothesis.seed(number)(test)
    begin = time.process_time()
    settings(
        max_examples=examples,
        derandomize=repeatable,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )(test)()
    print(f"{body.__name__}: {examples} inputs took {time.process_time() - begin:.1f} s of processor time", flush=True)


def fuzz_loading(load, examples, **strategies):
    """Call load with so many drawn inputs: each is taken, or refused in one line, and both happen often."""
    outcomes = {"loaded": 0, "refused": 0}

    def one(**values):
        try:
            load(**values)
            outcomes["loaded"] += 1
        except TimeNetError as error:
            one_line(error)
            outcomes["refused"] += 1

    one.__name__ = load.__name__
    fuzz(one, examples, **strategies)
    print(outcomes)
    assert min(outcomes.values()) > examples // 50


def one_line(error):
    """See that a message is a line that can be printed, whatever the file held."""
    assert str(error).isprintable(), repr(str(error))


NUMBERS = st.one_of(
    st.integers(-3, 70), st.integers(), st.floats(), st.sampled_from([10**6, 10**9, 10**400, -(2**63), 1e308, 1e-308])
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", ".", "..", "../../x", "/etc/passwd", "a\\b", "a\0b", "\ud800", "a\nb", "24", "nan", "float64", "Tensor",
         "load", "random", "shipped", "timm", "texture", "x" * 5000]
    ),
)  # fmt: skip
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def places(value, path=()):
    """Return the path of every value within a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in inside for place in places(inner, (*path, key)))]


@st.composite
def altered_json(draw, value, most=3):
    """Return the text of a JSON value, as bytes, with some values replaced, removed, renamed or put in twice."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(0, most))):
        place = draw(st.sampled_from(places(value)))
        if not place:
            continue
        holder = value
        for key in place[:-1]:
            holder = holder[key]
        key, how = place[-1], draw(st.sampled_from(["replace", "replace", "replace", "nudge", "remove", "add"]))
        if how == "replace":
            holder[key] = draw(JUNK)
        elif how == "nudge" and isinstance(holder[key], int | float) and abs(holder[key]) < 1e300:
            holder[key] = holder[key] * draw(st.sampled_from([-1, 0, 0.5, 2, 3, 10**6]))
        elif how == "remove":
            del holder[key]
        elif isinstance(holder, dict):
            holder[draw(TEXTS)] = draw(JUNK)
        else:
            holder.insert(key, draw(JUNK))
    text = json.dumps(value).encode()
    how = draw(st.integers(0, 19))
    if how == 0:
        return altered_bytes_of(draw, text)
    if how == 1:
        odd = [b"", b"[]", b"null", b"\xff\xfe{}", b"\xef\xbb\xbf" + text, text.decode().encode("utf-16")]
        return draw(st.sampled_from([*odd, b'{"a":' * 50_000, b"[" * 200_000, text[:-1] + b"," + text[1:]]))
    return text


def altered_bytes_of(draw, content):
    """Return bytes with some of them changed, cut off, put in, or moved."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["flip", "flip", "big", "cut", "drop", "insert", "repeat"]))
        if how == "flip" and start < len(data):
            data[start] ^= draw(st.integers(1, 255))
        elif how == "big":  # a length or a size, perhaps
            data[start : start + 4] = draw(
                st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\x40\0"])
            )
        elif how == "cut":
            del data[start:]
        elif how == "drop":
            del data[start : start + draw(st.integers(1, 16))]
        elif how == "insert":
            data[start:start] = draw(st.binary(min_size=1, max_size=16))
        elif how == "repeat":
            data[start:start] = data[start : start + draw(st.integers(1, 64))]
    return bytes(data)


@st.composite
def altered_bytes(draw, content):
    """Return content, in one of five cases as it is."""
    return content if draw(st.integers(0, 4)) == 0 else altered_bytes_of(draw, content)


@st.composite
def altered_safetensors(draw, content):
    """Return a safetensors file with another header, other bytes, or both."""
    how = draw(st.sampled_from(["header", "header", "type", "body", "bytes", "whole", "length"]))
    if how == "whole":
        return content
    if how == "bytes":
        return altered_bytes_of(draw, content)
    size = struct.unpack("<Q", content[:8])[0]
    header, body = content[8 : 8 + size], content[8 + size :]
    if how == "header":
        header = draw(altered_json(json.loads(header)))
    elif how == "type":  # of as many bytes, so that the file stays whole
        values = json.loads(header)
        name = draw(st.sampled_from([k for k in values if k != "__metadata__"]))
        same = {"F16": ["I16", "U16", "BF16"], "F32": ["I32", "U32"], "I64": ["U64", "F64", "C64"]}
        values[name]["dtype"] = draw(st.sampled_from([*same.get(values[name]["dtype"], []), "F8_E4M3", "BOOL", "F4"]))
        if draw(st.booleans()):
            values[name]["shape"] = values[name]["shape"][::-1]
        header = json.dumps(values).encode()
    elif how == "body":
        start = draw(st.integers(0, max(0, len(body) - 2)))
        body = body[:start] + draw(st.sampled_from([b"\xff\x7f", b"\0\x7c", b"\xff\x7b", b"\0\0"])) + body[start + 2 :]
    length = draw(st.sampled_from([0, 2**31, 2**40, 2**64 - 1])) if how == "length" else len(header)
    return struct.pack("<Q", length) + header + body
