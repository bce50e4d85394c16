"""LayerNormalization and Softmax recognised in their decomposed forms."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    Array,
    array_of,
    attr,
    constant,
    dims_of,
    emit,
    ints_of,
    made_by,
    only_user,
    operand,
    rank_of,
    replace,
    scalar_of,
    sweep,
)


def fuse_normalization(graph: ir.Graph) -> int:
    """Rewrite both patterns in place; returns how many were found."""
    count = 0
    for node in list(graph):
        if node.graph is None or node.domain != "" or node.op_type not in ("Div", "Mul"):
            continue
        out = _layernorm(node) or (_softmax(node) if node.op_type == "Div" else None)
        if out is not None:
            count += 1
    if count:
        sweep(graph)
    return count


def _axes(node: ir.Node | None, rank: int) -> list[int] | None:
    """Sorted non-negative axes of a reduction that keeps its dimensions."""
    if node is None or int(attr(node, "keepdims", 1)) != 1:
        return None
    axes = ints_of(operand(node, 1))
    return None if axes is None else sorted(a + rank if a < 0 else a for a in axes)


def _layernorm(node: ir.Node) -> ir.Value | None:
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps), then an optional * gamma and + beta."""
    centred, root = node.inputs[0], node.inputs[1]
    if node.op_type == "Mul":
        reciprocal = made_by(root, "Reciprocal") or made_by(centred, "Reciprocal")
        if reciprocal is None:
            return None
        centred = centred if root is reciprocal.outputs[0] else root
        root = reciprocal.inputs[0]
    sub, sqrt = made_by(centred, "Sub"), made_by(root, "Sqrt")
    add = made_by(sqrt.inputs[0], "Add") if sqrt else None
    if sub is None or add is None or centred is None:
        return None
    eps = scalar_of(add.inputs[1])
    variance = made_by(add.inputs[0] if eps is not None else add.inputs[1], "ReduceMean")
    eps = eps if eps is not None else scalar_of(add.inputs[0])
    x, rank = sub.inputs[0], rank_of(sub.inputs[0])
    if variance is None or eps is None or x is None or rank is None or not _is_square(variance.inputs[0], centred):
        return None
    mean = made_by(sub.inputs[1], "ReduceMean")
    axes = _axes(mean, rank)
    if mean is None or mean.inputs[0] is not x or axes is None or axes != _axes(variance, rank):
        return None
    if axes != list(range(rank - len(axes), rank)):
        return None
    return _emit_layernorm(node, x, axes, float(eps))


def _is_square(value: ir.Value | None, base: ir.Value) -> bool:
    power, product = made_by(value, "Pow"), made_by(value, "Mul")
    if power is not None:
        return power.inputs[0] is base and scalar_of(power.inputs[1]) == 2.0
    return product is not None and product.inputs[0] is base and product.inputs[1] is base


def _emit_layernorm(node: ir.Node, x: ir.Value, axes: list[int], eps: float) -> ir.Value | None:
    graph, dims = node.graph, dims_of(x)
    assert graph is not None
    assert dims is not None
    shape = [dims[a] for a in axes]
    if not all(isinstance(d, int) for d in shape):
        return None
    end, gamma = node, np.ones(shape, np.float32)
    scaled = _next_with_constant(end, "Mul", shape)
    if scaled is not None:
        end, gamma = scaled
    inputs: list[ir.Value | None] = [x, constant(graph, gamma, f"{node.name}.gamma")]
    shifted = _next_with_constant(end, "Add", shape)
    if shifted is not None:
        end = shifted[0]
        inputs.append(constant(graph, shifted[1], f"{node.name}.beta"))
    out = emit(end, "LayerNormalization", inputs, {"axis": axes[0], "epsilon": eps}, dtype=x.dtype, dims=dims)
    replace(end.outputs[0], out)
    return out


def _next_with_constant(node: ir.Node, op: str, shape: list[int]) -> tuple[ir.Node, Array] | None:
    """The only reader of the node, if it is `op` with a constant of that shape (leading ones ignored)."""
    user = only_user(node.outputs[0])
    if user is None or user.op_type != op or user.domain != "":
        return None
    other = user.inputs[1] if user.inputs[0] is node.outputs[0] else user.inputs[0]
    array = array_of(other)
    if array is None or array.size != int(np.prod(shape)) or list(array.shape[array.ndim - len(shape) :]) != shape:
        return None
    return user, array.reshape(shape).astype(np.float32)


def _softmax(node: ir.Node) -> ir.Value | None:
    """exp(x - max(x)) / sum(exp(x - max(x))) over one axis."""
    exp, total = made_by(node.inputs[0], "Exp"), made_by(node.inputs[1], "ReduceSum")
    sub = made_by(exp.inputs[0], "Sub") if exp else None
    if exp is None or total is None or sub is None or total.inputs[0] is not exp.outputs[0]:
        return None
    x, rank = sub.inputs[0], rank_of(sub.inputs[0])
    top = made_by(sub.inputs[1], "ReduceMax")
    if x is None or rank is None or top is None or top.inputs[0] is not x:
        return None
    axes = _axes(total, rank)
    if axes is None or len(axes) != 1 or axes != _axes(top, rank):
        return None
    out = emit(node, "Softmax", [x], {"axis": axes[0]}, dtype=x.dtype, dims=dims_of(x))
    replace(node.outputs[0], out)
    return out
