"""Stochastic rounding with a counter-based generator: the definition that the kernels of runtime/train follow.

The noise of element i depends on (key, stream, i) alone: Philox 4x32 with 7 rounds (Salmon et al. 2011). Blocks of 64
elements use eight counters; element e of block s takes half `(e // 8) % 2` (0: low) of word `e // 16` of counter
`8 s + e % 8`. Noise is `(half + 0.5) / 65536`, so P(floor(u + noise) = ceil(u)) equals the fraction of u to 2^-17.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 7
BLOCK = 64
_M0, _M1, _W0, _W1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF


def philox(key: int, stream: int, counters: NDArray[np.uint64]) -> list[NDArray[np.uint64]]:
    """Four 32-bit words (as uint64) for every counter."""
    x0: Any
    x1: Any
    x2: Any
    x3: Any
    x0, x1 = counters & _LOW, counters >> np.uint64(32)
    x2 = np.full_like(counters, stream & _LOW)
    x3 = np.full_like(counters, stream >> 32)
    k0, k1 = key & _LOW, key >> 32
    for _ in range(ROUNDS):
        p0, p1 = x0 * np.uint64(_M0), x2 * np.uint64(_M1)
        x0, x1 = (p1 >> np.uint64(32)) ^ x1 ^ np.uint64(k0), p1 & np.uint64(_LOW)
        x2, x3 = (p0 >> np.uint64(32)) ^ x3 ^ np.uint64(k1), p0 & np.uint64(_LOW)
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return [x0, x1, x2, x3]


def noise(key: int, stream: int, count: int) -> NDArray[np.float32]:
    """The noise of elements 0 .. count - 1, in (0, 1)."""
    blocks = -(-count // BLOCK)
    counters = np.arange(blocks * 8, dtype=np.uint64).reshape(blocks, 8)
    words = philox(key, stream, counters)
    out = np.empty((blocks, 8, 8), np.float32)
    for k in range(8):
        half = (words[k // 2] >> np.uint64(16 * (k % 2))) & np.uint64(0xFFFF)
        out[:, k] = (half.astype(np.float32) + np.float32(0.5)) * np.float32(1 / 65536)
    return out.reshape(-1)[:count]


def quantize(
    x: NDArray[np.float32], scale: NDArray[np.float32], lo: int, hi: int, seed: tuple[int, int] | None
) -> NDArray[np.int32]:
    """`clamp(floor(x / scale + noise), lo, hi)`, or `rne(clamp(x / scale, lo, hi))` without a seed; NaN gives lo.

    scale repeats over the last axis of x (one scale, or one a channel). seed is (key, stream).
    """
    with np.errstate(invalid="ignore", over="ignore"):
        u = x / scale
        if seed is not None:
            u = np.floor(u + noise(*seed, u.size).reshape(u.shape))
        u = np.where(u > np.float32(lo), u, np.float32(lo))
        u = np.where(u < np.float32(hi), u, np.float32(hi))
        return np.asarray(np.rint(u), np.int32)
