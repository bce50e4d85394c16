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
    ints_of,
    is_constant,
    operand,
    replace,
    source_of,
    sweep,
)
from netsuke.passes.nodes import from_ns, inverse, ns, permuted, transposed
from netsuke.passes.reshape_groups import sink_through_reshape

_UNARY = frozenset(["unary", "quantize", "dequantize", "cast", "identity", "prelu", "lut"])
_BROADCAST = frozenset(["binary", "where", "qadd", "qmul"])


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


def _perm_of(value: ir.Value | None) -> tuple[ir.Value, list[int]] | None:
    """(source, perm) when the value is a transpose."""
    node = from_ns(value, "transpose")
    if node is None or node.inputs[0] is None:
        return None
    return node.inputs[0], [int(p) for p in attr(node, "perm")]


def _finish(node: ir.Node, y: ir.Value, perm: list[int]) -> bool:
    """Put transpose(y, perm) in the place of the node."""
    out = node.outputs[0]
    source = source_of(out)
    new = transposed(node, y, perm, name=f"{node.name}.transpose")
    replace(out, new)
    new.meta["source"] = source
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def _again(
    node: ir.Node, inputs: list[ir.Value | None], perm: list[int], attrs: dict[str, Any] | None = None
) -> ir.Value:
    """The node on permuted axes: dimensions of the output are those of the old output before `perm`."""
    out = node.outputs[0]
    given = {name: a.value for name, a in node.attributes.items()} | (attrs or {})
    given = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
    dims = permuted(dims_of(out), inverse(perm))
    y = ns(node, node.op_type, inputs, given, dtype=out.dtype, dims=dims, name=node.name or "", source=source_of(out))
    if "grid" in out.meta:
        y.meta["grid"] = out.meta["grid"]
    return y


def _unary(node: ir.Node) -> bool:
    found = _perm_of(node.inputs[0])
    if found is None:
        return False
    x, perm = found
    per_channel = (
        operand(node, 1) is not None and len(dims_of(node.inputs[1]) or ()) and (array_of(node.inputs[1]) is not None)
    )
    if node.op_type in ("prelu", "lut") and per_channel and _varies(node) and perm[-1] != len(perm) - 1:
        return False
    return _finish(node, _again(node, [x, *node.inputs[1:]], perm), perm)


def _varies(node: ir.Node) -> bool:
    array = array_of(node.inputs[1])
    assert array is not None
    return array.ndim == 2 if node.op_type == "lut" else array.size > 1


def _broadcast(node: ir.Node) -> bool:
    """All inputs are transposed alike, constant, or scalar; small others are transposed back."""
    found = [_perm_of(v) for v in node.inputs]
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
    return _finish(node, _again(node, inputs, perm), perm)


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
    small = sum(1 for d in dims if d != 1) <= 1 or (len(dims) == rank and _only_ones_move(dims, inverse(perm)))
    return transposed(node, value, inverse(perm)) if len(dims) == rank and small else None


def _only_ones_move(dims: list[Any], perm: list[int]) -> bool:
    """True when the dimensions other than 1 keep their order."""
    kept = [p for p in perm if dims[p] != 1]
    return kept == sorted(kept)


def _concat(node: ir.Node) -> bool:
    found = [_perm_of(v) for v in node.inputs]
    hits = [f for f in found if f is not None]
    if not hits or any(f[1] != hits[0][1] for f in hits):
        return False
    perm = hits[0][1]
    # constants are permuted; anything else keeps the concat where it is
    if any(f is None and not is_constant(v) for f, v in zip(found, node.inputs, strict=True)):
        return False
    inputs: list[ir.Value | None] = []
    for value, hit in zip(node.inputs, found, strict=True):
        array = array_of(value)
        if hit is not None:
            inputs.append(hit[0])
        elif array is not None and node.graph is not None and value is not None:
            inputs.append(
                constant(node.graph, np.ascontiguousarray(array.transpose(inverse(perm))), f"{value.name}.nhwc")
            )
    axis = perm[int(attr(node, "axis")) % len(perm)]
    return _finish(node, _again(node, inputs, perm, {"axis": axis}), perm)


