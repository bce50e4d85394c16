"""Floats of 4 to 8 bits as codes (u8): sign, exponent, mantissa. Section 11 of docs/numerics.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from netsuke.core.errors import Problem, UsageError

Array = npt.NDArray[Any]
ROUNDINGS = ("nearest", "stochastic", "zero")


@dataclass(frozen=True)
class Minifloat:
    """Sign, `exponent` and `mantissa` bits: (-1)^s 2^(e - bias) (1 + m / 2^mantissa), subnormal at e = 0.

    special: what the highest codes mean. "ieee": the last exponent holds infinity and NaN (E5M2); "nan": the last code
    alone is NaN, there is no infinity (E4M3); "none": every code is a finite number (E3M2, E2M1).
    """

    name: str
    exponent: int
    mantissa: int
    bias: int
    special: str = "none"

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def largest_code(self) -> int:
        """Code of the largest finite number."""
        missing = {"ieee": 1 << self.mantissa, "nan": 1, "none": 0}
        return int((1 << (self.bits - 1)) - 1 - missing[self.special])

    @property
    def largest(self) -> float:
        return float(decode(np.array([self.largest_code], np.uint8), self)[0])

    def with_bias(self, bias: int) -> Minifloat:
        """The same bits with another exponent bias: every number times 2^(self.bias - bias)."""
        return replace(self, bias=bias)


E4M3 = Minifloat("e4m3", 4, 3, 7, "nan")
E5M2 = Minifloat("e5m2", 5, 2, 15, "ieee")
E3M2 = Minifloat("e3m2", 3, 2, 3)
E2M1 = Minifloat("e2m1", 2, 1, 1)
MINIFLOATS: Mapping[str, Minifloat] = MappingProxyType({f.name: f for f in (E4M3, E5M2, E3M2, E2M1)})


def decode(codes: Array, form: Minifloat) -> Array:
    """Codes (u8) -> f32, exact. Bits above the format's are ignored."""
    code = np.asarray(codes).astype(np.int64) & (2**form.bits - 1)
    magnitude = code & (2 ** (form.bits - 1) - 1)
    exponent, mantissa = magnitude >> form.mantissa, magnitude & (2**form.mantissa - 1)
    significand = np.where(exponent > 0, mantissa + 2**form.mantissa, mantissa).astype(np.float64)
    value = np.ldexp(significand, np.maximum(exponent, 1) - form.bias - form.mantissa)
    if form.special == "ieee":
        last = exponent == 2**form.exponent - 1
        value = np.where(last, np.where(mantissa == 0, np.inf, np.nan), value)
    elif form.special == "nan":
        value = np.where(magnitude == 2 ** (form.bits - 1) - 1, np.nan, value)
    return np.asarray(np.where(code >> (form.bits - 1), -value, value), np.float32)


def encode(
    x: Array, form: Minifloat, rounding: str = "nearest", *, saturate: bool = True, uniform: Array | None = None
) -> Array:
    """f32 -> codes (u8). -0 keeps its sign.

    rounding: "nearest" (halves to even), "zero" (toward zero), "stochastic" (up with the probability of the fraction:
    floor(t + u) of the magnitude t in units of its last bit, `uniform` in [0, 1) of x's shape).
    saturate: what is too large after rounding, infinity included, becomes the largest finite number; without it
    infinity, or NaN where the format has no infinity. Toward zero only an infinite x is too large.
    Raises UsageError for a NaN, or an overflow without saturate, that the format cannot hold.
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding must be one of {', '.join(ROUNDINGS)}, got {rounding!r}")
    x = np.asarray(x, np.float32)
    magnitude = np.abs(x).astype(np.float64)
    finite = np.isfinite(magnitude)
    safe = np.where(finite, magnitude, 0.0)
    lowest = 1 - form.bias  # below, frexp gives safe = f * 2^(e + 1) with 0.5 <= f < 1
    exponent = np.where(safe > 0, np.maximum(np.frexp(safe)[1] - 1, lowest), lowest)
    units = np.ldexp(safe, form.mantissa - exponent)
    if rounding == "stochastic":
        if uniform is None:
            raise ValueError("stochastic rounding takes `uniform`, numbers in [0, 1) of the shape of x")
        # Not floor(units + uniform): for a uniform just below 1 that sum rounds up, and an exact number would move.
        count = np.floor(units)
        count = count + (units - count + uniform >= 1)
    else:
        count = np.rint(units) if rounding == "nearest" else np.floor(units)
    # count = 2^(mantissa + 1) carries into the exponent by itself, and a subnormal one has exponent field 0.
    code = ((exponent + form.bias - 1) << form.mantissa) + count.astype(np.int64)
    over = (code > form.largest_code) | np.isinf(magnitude)
    beyond = form.largest_code
    if not saturate and (rounding != "zero" or np.isinf(magnitude).any()):
        if form.special == "none" and over.any():
            raise UsageError(Problem(f"{form.name} has neither infinity nor NaN for numbers above {form.largest}"))
        if rounding == "zero":
            code = np.where((code > form.largest_code) & finite, form.largest_code, code)
            over = np.isinf(magnitude)
        beyond = form.largest_code + 1
    code = np.where(over, beyond, code)
    if np.isnan(x).any():
        if form.special == "none":
            raise UsageError(Problem(f"{form.name} has no NaN"))
        code = np.where(np.isnan(x), 2 ** (form.bits - 1) - 1, code)
    return np.asarray(np.where(np.signbit(x), code + 2 ** (form.bits - 1), code), np.uint8)


def round_minifloat(
    x: Array, form: Minifloat, rounding: str = "nearest", *, saturate: bool = True, uniform: Array | None = None
) -> Array:
    """f32 -> the f32 that its code stands for."""
    return decode(encode(x, form, rounding, saturate=saturate, uniform=uniform), form)


def finite_codes(form: Minifloat) -> Array:
    """All codes of finite numbers, u8."""
    magnitudes = np.arange(form.largest_code + 1)
    return np.concatenate([magnitudes, magnitudes + 2 ** (form.bits - 1)]).astype(np.uint8)


def search_bias(x: Array, form: Minifloat, span: int = 8) -> Minifloat:
    """The format with the exponent bias that gives x the smallest squared error; of equals the smallest bias.

    Tried are the `span` largest numbers 2^i from the smallest that does not clip max|x| downwards.
    Raises UsageError when x holds NaN or infinity.
    """
    x = np.asarray(x, np.float32)
    if not np.isfinite(x).all():
        raise UsageError(Problem("a bias cannot be searched for numbers that are NaN or infinite"))
    peak = float(np.abs(x).max(initial=0.0))
    if peak == 0.0:
        return form
    # The largest number is below 2 * 2^(top - bias): from a range that holds max|x| down to ones that clip it.
    first = form.bias - int(np.ceil(np.log2(peak / form.largest)))
    best, least = form, np.inf
    for bias in range(first, first + span):
        tried = form.with_bias(bias)
        error = float(np.square(round_minifloat(x, tried).astype(np.float64) - x).sum())
        if error < least:
            best, least = tried, error
    return best
