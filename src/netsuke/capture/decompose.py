"""Operators without a kernel of their own, written with those that have one.

One function per operator; each gets the node, emits the replacement in front of it and returns the value that takes
the place of its first output, or None when this form of it stays as it is (and is judged by
`netsuke.capture.supported`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from netsuke.capture import qoperator
from netsuke.capture.graph import array_of, attr, axis_of, constant, dims_of, emit, operand, rank_of, replace

_F32 = ir.DataType.FLOAT


def decompose(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many nodes were replaced."""
    count = 0
    for node in list(graph):
        rewrite = _RULES.get((node.domain, node.op_type))
        out = rewrite(node) if rewrite is not None else None
        if out is not None:
            replace(node.outputs[0], out)
            graph.remove(node, safe=True)
            count += 1
    return count


def _const(node: ir.Node, value: object, dtype: type = np.float32) -> ir.Value:
    assert node.graph is not None
    return constant(node.graph, np.asarray(value, dtype), f"{node.name}.c")


def _like(node: ir.Node, op: str, inputs: list[ir.Value | None], attrs: dict[str, object] | None = None) -> ir.Value:
    """Emit a node whose output has the dtype and shape of the first output of `node`."""
    out = node.outputs[0]
    return emit(node, op, inputs, attrs, dtype=out.dtype, dims=dims_of(out))


def _variadic(node: ir.Node) -> ir.Value | None:
    """Sum, Mean, Max, Min of any number of inputs become a chain of two-input nodes."""
    values = [v for v in node.inputs if v is not None]
    binary = {"Sum": "Add", "Mean": "Add", "Max": "Max", "Min": "Min"}[node.op_type]
    if len(values) == 1:
        return _like(node, "Identity", [values[0]])
    if node.op_type in ("Max", "Min") and len(values) == 2:
        return None
    total = values[0]
    for index, value in enumerate(values[1:]):
        last = index == len(values) - 2
        total = emit(
            node, binary, [total, value], dtype=node.outputs[0].dtype, dims=dims_of(node.outputs[0]) if last else None
        )
    if node.op_type == "Mean":
        total = _like(node, "Mul", [total, _const(node, 1.0 / len(values))])
    return total


