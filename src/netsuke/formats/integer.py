"""Integer codes: quantize, requantize, tables. Sections 1, 2, 4 to 7 of docs/numerics.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from netsuke.core.errors import Problem, UsageError

Array = npt.NDArray[Any]
F32 = np.float32
SMALLEST_NORMAL = np.finfo(np.float32).tiny


def rne(v: Array) -> Array:
    """Nearest integer, halves to even, in the dtype of `v`."""
    return np.rint(v)


def clamp(v: Array, lo: Array | float, hi: Array | float) -> Array:
    """`t = v > lo ? v : lo; t < hi ? t : hi` in the dtype of `v`: a NaN becomes lo, and -0 clamped at 0 becomes +0."""
    low, high = np.asarray(lo, v.dtype), np.asarray(hi, v.dtype)
    t = np.where(v > low, v, low)
    return np.where(t < high, t, high)


def _to_code(t: Array, zero: int, lo: int, hi: int) -> Array:
    """int(rne(clamp(t, lo - zero, hi - zero))) + zero as u8; t is f32."""
    return (rne(clamp(t, lo - zero, hi - zero)).astype(np.int32) + np.int32(zero)).astype(np.uint8)


def quantize(x: Array, scale: float, zero: int, lo: int = 0, hi: int = 255) -> Array:
    """Section 2: f32 -> codes (u8), `lo <= q <= hi`. x / scale is one f32 division; NaN gives lo."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return _to_code(np.asarray(x, F32) / F32(scale), zero, lo, hi)


def dequantize(q: Array, scale: float, zero: int) -> Array:
    """Section 2: codes -> f32, `f32(q - zero) * scale`."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray((np.asarray(q).astype(np.int32) - np.int32(zero)).astype(F32) * F32(scale))


def quantize_weights(weights: Array, bits: int = 8, axis: int = 0) -> tuple[Array, Array]:
    """Section 7: symmetric codes (s8) and one f32 scale per slice of `axis`, by the max-abs rule.

    An all-zero slice takes scale 1. Raises UsageError when a weight is NaN or infinite.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be 2..8, got {bits}")
    w = np.asarray(weights, F32)
    if not np.isfinite(w).all():
        bad = np.argwhere(~np.isfinite(w))[0].tolist()
        raise UsageError(Problem("a weight is NaN or infinite", where=f"index {bad}", got=str(w[tuple(bad)])))
    qmax = 2 ** (bits - 1) - 1
    others = tuple(i for i in range(w.ndim) if i != axis % w.ndim)
    peak = np.abs(w).max(axis=others, initial=0.0).astype(F32)
    scale = np.where(peak == 0, F32(1), np.maximum(peak / F32(qmax), F32(SMALLEST_NORMAL))).astype(F32)
    shape = [1] * w.ndim
    shape[axis] = -1
    return clamp(rne(w / scale.reshape(shape)), -qmax, qmax).astype(np.int8), scale


def make_multiplier(x_scale: Array | float, w_scale: Array | float, y_scale: float) -> Array:
    """Section 4: `f32(f64(x_scale) * f64(w_scale) / f64(y_scale))`; w_scale = 1 for a residual or bias multiplier."""
    product = np.asarray(x_scale, np.float64) * np.asarray(w_scale, np.float64)
    return np.asarray((product / np.float64(y_scale)).astype(F32))


def single_multiplier(x_scale: Array | float, w_scale: Array | float, y_scale: float) -> Array:
    """Section 4, networks quantized elsewhere: `f32(f32(x_scale * w_scale) / y_scale)`, one f32 operation a step."""
    product = np.asarray(x_scale, F32) * np.asarray(w_scale, F32)
    return np.asarray(product / F32(y_scale), F32)


def _accumulator_to_real(
    acc: Array, mult: Array | float, bias: Array | None, residual: Array | None, r_mult: float | None
) -> Array:
    """Section 4: `f32(acc) * mult + bias + residual`, one f32 operation a step. r_mult None: the residual as it is."""
    t = np.asarray(acc).astype(F32) * np.asarray(mult, F32)
    if bias is not None:
        t = t + np.asarray(bias, F32)
    if residual is not None:
        t = t + (residual.astype(F32) if r_mult is None else residual.astype(F32) * F32(r_mult))
    return np.asarray(t)


