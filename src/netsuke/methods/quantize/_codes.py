"""The quantizers of docs/numerics.md in NumPy: affine activations, symmetric weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netsuke.methods.quantize._graph import Array, along

SMALLEST = float(np.finfo(np.float32).tiny)


def affine(low: float, high: float, bits: int = 8) -> tuple[float, int]:
    """Scale (a float32 value) and zero of the unsigned quantizer of a range with low <= 0 <= high.

    scale = (high - low) / (2^b - 1), zero = rne(-low / scale). A range without extent gets scale 1, zero 0: all such
    values are exactly 0 or as good as that.
    """
    top = 2**bits - 1
    scale = float(np.float32((float(high) - float(low)) / top))
    if not scale >= SMALLEST:
        return 1.0, 0
    return scale, int(np.clip(np.rint(-float(low) / scale), 0, top))


def weight_scales(weight: Array, axis: int | None, bits: int = 8, rule: str = "maxabs") -> Array:
    """Symmetric scales, one per index of `axis` (one in all when None), float32.

    maxabs   max|W| / (2^(b-1) - 1), docs/numerics.md section 7
    mse      of the shrunken ranges (1 - 0.01 i) max|W|, i = 0 .. 79, the one with the least squared error
    """
    rows = weight.reshape(1, -1) if axis is None else np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    top = 2 ** (bits - 1) - 1
    largest = np.abs(rows).max(axis=1, initial=0).astype(np.float64)
    scales = np.where(largest > 0, np.maximum(largest / top, SMALLEST), 1.0)
    if rule == "mse":
        scales = _least_error(rows, scales, top)
    return scales.astype(np.float32)


def _least_error(rows: Array, scales: npt.NDArray[np.float64], top: int) -> npt.NDArray[np.float64]:
    best, found = np.full(scales.shape, np.inf), scales.copy()
    for i in range(80):
        trial = np.maximum(scales * (1 - 0.01 * i), SMALLEST)
        codes = np.clip(np.rint(rows / trial[:, None]), -top, top)
        error = ((rows - codes * trial[:, None]) ** 2).sum(axis=1)
        better = error < best
        best, found = np.where(better, error, best), np.where(better, trial, found)
    return found


def weight_codes(weight: Array, scales: Array, axis: int | None, bits: int = 8) -> npt.NDArray[np.int8]:
    """Signed symmetric codes, rne(W / s) clamped to +-(2^(b-1) - 1)."""
    top = 2 ** (bits - 1) - 1
    steps = scales.reshape(()) if axis is None else along(scales, axis, weight.ndim)
    codes = np.rint(weight / steps)
    return np.asarray(np.clip(codes, -top, top), np.int8)


def fake_quantize(x: Array, scale: float, zero: int, bits: int = 8) -> Array:
    """Quantize and dequantize, docs/numerics.md section 2, in float32."""
    codes = signed_codes(x, scale, zero, bits)
    codes *= np.float32(scale)
    return codes


def signed_codes(x: Array, scale: float, zero: int, bits: int = 8) -> Array:
    """Codes minus zero, docs/numerics.md section 2, as float32 integers."""
    codes = np.asarray(x / np.float32(scale), np.float32)
    np.clip(codes, np.float32(-zero), np.float32(2**bits - 1 - zero), out=codes)
    return np.rint(codes, out=codes)
