"""Integer operators on the functions of `netsuke.nn.integer`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor

from netsuke.formats import matmul_bound
from netsuke.nn import integer
from netsuke.program.emulation.call import Call, rule


@rule("quantize")
def _quantize(call: Call) -> list[Tensor]:
    return [integer.quantize(call.tensor(0), call.number("scale"), **call.clip())]


@rule("dequantize")
def _dequantize(call: Call) -> list[Tensor]:
    return [integer.dequantize(call.tensor(0), call.number("scale"), call.integer("zero"))]


def _accumulate(call: Call) -> Tensor:
    x, bound = call.tensor(0) - call.integer("x_zero"), call.integer("acc_bound")
    if "strides" in call.attrs:
        window = (call.ints("strides"), call.ints("pads"), call.ints("dilations"), call.integer("groups"))
        acc = integer.convolve(x, call.tensor(1), *window, bound)
    else:
        acc = integer.linear(x, call.tensor(1), bound)
    bias = call.inputs[4]
    return acc if bias is None else acc + bias.to(acc.dtype)


def _residual(call: Call) -> Tensor | None:
    r = call.inputs[5]
    return r - call.integer("r_zero") if r is not None and call.dtypes[5] == "u8" else r


@rule("qconv", "qlinear")
def _real(call: Call) -> list[Tensor]:
    acc, residual = _accumulate(call), _residual(call)
    if call.word("out") == "f32":
        limits = {"flo": call.number_or("flo", -math.inf), "fhi": call.number_or("fhi", math.inf)}
        return [integer.requantize_f32(acc, call.tensor(2), call.inputs[3], residual, **limits)]
    scale = (call.tensor(2), call.inputs[3], residual, call.number("r_mult"))
    return [integer.requantize(acc, *scale, **call.clip())]


@rule("qconv_dyadic", "qlinear_dyadic")
def _dyadic(call: Call) -> list[Tensor]:
    acc, residual = _accumulate(call), _residual(call)
    m, e = call.tensor(2).to(torch.int64), call.tensor(3).to(torch.int64)
    scale = (m, e, residual, call.integer("r_m"), call.integer("r_e"))
    return [integer.requantize_dyadic(acc, *scale, **call.clip())]


@rule("qmatmul")
def _qmatmul(call: Call) -> list[Tensor]:
    a, b = call.tensor(0) - call.integer("a_zero"), call.tensor(1) - call.integer("b_zero")
    b = b.transpose(-1, -2) if call.integer("trans_b") else b
    dtype = integer.exact_dtype(matmul_bound(a.shape[-1], call.integer("a_zero"), call.integer("b_zero")))
    acc = a.to(dtype) @ b.to(dtype)
    mult = integer.alone(a, call.number("mult"))
    if call.word("out") == "f32":
        return [integer.requantize_f32(acc, mult)]
    return [integer.requantize(acc, mult, **call.clip())]


@rule("qadd")
def _qadd(call: Call) -> list[Tensor]:
    if "offset" in call.attrs:
        codes = [call.tensor(i).to(torch.float32) for i in (0, 1)]
        inner = integer.fma(codes[1], call.number("b_mult"), call.number("offset"))
        t = integer.fma(codes[0], call.number("a_mult"), inner)
        return [integer.quantize(t, 1.0, 0, call.integer("lo"), call.integer("hi"))]
    a, b = call.tensor(0) - call.integer("a_zero"), call.tensor(1) - call.integer("b_zero")
    t = a * integer.alone(a, call.number("a_mult"))
    u = b * integer.alone(b, call.number("b_mult"))
    return [integer.quantize(t + u, 1.0, **call.clip())]


def _whole(like: Tensor, value: int) -> Tensor:
    return torch.tensor([value], dtype=torch.int64, device=like.device)


@rule("qadd_dyadic")
def _qadd_dyadic(call: Call) -> list[Tensor]:
    a, b = call.tensor(0) - call.integer("a_zero"), call.tensor(1) - call.integer("b_zero")
    m, e = _whole(a, call.integer("a_m")), _whole(a, call.integer("a_e"))
    return [integer.requantize_dyadic(a, m, e, b, call.integer("b_m"), call.integer("b_e"), **call.clip())]


@rule("qmul")
def _qmul(call: Call) -> list[Tensor]:
    a, b = call.tensor(0) - call.integer("a_zero"), call.tensor(1) - call.integer("b_zero")
    return [integer.requantize(a * b, integer.alone(a, call.number("mult")), **call.clip())]


def window_image(call: Call, x: Tensor, fill: float, *, keep_padding: bool = True) -> Tensor:
    """x NHWC padded with `fill` for a pool and cut or extended to exactly the positions its windows reach, NCHW.

    With keep_padding = False the pads of the node hold `fill`, what ceil mode adds behind them holds 0.
    """
    kernel, strides = call.ints("kernel"), call.ints("strides")
    dilations = call.ints("dilations") if "dilations" in call.attrs else [1, 1]
    top, left, bottom, right = call.ints("pads")
    image = functional.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom), value=fill)
    for axis, before in ((0, top), (1, left)):
        padded = image.shape[2 + axis]
        size = x.shape[1 + axis]
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        count = (padded - reach) / strides[axis] + 1
        out = math.ceil(count) if call.integer("ceil") else math.floor(count)
        if (out - 1) * strides[axis] >= size + before:
            out -= 1
        missing = (out - 1) * strides[axis] + reach - padded
        tail = fill if keep_padding else 0.0
        image = functional.pad(image, (0, 0, 0, missing) if axis == 0 else (0, missing), value=tail)
    return image


def window_counts(call: Call, x: Tensor) -> Tensor:
    """Positions that each window of an average divides by, f64 [1, oh, ow, 1], by pooling a mask."""
    mask = torch.ones((1, *x.shape[1:3], 1), dtype=torch.float64, device=x.device)
    inside = 1.0 if call.integer("count_include_pad") else 0.0
    return window_sums(call, window_image(call, mask, inside, keep_padding=False)).clamp(min=1)


def window_sums(call: Call, image: Tensor) -> Tensor:
    """Sums over the windows of an f64 NCHW image -> NHWC. Exact for integers below 2^53 / window."""
    kernel, strides = call.ints("kernel"), call.ints("strides")
    return functional.avg_pool2d(image, kernel, strides, divisor_override=1).permute(0, 2, 3, 1)


@rule("qavgpool")
def _qavgpool(call: Call) -> list[Tensor]:
    x = call.tensor(0)
    sums = window_sums(call, window_image(call, (x - call.integer("x_zero")).to(torch.float64), 0.0))
    mult = integer.alone(x, call.number("mult")) / window_counts(call, x).to(torch.float32)
    return [integer.requantize(sums, mult, **call.clip())]


@rule("qmean")
def _qmean(call: Call) -> list[Tensor]:
    x = call.tensor(0)
    sums = (x - call.integer("x_zero")).to(torch.float64).sum(dim=(1, 2), keepdim=True)
    mult = integer.alone(x, call.number("mult")) / integer.alone(x, x.shape[1] * x.shape[2])
    return [integer.requantize(sums, mult, **call.clip())]


@rule("qmean_dyadic")
def _qmean_dyadic(call: Call) -> list[Tensor]:
    x = call.tensor(0)
    if x.shape[1] * x.shape[2] != call.integer("count"):
        raise ValueError(f"{call.node.name}: H * W is {x.shape[1] * x.shape[2]}, allowed {call.integer('count')}")
    sums = (x - call.integer("x_zero")).to(torch.float64).sum(dim=(1, 2), keepdim=True)
    m, e = _whole(x, call.integer("m")), _whole(x, call.integer("e"))
    return [integer.requantize_dyadic(sums, m, e, **call.clip())]


@rule("lut")
def _lut(call: Call) -> list[Tensor]:
    index, table = call.tensor(0).to(torch.int64), call.tensor(1)
    if table.ndim == 1:
        return [table[index]]
    return [table[torch.arange(table.shape[0], device=table.device), index]]