def requantize(
    acc: Array,
    mult: Array | float,
    bias: Array | None = None,
    residual: Array | None = None,
    r_mult: float = 0.0,
    *,
    zero: int,
    lo: int = 0,
    hi: int = 255,
) -> Array:
    """Section 4: accumulators (integers, last axis = channel) to codes (u8). `residual` is `r - r_zero`, integers."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return _to_code(_accumulator_to_real(acc, mult, bias, residual, r_mult), zero, lo, hi)


def requantize_f32(
    acc: Array,
    mult: Array | float,
    bias: Array | None = None,
    residual: Array | None = None,
    *,
    flo: float = -np.inf,
    fhi: float = np.inf,
) -> Array:
    """Section 4 with f32 output: clamp(acc * mult + bias + residual, flo, fhi); `residual` is f32, added as it is."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return clamp(_accumulator_to_real(acc, mult, bias, residual, None), flo, fhi)


def fma(a: Array, b: Array | float, c: Array | float) -> Array:
    """a * b + c of f32 numbers, rounded to f32 once.

    The product is exact in binary64; the sum there is rounded to odd (Boldo and Melquiond, "Emulation of FMA and
    correctly rounded sums", 2008), so that rounding it again to f32 gives the nearest.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        p = np.asarray(a, F32).astype(np.float64) * np.asarray(b, F32).astype(np.float64)
        d = np.asarray(c, F32).astype(np.float64)
        s = p + d
        part = s - p
        error = (p - (s - part)) + (d - part)
        even = (np.asarray(s).view(np.int64) & 1) == 0
        odd = np.where((error != 0) & even, np.nextafter(s, np.where(error > 0, np.inf, -np.inf)), s)
        return np.asarray(odd.astype(F32))


def dyadic(mult: Array | float) -> tuple[Array, Array]:
    """Section 5: the nearest `m * 2^-e` to each multiplier >= 0, m i32 (2^30 <= m < 2^31, or 0), e i32 in 1..62.

    Raises ValueError for a multiplier that is negative, not finite, or not below 2^30 after rounding.
    """
    value = np.asarray(mult, np.float64)
    if not (np.isfinite(value) & (value >= 0)).all():
        raise ValueError("a multiplier must be finite and not negative")
    fraction, exponent = np.frexp(value)  # value = fraction * 2^exponent, 0.5 <= fraction < 1
    m = np.rint(fraction * 2.0**31).astype(np.int64)
    e = 31 - exponent.astype(np.int64)
    carried = m == 2**31
    m, e = np.where(carried, 2**30, m), np.where(carried, e - 1, e)
    if ((e < 1) & (m != 0)).any():
        raise ValueError(f"a multiplier of {value.max()} does not fit m * 2^-e with e >= 1")
    # Below 2^-32 only 2^30 * 2^-62 and 0 exist.
    small = (e > 62) | (m == 0)
    m = np.where(small, np.where(value > 2.0**-33, 2**30, 0), m)
    return m.astype(np.int32), np.where(small, 62, e).astype(np.int32)


def shift_rne(p: Array, e: Array | int) -> Array:
    """Section 5: p / 2^e rounded to nearest even, int64 in, int64 out, 1 <= e <= 62."""
    p = np.asarray(p, np.int64)
    e = np.asarray(e, np.int64)
    floor = p >> e
    rem = p - (floor << e)
    half = np.int64(1) << (e - 1)
    return np.asarray(floor + ((rem > half) | ((rem == half) & ((floor & 1) == 1))))


def requantize_dyadic(
    acc: Array,
    m: Array | int,
    e: Array | int,
    residual: Array | None = None,
    r_m: int = 0,
    r_e: int = 62,
    *,
    zero: int,
    lo: int = 0,
    hi: int = 255,
) -> Array:
    """Section 5: accumulators (integers, last axis = channel) to codes (u8). `residual` is `r - r_zero`, integers."""
    v = shift_rne(np.asarray(acc).astype(np.int64) * np.asarray(m).astype(np.int64), e)
    if residual is not None:
        v = v + shift_rne(residual.astype(np.int64) * np.int64(r_m), r_e)
    return clamp(v + np.int64(zero), lo, hi).astype(np.uint8)


def make_table(
    f: Callable[[Array], Array],
    x_scale: float,
    x_zero: int,
    y_scale: float | None,
    y_zero: int = 0,
    lo: int = 0,
    hi: int = 255,
) -> Array:
    """Section 6: the 256 outputs of `f` (f64 array -> f64 array) on every code: u8, or f32 when y_scale is None."""
    x = dequantize(np.arange(256, dtype=np.uint8), x_scale, x_zero).astype(np.float64)
    with np.errstate(all="ignore"):
        y = np.asarray(f(x), np.float64).astype(F32)
    return y if y_scale is None else quantize(y, y_scale, y_zero, lo, hi)
