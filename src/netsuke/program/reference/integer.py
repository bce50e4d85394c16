"""Integer operators, exact. Sums are formed by f64 matrix products on integers.

Why that is exact: every product of a code and a weight is an integer of at most 16 bits, and every partial sum in
any order is an integer no larger than the accumulator bound of the layer (below 2^31, proved in `verify`). All of
them are below 2^53, so each f64 addition, fused or not, in whatever order the BLAS takes, gives the integer itself.
"""

from __future__ import annotations

import numpy as np

from netsuke.formats import (
    ACC_LIMIT,
    dequantize,
    fma,
    matmul_bound,
    quantize,
    requantize,
    requantize_dyadic,
    requantize_f32,
)
from netsuke.program.reference.call import Array, Call, rule
from netsuke.program.reference.windows import convolve, window


@rule("quantize")
def _quantize(call: Call) -> list[Array]:
    return [quantize(call.array(0), call.number("scale"), **call.clip())]


@rule("dequantize")
def _dequantize(call: Call) -> list[Array]:
    return [dequantize(call.array(0), call.number("scale"), call.integer("zero"))]


def _centered(call: Call, index: int, zero: str) -> Array:
    """Codes minus their zero point as f64: padded positions are 0."""
    return np.asarray(call.array(index).astype(np.float64) - call.integer(zero))


def _conv_sums(call: Call) -> Array:
    w = call.array(1)
    win = window(call, (w.shape[1], w.shape[2]))
    groups = call.integer("groups")
    if call.array(0).shape[3] != w.shape[3] * groups:
        raise call.wrong("channels of x and w disagree")
    return convolve(_centered(call, 0, "x_zero"), w.astype(np.float64), win, groups)


def _linear_sums(call: Call) -> Array:
    w = call.array(1)
    if call.array(0).ndim < 1 or call.array(0).shape[-1] != w.shape[1]:
        raise call.wrong("the last dimension of x and w disagree")
    return np.asarray(_centered(call, 0, "x_zero") @ w.astype(np.float64).T)


def accumulate(call: Call) -> Array:
    """Section 3: the exact accumulators of a qconv or qlinear (dyadic or not), int64 [..., O]."""
    sums = _conv_sums(call) if "strides" in call.attrs else _linear_sums(call)
    bias = call.inputs[4]
    acc = sums.astype(np.int64)
    return acc if bias is None else acc + bias.astype(np.int64)


def _residual(call: Call, shape: tuple[int, ...]) -> Array | None:
    r = call.inputs[5]
    if r is None:
        return None
    if r.shape != shape:
        raise call.wrong("the residual must have the shape of the output", list(r.shape), str(list(shape)))
    return r.astype(np.int32) - call.integer("r_zero") if r.dtype == np.uint8 else r


@rule("qconv", "qlinear")
def _real(call: Call) -> list[Array]:
    acc = accumulate(call)
    residual = _residual(call, acc.shape)
    if call.word("out") == "f32":
        limits = {"flo": call.number_or("flo", -np.inf), "fhi": call.number_or("fhi", np.inf)}
        return [requantize_f32(acc, call.array(2), call.inputs[3], residual, **limits)]
    return [requantize(acc, call.array(2), call.inputs[3], residual, call.number("r_mult"), **call.clip())]


@rule("qconv_dyadic", "qlinear_dyadic")
def _dyadic(call: Call) -> list[Array]:
    acc = accumulate(call)
    residual = _residual(call, acc.shape)
    scale = (call.array(2), call.array(3))
    return [requantize_dyadic(acc, *scale, residual, call.integer("r_m"), call.integer("r_e"), **call.clip())]


@rule("qmatmul")
def _qmatmul(call: Call) -> list[Array]:
    a, b = _centered(call, 0, "a_zero"), _centered(call, 1, "b_zero")
    if call.integer("trans_b") and b.ndim >= 2:
        b = np.swapaxes(b, -1, -2)
    if min(a.ndim, b.ndim) < 2 or a.shape[-1] != b.shape[-2]:
        raise call.wrong("the matrices do not fit")
    bound = matmul_bound(a.shape[-1], call.integer("a_zero"), call.integer("b_zero"))
    if bound > ACC_LIMIT:
        raise call.wrong("the accumulator can leave int32", bound, str(ACC_LIMIT))
    try:
        acc = (a @ b).astype(np.int64)
    except ValueError as error:
        raise call.wrong("batch dimensions do not broadcast") from error
    if call.word("out") == "f32":
        return [requantize_f32(acc, call.number("mult"))]
    return [requantize(acc, call.number("mult"), **call.clip())]


def _pair(call: Call) -> tuple[Array, Array]:
    a = call.array(0).astype(np.int32) - call.integer("a_zero")
    b = call.array(1).astype(np.int32) - call.integer("b_zero")
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError as error:
        raise call.wrong("shapes do not broadcast") from error
    return a, b


@rule("qadd")
def _qadd(call: Call) -> list[Array]:
    a, b = _pair(call)
    if "offset" in call.attrs:
        codes = [call.array(i).astype(np.float32) for i in (0, 1)]
        inner = fma(codes[1], call.number("b_mult"), call.number("offset"))
        t = fma(codes[0], call.number("a_mult"), inner)
        return [quantize(t, 1.0, 0, call.integer("lo"), call.integer("hi"))]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        t = a.astype(np.float32) * np.float32(call.number("a_mult"))
        u = b.astype(np.float32) * np.float32(call.number("b_mult"))
        return [quantize(t + u, 1.0, **call.clip())]


@rule("qadd_dyadic")
def _qadd_dyadic(call: Call) -> list[Array]:
    a, b = _pair(call)
    m, e = call.integer("a_m"), call.integer("a_e")
    return [requantize_dyadic(a, m, e, b, call.integer("b_m"), call.integer("b_e"), **call.clip())]


@rule("qmul")
def _qmul(call: Call) -> list[Array]:
    a, b = _pair(call)
    return [requantize(a * b, call.number("mult"), **call.clip())]


@rule("lut")
def _lut(call: Call) -> list[Array]:
    x, table = call.array(0), call.array(1)
    if table.ndim == 1:
        return [table[x]]
    if x.ndim < 1 or x.shape[-1] != table.shape[0]:
        raise call.wrong("the last dimension of x and the number of tables disagree")
    return [table[np.arange(table.shape[0]), x]]
