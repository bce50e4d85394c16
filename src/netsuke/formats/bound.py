"""The proof that an accumulator fits int32. Section 3 of docs/numerics.md."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ACC_LIMIT = 2**31 - 1


def accumulator_bound(w: Array, x_zero: int, lo_x: int = 0, hi_x: int = 255, acc_bias: Array | None = None) -> Array:
    """Largest |partial sum| of each output channel, int64 [O], for weights s8 [O, ...] and input codes in [lo_x, hi_x].

    One sided sums: with P the sum of positive and N of negated negative weights, no sum of any subset of the products
    is above max(P * up + N * down, N * up + P * down), up = hi_x - x_zero, down = x_zero - lo_x (not below 0: padding
    contributes 0).
    """
    flat = np.asarray(w).reshape(w.shape[0], -1)
    total = flat.sum(axis=1, dtype=np.int64)
    positive = np.maximum(flat, 0).sum(axis=1, dtype=np.int64)
    negative = positive - total
    up, down = max(0, hi_x - x_zero), max(0, x_zero - lo_x)
    bound = np.maximum(positive * up + negative * down, negative * up + positive * down)
    if acc_bias is not None:
        bound = bound + np.abs(np.asarray(acc_bias).astype(np.int64))
    return np.asarray(bound)


def matmul_bound(depth: int, a_zero: int, b_zero: int) -> int:
    """Largest |partial sum| of a product of two u8 matrices over `depth` terms."""
    return depth * max(a_zero, 255 - a_zero) * max(b_zero, 255 - b_zero)
