"""Float operators: computed in f64, rounded to f32 once. Kernels and emulation agree with them to a tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy.special

from netsuke.formats import MINIFLOATS, bf16_activations, dynamic_linear, quantize, round_bf16
from netsuke.formats.minifloat import decode
from netsuke.program.opset import ALPHA, BETA
from netsuke.program.reference.call import Array, Call, rule
from netsuke.program.reference.windows import convolve, window

Fn = Callable[[Array], Array]


def to_f32(y: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(y, np.float32)


def _sigmoid(x: Array) -> Array:
    return np.asarray(scipy.special.expit(x))


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, x))


def _gelu_tanh(x: Array) -> Array:
    return np.asarray(x * _sigmoid(2.0 * math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


UNARY: dict[str, Fn] = {
    "abs": lambda x: np.abs(x),
    "ceil": lambda x: np.ceil(x),
    "cos": lambda x: np.cos(x),
    "erf": lambda x: scipy.special.erf(x),
    "exp": lambda x: np.exp(x),
    "floor": lambda x: np.floor(x),
    "gelu": lambda x: x * scipy.special.ndtr(x),
    "gelu_tanh": lambda x: _gelu_tanh(x),
    "hard_swish": lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    "identity": lambda x: x,
    "log": lambda x: np.log(x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "neg": lambda x: -x,
    "reciprocal": lambda x: 1.0 / x,
    "relu": lambda x: np.maximum(x, 0.0),
    "round": lambda x: np.rint(x),
    "sigmoid": lambda x: _sigmoid(x),
    "sign": lambda x: np.sign(x),
    "silu": lambda x: x * _sigmoid(x),
    "sin": lambda x: np.sin(x),
    "softplus": lambda x: _softplus(x),
    "sqrt": lambda x: np.sqrt(x),
    "tanh": lambda x: np.tanh(x),
}


def _parametric(fn: str, x: Array, alpha: float, beta: float) -> Array:
    """The functions that take alpha or beta."""
    if fn == "clip":
        return np.minimum(np.maximum(x, alpha), beta)
    if fn == "hard_sigmoid":
        return np.clip(alpha * x + beta, 0.0, 1.0)
    return np.where(x < 0, alpha * (np.expm1(np.minimum(x, 0)) if fn == "elu" else x), x)


def _apply(call: Call, key: str, x: Array) -> Array:
    """The function named by attribute `key` on f64."""
    fn = call.word(key)
    if fn == "none":
        return x
    alpha, beta = call.number_or("alpha", ALPHA.get(fn, 0.0)), call.number_or("beta", BETA.get(fn, 0.0))
    with np.errstate(all="ignore"):
        if fn in ALPHA:
            return _parametric(fn, x, float(np.float32(alpha)), float(np.float32(beta)))
        return np.asarray(UNARY[fn](x))


def finish(call: Call, y: Array) -> list[Array]:
    """f32, or codes when the node has quant_scale."""
    result = to_f32(y)
    if "quant_scale" not in call.attrs:
        return [result]
    return [quantize(result, call.number("quant_scale"), call.integer("quant_zero"))]


def _matrix_tail(call: Call, y: Array) -> list[Array]:
    """+ bias, + residual, activation."""
    if call.inputs[2] is not None:
        y = y + call.inputs[2].astype(np.float64)
    r = call.inputs[3] if len(call.inputs) > 3 else None
    if r is not None:
        if r.shape != y.shape:
            raise call.wrong("the residual must have the shape of the output", list(r.shape), str(list(y.shape)))
        y = y + r.astype(np.float64)
    return [to_f32(_apply(call, "act", y))]


def _operand(call: Call) -> Array:
    """x in f64; rounded to bf16 first when the weights are bf16."""
    x = call.array(0)
    return (round_bf16(x) if call.bf16 else x).astype(np.float64)


@rule("conv")
def _conv(call: Call) -> list[Array]:
    w = call.array(1)
    groups = call.integer("groups")
    win = window(call, (w.shape[1], w.shape[2]))
    if call.array(0).shape[3] != w.shape[3] * groups:
        raise call.wrong("channels of x and w disagree")
    with np.errstate(all="ignore"):
        return _matrix_tail(call, convolve(_operand(call), w.astype(np.float64), win, groups))


@rule("conv_transpose")
def _conv_transpose(call: Call) -> list[Array]:
    x, w = call.array(0).astype(np.float64), call.array(1).astype(np.float64)
    if x.ndim != 4 or x.shape[3] != w.shape[0]:
        raise call.wrong("x must be [N, H, W, I] with I as in w")
    (sh, sw), (dh, dw), groups = call.ints("strides"), call.ints("dilations"), call.integer("groups")
    top, left, bottom, right = call.ints("pads")
    extra = call.ints("output_padding")
    n, h, wide, _ = x.shape
    kh, kw, per_out = w.shape[1:]
    full = (
        max(0, h - 1) * sh + (kh - 1) * dh + 1 + extra[0],
        max(0, wide - 1) * sw + (kw - 1) * dw + 1 + extra[1],
    )
    if full[0] <= top + bottom or full[1] <= left + right or 0 in (h, wide):
        raise call.wrong("the padding leaves no output")
    y = np.zeros((n, *full, per_out * groups))
    per_in = w.shape[0] // groups
    with np.errstate(all="ignore"):
        for g in range(groups):
            part = x[..., g * per_in : (g + 1) * per_in]
            out = slice(g * per_out, (g + 1) * per_out)
            for i in range(kh):
                for j in range(kw):
                    rows, cols = slice(i * dh, i * dh + h * sh, sh), slice(j * dw, j * dw + wide * sw, sw)
                    y[:, rows, cols, out] += part @ w[g * per_in : (g + 1) * per_in, i, j]
        return _matrix_tail(call, y[:, top : full[0] - bottom, left : full[1] - right])


@rule("linear")
def _linear(call: Call) -> list[Array]:
    x, w = _operand(call), call.array(1).astype(np.float64)
    if x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise call.wrong("the last dimension of x and w disagree")
    with np.errstate(all="ignore"):
        return _matrix_tail(call, x @ w.T)


def plain_weights(call: Call) -> Array:
    """The numbers that the weights of a `wlinear` stand for, scales included, f64 [N, K]."""
    w, form, zero = call.array(1), call.word("format"), call.inputs[3]
    group = min(call.integer("group"), w.shape[1])
    values = w.astype(np.float64) if form == "int" else decode(w, MINIFLOATS[form]).astype(np.float64)
    if zero is not None:
        values = values - np.repeat(zero.astype(np.float64), group, axis=1)[:, : w.shape[1]]
    return values * np.repeat(call.array(2).astype(np.float64), group, axis=1)[:, : w.shape[1]]


@rule("wlinear")
def _wlinear(call: Call) -> list[Array]:
    x, w, bias = call.array(0), call.array(1), call.inputs[4]
    if x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise call.wrong("the last dimension of x and w disagree")
    if call.word("compute") == "s8":  # exact
        return [dynamic_linear(x, w, call.array(2), call.inputs[3], bias, call.integer("group"))]
    if call.word("compute") == "bf16":
        x = bf16_activations(x)
    with np.errstate(all="ignore"):
        y = x.astype(np.float64) @ plain_weights(call).T
        return [to_f32(y if bias is None else y + bias)]


@rule("matmul")
def _matmul(call: Call) -> list[Array]:
    rounded = (round_bf16(call.array(i)) if call.word("compute") == "bf16" else call.array(i) for i in range(2))
    a, b = (operand.astype(np.float64) for operand in rounded)
    if call.integer("trans_b") and b.ndim >= 2:
        b = np.swapaxes(b, -1, -2)
    if min(a.ndim, b.ndim) < 2 or a.shape[-1] != b.shape[-2]:
        raise call.wrong("the matrices do not fit")
    with np.errstate(all="ignore"):
        try:
            return [to_f32((a @ b) * call.number("alpha"))]
        except ValueError as error:
            raise call.wrong("batch dimensions do not broadcast") from error


@rule("unary")
def _unary(call: Call) -> list[Array]:
    x, fn = call.array(0), call.word("fn")
    if fn == "not":
        return [~x]
    if fn == "isnan":
        return [np.isnan(x)]
    return finish(call, _apply(call, "fn", x.astype(np.float64)))


@rule("prelu")
def _prelu(call: Call) -> list[Array]:
    x, slope = call.array(0), call.array(1)
    if slope.size != 1 and (x.ndim < 1 or x.shape[-1] != slope.size):
        raise call.wrong("the last dimension of x and slope disagree")
    return [np.where(x < 0, x * slope, x).astype(np.float32)]


def _axes(call: Call, axes: list[int], rank: int) -> tuple[int, ...]:
    if any(not -rank <= axis < rank for axis in axes):
        raise call.wrong("axis out of range", axes, f"-{rank}..{rank - 1}")
    return tuple(sorted({axis % rank for axis in axes}))


@rule("softmax")
def _softmax(call: Call) -> list[Array]:
    x = call.array(0).astype(np.float64)
    (axis,) = _axes(call, [call.integer("axis")], x.ndim)
    if x.shape[axis] == 0:
        return finish(call, x)
    with np.errstate(all="ignore"):
        shifted = x - x.max(axis=axis, keepdims=True)
        total = np.exp(shifted).sum(axis=axis, keepdims=True)
        return finish(call, shifted - np.log(total) if call.integer("log") else np.exp(shifted) / total)


@rule("layernorm")
def _layernorm(call: Call) -> list[Array]:
    x = call.array(0).astype(np.float64)
    (first,) = _axes(call, [call.integer("axis")], x.ndim)
    axes, inner = tuple(range(first, x.ndim)), x.shape[first:]
    for extra in call.inputs[1:3]:
        if extra is not None and extra.shape != inner:
            raise call.wrong("gamma and beta must have the shape of the normalised dimensions", extra.shape, str(inner))
    with np.errstate(all="ignore"):
        mean = x.mean(axis=axes, keepdims=True)
        variance = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
        y = (x - mean) / np.sqrt(variance + call.number("eps"))
    gamma, beta = call.inputs[1], call.inputs[2]
    y = y if gamma is None else y * gamma.astype(np.float64)
    return finish(call, y if beta is None else y + beta.astype(np.float64))


@rule("reduce")
def _reduce(call: Call) -> list[Array]:
    x, fn, keep = call.array(0), call.word("fn"), bool(call.integer("keepdims"))
    axes = _axes(call, call.ints("axes") or list(range(x.ndim)), x.ndim)
    if fn in ("max", "min") and any(x.shape[axis] == 0 for axis in axes):
        raise call.wrong(f"{fn} over no elements")
    if x.dtype == np.int64:
        return [np.asarray(getattr(np, fn)(x, axis=axes, keepdims=keep))]
    if fn in ("any", "all"):
        return [np.asarray(getattr(np, fn)(x, axis=axes, keepdims=keep))]
    v = x.astype(np.float64)
    with np.errstate(all="ignore"):
        if fn == "l1":
            y = np.abs(v).sum(axis=axes, keepdims=keep)
        elif fn in ("l2", "sumsq"):
            y = (v * v).sum(axis=axes, keepdims=keep)
            y = np.sqrt(y) if fn == "l2" else y
        elif fn == "logsumexp":
            peak = np.nan_to_num(v.max(axis=axes, keepdims=True, initial=-np.inf), nan=np.nan, neginf=0.0)
            y = np.log(np.exp(v - peak).sum(axis=axes, keepdims=True)) + peak
            y = y if keep else y.squeeze(axes)
        else:
            y = getattr(np, fn)(v, axis=axes, keepdims=keep)
    return [to_f32(y)]


@rule("argmax")
def _argmax(call: Call) -> list[Array]:
    x = call.array(0)
    (axis,) = _axes(call, [call.integer("axis")], x.ndim)
    if x.shape[axis] == 0:
        raise call.wrong("argmax over no elements")
    return [np.asarray(np.argmax(x, axis=axis, keepdims=bool(call.integer("keepdims"))), np.int64)]