def _split(node: ir.Node) -> bool:
    found = _perm_of(node.inputs[0])
    if found is None:
        return False
    x, perm = found
    axis = perm[int(attr(node, "axis")) % len(perm)]
    made = ir.node(
        "split",
        inputs=[x, *node.inputs[1:]],
        attributes={"axis": axis},
        domain="netsuke",
        num_outputs=len(node.outputs),
        name=node.name,
    )
    assert node.graph is not None
    node.graph.insert_before(node, made)
    for index, (old, new) in enumerate(zip(list(node.outputs), made.outputs, strict=True)):
        new.name = f"{old.name}/part{index}"
        new.meta["fresh"] = False
        new.meta["source"] = source_of(old)
        new.type = old.type
        dims = permuted(dims_of(old), inverse(perm))
        new.shape = None if dims is None else ir.Shape(dims)
        source = source_of(old)
        back = transposed(node, new, perm, name=f"{node.name}.transpose{index}")
        replace(old, back)
        back.meta["source"] = source
    node.graph.remove(node, safe=True)
    return True


def _slice(node: ir.Node) -> bool:
    """Constant axes are permuted; computed ones keep the transpose."""
    found = _perm_of(node.inputs[0])
    if found is None:
        return False
    x, perm = found
    axes = ints_of(operand(node, 3))
    starts = operand(node, 1)
    if axes is None:
        count = (dims_of(starts) or [None])[0]
        if operand(node, 3) is not None or not isinstance(count, int):
            return False
        axes = list(range(count))
    assert node.graph is not None
    moved = constant(node.graph, np.asarray([perm[a % len(perm)] for a in axes], np.int64), f"{node.name}.axes")
    return _finish(node, _again(node, [x, *node.inputs[1:3], moved, *node.inputs[4:]], perm), perm)


def _pad(node: ir.Node) -> bool:
    found, pads = _perm_of(node.inputs[0]), ints_of(operand(node, 1))
    if found is None or pads is None or node.graph is None:
        return False
    x, perm = found
    back = inverse(perm)
    rank = len(perm)
    moved = [pads[i] for i in back] + [pads[rank + i] for i in back]
    fixed = constant(node.graph, np.asarray(moved, np.int64), f"{node.name}.pads")
    return _finish(node, _again(node, [x, fixed, *node.inputs[2:]], perm), perm)


def _tile(node: ir.Node) -> bool:
    found, repeats = _perm_of(node.inputs[0]), ints_of(operand(node, 1))
    if found is None or repeats is None or node.graph is None:
        return False
    x, perm = found
    fixed = constant(node.graph, np.asarray([repeats[i] for i in inverse(perm)], np.int64), f"{node.name}.repeats")
    return _finish(node, _again(node, [x, fixed], perm), perm)


def _reduce(node: ir.Node) -> bool:
    """Reduced axes are permuted; without keepdims the rest keeps the order it has behind the transpose."""
    found = _perm_of(node.inputs[0])
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
        return _finish(node, _again(node, [x], perm, attrs), perm)
    left = [p for i, p in enumerate(perm) if i not in axes]
    rest = [sorted(left).index(p) for p in left]
    return _finish(node, _again(node, [x], rest, attrs), rest)


def _softmax(node: ir.Node) -> bool:
    found = _perm_of(node.inputs[0])
    if found is None:
        return False
    x, perm = found
    axis = int(attr(node, "axis")) % len(perm)
    return _finish(node, _again(node, [x], perm, {"axis": perm[axis]}), perm)


def _layernorm(node: ir.Node) -> bool:
    """Only when the normalized axes stay where they are."""
    found = _perm_of(node.inputs[0])
    if found is None:
        return False
    x, perm = found
    axis = int(attr(node, "axis")) % len(perm)
    if perm[axis:] != list(range(axis, len(perm))):
        return False
    return _finish(node, _again(node, [x, *node.inputs[1:]], perm), perm)


def _linear(node: ir.Node) -> bool:
    """Leading dimensions pass; the last one must stay."""
    found = _perm_of(node.inputs[0])
    if found is None:
        return False
    x, perm = found
    last = 3 if node.op_type == "linear" else 5
    residual = operand(node, last)
    if perm[-1] != len(perm) - 1:
        return False
    inputs = [x, *node.inputs[1:]]
    if residual is not None:
        hit = _perm_of(residual)
        if hit is None or hit[1] != perm:
            return False
        inputs[last] = hit[0]
    return _finish(node, _again(node, inputs, perm), perm)


