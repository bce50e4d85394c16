"""Signs behind what only moves or picks numbers: Reshape(Sign(x)) becomes Sign(Reshape(x)), MaxPool likewise.

A binary layer is recognized by the sign it reads directly; exporters leave a Flatten in front of a classifier, or a
pooling of bits in front of a convolution. Both commute exactly with a sign of positive scale: moving copies
elements, and the largest of some signs is the sign of the largest number. (Of a window with a NaN a pooling picks what
it likes; a NaN alone stays -1.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.binary_forms import Signs, signs_of
from netsuke.capture.graph import constant, dims_of, emit, is_op, only_user, replace, source_of

MOVES = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "MaxPool")
F32, BOOL = ir.DataType.FLOAT, ir.DataType.BOOL


def hoist_signs(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many operators now stand in front of their sign."""
    found = [node for node in graph if is_op(node, *MOVES) and len(node.outputs) == 1]
    return sum(_hoist(node) for node in found if _feeds_a_product(node.outputs[0]))


def _feeds_a_product(value: ir.Value) -> bool:
    """True when the only reader, behind further moves, is a convolution or a matrix product."""
    user = only_user(value)
    while is_op(user, *MOVES, "Pad") and user is not None:
        value = user.outputs[0]
        user = only_user(value)
    return is_op(user, "Conv", "Gemm", "MatMul") and user is not None and user.inputs[0] is value


def _hoist(node: ir.Node) -> bool:
    source = node.inputs[0]
    signs = signs_of(source)
    if signs is None or source is None or signs.pads or only_user(source) is not node:
        return False
    if node.op_type == "MaxPool" and signs.scale <= 0:
        return False
    out = node.outputs[0]
    dims = dims_of(out)
    attrs: dict[str, Any] = {name: a.value for name, a in node.attributes.items()}
    attrs = {k: list(v) if isinstance(v, tuple) else v for k, v in attrs.items()}
    moved = emit(node, node.op_type, [signs.x, *node.inputs[1:]], attrs, dtype=F32, dims=dims, name=node.name or "")
    made = _sign(node, signs, moved, dims)
    made.meta["source"] = source_of(out)
    replace(out, made)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def _sign(before: ir.Node, signs: Signs, x: ir.Value, dims: list[Any] | None) -> ir.Value:
    """The sign of x, in the form that `signs_of` reads."""
    graph = before.graph
    assert graph is not None

    def scalar(value: float, name: str) -> ir.Value:
        return constant(graph, np.asarray(value, np.float32), f"{before.name}.{name}")

    if signs.ties:
        sign = emit(before, "Sign", [x], dtype=F32, dims=dims)
        return (
            sign
            if signs.scale == 1
            else emit(before, "Mul", [sign, scalar(signs.scale, "scale")], dtype=F32, dims=dims)
        )
    above = emit(before, "GreaterOrEqual", [x, scalar(signs.threshold, "threshold")], dtype=BOOL, dims=dims)
    values = [scalar(signs.scale, "high"), scalar(-signs.scale, "low")]
    return emit(before, "Where", [above, *values], dtype=F32, dims=dims)
