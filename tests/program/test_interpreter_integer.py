"""Integer operators of the interpreter and of the emulation against loops over Python integers."""

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.core.errors import UsageError
from netsuke.formats import accumulator_bound, dyadic
from netsuke.program import Node, Port, Program
from netsuke.program.emulate import Emulation
from netsuke.program.interpreter import run
from netsuke.program.opset import output_dtypes

WORDS = {"f4": "f32", "u1": "u8", "i1": "s8", "i4": "i32", "i8": "i64", "b1": "bool"}


def one_node(
    op: str, feeds: dict[str, Any], constants: dict[str, Any], inputs: list[str], attrs: dict[str, Any]
) -> Program:
    ports = [Port(n, WORDS[a.dtype.str[1:]], tuple(f"{n}{i}" for i in range(a.ndim))) for n, a in feeds.items()]
    node = Node(op, "n", inputs, ["y"], attrs)
    kinds = [WORDS[({**feeds, **constants})[n].dtype.str[1:]] if n else "" for n in inputs]
    program = Program("p", ports, [], [node], constants)
    rank = run(program, feeds, ["y"])["y"].ndim
    program.outputs = [Port("y", output_dtypes(node, kinds)[0], tuple(f"y{i}" for i in range(rank)))]
    return program


def both(op: str, feeds: dict[str, Any], constants: dict[str, Any], inputs: list[str], attrs: dict[str, Any]) -> Any:
    """The interpreter's result, after checking that the emulation gives the same bits."""
    program = one_node(op, feeds, constants, inputs, attrs)
    want, got = run(program, feeds)["y"], Emulation(program).run(feeds)["y"]
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert got.tobytes() == want.tobytes()
    return want


def code(t: np.float32, zero: int, lo: int, hi: int) -> int:
    """The last step of section 4 on one f32: Python's round is to nearest even."""
    return round(min(max(float(t), lo - zero), hi - zero)) + zero


