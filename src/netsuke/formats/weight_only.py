"""Weights quantized by groups of a row, activations by groups or to bfloat16 on the fly (docs/numerics.md, 12)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from netsuke.formats.bfloat16 import round_bf16
from netsuke.formats.integer import clamp, rne

Array = npt.NDArray[Any]
F32 = np.float32
WEIGHT_BLOCK = 32  # groups are whole blocks, so that a kernel never changes its scale inside one
S8_PRODUCT = 127 * 255  # the largest |q (w - zero)|
SMALLEST_TOP = F32(2.0**-100)  # a group of x below it counts as zeros: 127 / top stays finite
SMALLEST_BF16 = F32(2.0**-100)  # a bfloat16 of x below it counts as zero: no sum can become a subnormal number


def groups_of(array: Array, group: int) -> Array:
    """[..., K] -> [..., G, group], the last group filled with zeros; group above K counts as K."""
    depth = array.shape[-1]
    group = min(group, depth)
    count = -(-depth // group)
    padded = np.zeros((*array.shape[:-1], count * group), array.dtype)
    padded[..., :depth] = array
    return padded.reshape(*array.shape[:-1], count, group)


def quantize_activations(x: Array, group: int) -> tuple[Array, Array]:
    """f32 [..., K] -> codes s8 [..., G, group] and scales f32 [..., G]: q = rne(clamp(x * (127 / top), -127, 127)).

    top = max|x| of the group, scale = top / 127. A group with NaN or infinity gets scale NaN and codes 0; one whose
    top is below 2^-100 scale 0 and codes 0.
    """
    parts = groups_of(np.asarray(x, F32), group)
    finite = np.isfinite(parts).all(axis=-1)
    top = np.where(finite, np.abs(parts).max(axis=-1, initial=0.0), F32(0)).astype(F32)
    used = top >= SMALLEST_TOP
    safe = np.where(used, top, F32(1))
    scale = np.where(finite, np.where(used, safe / F32(127), F32(0)), F32(np.nan)).astype(F32)
    inverse = np.where(used, F32(127) / safe, F32(0)).astype(F32)
    with np.errstate(invalid="ignore"):
        t = np.where((finite & used)[..., None], parts, F32(0)) * inverse[..., None]
    return rne(clamp(t, -127, 127)).astype(np.int8), scale


def bf16_activations(x: Array) -> Array:
    """f32 -> the f32 that a weight-only layer computing in bf16 multiplies: nearest bfloat16, below 2^-100 zero."""
    y = round_bf16(np.asarray(x, F32))
    return np.where(np.abs(y) < SMALLEST_BF16, F32(0), y)


def dynamic_linear(x: Array, w: Array, scale: Array, zero: Array | None, bias: Array | None, group: int) -> Array:
    """compute = "s8" of section 12: f32 [..., K] by codes s8 [N, K] -> f32 [..., N], bit for bit."""
    codes, x_scale = quantize_activations(x, group)
    weights = groups_of(w, group).astype(np.float64)  # sums are below 2^31: f64 products are exact
    if zero is not None:
        # The filled end of the last group is multiplied by codes that are 0, so its weights need no care.
        weights = weights - zero[..., None]
    acc = np.zeros((*x.shape[:-1], w.shape[0]), F32)
    with np.errstate(all="ignore"):
        for g in range(weights.shape[1]):
            sums = (codes[..., g, :].astype(np.float64) @ weights[:, g].T).astype(F32)
            acc = acc + sums * (x_scale[..., g, None] * scale[:, g])
        return acc if bias is None else np.asarray(acc + bias)


def quantize_groups(
    weights: Array, bits: int, group: int, *, symmetric: bool = True
) -> tuple[Array, Array, Array | None]:
    """f32 [N, K] -> codes s8 [N, K], scales f32 [N, G] and zero points s8 [N, G] (None when symmetric).

    Symmetric: scale = max|w| / (2^(bits-1) - 1). Otherwise 2^bits codes from min(w, 0) to max(w, 0), zero point
    included. bits 2 to 8. A group of zeros takes scale 1.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be 2..8, got {bits}")
    parts = groups_of(np.asarray(weights, F32), group)
    half = 2 ** (bits - 1)
    tiny = np.finfo(F32).tiny
    if symmetric:
        top = np.abs(parts).max(axis=-1)
        scale = np.where(top == 0, F32(1), np.maximum(top / F32(half - 1), tiny)).astype(F32)
        codes = clamp(rne(parts / scale[..., None]), -(half - 1), half - 1)
        zero = None
    else:
        low, high = np.minimum(parts.min(axis=-1), 0), np.maximum(parts.max(axis=-1), 0)
        span = (high - low).astype(F32)
        scale = np.where(span == 0, F32(1), np.maximum(span / F32(2 * half - 1), tiny)).astype(F32)
        zero = clamp(rne(-low / scale) - half, -half, half - 1).astype(np.int8)
        codes = clamp(rne(parts / scale[..., None]) + zero[..., None].astype(F32), -half, half - 1)
    flat = codes.astype(np.int8).reshape(parts.shape[0], -1)[:, : weights.shape[1]]
    return np.ascontiguousarray(flat), scale, zero
