"""Push transposes towards the outputs until they meet their inverse.

    op(transpose(x)) = transpose(op'(x))

with op' the operator on permuted axes. Neighbouring transposes compose; the identity disappears; a transpose that
moves only dimensions of 1 becomes a view. What cannot be passed (a graph output, a real reshape) keeps its
transpose. Sinking never adds transposes: every reader is rewritten on the source, and the old transpose dies with
its last reader.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    array_of,
    attr,
    can_replace,
    constant,
    dims_of,
    is_constant,
    operand,
    replace,
    source_of,
    sweep,
)
from netsuke.passes import sink_movement
from netsuke.passes.nodes import inverse, ns, transposed
from netsuke.passes.transposes import again, finish, only_ones_move, perm_of

_UNARY = frozenset(["unary", "quantize", "dequantize", "cast", "identity", "prelu", "lut"])
_BROADCAST = frozenset(["binary", "where", "qadd", "qadd_dyadic", "qmul"])


def sink_transposes(graph: ir.Graph) -> int:
    """Rewrite in place until nothing changes; returns how many rewrites were made."""
    total = 0
    for _ in range(100):
        count = 0
        for node in list(graph):
            if node.graph is not None and node.domain == "netsuke":
                rule = _RULES.get(node.op_type)
                count += bool(rule is not None and rule(node))
        sweep(graph)
        total += count
        if not count:
            break
    return total


def _unary(node: ir.Node) -> bool:
    found = perm_of(node.inputs[0])
    if found is None:
        return False
    x, perm = found
    per_channel = (
        operand(node, 1) is not None and len(dims_of(node.inputs[1]) or ()) and (array_of(node.inputs[1]) is not None)
    )
    if node.op_type in ("prelu", "lut") and per_channel and _varies(node) and perm[-1] != len(perm) - 1:
        return False
    return finish(node, again(node, [x, *node.inputs[1:]], perm), perm)


def _varies(node: ir.Node) -> bool:
    array = array_of(node.inputs[1])
    assert array is not None
    return array.ndim == 2 if node.op_type == "lut" else array.size > 1


def _broadcast(node: ir.Node) -> bool:
    """All inputs are transposed alike, constant, or scalar; small others are transposed back."""
    found = [perm_of(v) for v in node.inputs]
    perms = [f[1] for f in found if f is not None]
    rank = len(dims_of(node.outputs[0]) or ())
    if not perms or any(len(p) != rank for p in perms):
        return False
    perm = perms[0]
    inputs: list[ir.Value | None] = []
    for value, hit in zip(node.inputs, found, strict=True):
        if hit is not None and hit[1] == perm:
            inputs.append(hit[0])
            continue
        moved = _other(node, value, perm, rank)
        if moved is None:
            return False
        inputs.append(moved)
    return finish(node, again(node, inputs, perm), perm)


def _other(node: ir.Node, value: ir.Value | None, perm: list[int], rank: int) -> ir.Value | None:
    """A broadcast operand as seen before the transpose, or None when that would move real data."""
    dims = dims_of(value)
    if value is None or dims is None:
        return None
    array = array_of(value) if is_constant(value) else None
    if array is not None and node.graph is not None:
        if array.size == 1:
            return value
        full = array.reshape([1] * (rank - array.ndim) + list(array.shape))
        return constant(node.graph, np.ascontiguousarray(full.transpose(inverse(perm))), f"{value.name}.nhwc")
    if all(d == 1 for d in dims):
        return value
    small = sum(1 for d in dims if d != 1) <= 1 or (len(dims) == rank and only_ones_move(dims, inverse(perm)))
    return transposed(node, value, inverse(perm)) if len(dims) == rank and small else None


def _reduce(node: ir.Node) -> bool:
    """Reduced axes are permuted; without keepdims the rest keeps the order it has behind the transpose."""
    found = perm_of(node.inputs[0])
    if found is None:
        return False
    x, perm = found
    rank = len(perm)
    single = node.op_type == "argmax"
    axes = [int(attr(node, "axis"))] if single else [int(a) for a in attr(node, "axes", list(range(rank)))]
    axes = [a % rank for a in axes]
    moved = sorted(perm[a] for a in axes)
    attrs: dict[str, Any] = {"axis": moved[0]} if single else {"axes": moved}
    if int(attr(node, "keepdims", 1)):
        return finish(node, again(node, [x], perm, attrs), perm)
    left = [p for i, p in enumerate(perm) if i not in axes]
    rest = [sorted(left).index(p) for p in left]
    return finish(node, again(node, [x], rest, attrs), rest)


def _softmax(node: ir.Node) -> bool:
    found = perm_of(node.inputs[0])
    if found is None:
        return False
    x, perm = found
    axis = int(attr(node, "axis")) % len(perm)
    return finish(node, again(node, [x], perm, {"axis": perm[axis]}), perm)


def _layernorm(node: ir.Node) -> bool:
    """Only when the normalized axes stay where they are."""
    found = perm_of(node.inputs[0])
    if found is None:
        return False
    x, perm = found
    axis = int(attr(node, "axis")) % len(perm)
    if perm[axis:] != list(range(axis, len(perm))):
        return False
    return finish(node, again(node, [x, *node.inputs[1:]], perm), perm)


def _linear(node: ir.Node) -> bool:
    """Leading dimensions pass; the last one must stay."""
    found = perm_of(node.inputs[0])
    if found is None:
        return False
    x, perm = found
    last = 3 if node.op_type == "linear" else 5
    residual = operand(node, last)
    if perm[-1] != len(perm) - 1:
        return False
    inputs = [x, *node.inputs[1:]]
    if residual is not None:
        hit = perm_of(residual)
        if hit is None or hit[1] != perm:
            return False
        inputs[last] = hit[0]
    return finish(node, again(node, inputs, perm), perm)


def _transpose(node: ir.Node) -> bool:
    """Compose with the transpose above; drop the identity."""
    perm = [int(p) for p in attr(node, "perm")]
    found = perm_of(node.inputs[0])
    x = node.inputs[0]
    out = node.outputs[0]
    assert x is not None
    assert node.graph is not None
    if found is not None:
        x, above = found
        perm = [above[p] for p in perm]
    if perm == sorted(perm):
        source = source_of(out)
        if not can_replace(out, x):
            x = ns(node, "identity", [x], dtype=x.dtype, dims=dims_of(x), name=node.name or "", source=source)
        replace(out, x)
        if x.producer() is not None:
            x.meta.setdefault("source", source)
        node.graph.remove(node, safe=True)
        return True
    if found is None:
        return False
    replace(out, transposed(node, x, perm, name=node.name or ""))
    node.graph.remove(node, safe=True)
    return True


def _matmul(node: ir.Node) -> bool:
    """A transpose of the last two dimensions of b is the operator's own trans_b."""
    found = perm_of(node.inputs[1])
    if found is None:
        return False
    x, perm = found
    rank = len(perm)
    swapped = [*perm[:-2], perm[-1], perm[-2]]
    mine = [*range(rank - 2), rank - 1, rank - 2]
    keep = perm == mine
    better = not keep and perm[-1] != rank - 1 and swapped[-1] == rank - 1
    if not keep and not better:
        return False
    b = x if keep else transposed(node, x, swapped)
    out = node.outputs[0]
    given = {name: a.value for name, a in node.attributes.items()} | {"trans_b": 1 - int(attr(node, "trans_b", 0))}
    y = ns(
        node,
        node.op_type,
        [node.inputs[0], b],
        given,
        dtype=out.dtype,
        dims=dims_of(out),
        name=node.name or "",
        source=source_of(out),
    )
    replace(out, y)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


_RULES: dict[str, Callable[[ir.Node], bool]] = {
    **sink_movement.RULES,
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BROADCAST, _broadcast),
    "argmax": _reduce,
    "layernorm": _layernorm,
    "linear": _linear,
    "matmul": _matmul,
    "qlinear": _linear,
    "qlinear_dyadic": _linear,
    "qmatmul": _matmul,
    "reduce": _reduce,
    "softmax": _softmax,
    "transpose": _transpose,
}
