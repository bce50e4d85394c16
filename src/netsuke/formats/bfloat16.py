"""bfloat16 as its 16 bits (u16): the upper half of an f32, rounded to nearest even, toward zero or at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def f32_to_bf16(x: Array, rounding: str = "nearest", *, uniform: Array | None = None) -> Array:
    """f32 -> u16; overflow gives infinity (toward zero: the largest number), every NaN gives 0x7FC0.

    rounding: "nearest" (halves to even), "zero", or "stochastic": up when the 16 bits cut off, as a fraction, plus
    `uniform` (numbers in [0, 1) of x's shape) reach 1; the probability of going up is that fraction to 16 bits.
    """
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).reshape(np.shape(x)).astype(np.uint64)
    if rounding == "nearest":
        # Adding half of the last kept bit, plus one more when that bit is odd, carries exactly when rounding goes up.
        bits = bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))
    elif rounding == "stochastic":
        if uniform is None:
            raise ValueError("stochastic rounding takes `uniform`, numbers in [0, 1) of the shape of x")
        finite = np.isfinite(np.asarray(x, np.float32))
        bits = bits + np.where(finite, np.floor(np.asarray(uniform, np.float64) * 65536), 0).astype(np.uint64)
    elif rounding != "zero":
        raise ValueError(f"rounding must be nearest, stochastic or zero, got {rounding!r}")
    return np.where(np.isnan(x), np.uint16(0x7FC0), (bits >> np.uint64(16)).astype(np.uint16))


def bf16_to_f32(bits: Array) -> Array:
    """u16 -> f32, exact."""
    return (np.ascontiguousarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(np.shape(bits))


def round_bf16(x: Array, rounding: str = "nearest", *, uniform: Array | None = None) -> Array:
    """f32 -> an f32 that a bfloat16 can hold: the nearest, or as `rounding` says."""
    return bf16_to_f32(f32_to_bf16(x, rounding, uniform=uniform))