def _softsign(node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    return _like(node, "Div", [x, _like(node, "Add", [_like(node, "Abs", [x]), _const(node, 1.0)])])


def _selu(node: ir.Node) -> ir.Value:
    alpha = attr(node, "alpha", 1.67326319217681884765625)
    gamma = attr(node, "gamma", 1.05070102214813232421875)
    return _like(node, "Mul", [_like(node, "Elu", [node.inputs[0]], {"alpha": float(alpha)}), _const(node, gamma)])


def _celu(node: ir.Node) -> ir.Value:
    """celu(x) = alpha * elu(x / alpha) with elu's own alpha 1."""
    alpha = float(attr(node, "alpha", 1.0))
    inner = _like(node, "Div", [node.inputs[0], _const(node, alpha)])
    return _like(node, "Mul", [_like(node, "Elu", [inner], {"alpha": 1.0}), _const(node, alpha)])


def _thresholded_relu(node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    above = emit(node, "Greater", [x, _const(node, attr(node, "alpha", 1.0))], dtype=ir.DataType.BOOL, dims=dims_of(x))
    return _like(node, "Where", [above, x, _const(node, 0.0)])


def _size(node: ir.Node) -> ir.Value:
    shape = emit(node, "Shape", [node.inputs[0]], dtype=ir.DataType.INT64, dims=[rank_of(node.inputs[0])])
    attrs = {"keepdims": 0}
    return emit(node, "ReduceProd", [shape, _const(node, [0], np.int64)], attrs, dtype=ir.DataType.INT64, dims=[])


def _log_sum(node: ir.Node) -> ir.Value:
    inner = emit(node, "ReduceSum", list(node.inputs), _attrs(node), dtype=_F32, dims=dims_of(node.outputs[0]))
    return _like(node, "Log", [inner])


def _attrs(node: ir.Node) -> dict[str, object]:
    return {name: a.value for name, a in node.attributes.items()}


def _normalized(node: ir.Node, x: ir.Value, axes: list[int], eps: float) -> ir.Value:
    """(x - mean) / sqrt(var + eps) over the axes."""
    keep = {"keepdims": 1}
    reduced = _const(node, axes, np.int64)
    mean = emit(node, "ReduceMean", [x, reduced], keep, dtype=_F32)
    centred = emit(node, "Sub", [x, mean], dtype=_F32, dims=dims_of(x))
    squares = emit(node, "Mul", [centred, centred], dtype=_F32, dims=dims_of(x))
    variance = emit(node, "ReduceMean", [squares, reduced], keep, dtype=_F32)
    root = emit(node, "Sqrt", [emit(node, "Add", [variance, _const(node, eps)], dtype=_F32)], dtype=_F32)
    return emit(node, "Div", [centred, root], dtype=_F32, dims=dims_of(x))


def _per_channel(node: ir.Node, value: ir.Value | None, rank: int) -> ir.Value | None:
    """A [C] parameter as [C, 1, ...] that broadcasts over N, C, spatial."""
    array = array_of(value)
    return None if array is None else _const(node, array.reshape(-1, *([1] * (rank - 2))))


def _instance_norm(node: ir.Node) -> ir.Value | None:
    x, rank = node.inputs[0], rank_of(node.inputs[0])
    scale, bias = (_per_channel(node, v, rank or 2) for v in node.inputs[1:3])
    if rank is None or rank < 3 or scale is None or bias is None or x is None:
        return None
    y = _normalized(node, x, list(range(2, rank)), float(attr(node, "epsilon", 1e-5)))
    return _like(node, "Add", [_like(node, "Mul", [y, scale]), bias])


def _group_norm(node: ir.Node) -> ir.Value | None:
    """Groups become one dimension, are normalized with everything behind it, and are put back."""
    x, rank = node.inputs[0], rank_of(node.inputs[0])
    scale, bias = (_per_channel(node, v, rank or 2) for v in node.inputs[1:3])
    if rank is None or rank < 3 or scale is None or bias is None or x is None:
        return None
    groups = int(attr(node, "num_groups", 1))
    flat = emit(node, "Reshape", [x, _const(node, [0, groups, -1], np.int64)], dtype=_F32, dims=[None, groups, None])
    y = _normalized(node, flat, [2], float(attr(node, "epsilon", 1e-5)))
    shape = emit(node, "Shape", [x], dtype=ir.DataType.INT64, dims=[rank])
    y = emit(node, "Reshape", [y, shape], dtype=_F32, dims=dims_of(x))
    return _like(node, "Add", [_like(node, "Mul", [y, scale]), bias])


def _rms_norm(node: ir.Node) -> ir.Value | None:
    x, rank = node.inputs[0], rank_of(node.inputs[0])
    if rank is None or x is None:
        return None
    axes = _const(node, list(range(axis_of(node, rank, -1), rank)), np.int64)
    squares = emit(node, "Mul", [x, x], dtype=_F32, dims=dims_of(x))
    mean = emit(node, "ReduceMean", [squares, axes], {"keepdims": 1}, dtype=_F32)
    eps = _const(node, attr(node, "epsilon", 1e-5))
    root = emit(node, "Sqrt", [emit(node, "Add", [mean, eps], dtype=_F32)], dtype=_F32)
    return _like(node, "Mul", [_like(node, "Div", [x, root]), node.inputs[1]])


def _lp_norm(node: ir.Node) -> ir.Value | None:
    rank = rank_of(node.inputs[0])
    if rank is None:
        return None
    op = "ReduceL1" if int(attr(node, "p", 2)) == 1 else "ReduceL2"
    axes = _const(node, [axis_of(node, rank, -1)], np.int64)
    return _like(node, "Div", [node.inputs[0], emit(node, op, [node.inputs[0], axes], {"keepdims": 1}, dtype=_F32)])


def _microsoft_gelu(node: ir.Node) -> ir.Value:
    return _like(node, "Gelu", [node.inputs[0]], {"approximate": "none"})


def _fast_gelu(node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    bias = operand(node, 1)
    if bias is not None:
        x = _like(node, "Add", [x, bias])
    return _like(node, "Gelu", [x], {"approximate": "tanh"})


_RULES: dict[tuple[str, str], Callable[[ir.Node], ir.Value | None]] = {
    ("", "Sum"): _variadic,
    ("", "Mean"): _variadic,
    ("", "Max"): _variadic,
    ("", "Min"): _variadic,
    ("", "Softsign"): _softsign,
    ("", "Selu"): _selu,
    ("", "Celu"): _celu,
    ("", "ThresholdedRelu"): _thresholded_relu,
    ("", "Size"): _size,
    ("", "ReduceLogSum"): _log_sum,
    ("", "InstanceNormalization"): _instance_norm,
    ("", "GroupNormalization"): _group_norm,
    ("", "RMSNormalization"): _rms_norm,
    ("", "LpNormalization"): _lp_norm,
    ("com.microsoft", "Gelu"): _microsoft_gelu,
    ("com.microsoft", "FastGelu"): _fast_gelu,
    **qoperator.RULES,
}
