"""Move `dequantize` down and `quantize` up through operators that only move data, so that the data moves as bytes.

    op(dequantize(q)) = dequantize(op(q))          for every operator that copies or selects elements
    quantize(op(x))   = op(quantize(x))            the same, and concat: quantize each input

Maximum is in the list because quantization is monotone. A dequantize that meets a quantize of the same grid disappears.
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
    is_op,
    made_by,
    only_user,
    operand,
    replace,
    source_of,
    sweep,
)
from netsuke.passes.nodes import F32, U8, Codes, Grid, codes_of, grid_of, ns

MOVES = frozenset(
    [
        "Reshape",
        "Transpose",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "MaxPool",
        "DepthToSpace",
        "SpaceToDepth",
        "Gather",
        "Expand",
        "Tile",
        "GlobalMaxPool",
    ]
)


def move_qdq(graph: ir.Graph) -> int:
    """Rewrite in place until nothing moves; returns how many moves were made."""
    total = 0
    for _ in range(64):
        count = _quantizers_up(graph) + _dequantizers_down(graph) + _cancel(graph)
        sweep(graph)
        total += count
        if not count:
            break
    return total


def moves_data(node: ir.Node) -> bool:
    """True for ONNX operators whose first output holds elements of the first input only."""
    if node.domain != "":
        return False
    if node.op_type in MOVES:
        return not (is_op(node, "MaxPool") and len(node.outputs) > 1)
    if is_op(node, "Resize"):
        return bool(attr(node, "mode", "nearest") == "nearest")
    return is_op(node, "Pad") and _pads_zero(node)


def _pads_zero(node: ir.Node) -> bool:
    """A constant Pad writes 0, which every grid holds exactly; another value need not be on the grid."""
    if attr(node, "mode", "constant") != "constant":
        return True
    value = array_of(operand(node, 2))
    return operand(node, 2) is None or (value is not None and not value.any())


def _dequantizers_down(graph: ir.Graph) -> int:
    count = 0
    for node in list(graph):
        found = codes_of(node.inputs[0]) if node.inputs else None
        if node.domain != "":
            continue
        if found is not None and moves_data(node):
            _move_down(node, found.value, found.scale, found.zero)
            count += 1
        elif is_op(node, "Concat") and _concat_down(node):
            count += 1
    return count


def _copy(node: ir.Node, inputs: list[ir.Value | None], dtype: ir.DataType) -> list[ir.Value]:
    """The node again on other inputs, all outputs with another dtype."""
    clone = ir.Node(
        "",
        node.op_type,
        inputs=inputs,
        attributes=list(node.attributes.values()),
        num_outputs=len(node.outputs),
        name=node.name,
    )
    assert node.graph is not None
    node.graph.insert_before(node, clone)
    for old, new in zip(node.outputs, clone.outputs, strict=True):
        new.name = None
        new.type = ir.TensorType(dtype)
        new.shape = old.shape
        new.meta["source"] = source_of(old)
        new.meta["fresh"] = True
        new.name = f"{old.name}/codes"
    return list(clone.outputs)


def _move_down(node: ir.Node, q: ir.Value, scale: float, zero: int) -> None:
    inputs = [q, *node.inputs[1:]]
    if is_op(node, "Pad") and attr(node, "mode", "constant") == "constant":
        assert node.graph is not None
        inputs = [*inputs, None][:3] if len(inputs) < 3 else inputs
        inputs[2] = constant(node.graph, np.asarray(zero, np.uint8), f"{node.name}.value")
    for old, new in zip(list(node.outputs), _copy(node, inputs, U8), strict=True):
        attrs = {"scale": scale, "zero": zero}
        replace(old, ns(node, "dequantize", [new], attrs, dtype=F32, dims=dims_of(old), source=source_of(old)))
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _concat_down(node: ir.Node) -> bool:
    """All inputs on one grid: concatenate codes."""
    found = [codes_of(v) for v in node.inputs]
    first = found[0]
    if first is None or any(f is None or (f.scale, f.zero) != (first.scale, first.zero) for f in found):
        return False
    q = _copy(node, [f.value for f in found if f is not None], U8)[0]
    out = node.outputs[0]
    attrs = {"scale": first.scale, "zero": first.zero}
    replace(out, ns(node, "dequantize", [q], attrs, dtype=F32, dims=dims_of(out), source=source_of(out)))
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def _quantizers_up(graph: ir.Graph) -> int:
    count = 0
    for node in reversed(list(graph)):
        grid = grid_of(node) if node.graph is not None else None
        mover = node.inputs[0].producer() if grid is not None and node.inputs[0] is not None else None
        if grid is None or mover is None or only_user(mover.outputs[0]) is not node or mover.domain != "":
            continue
        if len(mover.outputs) > 1 or any(v is not None and v.const_value is not None for v in mover.inputs[:1]):
            continue
        concat = is_op(mover, "Concat")
        if not concat and (not moves_data(mover) or codes_of(mover.inputs[0]) is not None):
            continue
        attrs: dict[str, Any] = {"scale": grid.scale, "zero": grid.zero}
        if (grid.lo, grid.hi) != (0, 255):
            attrs |= {"lo": grid.lo, "hi": grid.hi}
        sources = list(mover.inputs) if concat else [mover.inputs[0]]
        codes: list[ir.Value | None] = [_quantized(mover, v, attrs) for v in sources]
        inputs = codes if concat else [*codes, *mover.inputs[1:]]
        if is_op(mover, "Pad") and attr(mover, "mode", "constant") == "constant":
            inputs = [*inputs, None][:3] if len(inputs) < 3 else inputs
            inputs[2] = constant(graph, np.asarray(grid.zero, np.uint8), f"{mover.name}.value")
        moved = _copy(mover, inputs, U8)[0]
        source = node.outputs[0].meta.get("source")
        replace(node.outputs[0], moved)
        moved.meta["source"] = source or source_of(moved)
        graph.remove(node, safe=True)
        graph.remove(mover, safe=True)
        count += 1
    return count


def _quantized(before: ir.Node, x: ir.Value | None, attrs: dict[str, Any]) -> ir.Value:
    assert x is not None
    array = array_of(x)
    if array is not None and before.graph is not None:
        from netsuke.formats.integer import quantize

        codes = quantize(array, attrs["scale"], attrs["zero"], attrs.get("lo", 0), attrs.get("hi", 255))
        return constant(before.graph, codes, f"{x.name}.codes")
    return ns(before, "quantize", [x], attrs, dtype=U8, dims=dims_of(x), source=source_of(x))


def _cancel(graph: ir.Graph) -> int:
    """quantize(dequantize(q)) on one grid is q where q keeps inside the range of the grid; equal quantizers become one.

    So does quantize(linear resize(dequantize(q))): docs/numerics.md interpolates codes.
    """
    count = 0
    seen: dict[tuple[object, ...], ir.Value] = {}
    for node in list(graph):
        grid = grid_of(node)
        out = node.outputs[0]
        if grid is None or out.is_graph_output():
            continue
        found = codes_of(node.inputs[0])
        if found is not None and (found.scale, found.zero) == (grid.scale, grid.zero) and _inside(found, grid):
            replace(out, found.value)
            graph.remove(node, safe=True)
            count += 1
            continue
        if _resize_codes(node, grid):
            count += 1
            continue
        first = seen.setdefault((id(node.inputs[0]), grid.scale, grid.zero, grid.lo, grid.hi), out)
        if first is not out:
            replace(out, first)
            graph.remove(node, safe=True)
            count += 1
    return count


def _inside(found: Codes, grid: Grid) -> bool:
    """True when the codes cannot leave the range of the grid: it is the whole byte, or that of their own quantizer."""
    own = grid_of(found.value.producer())
    return (grid.lo, grid.hi) == (0, 255) or (own is not None and (own.lo, own.hi) == (grid.lo, grid.hi))


def _resize_codes(node: ir.Node, grid: Grid) -> bool:
    resize = made_by(node.inputs[0], "Resize")
    if resize is None or only_user(resize.outputs[0]) is not node or attr(resize, "mode", "nearest") != "linear":
        return False
    found = codes_of(resize.inputs[0])
    if found is None or (found.scale, found.zero) != (grid.scale, grid.zero) or not _inside(found, grid):
        return False
    moved = _copy(resize, [found.value, *resize.inputs[1:]], U8)[0]
    source = node.outputs[0].meta.get("source")
    replace(node.outputs[0], moved)
    moved.meta["source"] = source or source_of(moved)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def fold_constant_dequantizers(graph: ir.Graph) -> list[str]:
    """DequantizeLinear of constants that no integer layer took: their float values, and which nodes read them."""
    from netsuke.passes.nodes import dequantized

    readers = []
    for node in list(graph):
        if not is_op(node, "DequantizeLinear") or array_of(node.inputs[0]) is None:
            continue
        readers += [use.node.name or "" for use in node.outputs[0].uses()]
        replace(node.outputs[0], constant(graph, dequantized(node), node.outputs[0].name or "weight"))
        graph.remove(node, safe=True)
    return readers
