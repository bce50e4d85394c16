"""SiLU, hard swish, Mish and both GELUs recognised in any algebraic form they were exported in.

Instead of one template per way of writing x * sigmoid(x), a group of elementwise nodes with one non-constant source
is evaluated in binary64 on a grid and compared with the known functions: whatever agrees to 1e-6 everywhere is that
function. The constants of exported models are rounded to float32, hence no tighter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import Array, array_of, attr, dims_of, emit, is_op, rank_of, replace, sweep

MAX_NODES = 12
_GRID = np.concatenate([np.linspace(-12.0, 12.0, 1537), [-60.0, -30.0, 30.0, 60.0]])
_TOLERANCE = 1e-6


def _erf(x: Array) -> Array:
    return np.asarray([math.erf(v) for v in np.broadcast_to(x, np.shape(x)).reshape(-1)]).reshape(np.shape(x))


def _sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


_UNARY: dict[str, Callable[[ir.Node, Array], Array]] = {
    "Sigmoid": lambda _, x: _sigmoid(x),
    "Tanh": lambda _, x: np.tanh(x),
    "Erf": lambda _, x: _erf(x),
    "Exp": lambda _, x: np.exp(x),
    "Log": lambda _, x: np.log(x),
    "Neg": lambda _, x: -x,
    "Relu": lambda _, x: np.maximum(x, 0.0),
    "Reciprocal": lambda _, x: 1.0 / x,
    "Softplus": lambda _, x: np.logaddexp(0.0, x),
    "HardSigmoid": lambda n, x: np.clip(attr(n, "alpha", 0.2) * x + attr(n, "beta", 0.5), 0.0, 1.0),
}
_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
}


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


_KNOWN: list[tuple[str, dict[str, Any], Array]] = [
    ("Swish", {"alpha": 1.0}, _GRID * _sigmoid(_GRID)),
    ("HardSwish", {}, _GRID * np.clip(_GRID / 6.0 + 0.5, 0.0, 1.0)),
    ("Mish", {}, _GRID * np.tanh(np.logaddexp(0.0, _GRID))),
    ("Gelu", {"approximate": "none"}, 0.5 * _GRID * (1.0 + _erf(_GRID / math.sqrt(2.0)))),
    ("Gelu", {"approximate": "tanh"}, _gelu_tanh(_GRID)),
]


def fuse_activations(graph: ir.Graph) -> int:
    """Replace recognised groups in place; returns how many were found."""
    order = {id(node): index for index, node in enumerate(graph)}
    count = 0
    for node in reversed(list(graph)):
        if node.graph is None or not is_op(node, "Mul", "Div"):
            continue
        match = _recognise(node, order)
        if match is None:
            continue
        op, attrs, source = match
        out = node.outputs[0]
        fused = emit(node, op, [source], attrs, dtype=out.dtype, dims=dims_of(out))
        order[id(fused.producer())] = order[id(node)]
        replace(out, fused)
        graph.remove(node, safe=True)
        count += 1
    if count:
        sweep(graph)
    return count


def _recognise(end: ir.Node, order: dict[int, int]) -> tuple[str, dict[str, Any], ir.Value] | None:
    """Grow the group backwards from `end`; whenever one source is left, compare the function it computes."""
    group = [end]
    frontier = _sources(end)
    while frontier is not None and len(group) <= MAX_NODES:
        if len(frontier) == 1 and len(group) > 1 and _closed(group):
            found = _compare(group, frontier[0])
            if found is not None and _same_shape(frontier[0], end.outputs[0]):
                return (*found, frontier[0])
        latest = max(frontier, key=lambda v: order.get(id(v.producer()), -1), default=None)
        producer = latest.producer() if latest is not None else None
        if producer is None or latest is None or id(producer) not in order:
            return None
        sources = _sources(producer)
        if sources is None:
            return None
        group.append(producer)
        frontier = [v for v in frontier if v is not latest]
        frontier += [v for v in sources if all(v is not f for f in frontier)]
    return None


def _sources(node: ir.Node) -> list[ir.Value] | None:
    """The non-constant inputs of an elementwise node; None when the node or a constant of it is of another kind."""
    if node.domain != "" or not (node.op_type in _UNARY or node.op_type in _BINARY or _is_scalar_clip(node)):
        return None
    if _is_scalar_clip(node):
        return [v for v in node.inputs[:1] if v is not None]
    found: list[ir.Value] = []
    for value in node.inputs:
        array = array_of(value)
        if array is None and value is not None and all(value is not f for f in found):
            found.append(value)
        elif array is not None and (array.size != 1 or array.dtype != np.float32):
            return None
    return found or None


def _is_scalar_clip(node: ir.Node) -> bool:
    if not is_op(node, "Clip", "Max", "Min"):
        return False
    bounds = [array_of(v) for v in node.inputs[1:] if v is not None]
    return all(b is not None and b.size == 1 for b in bounds) and array_of(node.inputs[0]) is None


def _closed(group: list[ir.Node]) -> bool:
    """True when inner values of the group are read only inside it."""
    inside = {id(n) for n in group}
    return all(
        not n.outputs[0].is_graph_output() and all(id(use.node) in inside for use in n.outputs[0].uses())
        for n in group[1:]
    )


def _same_shape(source: ir.Value, out: ir.Value) -> bool:
    return rank_of(source) is not None and rank_of(source) == rank_of(out)


def _compare(group: list[ir.Node], source: ir.Value) -> tuple[str, dict[str, Any]] | None:
    with np.errstate(all="ignore"):
        result = _evaluate(group, source)
    if result is None or result.shape != _GRID.shape or not np.isfinite(result[:1537]).all():
        return None
    for op, attrs, wanted in _KNOWN:
        error = np.abs(result - wanted) / np.maximum(1.0, np.abs(wanted))
        if float(np.nanmax(error)) <= _TOLERANCE:
            return op, attrs
    return None


def _evaluate(group: list[ir.Node], source: ir.Value) -> Array | None:
    """The value of the last node (the first of the list) on the grid."""
    known: dict[int, Array] = {id(source): _GRID}

    def value_of(value: ir.Value | None) -> Array:
        array = array_of(value)
        return known[id(value)] if array is None else np.asarray(float(array.reshape(-1)[0]))

    pending = list(group)
    while pending:
        ready = [n for n in pending if all(v is None or array_of(v) is not None or id(v) in known for v in n.inputs)]
        if not ready:
            return None
        for node in ready:
            known[id(node.outputs[0])] = _apply(node, [value_of(v) if v is not None else None for v in node.inputs])
            pending.remove(node)
    return known[id(group[0].outputs[0])]


def _apply(node: ir.Node, args: list[Array | None]) -> Array:
    first = args[0]
    assert first is not None
    if node.op_type == "Clip":
        low = args[1] if len(args) > 1 and args[1] is not None else -np.inf
        high = args[2] if len(args) > 2 and args[2] is not None else np.inf
        return np.asarray(np.clip(first, low, high))
    if node.op_type in _UNARY:
        return _UNARY[node.op_type](node, first)
    if node.op_type in ("Max", "Min"):
        combine = np.maximum if node.op_type == "Max" else np.minimum
        second = args[1] if len(args) > 1 else None
        return np.asarray(combine(first, first if second is None else second))
    assert args[1] is not None
    return np.asarray(_BINARY[node.op_type](first, args[1]))
