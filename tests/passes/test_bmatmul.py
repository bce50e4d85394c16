"""Products of signs computed at run time: what an exporter writes becomes bmatmul, thresholds on scores go into it."""

import numpy as np
import pytest
from graphs import build, check, compiled, engine_of
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.core.errors import FileError
from netsuke.formats import pack_bits
from netsuke.program import verify
from netsuke.program.interpreter import run
from netsuke.program.model import Node, Port, Program

SIGNS = (
    "ga = GreaterOrEqual(a, zero) sa = Where(ga, one, minus) gb = GreaterOrEqual(b, zero) sb = Where(gb, one, minus) "
    "kt = Transpose<perm=[0,1,3,2]>(sb) s = MatMul(sa, kt) "
)
VALUES = {"zero": np.float32(0), "one": np.float32(1), "minus": np.float32(-1), "none": np.float32(0)}


def constants(body, **more):
    words = set(body.replace(",", " ").replace("(", " ").replace(")", " ").split())
    return {name: np.asarray(v) for name, v in {**VALUES, **more}.items() if name in words}


def ops(program):
    return [node.op for node in program.nodes if node.op not in ("transpose", "reshape")]


def test_scores_of_signs():
    body = SIGNS + "y = Identity(s)"
    model = build("float[N,2,5,70] a, float[N,2,7,70] b", body, "float[N,2,5,7] y", constants(body))
    assert ops(check(model, [{"N": 1}, {"N": 3}])) == ["sign_pack", "sign_pack", "bmatmul"]


@pytest.mark.parametrize(
    ("tail", "relative"),
    [
        ("t = Mul(s, half) kept = GreaterOrEqual(t, zero)", 0),
        ("m = ReduceMax<keepdims=1>(s, last) t = Sub(s, m) kept = GreaterOrEqual(t, below)", 1),
    ],
)
def test_attention_runs_on_bits_alone(tail, relative):
    """Scores, threshold and the sum over values: three packs of the operands, two products, nothing between them."""
    body = SIGNS + tail + " p = Where(kept, one, none) gv = GreaterOrEqual(v, zero) sv = Where(gv, one, minus) "
    body += "o = MatMul(p, sv) y = Mul(o, half)"
    more = {"half": np.float32(0.5), "below": np.float32(-2.7), "last": np.asarray([-1], np.int64)}
    shapes = "float[N,2,5,16] a, float[N,2,7,16] b, float[N,2,7,9] v"
    model = build(shapes, body, "float[N,2,5,9] y", constants(body, **more))
    program = check(model, [{"N": 2}], rtol=0, atol=0)
    assert sorted(ops(program)) == ["bmatmul", "bmatmul", "sign_pack", "sign_pack", "sign_pack"]
    first, second = (node for node in program.nodes if node.op == "bmatmul")
    assert first.attrs.get("relative", 0) == relative
    assert first.attrs.get("threshold", 0) == (-2 if relative else 0)
    assert second.attrs["levels"] == "bool"
    assert second.attrs["mult"] == 0.5


def test_signs_times_numbers_are_additions():
    body = "ga = GreaterOrEqual(a, zero) sa = Where(ga, one, minus) y = MatMul(sa, b)"
    model = build("float[N,5,70] a, float[N,70,9] b", body, "float[N,5,9] y", constants(body))
    program = check(model, [{"N": 2}], rtol=1e-5, atol=1e-5)
    assert ops(program) == ["sign_pack", "bmatmul"]
    rng = np.random.default_rng(0)
    feeds = {n: rng.normal(0, 1, s).astype(np.float32) for n, s in (("a", (2, 5, 70)), ("b", (2, 70, 9)))}
    assert np.array_equal(run(program, feeds)["y"], engine_of(program).run(feeds)["y"])


@pytest.mark.parametrize(
    "body",
    [
        "sa = Sign(a) y = MatMul(sa, b)",
        "ga = GreaterOrEqual(a, zero) sa = Where(ga, two, none) y = MatMul(sa, b)",
        "y = MatMul(a, b)",
    ],
)
def test_what_is_not_two_valued_stays_a_float_product(body):
    model = build("float[N,5,8] a, float[N,8,9] b", body, "float[N,5,9] y", constants(body, two=np.float32(2)))
    assert "bmatmul" not in ops(compiled(model))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 70), st.booleans(), st.booleans(), st.integers(-9, 9))
def test_engine_equals_interpreter_bit_for_bit(seed, rows, channels, zero_one, relative, threshold):
    rng = np.random.default_rng(seed)
    attrs = {"channels": channels, "levels": "bool" if zero_one else "sign", "out": "bits", "columns": rows}
    attrs |= {"threshold": threshold, "relative": int(relative)}
    zeros = np.zeros(channels, np.float32)
    nodes = [
        Node("sign_pack", "pa", ["a", "z", ""], ["qa"], {}),
        Node("sign_pack", "pb", ["b", "z", ""], ["qb"], {}),
        Node("bmatmul", "m", ["qa", "qb"], ["y"], attrs),
    ]
    shape = (2, rows, channels)
    ports = [Port("a", "f32", shape), Port("b", "f32", shape)]
    program = Program("n", ports, [Port("y", "i64", (2, rows, (rows + 63) // 64))], nodes, {"z": zeros})
    verify(program)
    feeds = {name: rng.normal(0, 1, shape).astype(np.float32) for name in "ab"}
    got = engine_of(program).run(feeds)["y"]
    assert np.array_equal(got, run(program, feeds)["y"])
    left, right = (np.where(feeds[n] >= 0, 1, -1) for n in "ab")
    scores = (np.maximum(left, 0) if zero_one else left) @ np.swapaxes(right, 1, 2)
    limit = scores.max(-1, keepdims=True) if relative else 0
    assert np.array_equal(got, pack_bits(scores >= limit + threshold))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": None}, "columns"),
        ({"out": "f32"}, "columns"),
        ({"channels": 9}, "packed signs"),
        ({"mult": 2.0}, "mult"),
    ],
)
def test_rules_of_the_format(change, words):
    attrs = {"channels": 8, "out": "bits", "columns": 3, "threshold": 0}
    attrs = {key: value for key, value in {**attrs, **change}.items() if value is not None}
    nodes = [
        Node("sign_pack", "pa", ["a", "z", ""], ["qa"], {}),
        Node("bmatmul", "m", ["qa", "qa"], ["y"], attrs),
    ]
    kind = "i64" if attrs["out"] == "bits" else "f32"
    ports = [Port("a", "f32", (2, 3, 8))]
    program = Program("n", ports, [Port("y", kind, (2, 3, "W"))], nodes, {"z": np.zeros(8, np.float32)})
    with pytest.raises(FileError, match=words):
        verify(program)
