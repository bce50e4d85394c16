"""One-bit operators (numerics.md section 10): signs unpacked to +1 and -1, exact sums in f64, integer thresholds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from netsuke.formats import pack_bits, quantize, unpack_bits
from netsuke.program.reference.call import Array, Call, rule
from netsuke.program.reference.windows import convolve, window

_THRESHOLD = 7  # input index of the threshold of bconv and blinear
_FLIP = 8


def _flipped(call: Call, bits: Array, index: int) -> Array:
    flip = call.inputs[index]
    return bits if flip is None else bits ^ flip


@rule("sign_pack")
def _sign_pack(call: Call) -> list[Array]:
    x, threshold = call.array(0), call.array(1)
    if x.ndim < 1 or x.shape[-1] != threshold.shape[0]:
        raise call.wrong("the last dimension of x and the thresholds disagree")
    wide = x if x.dtype == np.float32 else x.astype(np.int32)
    return [pack_bits(_flipped(call, wide >= threshold, 2))]


def _signs(words: Array, channels: int, low: float = -1.0) -> Array:
    """+1 and `low` as f64."""
    return np.where(unpack_bits(words, channels), 1.0, low)


def _low(call: Call) -> float:
    """What a bit of 0 in x stands for."""
    return -1.0 if call.word("levels") == "sign" else 0.0


def _conv_sums(call: Call) -> Array:
    x, w, channels, groups = call.array(0), call.array(1), call.integer("channels"), call.integer("groups")
    win = window(call, (w.shape[1], w.shape[2]))
    signs = _signs(x, channels, _low(call))
    top, left, bottom, right = win.pads
    margins = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(signs, margins, constant_values=float(call.integer("pad_value")))
    inner = replace(win, pads=(0, 0, 0, 0), size=(padded.shape[1], padded.shape[2]))
    return convolve(padded, _signs(w, channels // groups), inner, groups)


def binary_sums(call: Call) -> Array:
    """The exact accumulators of a bconv or blinear, int64 [..., O]."""
    channels = call.integer("channels")
    x = call.array(0)
    if x.ndim < 1 or x.shape[-1] != (channels + 63) // 64:
        raise call.wrong("x has not as many words as the channels take", allowed=f"{(channels + 63) // 64} words")
    if "strides" in call.attrs:
        return _conv_sums(call).astype(np.int64)
    return np.asarray(_signs(x, channels, _low(call)) @ _signs(call.array(1), channels).T).astype(np.int64)


def _real(call: Call, acc: Array) -> Array:
    """Scale, bias, residual, slope and shift in f32, one operation a step."""
    t = acc.astype(np.float32) * call.array(2)
    if call.inputs[3] is not None:
        t = t + call.array(3)
    residual = call.inputs[6]
    if residual is not None:
        if residual.shape != acc.shape:
            raise call.wrong("the residual must have the shape of the output", list(residual.shape), str(acc.shape))
        if residual.dtype == np.uint8:
            centred = (residual.astype(np.int32) - call.integer("r_zero")).astype(np.float32)
            residual = centred * np.float32(call.number("r_mult"))
        t = t + residual
    if call.inputs[4] is not None:
        t = np.where(t > 0, t, t * call.array(4))
    if call.inputs[5] is not None:
        t = t + call.array(5)
    return np.asarray(t, np.float32)


@rule("bconv", "blinear")
def _binary_layer(call: Call) -> list[Array]:
    acc = binary_sums(call)
    if call.word("out") == "bits":
        return [pack_bits(_flipped(call, acc >= call.array(_THRESHOLD), _FLIP))]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        t = _real(call, acc)
    if call.word("out") == "u8":
        y = quantize(t, 1.0, **call.clip())
        wide = y.astype(np.int32)
    else:
        y = wide = t
    if len(call.node.outputs) == 1:
        return [y]
    return [y, pack_bits(_flipped(call, wide >= call.array(_THRESHOLD), _FLIP))]


def _product_sums(call: Call) -> Array:
    """f32 [..., M, N]: exact sums of signs, or numbers added and subtracted in the order of k."""
    channels, a, b = call.integer("channels"), call.array(0), call.array(1)
    words = (channels + 63) // 64
    packed = b.dtype == np.int64
    terms = b.shape[-1] == words if packed else b.ndim >= 2 and b.shape[-2] == channels
    if a.ndim < 2 or a.ndim != b.ndim or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != words or not terms:
        raise call.wrong(f"a and b do not multiply over {channels} channels")
    set_ = unpack_bits(a, channels)
    if packed:
        left = _signs(a, channels, _low(call))
        return np.asarray(left @ np.swapaxes(_signs(b, channels), -1, -2), np.float32)
    acc = np.zeros((*a.shape[:-1], b.shape[-1]), np.float32)
    for k in range(channels):
        bit, row = set_[..., k, None], b[..., k, None, :]
        acc = np.where(bit, acc + row, acc - row if call.word("levels") == "sign" else acc)
    return acc


@rule("bmatmul")
def _binary_product(call: Call) -> list[Array]:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        acc = _product_sums(call)
        if call.word("out") == "f32":
            return [np.asarray(acc * np.float32(call.number("mult")), np.float32)]
    if acc.shape[-1] != call.integer("columns"):
        raise call.wrong("b has not as many rows as columns says", allowed=str(call.integer("columns")))
    exact = acc.astype(np.int64)
    limit = exact.max(axis=-1, keepdims=True) if call.integer("relative") else 0
    return [pack_bits(exact >= limit + call.integer("threshold"))]
