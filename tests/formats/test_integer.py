"""Codes and requantization against exact arithmetic on Python fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.core.errors import UsageError
from netsuke.formats import (
    clamp,
    dequantize,
    dyadic,
    fma,
    make_multiplier,
    make_table,
    quantize,
    quantize_weights,
    requantize,
    requantize_dyadic,
    requantize_f32,
    shift_rne,
)

CODE = st.integers(0, 255)
F32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
SCALE = st.floats(2.0**-100, 2.0**100, width=32)
ACC = st.integers(-(2**31) + 1, 2**31 - 1)


def f32(value: Fraction) -> Fraction:
    """Round to the nearest f32, halves to even, on exact fractions; overflow to infinity is not handled."""
    if value == 0:
        return value
    exponent = math.floor(math.log2(abs(value)))
    while Fraction(2) ** exponent > abs(value):
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= abs(value):
        exponent += 1
    ulp = Fraction(2) ** max(exponent - 23, -149)
    return round(value / ulp) * ulp


def clip(value, lo, hi):
    return min(max(value, lo), hi)


@given(F32, SCALE, CODE, CODE, CODE)
def test_quantize_is_the_formula_on_fractions(x, scale, zero, a, b):
    lo, hi = min(a, b), max(a, b)
    ratio = f32(Fraction(x) / Fraction(scale))
    assert quantize(np.float32(x), scale, zero, lo, hi) == round(clip(ratio, lo - zero, hi - zero)) + zero


@pytest.mark.parametrize(("x", "code"), [(np.nan, 3), (np.inf, 200), (-np.inf, 3), (0.5, 10), (1.5, 12), (-0.0, 10)])
def test_quantize_of_special_values(x, code):
    assert quantize(np.float32(x), 1.0, 10, 3, 200) == code


@given(CODE, CODE, SCALE)
def test_dequantize_and_back(q, zero, scale):
    real = dequantize(np.uint8(q), scale, zero)
    assert real.dtype == np.float32
    assert Fraction(float(real)) == f32(Fraction(q - zero) * Fraction(scale))
    assert quantize(real, scale, zero) == q


def test_clamp_sends_nan_and_minus_zero_to_lo():
    got = clamp(np.float32([np.nan, -0.0, 5.0, -5.0]), 0.0, 2.0)
    assert got.tobytes() == np.float32([0.0, 0.0, 2.0, 0.0]).tobytes()


@settings(max_examples=200)
@given(ACC, st.floats(0, 8, width=32), st.floats(-(2.0**20), 2.0**20, width=32), CODE, CODE, CODE, CODE)
def test_requantize_is_the_formula_on_fractions(acc, mult, bias, zero, a, b, r):
    lo, hi = min(a, b), max(a, b)
    t = f32(f32(f32(Fraction(acc)) * Fraction(mult)) + Fraction(bias))
    want = round(clip(t, lo - zero, hi - zero)) + zero
    args = (np.array([acc]), np.float32([mult]), np.float32([bias]))
    assert requantize(*args, zero=zero, lo=lo, hi=hi)[0] == want
    with_r = round(clip(f32(t + f32(Fraction(r - 100) * Fraction(0.375))), lo - zero, hi - zero)) + zero
    assert requantize(*args, np.array([r - 100]), 0.375, zero=zero, lo=lo, hi=hi)[0] == with_r


@given(ACC, st.floats(0, 8, width=32), st.floats(-(2.0**20), 2.0**20, width=32))
def test_requantize_to_f32(acc, mult, residual):
    got = requantize_f32(np.array([acc]), np.float32([mult]), None, np.float32([residual]), flo=-100.0, fhi=2.0**27)
    assert Fraction(float(got[0])) == clip(
        f32(f32(f32(Fraction(acc)) * Fraction(mult)) + Fraction(residual)), -100, 2**27
    )


@given(st.integers(-(2**62), 2**62), st.integers(1, 62))
def test_shift_rounds_to_nearest_even(p, e):
    assert shift_rne(np.int64(p), e) == round(Fraction(p, 2**e))


@settings(max_examples=200)
@given(ACC, st.integers(2**30, 2**31 - 1), st.integers(1, 62), CODE, st.integers(-255, 255), CODE, CODE)
def test_requantize_dyadic_is_integer_arithmetic(acc, m, e, zero, r, a, b):
    lo, hi = min(a, b), max(a, b)
    v = round(Fraction(acc * m, 2**e)) + round(Fraction(r * 2**30, 2**33))
    scale = (np.array([m], np.int32), np.array([e], np.int32))
    got = requantize_dyadic(np.array([acc]), *scale, np.array([r]), 2**30, 33, zero=zero, lo=lo, hi=hi)
    assert got[0] == clip(v + zero, lo, hi)


@settings(max_examples=300)
@given(st.floats(2.0**-40, 2.0**29))
def test_dyadic_is_the_nearest(mult):
    m, e = (int(v) for v in dyadic(mult))
    assert 2**30 <= m < 2**31 or m == 0
    assert 1 <= e <= 62
    error = abs(Fraction(m, 2**e) - Fraction(mult))
    rivals = [Fraction(m + d, 2**e) for d in (-1, 1)] if m else [Fraction(2**30, 2**62)]
    if m == 2**30 and e == 62:
        rivals[0] = Fraction(0)
    elif m == 2**30:
        rivals[0] = Fraction(2**31 - 1, 2 ** (e + 1))
    assert all(error <= abs(rival - Fraction(mult)) for rival in rivals)


def test_dyadic_edges():
    m, e = dyadic(np.array([0.0, 2.0**-70, 2.0**-33, 1.0, 1 - 2.0**-40]))
    assert m.tolist() == [0, 0, 0, 2**30, 2**30]
    assert e.tolist() == [62, 62, 62, 30, 30]
    for bad in (np.nan, -1.0, np.inf, 2.0**31):
        with pytest.raises(ValueError):
            dyadic(bad)


@given(st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_quantized_weights_are_within_half_a_step(bits, seed):
    rng = np.random.default_rng(seed)
    w = (rng.normal(size=(3, 4, 2)) * 10.0 ** rng.uniform(-6, 6, (3, 1, 1))).astype(np.float32)
    w[1] = 0
    codes, scale = quantize_weights(w, bits)
    qmax = 2 ** (bits - 1) - 1
    assert codes.dtype == np.int8
    assert scale[1] == 1
    assert np.abs(codes[[0, 2]]).max(axis=(1, 2)).tolist() == [qmax, qmax]
    error = np.abs(codes * scale[:, None, None].astype(np.float64) - w)
    assert (error <= scale[:, None, None] * (0.5 + 1e-5)).all()


def test_quantize_weights_refuses_nan_and_tiny_channels_stay_finite():
    with pytest.raises(UsageError, match=r"\[1, 0\]"):
        quantize_weights(np.array([[1.0, 2.0], [np.nan, 0.0]]))
    codes, scale = quantize_weights(np.full((1, 2), 1e-45))
    assert scale[0] == np.finfo(np.float32).tiny
    assert codes.tolist() == [[0, 0]]


@given(SCALE, SCALE, SCALE)
def test_multiplier_is_rounded_once(x, w, y):
    exact = np.float64(x) * np.float64(w) / np.float64(y)
    with np.errstate(over="ignore"):
        assert make_multiplier(x, np.float32([w]), y)[0] == np.float32(exact)


def test_table_holds_the_quantized_function():
    table = make_table(np.tanh, 0.03125, 128, 1 / 128, 128)
    assert table[128] == 128
    assert table[255] == quantize(np.float32(np.tanh(127 * 0.03125)), 1 / 128, 128)
    assert make_table(np.tanh, 0.03125, 128, None).dtype == np.float32


@given(st.lists(st.tuples(F32, F32, F32), min_size=1, max_size=50))
def test_fma_rounds_once(triples: list[tuple[float, float, float]]) -> None:
    a, b, c = (np.asarray([t[i] for t in triples], np.float32) for i in range(3))
    for got, t in zip(fma(a, b, c), triples, strict=True):
        exact = Fraction(t[0]) * Fraction(t[1]) + Fraction(t[2])
        if abs(exact) >= Fraction(2) ** 128 - Fraction(2) ** 103:
            assert np.isinf(got)
        else:  # nearest: no neighbour is closer, and of two equally close ones the even one is taken
            with np.errstate(over="ignore"):
                near = [np.nextafter(got, np.float32(side)) for side in (-np.inf, np.inf)]
            away = abs(Fraction(float(got)) - exact)
            others = [abs(Fraction(float(v)) - exact) for v in near if np.isfinite(v)]
            assert all(away <= other for other in others)
            if away in others:
                assert int(got.view(np.int32)) % 2 == 0
