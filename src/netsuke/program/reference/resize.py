"""Resize of NHWC images, nearest and linear, bit for bit as section 6 of docs/numerics.md says (codes and f32)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from netsuke.program.reference.call import Array, Call, rule
from netsuke.program.reference.movement import MAX_ELEMENTS


def coordinates(size: int, out: int, scale: float, coord: str) -> Array:
    """Position in the input of every output index along one axis, f64 [out], not clamped."""
    i = np.arange(out, dtype=np.float64)
    if coord == "align_corners":
        return i * ((size - 1) / (out - 1)) if out > 1 else np.zeros(out)
    if coord == "asymmetric":
        return i / scale
    if coord == "pytorch_half_pixel" and out == 1:
        return np.zeros(out)
    return (i + 0.5) / scale - 0.5


def nearest_indices(x: Array, mode: str, size: int) -> Array:
    """Input index of each position, i64."""
    rounding: dict[str, Callable[[Array], Array]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda v: np.ceil(v - 0.5),
        "round_prefer_ceil": lambda v: np.floor(v + 0.5),
    }
    return np.asarray(np.clip(rounding[mode](x), 0, size - 1), np.int64)


def linear_weights(x: Array, size: int) -> tuple[Array, Array, Array]:
    """Lower index, upper index and f32 weight of the upper one."""
    inside = np.clip(x, 0.0, size - 1)
    lower = np.floor(inside).astype(np.int64)
    return lower, np.minimum(lower + 1, size - 1), (inside - lower).astype(np.float32)


def _lerp(a: Array, b: Array, weight: Array) -> Array:
    return np.asarray(a + weight * (b - a))


@rule("resize")
def _resize(call: Call) -> list[Array]:
    x = call.array(0)
    if x.ndim != 4 or 0 in x.shape[1:3]:
        raise call.wrong("the input must be [N, H, W, C] with at least one position")
    sizes = call.inputs[1]
    axes = []
    for axis in (0, 1):
        size = x.shape[1 + axis]
        if sizes is not None:
            out = int(sizes.reshape(-1)[axis])
            scale = out / size
        else:
            scale = float(np.float32(call.array(2).reshape(-1)[axis]))
            out = math.floor(size * scale)
        if out < 1 or not math.isfinite(scale):
            raise call.wrong("the output would be empty", [out, scale])
        if out * max(1, x.size) > MAX_ELEMENTS:
            raise call.wrong("the result is too large", out)
        axes.append((size, coordinates(size, out, scale, call.word("coord"))))
    (h, rows), (w, cols) = axes
    if call.word("mode") == "nearest":
        mode = call.word("nearest")
        return [x[:, nearest_indices(rows, mode, h)][:, :, nearest_indices(cols, mode, w)]]
    (top, bottom, down), (left, right, across) = linear_weights(rows, h), linear_weights(cols, w)
    v = x.astype(np.float32)
    with np.errstate(all="ignore"):
        horizontal = _lerp(v[:, :, left], v[:, :, right], across[None, None, :, None])
        y = _lerp(horizontal[:, top], horizontal[:, bottom], down[None, :, None, None])
    return [np.rint(y).astype(np.uint8) if x.dtype == np.uint8 else y.astype(np.float32)]