def conv_sum(x: Any, w: Any, at: tuple[int, ...], window: dict[str, Any], x_zero: int) -> int:
    n, oy, ox, o = at
    outputs, kh, kw, per_in = w.shape
    first = o // (outputs // window["groups"]) * per_in
    total = 0
    for ky, kx, i in itertools.product(range(kh), range(kw), range(per_in)):
        y = oy * window["strides"][0] - window["pads"][0] + ky * window["dilations"][0]
        col = ox * window["strides"][1] - window["pads"][1] + kx * window["dilations"][1]
        if 0 <= y < x.shape[1] and 0 <= col < x.shape[2]:
            total += (int(x[n, y, col, first + i]) - x_zero) * int(w[o, ky, kx, i])
    return total


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_qconv_with_residual(seed, is_dyadic):
    rng = np.random.default_rng(seed)
    groups, per_in, per_out = (int(v) for v in rng.integers(1, 4, 3))
    kh, kw = (int(v) for v in rng.integers(1, 4, 2))
    h, w_ = int(rng.integers(5, 8)), int(rng.integers(5, 8))
    x = rng.integers(0, 256, (2, h, w_, groups * per_in)).astype(np.uint8)
    w = rng.integers(-128, 128, (groups * per_out, kh, kw, per_in)).astype(np.int8)
    window = {
        "strides": [int(v) for v in rng.integers(1, 3, 2)],
        "pads": [int(v) for v in rng.integers(0, 3, 4)],
        "dilations": [int(v) for v in rng.integers(1, 3, 2)],
        "groups": groups,
    }
    reach = [(k - 1) * d + 1 for k, d in zip((kh, kw), window["dilations"], strict=True)]
    oh = (h + window["pads"][0] + window["pads"][2] - reach[0]) // window["strides"][0] + 1
    ow = (w_ + window["pads"][1] + window["pads"][3] - reach[1]) // window["strides"][1] + 1
    x_zero, zero, r_zero = (int(v) for v in rng.integers(0, 256, 3))
    lo, hi = sorted(int(v) for v in rng.integers(0, 256, 2))
    r = rng.integers(0, 256, (2, oh, ow, groups * per_out)).astype(np.uint8)
    acc_bias = rng.integers(-1000, 1000, groups * per_out).astype(np.int32)
    bound = int(accumulator_bound(w, x_zero, acc_bias=acc_bias).max())
    mult = rng.uniform(1e-4, 1e-2, groups * per_out).astype(np.float32)
    bias = rng.normal(0, 20, groups * per_out).astype(np.float32)
    r_mult = np.float32(rng.uniform(0.1, 2))
    attrs = {**window, "x_zero": x_zero, "zero": zero, "lo": lo, "hi": hi, "r_zero": r_zero, "acc_bound": bound}
    m, e = dyadic(mult)
    r_m, r_e = (int(v) for v in dyadic(r_mult))
    if is_dyadic:
        attrs |= {"r_m": r_m, "r_e": r_e}
        constants = {"w": w, "m": m, "e": e, "ab": acc_bias}
        y = both("qconv_dyadic", {"x": x, "r": r}, constants, ["x", "w", "m", "e", "ab", "r"], attrs)
    else:
        attrs["r_mult"] = float(r_mult)
        constants = {"w": w, "m": mult, "b": bias, "ab": acc_bias}
        y = both("qconv", {"x": x, "r": r}, constants, ["x", "w", "m", "b", "ab", "r"], attrs)
    assert y.shape == r.shape
    for at in itertools.islice(np.ndindex(y.shape), 0, None, max(1, y.size // 150)):
        acc, o = conv_sum(x, w, at, window, x_zero) + int(acc_bias[at[3]]), at[3]
        if is_dyadic:
            v = shift(acc * int(m[o]), int(e[o])) + shift((int(r[at]) - r_zero) * r_m, r_e)
            assert y[at] == min(max(v + zero, lo), hi)
        else:
            t = np.float32(acc) * mult[o] + bias[o] + np.float32(int(r[at]) - r_zero) * r_mult
            assert y[at] == code(t, zero, lo, hi)


def shift(p: int, e: int) -> int:
    """p / 2^e to nearest even on Python integers."""
    floor, rem = p >> e, p & ((1 << e) - 1)
    return floor + (rem > 1 << (e - 1) or (rem == 1 << (e - 1) and floor % 2 == 1))


def test_qlinear_to_f32_with_residual_and_limits():
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (2, 3, 5)).astype(np.uint8), rng.integers(-127, 128, (4, 5)).astype(np.int8)
    r, mult = rng.normal(size=(2, 3, 4)).astype(np.float32), np.float32([1e-4, 2e-4, 3e-4, 1.0])
    bound = int(accumulator_bound(w, 9).max())
    attrs = {"x_zero": 9, "acc_bound": bound, "out": "f32", "flo": -1.0, "fhi": 1.5}
    y = both("qlinear", {"x": x, "r": r}, {"w": w, "m": mult}, ["x", "w", "m", "", "", "r"], attrs)
    for at in np.ndindex(y.shape):
        acc = sum((int(a) - 9) * int(b) for a, b in zip(x[at[:2]], w[at[2]], strict=True))
        assert y[at] == min(max(np.float32(acc) * mult[at[2]] + r[at], np.float32(-1)), np.float32(1.5))


@pytest.mark.parametrize("trans", [0, 1])
def test_qmatmul_broadcasts(trans):
    rng = np.random.default_rng(trans)
    a = rng.integers(0, 256, (3, 1, 2, 5)).astype(np.uint8)
    b = rng.integers(0, 256, (4, 3, 5) if trans else (4, 5, 3)).astype(np.uint8)
    attrs = {"a_zero": 100, "b_zero": 7, "mult": 0.001, "zero": 20, "lo": 5, "trans_b": trans}
    y = both("qmatmul", {"a": a, "b": b}, {}, ["a", "b"], attrs)
    assert y.shape == (3, 4, 2, 3)
    for n, k, i, j in np.ndindex(y.shape):
        column = b[k, j] if trans else b[k, :, j]
        acc = sum((int(u) - 100) * (int(v) - 7) for u, v in zip(a[n, 0, i], column, strict=True))
        assert y[n, k, i, j] == code(np.float32(acc) * np.float32(0.001), 20, 5, 255)


def test_qmatmul_refuses_depths_that_can_overflow():
    feeds = {"a": np.zeros((1, 40000), np.uint8), "b": np.zeros((40000, 1), np.uint8)}
    with pytest.raises(UsageError, match="node qmatmul 'n'  the accumulator can leave int32"):
        one_node("qmatmul", feeds, {}, ["a", "b"], {"a_zero": 0, "b_zero": 0, "mult": 1.0})


def test_qadd_and_qmul_over_all_pairs_of_codes():
    a, b = np.arange(256, dtype=np.uint8).reshape(256, 1), np.arange(256, dtype=np.uint8)
    am, bm = np.float32(0.7), np.float32(0.3)
    attrs = {"a_zero": 3, "b_zero": 200, "zero": 90}
    y = both("qadd", {"a": a, "b": b}, {}, ["a", "b"], {**attrs, "a_mult": 0.7, "b_mult": 0.3, "lo": 90})
    z = both("qmul", {"a": a, "b": b}, {}, ["a", "b"], {**attrs, "mult": 0.01})
    for i, j in itertools.product(range(0, 256, 5), range(256)):
        assert y[i, j] == code(np.float32(i - 3) * am + np.float32(j - 200) * bm, 90, 90, 255)
        assert z[i, j] == code(np.float32((i - 3) * (j - 200)) * np.float32(0.01), 90, 0, 255)


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("ceil", [0, 1])
def test_qavgpool_counts(include, ceil):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (1, 6, 7, 2)).astype(np.uint8)
    attrs = {"kernel": [3, 2], "strides": [2, 3], "pads": [1, 1, 1, 1], "ceil": ceil, "count_include_pad": include}
    y = both("qavgpool", {"x": x}, {}, ["x"], {**attrs, "x_zero": 11, "mult": 0.8, "zero": 4})
    assert y.shape == ((1, 4, 3, 2) if ceil else (1, 3, 3, 2))
    for _, oy, ox, c in np.ndindex(y.shape):
        rows = [v for v in range(oy * 2 - 1, oy * 2 + 2) if (v < 7 if include else 0 <= v < 6)]
        cols = [v for v in range(ox * 3 - 1, ox * 3 + 1) if (v < 8 if include else 0 <= v < 7)]
        total = sum(int(x[0, i, j, c]) - 11 for i in rows for j in cols if 0 <= i < 6 and 0 <= j < 7)
        t = np.float32(total) * (np.float32(0.8) / np.float32(len(rows) * len(cols)))
        assert y[0, oy, ox, c] == code(t, 4, 0, 255)


