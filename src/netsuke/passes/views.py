"""What transposes leave behind: those that move only dimensions of 1 become views, chains of views become one, and
a flatten in front of a linear layer permutes the layer's weight instead of the data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    array_of,
    attr,
    constant,
    dims_of,
    ints_of,
    is_constant,
    only_user,
    operand,
    replace,
    source_of,
    sweep,
)
from netsuke.passes.nodes import from_ns, is_ns, ns, reshaped

_VIEWS = ("reshape", "squeeze", "unsqueeze")


def simplify_views(graph: ir.Graph) -> int:
    """Rewrite in place until nothing changes; returns how many rewrites were made."""
    total = 0
    for _ in range(20):
        count = 0
        for node in list(graph):
            if node.graph is None:
                continue
            if is_ns(node, "transpose"):
                count += _transpose_to_view(node)
            elif is_ns(node, *_VIEWS):
                count += _no_change(node) or _merge(node) or _fixed_target(node)
            elif is_ns(node, "linear", "qlinear", "qlinear_dyadic"):
                count += _permute_weight(node)
        sweep(graph)
        total += count
        if not count:
            break
    return total


def _transpose_to_view(node: ir.Node) -> bool:
    """A transpose whose dimensions other than 1 keep their order."""
    x = node.inputs[0]
    perm, dims = [int(p) for p in attr(node, "perm")], dims_of(node.inputs[0])
    if x is None or dims is None or node.graph is None:
        return False
    kept = [p for p in perm if dims[p] != 1]
    if kept != sorted(kept):
        return False
    out, new = node.outputs[0], [dims[p] for p in perm]
    target = _plain_target(dims, new)
    if target is not None:
        y = reshaped(node, x, target, new)
    else:
        ones = [i for i, d in enumerate(dims) if d == 1]
        axes = [i for i, p in enumerate(perm) if dims[p] == 1]
        left = [d for d in dims if d != 1]
        y = x
        for op, values, shape in (("squeeze", ones, left), ("unsqueeze", axes, new)):
            constants = constant(node.graph, np.asarray(values, np.int64), f"{node.name}.axes")
            y = ns(node, op, [y, constants], dtype=x.dtype, dims=shape, source=source_of(out))
    _put(node, y)
    return True


def _plain_target(before: list[Any], after: list[Any]) -> list[int] | None:
    """A reshape target for known dimensions, one copied in place or one inferred; None when more are free."""
    target = [
        d if isinstance(d, int) else 0 if i < len(before) and d is not None and before[i] == d else -1
        for i, d in enumerate(after)
    ]
    if after and before and after[0] is None and before[0] is None:
        target[0] = -1 if any(t == -1 for t in target[1:]) else target[0]
    return target if target.count(-1) <= 1 and 0 not in [d for d in after if isinstance(d, int)] else None


def _put(node: ir.Node, y: ir.Value) -> None:
    source = source_of(node.outputs[0])
    replace(node.outputs[0], y)
    y.meta["source"] = source
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _no_change(node: ir.Node) -> bool:
    """A view to the shape the value has already."""
    x, out = node.inputs[0], node.outputs[0]
    before, after = dims_of(x), dims_of(out)
    if x is None or before is None or before != after or None in before or x.producer() is None:
        return False
    if out.is_graph_output() and x.is_graph_output():
        return False
    if len({d for d in before if isinstance(d, str)}) != len([d for d in before if isinstance(d, str)]):
        return False
    replace(out, x)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def _merge(node: ir.Node) -> bool:
    """view(view(x)) is one reshape when its target can be written without looking at the value between."""
    above = from_ns(node.inputs[0], *_VIEWS)
    if above is None or above.inputs[0] is None:
        return False
    x = above.inputs[0]
    before, after = dims_of(x), dims_of(node.outputs[0])
    if before is None or after is None:
        return False
    target = _plain_target(before, after)
    if target is None:
        return False
    _put(node, reshaped(node, x, target, after))
    return True


def _fixed_target(node: ir.Node) -> bool:
    """A computed target whose entries the shapes know becomes a constant."""
    if not is_ns(node, "reshape") or node.graph is None or is_constant(node.inputs[1]):
        return False
    before, after = dims_of(node.inputs[0]), dims_of(node.outputs[0])
    target = _plain_target(before, after) if before is not None and after is not None else None
    if target is None:
        return False
    node.replace_input_with(1, constant(node.graph, np.asarray(target, np.int64), f"{node.name}.shape"))
    node.attributes.pop("allowzero", None)
    return True


_PASSING = frozenset(["unary", "quantize", "dequantize", "lut", "cast", "identity"])


def _permute_weight(node: ir.Node) -> bool:
    """linear(reshape(transpose(x))) with a flatten: reorder the columns of the weight, drop the transpose.

    Elementwise operators with one reader may stand between; they do not care about the order.
    """
    weight = array_of(operand(node, 1)) if is_constant(operand(node, 1)) else None
    value, between = node.inputs[0], []
    while (step := from_ns(value, *_PASSING)) is not None and value is not None and only_user(value) is not None:
        if step.op_type == "lut" and (array_of(step.inputs[1]) is None or array_of(step.inputs[1]).ndim != 1):  # type: ignore[union-attr]
            return False
        between.append(step)
        value = step.inputs[0]
    reshape = from_ns(value, "reshape")
    turn = from_ns(reshape.inputs[0], "transpose") if reshape is not None else None
    if weight is None or reshape is None or turn is None or value is None or only_user(value) is None:
        return False
    x, perm = turn.inputs[0], [int(p) for p in attr(turn, "perm")]
    dims, out = dims_of(turn.outputs[0]), dims_of(value)
    if x is None or dims is None or out is None or len(out) != 2 or perm[0] != 0:
        return False
    inner = dims[1:]
    if not all(isinstance(d, int) for d in inner) or int(np.prod(inner)) != weight.shape[1]:
        return False
    target = ints_of(reshape.inputs[1])
    if target is None or node.graph is None:
        return False
    # columns are ordered as `dims[1:]`; the value without the transpose has the order x = dims permuted back
    back = [int(i) for i in np.argsort(perm[1:])]
    columns = np.arange(weight.shape[1]).reshape(inner).transpose(back).reshape(-1)
    moved = constant(node.graph, np.ascontiguousarray(weight[:, columns]), f"{node.name}.w")
    node.replace_input_with(1, moved)
    flat = reshaped(reshape, x, [0, weight.shape[1]], out)
    _put(reshape, flat)
    return True
