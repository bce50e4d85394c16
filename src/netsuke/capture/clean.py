"""Remove what computes nothing.

Identity, Dropout, casts to the same type, repeated Q/DQ, equal constants, constant If branches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import array_of, attr, can_replace, ints_of, is_op, operand, replace, sweep

Array = np.ndarray[Any, Any]
_PROBED = 64  # elements that two constants must share before all of their bytes are compared


def clean(graph: ir.Graph) -> int:
    """Apply everything of this file in place; returns how many nodes and constants went."""
    return drop_identities(graph) + merge_equal_nodes(graph) + merge_equal_constants(graph) + sweep(graph)


def drop_identities(graph: ir.Graph) -> int:
    """Remove nodes whose output equals their first input."""
    count = 0
    for node in list(graph):
        if not node.inputs or node.inputs[0] is None or not _is_identity(node):
            continue
        out, source = node.outputs[0], node.inputs[0]
        if any(list(o.uses()) or o.is_graph_output() for o in node.outputs[1:]) or not can_replace(out, source):
            continue
        replace(out, source)
        graph.remove(node, safe=True)
        count += 1
    return count


def _is_identity(node: ir.Node) -> bool:
    x, out = node.inputs[0], node.outputs[0]
    if is_op(node, "Identity"):
        return True
    if is_op(node, "Dropout"):
        training = array_of(operand(node, 2))
        return operand(node, 2) is None or (training is not None and not bool(training.any()))
    if is_op(node, "Cast"):
        return x is not None and x.dtype is not None and int(x.dtype) == attr(node, "to")
    if is_op(node, "Transpose"):
        perm = attr(node, "perm")
        return perm is not None and perm == sorted(perm)
    if is_op(node, "Concat", "Sum", "Mean"):
        return len(node.inputs) == 1
    if is_op(node, "Expand"):
        shape = ints_of(node.inputs[1])
        return shape is not None and len(out.shape or [1]) >= len(shape) and all(s == 1 for s in shape)
    if is_op(node, "Pad"):
        pads = ints_of(operand(node, 1))
        return pads is not None and not any(pads)
    if is_op(node, "Mul", "Div", "Add", "Sub"):
        return _neutral(node)
    return False


def _neutral(node: ir.Node) -> bool:
    """x * 1, x / 1 and x - 0 with a constant scalar.

    x + 0 is not x for x = -0, but only in the sign of zero: kept out too.
    """
    array = array_of(operand(node, 1))
    if array is None or array.size != 1 or array.ndim > len(node.inputs[0].shape or ()):  # type: ignore[union-attr]
        return False
    return node.op_type in ("Mul", "Div") and float(array.reshape(-1)[0]) == 1.0


def merge_equal_nodes(graph: ir.Graph) -> int:
    """Nodes of one operator with the same inputs and attributes become one (Q/DQ, Shape and kin repeat a lot)."""
    seen: dict[tuple[object, ...], ir.Node] = {}
    count = 0
    for node in list(graph):
        if node.op_type.startswith("Random") or any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            continue
        attrs = tuple(sorted((name, str(a.value)) for name, a in node.attributes.items()))
        if any(a.type == ir.AttributeType.TENSOR for a in node.attributes.values()):
            continue
        key = (node.domain, node.op_type, len(node.outputs), *(_key(v) for v in node.inputs), attrs)
        first = seen.setdefault(key, node)
        if first is node or any(o.is_graph_output() for o in node.outputs):
            continue
        for old, new in zip(node.outputs, first.outputs, strict=True):
            replace(old, new)
        graph.remove(node, safe=True)
        count += 1
    return count


def _key(value: ir.Value | None) -> object:
    """Identity of a value; small constants count as equal when their contents are."""
    array = array_of(value) if value is not None and not value.is_graph_input() else None
    if array is not None and array.size <= 16:
        return (str(array.dtype), array.shape, array.tobytes())
    return id(value)


def merge_equal_constants(graph: ir.Graph) -> int:
    """Initializers with the same dtype, shape and bytes become one (the first by order in the file)."""
    seen: dict[tuple[str, tuple[int, ...], bytes], list[tuple[ir.Value, Array]]] = {}
    count = 0
    for value in list(graph.initializers.values()):
        array = array_of(value)
        if array is None or value.is_graph_input() or value.is_graph_output():
            continue
        flat = array.reshape(-1)
        alike = seen.setdefault((str(array.dtype), array.shape, flat[:: max(1, flat.size // _PROBED)].tobytes()), [])
        first = next((known for known, other in alike if _same_bytes(flat, other)), None)
        if first is None:
            alike.append((value, flat))
        else:
            ir.convenience.replace_all_uses_with(value, first)
            del graph.initializers[value.name or ""]
            count += 1
    return count


def _same_bytes(one: Array, other: Array) -> bool:
    return one is other or np.array_equal(one.view(np.uint8), other.view(np.uint8))


def inline_constant_ifs(graph: ir.Graph) -> int:
    """Replace If nodes with a constant condition by the branch taken (old torchvision exports are full of them)."""
    count = 0
    for node in list(graph):
        condition = array_of(operand(node, 0)) if is_op(node, "If") else None
        if condition is None:
            continue
        branch: ir.Graph = attr(node, "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")
        for old, new in zip(node.outputs, _move_nodes(branch, node), strict=True):
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        count += 1
    return count


def _move_nodes(branch: ir.Graph, before: ir.Node) -> list[ir.Value]:
    """Move the nodes of a branch in front of a node; returns the branch's outputs, which no graph owns any more."""
    graph = before.graph
    assert graph is not None
    outputs = list(branch.outputs)
    branch.outputs.clear()
    for value in list(branch.initializers.values()):
        del branch.initializers[value.name or ""]
        if value.name in graph.initializers:
            value.name = f"{before.name}.{value.name}"
        graph.register_initializer(value)
    for inner in list(branch):
        branch.remove(inner)
        graph.insert_before(before, inner)
    return outputs
