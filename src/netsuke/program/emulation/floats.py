"""Float operators on torch's own functions. They agree with the reference to a tolerance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from netsuke.formats import MINIFLOATS
from netsuke.formats.minifloat import decode
from netsuke.formats.weight_only import SMALLEST_BF16
from netsuke.nn import integer
from netsuke.program.emulation.call import Call, rule
from netsuke.program.emulation.integer import window_counts, window_image, window_sums
from netsuke.program.opset import ALPHA, BETA

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "erf": torch.erf,
    "exp": torch.exp,
    "floor": torch.floor,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "hard_swish": functional.hardswish,
    "identity": lambda x: x,
    "log": torch.log,
    "mish": functional.mish,
    "neg": torch.neg,
    "reciprocal": torch.reciprocal,
    "relu": functional.relu,
    "round": torch.round,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "silu": functional.silu,
    "sin": torch.sin,
    "softplus": functional.softplus,
    "sqrt": torch.sqrt,
    "tanh": torch.tanh,
    "not": torch.logical_not,
    "isnan": torch.isnan,
}


def apply(call: Call, key: str, x: Tensor) -> Tensor:
    """The function named by attribute `key`."""
    fn = call.word(key)
    alpha, beta = call.number_or("alpha", ALPHA.get(fn, 0.0)), call.number_or("beta", BETA.get(fn, 0.0))
    if fn == "none":
        return x
    if fn == "clip":
        return torch.clamp(x, alpha, beta)
    if fn == "hard_sigmoid":
        return torch.clamp(alpha * x + beta, 0.0, 1.0)
    if fn == "leaky_relu":
        return functional.leaky_relu(x, alpha)
    if fn == "elu":
        return functional.elu(x, alpha)
    return UNARY[fn](x)


def _finish(call: Call, y: Tensor) -> list[Tensor]:
    if "quant_scale" not in call.attrs:
        return [y]
    return [integer.quantize(y, call.number("quant_scale"), call.integer("quant_zero"))]


def _operand(call: Call) -> Tensor:
    x = call.tensor(0)
    return x.to(torch.bfloat16).to(torch.float32) if call.dtypes[1] == "bf16" else x


def _tail(call: Call, y: Tensor) -> list[Tensor]:
    bias, r = call.inputs[2], call.inputs[3] if len(call.inputs) > 3 else None
    y = y if bias is None else y + bias
    return [apply(call, "act", y if r is None else y + r)]


@rule("conv")
def _conv(call: Call) -> list[Tensor]:
    top, left, bottom, right = call.ints("pads")
    image = functional.pad(_operand(call).permute(0, 3, 1, 2), (left, right, top, bottom))
    w = call.tensor(1).permute(0, 3, 1, 2)
    window: dict[str, Any] = {
        "stride": call.ints("strides"),
        "dilation": call.ints("dilations"),
        "groups": call.integer("groups"),
    }
    return _tail(call, functional.conv2d(image, w, **window).permute(0, 2, 3, 1))


@rule("conv_transpose")
def _conv_transpose(call: Call) -> list[Tensor]:
    top, left, bottom, right = call.ints("pads")
    w = call.tensor(1).permute(0, 3, 1, 2)
    window: dict[str, Any] = {
        "stride": call.ints("strides"),
        "dilation": call.ints("dilations"),
        "groups": call.integer("groups"),
    }
    full = functional.conv_transpose2d(call.tensor(0).permute(0, 3, 1, 2), w, **window)
    extra = call.ints("output_padding")
    full = functional.pad(full, (0, extra[1], 0, extra[0])).permute(0, 2, 3, 1)
    return _tail(call, full[:, top : full.shape[1] - bottom, left : full.shape[2] - right])


@rule("linear")
def _linear(call: Call) -> list[Tensor]:
    return _tail(call, functional.linear(_operand(call), call.tensor(1)))


@rule("wlinear")
def _wlinear(call: Call) -> list[Tensor]:
    x, w, scale = call.tensor(0), call.tensor(1), call.tensor(2)
    group = min(call.integer("group"), w.shape[1])
    if call.word("format") != "int":
        numbers = decode(np.arange(256, dtype=np.uint8), MINIFLOATS[call.word("format")])
        w = torch.from_numpy(numbers).to(w.device)[w.to(torch.int64)]
    if call.word("compute") == "s8":
        return [integer.dynamic_linear(x, w, scale, call.inputs[3], call.inputs[4], group)]
    spread = scale.repeat_interleave(group, dim=1)[:, : w.shape[1]]
    if call.inputs[3] is not None:
        w = w - call.tensor(3).repeat_interleave(group, dim=1)[:, : w.shape[1]]
    if call.word("compute") == "bf16":
        x = x.to(torch.bfloat16).to(torch.float32)
        x = torch.where(x.abs() < float(SMALLEST_BF16), torch.zeros_like(x), x)
    return [functional.linear(x, w * spread, call.inputs[4])]


@rule("matmul")
def _matmul(call: Call) -> list[Tensor]:
    a, b = call.tensor(0), call.tensor(1)
    if call.word("compute") == "bf16":
        a, b = (operand.to(torch.bfloat16).to(torch.float32) for operand in (a, b))
    b = b.transpose(-1, -2) if call.integer("trans_b") else b
    return [(a @ b) * call.number("alpha")]


@rule("unary")
def _unary(call: Call) -> list[Tensor]:
    return _finish(call, apply(call, "fn", call.tensor(0)))


@rule("prelu")
def _prelu(call: Call) -> list[Tensor]:
    x = call.tensor(0)
    return [torch.where(x < 0, x * call.tensor(1), x)]


_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "pow": torch.pow,
    "min": torch.minimum,
    "max": torch.maximum,
    "mod": torch.fmod,
    "and": torch.logical_and,
    "or": torch.logical_or,
    "xor": torch.logical_xor,
    "equal": torch.eq,
    "less": torch.lt,
    "less_equal": torch.le,
    "greater": torch.gt,
    "greater_equal": torch.ge,
}


@rule("binary")
def _binary(call: Call) -> list[Tensor]:
    a, b, fn = call.tensor(0), call.tensor(1), call.word("fn")
    if not a.is_floating_point() and fn == "div":
        return [torch.div(a, b, rounding_mode="trunc")]
    if not a.is_floating_point() and fn == "mod":
        return [torch.remainder(a, b)]
    return _finish(call, _BINARY[fn](a, b))


@rule("where")
def _where(call: Call) -> list[Tensor]:
    return [torch.where(call.tensor(0), call.tensor(1), call.tensor(2))]


_LIMITS = {"u8": (0, 255), "s8": (-128, 127), "i32": (-(2**31), 2**31 - 1), "i64": (-(2**63), 2**63 - 1)}
_TORCH = {"s8": torch.int8, "i32": torch.int32, "i64": torch.int64, "bool": torch.bool}


@rule("cast")
def _cast(call: Call) -> list[Tensor]:
    x, source, to = call.tensor(0), call.dtypes[0], call.word("to")
    if to == "bool":
        return [x != 0]
    if to == "f32":
        return [x.to(torch.float32)]
    if source != "f32" or to == source:
        whole = x.to(torch.int64)
        if to == "u8":
            return [(whole & 255).to(torch.float32)]
        return [whole.to(_TORCH[to])]
    lo, hi = _LIMITS[to]
    v = torch.nan_to_num(x.to(torch.float64), nan=0.0, posinf=1e300, neginf=-1e300).trunc()
    inside = v.clamp(max(lo, -(2.0**63)), min(hi, 2.0**63 - 1024)).to(torch.int64)
    whole = torch.where(v >= hi, torch.full_like(inside, hi), inside)
    return [whole.to(torch.float32) if to == "u8" else whole.to(_TORCH[to])]


@rule("softmax")
def _softmax(call: Call) -> list[Tensor]:
    function = functional.log_softmax if call.integer("log") else functional.softmax
    return _finish(call, function(call.tensor(0), dim=call.integer("axis")))


@rule("layernorm")
def _layernorm(call: Call) -> list[Tensor]:
    x = call.tensor(0)
    shape = list(x.shape[call.integer("axis") % x.ndim :])
    return _finish(call, functional.layer_norm(x, shape, call.inputs[1], call.inputs[2], call.number("eps")))


@rule("reduce")
def _reduce(call: Call) -> list[Tensor]:
    x, fn, keep = call.tensor(0), call.word("fn"), bool(call.integer("keepdims"))
    dims = [axis % x.ndim for axis in call.ints("axes")] or list(range(x.ndim))
    if fn in ("any", "all", "prod"):
        for dim in sorted(dims, reverse=True):
            x = getattr(torch, fn)(x, dim=dim, keepdim=keep)
        return [x]
    if not dims:
        return [x]
    reductions: dict[str, Callable[[], Tensor]] = {
        "mean": lambda: x.mean(dim=dims, keepdim=keep),
        "sum": lambda: x.sum(dim=dims, keepdim=keep),
        "max": lambda: x.amax(dim=dims, keepdim=keep),
        "min": lambda: x.amin(dim=dims, keepdim=keep),
        "l1": lambda: x.abs().sum(dim=dims, keepdim=keep),
        "l2": lambda: (x * x).sum(dim=dims, keepdim=keep).sqrt(),
        "sumsq": lambda: (x * x).sum(dim=dims, keepdim=keep),
        "logsumexp": lambda: torch.logsumexp(x, dim=dims, keepdim=keep),
    }
    return [reductions[fn]()]


@rule("argmax")
def _argmax(call: Call) -> list[Tensor]:
    x, axis = call.tensor(0), call.integer("axis")
    best = x.amax(dim=axis, keepdim=True)
    # torch.argmax leaves open which of several maxima it gives; the first one has the largest of these numbers.
    places = torch.arange(x.shape[axis], 0, -1, device=x.device).reshape([-1] + [1] * (x.ndim - 1 - axis % x.ndim))
    first = x.shape[axis] - torch.where(x == best, places, 0).amax(dim=axis, keepdim=bool(call.integer("keepdims")))
    return [first.to(torch.int64)]


@rule("maxpool")
def _maxpool(call: Call) -> list[Tensor]:
    lowest = 0.0 if call.dtypes[0] == "u8" else -torch.inf
    image = window_image(call, call.tensor(0), lowest)
    y = functional.max_pool2d(image, call.ints("kernel"), call.ints("strides"), dilation=call.ints("dilations"))
    return [y.permute(0, 2, 3, 1)]


@rule("avgpool")
def _avgpool(call: Call) -> list[Tensor]:
    x = call.tensor(0)
    sums = window_sums(call, window_image(call, x.to(torch.float64), 0.0))
    return [(sums / window_counts(call, x)).to(torch.float32)]
