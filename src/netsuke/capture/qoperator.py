"""Operators that compute on codes (QLinearConv and kin), written with Q and DQ nodes, which the passes lower.

The ONNX operators QLinearConv, QLinearMatMul, ConvInteger and MatMulInteger, and those of onnxruntime's own domain that
its QOperator format writes. Each rule follows `netsuke.capture.decompose`: it returns the value that replaces the
node's output, or None where a form stays as it is and is reported as unsupported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import array_of, attr, constant, dims_of, emit, operand, rank_of
from netsuke.capture.nbits import matmul_nbits

_F32 = ir.DataType.FLOAT


def _real(node: ir.Node, index: int, axis: int | None = None) -> ir.Value | None:
    """DequantizeLinear of the operands (codes, scale, zero) that start at `index`."""
    codes, scale, zero = (operand(node, index + i) for i in range(3))
    if codes is None or scale is None:
        return None
    steps = array_of(scale)
    attrs: dict[str, Any] = {"axis": axis} if axis is not None and steps is not None and steps.size > 1 else {}
    return emit(node, "DequantizeLinear", [codes, scale, zero], attrs, dtype=_F32, dims=dims_of(codes))


def _codes(node: ir.Node, y: ir.Value, index: int) -> ir.Value:
    """QuantizeLinear to the operands (scale, zero) at `index`."""
    scale, zero = operand(node, index), operand(node, index + 1)
    dtype = zero.dtype if zero is not None and zero.dtype is not None else ir.DataType.UINT8
    return emit(node, "QuantizeLinear", [y, scale, zero], dtype=dtype, dims=dims_of(node.outputs[0]))


def _compute(node: ir.Node, op: str, inputs: list[ir.Value | None], attrs: dict[str, Any] | None = None) -> ir.Value:
    return emit(node, op, inputs, attrs, dtype=_F32, dims=dims_of(node.outputs[0]))


def _attrs(node: ir.Node, *without: str) -> dict[str, Any]:
    return {name: a.value for name, a in node.attributes.items() if name not in without}


def _bias(node: ir.Node, index: int, x_scale: int, w_scale: int, gain: float = 1.0) -> ir.Value | None:
    """An int32 bias has the scale x_scale * w_scale."""
    bias, sx, sw = operand(node, index), array_of(operand(node, x_scale)), array_of(operand(node, w_scale))
    if bias is None or sx is None or sw is None or node.graph is None:
        return None
    grid = (sx.astype(np.float64).reshape(-1) * sw.astype(np.float64).reshape(-1) * gain).astype(np.float32)
    many = grid.size > 1
    scale = constant(node.graph, grid if many else grid.reshape(()), f"{node.name}.bias_scale")
    attrs: dict[str, Any] = {"axis": 0} if many else {}
    return emit(node, "DequantizeLinear", [bias, scale], attrs, dtype=_F32, dims=dims_of(bias))


def _conv(node: ir.Node) -> ir.Value | None:
    """QLinearConv(x, xs, xz, w, ws, wz, ys, yz, bias)."""
    x, w = _real(node, 0), _real(node, 3, axis=0)
    return _codes(node, _compute(node, "Conv", [x, w, _bias(node, 8, 1, 4)], _attrs(node)), 6)


def _matmul(node: ir.Node) -> ir.Value | None:
    """QLinearMatMul(a, as, az, b, bs, bz, ys, yz)."""
    axis = (rank_of(operand(node, 3)) or 2) - 1
    return _codes(node, _compute(node, "MatMul", [_real(node, 0), _real(node, 3, axis=axis)]), 6)


def _gemm(node: ir.Node) -> ir.Value | None:
    """QGemm(a, as, az, b, bs, bz, c, ys, yz); a float result when ys is absent."""
    axis = 0 if int(attr(node, "transB", 0)) else 1
    gain = float(attr(node, "alpha", 1.0))
    y = _compute(node, "Gemm", [_real(node, 0), _real(node, 3, axis=axis), _bias(node, 6, 1, 4, gain)], _attrs(node))
    return y if operand(node, 7) is None else _codes(node, y, 7)


def _pair(op: str) -> Callable[[ir.Node], ir.Value | None]:
    """QLinearAdd and QLinearMul(a, as, az, b, bs, bz, ys, yz)."""
    return lambda node: _codes(node, _compute(node, op, [_real(node, 0), _real(node, 3)]), 6)


def _single(op: str, *without: str) -> Callable[[ir.Node], ir.Value | None]:
    """Operators (x, xs, xz, ys, yz)."""

    def rule(node: ir.Node) -> ir.Value | None:
        if int(attr(node, "channels_last", 0)):
            return None
        return _codes(node, _compute(node, op, [_real(node, 0)], _attrs(node, "channels_last", *without)), 3)

    return rule


def _concat(node: ir.Node) -> ir.Value | None:
    """QLinearConcat(ys, yz, x1, xs1, xz1, x2, ...)."""
    parts = [_real(node, index) for index in range(2, len(node.inputs), 3)]
    return _codes(node, _compute(node, "Concat", parts, {"axis": int(attr(node, "axis", 0))}), 0)


def _where(node: ir.Node) -> ir.Value | None:
    """QLinearWhere(condition, x, xs, xz, y, ys, yz, zs, zz)."""
    return _codes(node, _compute(node, "Where", [operand(node, 0), _real(node, 1), _real(node, 4)]), 7)


_MICROSOFT: dict[str, Callable[[ir.Node], ir.Value | None]] = {
    "QGemm": _gemm,
    "QLinearAdd": _pair("Add"),
    "QLinearAveragePool": _single("AveragePool"),
    "QLinearConcat": _concat,
    "QLinearGlobalAveragePool": _single("GlobalAveragePool"),
    "QLinearLeakyRelu": _single("LeakyRelu"),
    "QLinearMul": _pair("Mul"),
    "QLinearSigmoid": _single("Sigmoid"),
    "QLinearSoftmax": _single("Softmax", "opset"),
    "QLinearWhere": _where,
}


def _integer(op: str) -> Callable[[ir.Node], ir.Value | None]:
    """ConvInteger and MatMulInteger(a, b, a_zero, b_zero) with static zero points, read by casts to float only.

    The int32 sum cast to float is the float product of codes that stand for themselves (scale 1): the compiler sums
    them exactly and converts once.
    """

    def rule(node: ir.Node) -> ir.Value | None:
        out, zeros = node.outputs[0], [operand(node, 2), operand(node, 3)]
        casts = [use.node for use in out.uses()]
        known = all(zero is None or array_of(zero) is not None for zero in zeros)
        to_float = all(n.op_type == "Cast" and int(attr(n, "to", 0)) == int(_F32) for n in casts)
        if not known or not to_float or not casts or out.is_graph_output() or node.graph is None:
            return None
        axis = 0 if op == "Conv" else (rank_of(operand(node, 1)) or 2) - 1
        pair = [_themselves(node, operand(node, i), zeros[i], axis if i else None) for i in (0, 1)]
        return _compute(node, op, list(pair), _attrs(node))

    return rule


def _themselves(node: ir.Node, codes: ir.Value | None, zero: ir.Value | None, axis: int | None) -> ir.Value:
    """DequantizeLinear with scale 1."""
    assert codes is not None
    assert node.graph is not None
    points = array_of(zero)
    many = points is not None and points.size > 1
    one = constant(node.graph, np.ones(points.shape if many and points is not None else (), np.float32), "one")
    zero = None if points is None else constant(node.graph, points if many else points.reshape(()), "zero")
    attrs: dict[str, Any] = {"axis": axis} if many and axis is not None else {}
    return emit(node, "DequantizeLinear", [codes, one, zero], attrs, dtype=_F32, dims=dims_of(codes))


def _same(op: str) -> Callable[[ir.Node], ir.Value | None]:
    """Q and DQ of onnxruntime's domain are those of ONNX."""

    def rule(node: ir.Node) -> ir.Value | None:
        out = node.outputs[0]
        zero = operand(node, 2)
        quantized = zero.dtype if zero is not None else ir.DataType.UINT8
        dtype = quantized if op == "QuantizeLinear" else _F32
        return emit(
            node, op, list(node.inputs), _attrs(node), dtype=dtype, dims=dims_of(out) or dims_of(node.inputs[0])
        )

    return rule


RULES: dict[tuple[str, str], Callable[[ir.Node], ir.Value | None]] = {
    ("", "QLinearConv"): _conv,
    ("", "QLinearMatMul"): _matmul,
    ("", "ConvInteger"): _integer("Conv"),
    ("", "MatMulInteger"): _integer("MatMul"),
    ("com.microsoft", "MatMulNBits"): matmul_nbits,
    ("com.microsoft", "QuantizeLinear"): _same("QuantizeLinear"),
    ("com.microsoft", "DequantizeLinear"): _same("DequantizeLinear"),
    **{("com.microsoft", name): rule for name, rule in _MICROSOFT.items()},
}
