"""bfloat16 as its 16 bits (u16): the upper half of an f32, rounded to nearest even."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def f32_to_bf16(x: Array) -> Array:
    """f32 -> u16, nearest even; overflow gives infinity, every NaN gives 0x7FC0."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    # Adding half of the last kept bit, plus one more when that bit is odd, carries exactly when rounding goes up.
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded).reshape(np.shape(x))


def bf16_to_f32(bits: Array) -> Array:
    """u16 -> f32, exact."""
    return (np.ascontiguousarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(np.shape(bits))


def round_bf16(x: Array) -> Array:
    """f32 -> the nearest f32 that a bfloat16 can hold."""
    return bf16_to_f32(f32_to_bf16(x))
