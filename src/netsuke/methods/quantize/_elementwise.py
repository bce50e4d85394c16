"""Which part of a graph is a function of one tensor, element by element: such a part becomes one lookup table.

An 8-bit tensor has at most 256 values, so any elementwise function of it (a single Sigmoid, or the five nodes of a
GELU) is a table of 256 entries, or one table per channel when constants differ by channel. `region` finds the
largest such part behind a value.
"""

from __future__ import annotations

import onnx_ir as ir

from netsuke.methods.quantize._graph import constant, dims, is_float

UNARY = frozenset(
    (
        *("Abs", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
        *("LeakyRelu", "Log", "Mish", "Neg", "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin"),
        *("Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu", "BatchNormalization"),
    )
)
BINARY = frozenset(("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"))


def region(value: ir.Value, stops: set[ir.Value]) -> tuple[ir.Value, list[ir.Node]] | None:
    """The one tensor `value` is an elementwise function of, and the nodes in between in topological order.

    `stops` are tensors that are never looked through (ends of fused layers). None when `value` is not elementwise in
    one tensor. A tensor inside the region has no reader outside it.
    """
    nodes: list[ir.Node] = []
    leaves: list[ir.Value] = []
    if not _expand(value, True, stops, nodes, leaves) or len(leaves) != 1:
        return _nearest(value, stops)
    return leaves[0], nodes


def _nearest(value: ir.Value, stops: set[ir.Value]) -> tuple[ir.Value, list[ir.Node]] | None:
    """The last node alone, when a deeper look found more than one tensor (relu behind a sum of two)."""
    node = value.producer()
    inputs = operands(node) if node is not None and value not in stops else None
    if node is None or inputs is None or len(set(inputs)) != 1:
        return None
    return inputs[0], [node]


def _expand(value: ir.Value, top: bool, stops: set[ir.Value], nodes: list[ir.Node], leaves: list[ir.Value]) -> bool:
    node = value.producer()
    shared = not top and (len(list(value.uses())) > 1 or value.is_graph_output())
    inputs = operands(node) if node is not None and value not in stops and not shared else None
    if inputs is None or node is None:
        if value not in leaves:
            leaves.append(value)
        return not top
    for child in inputs:
        _expand(child, False, stops, nodes, leaves)
    if node not in nodes:
        nodes.append(node)
    return True


def operands(node: ir.Node) -> list[ir.Value] | None:
    """The computed inputs of an elementwise node whose other inputs are scalar or per-channel constants; else None."""
    if node.op_type not in UNARY | BINARY or len(node.outputs) != 1 or not is_float(node.outputs[0]):
        return None
    computed, rank = [], len(dims(node.outputs[0]) or ())
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        array = constant(value)
        if array is None:
            computed.append(value)
        elif node.op_type == "BatchNormalization" and index > 0:
            continue
        elif not per_channel(array.shape, rank):
            return None
    if node.op_type in UNARY and len(computed) != 1:
        return None
    return computed if 1 <= len(computed) <= 2 else None


def per_channel(shape: tuple[int, ...], rank: int) -> bool:
    """True for constants that hold one number, or one per channel (axis 1 of rank 3 to 5, the last axis below that)."""
    if all(d == 1 for d in shape):
        return True
    channel = 1 if rank in (4, 5) else rank - 1
    position = channel - (rank - len(shape))
    return position >= 0 and all(d == 1 for i, d in enumerate(shape) if i != position)
