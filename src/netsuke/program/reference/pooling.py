"""Pools and spatial means, integer and float."""

from __future__ import annotations

import numpy as np

from netsuke.formats import ACC_LIMIT, requantize, requantize_dyadic
from netsuke.program.reference.call import Array, Call, rule
from netsuke.program.reference.windows import Window, taps, window


def _window(call: Call) -> Window:
    kernel = call.ints("kernel")
    return window(call, (kernel[0], kernel[1]))


def _counts(win: Window, include_pad: bool) -> Array:
    """Elements that each window averages over, int64 [oh, ow, 1]; at least 1.

    Padding counts only with include_pad, and then only inside the padded image: what hangs over its end in ceil mode
    never counts.
    """
    per_axis = []
    for axis in (0, 1):
        first, last = (-win.pads[axis], win.size[axis] + win.pads[axis + 2]) if include_pad else (0, win.size[axis])
        starts = np.arange(win.out[axis]) * win.strides[axis] - win.pads[axis]
        ends = starts + win.kernel[axis]
        per_axis.append(np.minimum(ends, last) - np.maximum(starts, first))
    return np.asarray(np.maximum(1, np.maximum(0, per_axis[0])[:, None, None] * np.maximum(0, per_axis[1])[:, None]))


@rule("qavgpool")
def _qavgpool(call: Call) -> list[Array]:
    win = _window(call)
    centered = call.array(0).astype(np.int64) - call.integer("x_zero")
    sums = taps(centered, win, 0).sum(axis=(3, 4))
    mult = np.float32(call.number("mult")) / _counts(win, bool(call.integer("count_include_pad"))).astype(np.float32)
    return [requantize(sums, mult, **call.clip())]


@rule("qmean")
def _qmean(call: Call) -> list[Array]:
    x = call.array(0)
    if x.ndim != 4 or x.shape[1] * x.shape[2] == 0:
        raise call.wrong("the input must be [N, H, W, C] with at least one position")
    count = x.shape[1] * x.shape[2]
    if count * 255 > ACC_LIMIT:
        raise call.wrong("the accumulator can leave int32", count * 255, str(ACC_LIMIT))
    sums = (x.astype(np.int64) - call.integer("x_zero")).sum(axis=(1, 2), keepdims=True)
    return [requantize(sums, float(np.float32(call.number("mult")) / np.float32(count)), **call.clip())]


@rule("qmean_dyadic")
def _qmean_dyadic(call: Call) -> list[Array]:
    x, count = call.array(0), call.integer("count")
    if x.ndim != 4 or x.shape[1] * x.shape[2] != count:
        raise call.wrong("the input must be [N, H, W, C] with H * W = count", list(x.shape), f"{count} positions")
    sums = (x.astype(np.int64) - call.integer("x_zero")).sum(axis=(1, 2), keepdims=True)
    return [requantize_dyadic(sums, call.integer("m"), call.integer("e"), **call.clip())]


@rule("avgpool")
def _avgpool(call: Call) -> list[Array]:
    win = _window(call)
    sums = taps(call.array(0).astype(np.float64), win, 0.0).sum(axis=(3, 4))
    return [(sums / _counts(win, bool(call.integer("count_include_pad")))).astype(np.float32)]


@rule("maxpool")
def _maxpool(call: Call) -> list[Array]:
    x = call.array(0)
    lowest = 0 if x.dtype == np.uint8 else -np.inf
    return [taps(x, _window(call), lowest).max(axis=(3, 4))]
