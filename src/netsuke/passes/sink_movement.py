"""Transposes through operators that move data or compute shapes: their axes, pads and indices are permuted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    array_of,
    attr,
    constant,
    dims_of,
    ints_of,
    is_constant,
    operand,
    replace,
    source_of,
)
from netsuke.passes.nodes import inverse, ns, permuted, transposed
from netsuke.passes.reshape_groups import sink_through_reshape
from netsuke.passes.transposes import again, finish, moves_only_ones, perm_of


def _concat(node: ir.Node) -> bool:
    found = [perm_of(v) for v in node.inputs]
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
    return finish(node, again(node, inputs, perm, {"axis": axis}), perm)


def _split(node: ir.Node) -> bool:
    found = perm_of(node.inputs[0])
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
    found = perm_of(node.inputs[0])
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
    return finish(node, again(node, [x, *node.inputs[1:3], moved, *node.inputs[4:]], perm), perm)


def _pad(node: ir.Node) -> bool:
    found, pads = perm_of(node.inputs[0]), ints_of(operand(node, 1))
    if found is None or pads is None or node.graph is None:
        return False
    x, perm = found
    back = inverse(perm)
    rank = len(perm)
    moved = [pads[i] for i in back] + [pads[rank + i] for i in back]
    fixed = constant(node.graph, np.asarray(moved, np.int64), f"{node.name}.pads")
    return finish(node, again(node, [x, fixed, *node.inputs[2:]], perm), perm)


def _tile(node: ir.Node) -> bool:
    found, repeats = perm_of(node.inputs[0]), ints_of(operand(node, 1))
    if found is None or repeats is None or node.graph is None:
        return False
    x, perm = found
    fixed = constant(node.graph, np.asarray([repeats[i] for i in inverse(perm)], np.int64), f"{node.name}.repeats")
    return finish(node, again(node, [x, fixed], perm), perm)


def _gather(node: ir.Node) -> bool:
    """A scalar index removes its axis, a vector keeps it."""
    found, index = perm_of(node.inputs[0]), dims_of(node.inputs[1])
    if found is None or index is None or len(index) > 1:
        return False
    x, perm = found
    axis = int(attr(node, "axis", 0)) % len(perm)
    if len(index) == 1:
        return finish(node, again(node, [x, node.inputs[1]], perm, {"axis": perm[axis]}), perm)
    left = [p for i, p in enumerate(perm) if i != axis]
    rest = [sorted(left).index(p) for p in left]
    return finish(node, again(node, [x, node.inputs[1]], rest, {"axis": perm[axis]}), rest)


def _shape(node: ir.Node) -> bool:
    """The shape of a transpose is a permuted shape."""
    found = perm_of(node.inputs[0])
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
    found, axes = perm_of(node.inputs[0]), ints_of(node.inputs[1])
    if found is None or axes is None or node.graph is None:
        return False
    x, perm = found
    axes = [a % len(perm) for a in axes]
    moved = constant(node.graph, np.asarray(sorted(perm[a] for a in axes), np.int64), f"{node.name}.axes")
    left = [p for i, p in enumerate(perm) if i not in axes]
    rest = [sorted(left).index(p) for p in left]
    return finish(node, again(node, [x, moved], rest), rest)


def _unsqueeze(node: ir.Node) -> bool:
    """The new dimensions go to the end before the transpose: they move no data."""
    found, axes = perm_of(node.inputs[0]), ints_of(node.inputs[1])
    if found is None or axes is None or node.graph is None:
        return False
    x, perm = found
    rank = len(perm) + len(axes)
    axes = sorted(a % rank for a in axes)
    added = list(range(len(perm), rank))
    old, new = iter(perm), iter(added)
    wide = [next(new) if position in axes else next(old) for position in range(rank)]
    if moves_only_ones(x, perm):
        return False
    moved = constant(node.graph, np.asarray(added, np.int64), f"{node.name}.axes")
    return finish(node, again(node, [x, moved], wide), wide)


def _reshape(node: ir.Node) -> bool:
    found = perm_of(node.inputs[0])
    return found is not None and sink_through_reshape(node, found[0], found[1])


RULES: dict[str, Callable[[ir.Node], bool]] = {
    "concat": _concat,
    "gather": _gather,
    "pad": _pad,
    "reshape": _reshape,
    "shape": _shape,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "tile": _tile,
    "unsqueeze": _unsqueeze,
}