def _gather(node: ir.Node) -> bool:
    """A scalar index removes its axis, a vector keeps it."""
    found, index = _perm_of(node.inputs[0]), dims_of(node.inputs[1])
    if found is None or index is None or len(index) > 1:
        return False
    x, perm = found
    axis = int(attr(node, "axis", 0)) % len(perm)
    if len(index) == 1:
        return _finish(node, _again(node, [x, node.inputs[1]], perm, {"axis": perm[axis]}), perm)
    left = [p for i, p in enumerate(perm) if i != axis]
    rest = [sorted(left).index(p) for p in left]
    return _finish(node, _again(node, [x, node.inputs[1]], rest, {"axis": perm[axis]}), rest)


def _shape(node: ir.Node) -> bool:
    """The shape of a transpose is a permuted shape."""
    found = _perm_of(node.inputs[0])
    if found is None or node.graph is None:
        return False
    x, perm = found
    start, end = int(attr(node, "start", 0)), attr(node, "end")
    picked = np.asarray(perm[slice(start, end)], np.int64)
    whole = ns(node, "shape", [x], {"start": 0}, dtype=ir.DataType.INT64, dims=[len(perm)])
    index = constant(node.graph, picked, f"{node.name}.perm")
    out = node.outputs[0]
    replace(
        out,
        ns(
            node,
            "gather",
            [whole, index],
            {"axis": 0},
            dtype=ir.DataType.INT64,
            dims=[len(picked)],
            name=node.name or "",
        ),
    )
    node.graph.remove(node, safe=True)
    return True


def _squeeze(node: ir.Node) -> bool:
    found, axes = _perm_of(node.inputs[0]), ints_of(node.inputs[1])
    if found is None or axes is None or node.graph is None:
        return False
    x, perm = found
    axes = [a % len(perm) for a in axes]
    moved = constant(node.graph, np.asarray(sorted(perm[a] for a in axes), np.int64), f"{node.name}.axes")
    left = [p for i, p in enumerate(perm) if i not in axes]
    rest = [sorted(left).index(p) for p in left]
    return _finish(node, _again(node, [x, moved], rest), rest)


def _unsqueeze(node: ir.Node) -> bool:
    """The new dimensions go to the end before the transpose: they move no data."""
    found, axes = _perm_of(node.inputs[0]), ints_of(node.inputs[1])
    if found is None or axes is None or node.graph is None:
        return False
    x, perm = found
    rank = len(perm) + len(axes)
    axes = sorted(a % rank for a in axes)
    added = list(range(len(perm), rank))
    old, new = iter(perm), iter(added)
    wide = [next(new) if position in axes else next(old) for position in range(rank)]
    if _moves_only_ones(x, perm):
        return False
    moved = constant(node.graph, np.asarray(added, np.int64), f"{node.name}.axes")
    return _finish(node, _again(node, [x, moved], wide), wide)


def _moves_only_ones(x: ir.Value, perm: list[int]) -> bool:
    dims = dims_of(x)
    return dims is not None and _only_ones_move(dims, perm)


def _transpose(node: ir.Node) -> bool:
    """Compose with the transpose above; drop the identity."""
    perm = [int(p) for p in attr(node, "perm")]
    found = _perm_of(node.inputs[0])
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


def _reshape(node: ir.Node) -> bool:
    found = _perm_of(node.inputs[0])
    return found is not None and sink_through_reshape(node, found[0], found[1])


def _matmul(node: ir.Node) -> bool:
    """A transpose of the last two dimensions of b is the operator's own trans_b."""
    found = _perm_of(node.inputs[1])
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
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BROADCAST, _broadcast),
    "argmax": _reduce,
    "concat": _concat,
    "gather": _gather,
    "layernorm": _layernorm,
    "linear": _linear,
    "matmul": _matmul,
    "pad": _pad,
    "qlinear": _linear,
    "qlinear_dyadic": _linear,
    "qmatmul": _matmul,
    "reduce": _reduce,
    "reshape": _reshape,
    "shape": _shape,
    "slice": _slice,
    "softmax": _softmax,
    "split": _split,
    "squeeze": _squeeze,
    "tile": _tile,
    "transpose": _transpose,
    "unsqueeze": _unsqueeze,
}