def test_qadd_dyadic_over_all_pairs_of_codes():
    a, b = (np.ascontiguousarray(v.astype(np.uint8)) for v in np.meshgrid(np.arange(256), np.arange(256)))
    attrs = {"a_zero": 3, "b_zero": 100, "a_m": 1 << 30, "a_e": 31, "b_m": 1500000000, "b_e": 32, "zero": 40, "hi": 200}
    y = both("qadd_dyadic", {"a": a, "b": b}, {}, ["a", "b"], attrs)
    for q, r in ((0, 0), (4, 100), (5, 100), (255, 255), (17, 31)):
        halves = Fraction(q - 3, 2), Fraction((r - 100) * 1500000000, 2**32)
        exact = sum(round(v) for v in halves) + 40  # Fractions round halves to even
        assert y[r, q] == min(max(exact, 0), 200)


def test_qmean_dyadic_and_its_count():
    x = np.random.default_rng(4).integers(0, 256, (2, 3, 5, 7)).astype(np.uint8)
    attrs = {"x_zero": 100, "m": 1900000000, "e": 35, "count": 15, "zero": 30, "lo": 5}
    y = both("qmean_dyadic", {"x": x}, {}, ["x"], attrs)
    sums = x.astype(int).sum(axis=(1, 2)) - 15 * 100
    exact = [[min(max(round(Fraction(int(s) * 1900000000, 2**35)) + 30, 5), 255) for s in row] for row in sums]
    np.testing.assert_array_equal(y[:, 0, 0, :], exact)
    with pytest.raises(Exception, match="count"):
        both("qmean_dyadic", {"x": x}, {}, ["x"], {**attrs, "count": 16})


def test_qmean():
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3)).astype(np.uint8)
    y = both("qmean", {"x": x}, {}, ["x"], {"x_zero": 100, "mult": 1.7, "zero": 30, "hi": 200})
    for n, _, _, c in np.ndindex(y.shape):
        total = int((x[n, :, :, c].astype(int) - 100).sum())
        assert y[n, 0, 0, c] == code(np.float32(total) * (np.float32(1.7) / np.float32(15)), 30, 0, 200)


def test_lut_per_channel_and_maxpool_of_codes():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (1, 4, 4, 3)).astype(np.uint8)
    table = rng.integers(0, 256, (3, 256)).astype(np.uint8)
    y = both("lut", {"x": x}, {"t": table}, ["x", "t"], {})
    assert all(y[at] == table[at[3], x[at]] for at in np.ndindex(y.shape))
    attrs = {"kernel": [2, 2], "strides": [2, 2], "pads": [1, 1, 0, 0]}
    pooled = both("maxpool", {"x": x}, {}, ["x"], attrs)
    assert pooled[0, 0, 0, 1] == x[0, 0, 0, 1]
    assert pooled[0, 1, 1, 2] == x[0, 1:3, 1:3, 2].max()


def test_batch_0_gives_an_empty_result():
    x, w = np.zeros((0, 4, 4, 2), np.uint8), np.ones((3, 3, 3, 2), np.int8)
    attrs = {"strides": [1, 1], "pads": [0] * 4, "x_zero": 0, "acc_bound": 10000}
    y = both("qconv", {"x": x}, {"w": w, "m": np.ones(3, np.float32)}, ["x", "w", "m", "", "", ""], attrs)
    assert y.shape == (0, 2, 2, 3)


def test_windows_that_do_not_fit_are_errors():
    x, w = np.zeros((1, 2, 2, 2), np.uint8), np.ones((3, 3, 3, 2), np.int8)
    attrs = {"strides": [1, 1], "pads": [0] * 4, "x_zero": 0, "acc_bound": 10000}
    with pytest.raises(UsageError, match="window is larger"):
        one_node("qconv", {"x": x}, {"w": w, "m": np.ones(3, np.float32)}, ["x", "w", "m", "", "", ""], attrs)
