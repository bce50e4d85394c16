"""Gemm, and MatMul with a constant matrix, on codes become qlinear; MatMul of two activations becomes qmatmul."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import attr, constant, dims_of, is_constant, made_by, operand
from netsuke.core.errors import Problem, UnsupportedError
from netsuke.formats.bound import ACC_LIMIT, matmul_bound
from netsuke.passes.nodes import F32, U8, Codes, codes_of, ns
from netsuke.passes.tail import (
    Tail,
    as_constant,
    find_tail,
    last_member,
    layer_bias,
    multiplier,
    place,
    requantization,
)
from netsuke.passes.weights import WeightCodes, weight_codes


def lower_qlinear(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many products became integer."""
    count = 0
    for node in list(graph):
        if node.graph is None or node.domain != "":
            continue
        if node.op_type == "Gemm":
            count += _gemm(node)
        elif node.op_type == "MatMul":
            count += _linear(node, transposed=False) or _matmul(node)
    return count


def _gemm(node: ir.Node) -> bool:
    if int(attr(node, "transA", 0)) or len(dims_of(node.inputs[0]) or ()) != 2:
        return False
    bias = operand(node, 2)
    if float(attr(node, "beta", 1.0)) != 1.0 and bias is not None:
        return False
    return _linear(node, transposed=bool(attr(node, "transB", 0)), gain=float(attr(node, "alpha", 1.0)))


def _linear(node: ir.Node, *, transposed: bool, gain: float = 1.0) -> bool:
    """A product with a constant [K, N] (or [N, K] when `transposed`) matrix."""
    x = codes_of(node.inputs[0])
    w = weight_codes(node.inputs[1], 0 if transposed else 1)
    rank = len(dims_of(node.inputs[0]) or ())
    if x is None or w is None or w.codes.ndim != 2 or rank < 2 or gain < 0:
        return False
    codes = np.ascontiguousarray(w.codes if transposed else w.codes.T)
    biases = layer_bias(node, 2, x.scale, w.scale)
    if biases is None or any(b is not None and b.size not in (1, codes.shape[0]) for b in biases):
        return False
    if gain != 1.0 and biases[1] is not None:
        return False
    bias, acc_bias = (None if b is None else np.broadcast_to(b, (codes.shape[0],)).copy() for b in biases)
    tail = find_tail(node.outputs[0], channels=codes.shape[0])
    found = requantization(node, x, WeightCodes(codes, w.scale), tail, bias, acc_bias, gain=gain)
    at, name = last_member(node, tail), node.name or "linear"
    inputs = [x.value, as_constant(at, codes, f"{name}.w"), *found.inputs(at, name)]
    inputs.append(tail.residual.value if tail.residual is not None else None)
    dims = dims_of(node.outputs[0])
    dtype = U8 if tail.codes else F32
    place(
        tail,
        node,
        ns(at, found.op("qlinear"), inputs, found.attrs, dtype=dtype, dims=dims, name=name, source=tail.source),
    )
    return True


def _matmul(node: ir.Node) -> bool:
    a, b = _operand_codes(node, 0), _operand_codes(node, 1)
    dims = [dims_of(v) for v in node.inputs]
    if a is None or b is None or any(d is None or len(d) < 2 for d in dims):
        return False
    depth = (dims[0] or [0])[-1]
    if not isinstance(depth, int):
        depth = (dims[1] or [0, 0])[-2]
    if isinstance(depth, int) and matmul_bound(depth, a.zero, b.zero) > ACC_LIMIT:
        raise _overflow(node)
    tail, gain = _scaled_tail(node.outputs[0])
    if tail.bounds != (-float("inf"), float("inf")) and not tail.codes:
        tail = Tail(node.outputs[0])
        gain = 1.0
    mult = float(multiplier(node, a.scale, np.float64(b.scale) * gain, tail.grid.scale if tail.grid else 1.0))
    limits: dict[str, Any] = tail.limits() if tail.codes else {"out": "f32"}
    attrs = {"a_zero": a.zero, "b_zero": b.zero, "mult": mult, **limits}
    at = last_member(node, tail)
    dtype = U8 if tail.codes else F32
    y = ns(
        at,
        "qmatmul",
        [a.value, b.value],
        attrs,
        dtype=dtype,
        dims=dims_of(node.outputs[0]),
        name=node.name or "",
        source=tail.source,
    )
    place(tail, node, y)
    return True


def _scaled_tail(value: ir.Value) -> tuple[Tail, float]:
    """The tail, with a multiplication by a positive constant scalar in front of it taken into the multiplier."""
    from netsuke.capture.graph import is_op, only_user, scalar_of

    user = only_user(value)
    if user is not None and is_op(user, "Mul", "Div"):
        factor = scalar_of(user.inputs[1]) if user.inputs[0] is value else None
        if factor is None and user.op_type == "Mul":
            factor = scalar_of(user.inputs[0])
        if factor is not None and factor > 0:
            tail = find_tail(user.outputs[0], residual=False)
            tail.members = (user, *tail.members)
            return tail, factor if user.op_type == "Mul" else 1.0 / factor
    return find_tail(value, residual=False), 1.0


def _operand_codes(node: ir.Node, index: int) -> Codes | None:
    """Codes of an activation, or of a per-tensor constant re-encoded as unsigned."""
    value = node.inputs[index]
    found = codes_of(value)
    dequantize = made_by(value, "DequantizeLinear")
    if found is not None or dequantize is None or not is_constant(dequantize.inputs[0]) or node.graph is None:
        return found
    return constant_codes(node, dequantize)


def constant_codes(node: ir.Node, dequantize: ir.Node) -> Codes | None:
    """A constant behind a per-tensor DequantizeLinear as u8 codes."""
    w: WeightCodes | None = weight_codes(dequantize.outputs[0], 0)
    if w is None or np.unique(w.scale).size != 1 or node.graph is None:
        return None
    codes = (w.codes.astype(np.int16) + 128).astype(np.uint8)
    return Codes(constant(node.graph, codes, f"{dequantize.outputs[0].name}.codes"), float(w.scale[0]), 128)


def _overflow(node: ir.Node) -> UnsupportedError:
    return UnsupportedError(
        Problem(
            "the accumulator can leave int32", where=node.name or "", hint="keep this layer float or use fewer bits"
        )
    )
