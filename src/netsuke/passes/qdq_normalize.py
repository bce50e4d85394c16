"""QuantizeLinear and DequantizeLinear of activations become `quantize` and `dequantize` with unsigned codes.

Signed codes are re-encoded, code + 128 and zero + 128: the same real numbers. Between a Q and a DQ there may be
operators that move codes (some tools write them there); they see the new codes. DequantizeLinear of constants
stays: it carries integer weights.
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
    is_constant,
    is_op,
    made_by,
    only_user,
    operand,
    replace,
    source_of,
)
from netsuke.core.errors import Problem, UnsupportedError
from netsuke.passes.nodes import F32, U8, bounds_of, clamp_codes, grid_of, ns
from netsuke.passes.qdq_move import MOVES

LIMIT_KEY = "netsuke.limit"  # metadata of a Clip that methods write as part of the quantizer behind it

# bits of the code types of activations, and whether they are signed
_TYPES = {
    ir.DataType.UINT8: (8, False),
    ir.DataType.INT8: (8, True),
    ir.DataType.UINT4: (4, False),
    ir.DataType.INT4: (4, True),
}
_MOVES = MOVES | {"Concat", "Resize", "Identity"}


def normalize_qdq(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many Q and DQ nodes of activations were found."""
    count = 0
    signed: set[int] = set()
    for node in list(graph):
        if is_op(node, "QuantizeLinear") and not is_constant(node.inputs[0]):
            _quantize(node, signed)
            count += 1
        elif is_op(node, "DequantizeLinear") and not is_constant(node.inputs[0]):
            _dequantize(node, signed)
            count += 1
        elif node.domain == "" and any(id(v) in signed for v in node.inputs):
            _carry(node, signed)
    return count + fold_limits(graph)


def fold_limits(graph: ir.Graph) -> int:
    """quantize(clip(x)) is quantize with a code range: rounding to a grid is monotone (widths below 8 bits come so)."""
    count = 0
    for node in list(graph):
        grid = grid_of(node)
        clip = made_by(node.inputs[0], "Clip") if grid is not None else None
        bounds = bounds_of(clip)
        x = clip.inputs[0] if clip is not None else None
        if grid is None or clip is None or x is None or bounds is None or only_user(clip.outputs[0]) is not node:
            continue
        lo, hi = clamp_codes(bounds, grid.scale, grid.zero, grid.lo, grid.hi)
        source = source_of(x if LIMIT_KEY in clip.metadata_props else clip.outputs[0])
        attrs = {"scale": grid.scale, "zero": grid.zero, "lo": lo, "hi": hi}
        out = node.outputs[0]
        new = ns(node, "quantize", [x], attrs, dtype=U8, dims=dims_of(out), name=node.name or "", source=source)
        replace(out, new)
        new.meta["source"] = source
        graph.remove(node, safe=True)
        graph.remove(clip, safe=True)
        count += 1
    return count


def _scale_zero(node: ir.Node) -> tuple[float, int]:
    scale, zero = array_of(node.inputs[1]), array_of(operand(node, 2))
    assert scale is not None
    value = float(np.float32(scale.reshape(-1)[0]))
    if not (np.isfinite(value) and value > 0):
        raise UnsupportedError(Problem("scale is not a positive number", where=node.name or "", got=str(value)))
    return value, 0 if zero is None else int(zero.reshape(-1)[0])


def _quantize(node: ir.Node, signed: set[int]) -> None:
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    scale, zero = _scale_zero(node)
    kind = out.dtype or ir.DataType.UINT8
    if kind not in _TYPES:
        raise UnsupportedError(
            Problem(f"activation quantized to {kind.name}", where=node.name or "", allowed="8 or 4 bits")
        )
    bits, is_signed = _TYPES[kind]
    shift = 128 if is_signed else 0
    lo = shift - (1 << (bits - 1)) if is_signed else 0
    hi = lo + (1 << bits) - 1
    attrs: dict[str, Any] = {"scale": scale, "zero": zero + shift}
    if (lo, hi) != (0, 255):
        attrs |= {"lo": lo, "hi": hi}
    codes = ns(node, "quantize", [x], attrs, dtype=U8, dims=dims_of(out) or dims_of(x), source=source_of(x))
    _exchange(node, codes)
    if is_signed:
        signed.add(id(codes))


def _dequantize(node: ir.Node, signed: set[int]) -> None:
    q, out = node.inputs[0], node.outputs[0]
    assert q is not None
    scale, zero = _scale_zero(node)
    # a graph input of signed codes is left to the check below: only codes made here have been re-encoded
    if q.dtype in (ir.DataType.INT8, ir.DataType.INT4):
        raise UnsupportedError(
            Problem(
                "signed codes from outside the network", where=node.name or "", hint="give the network a float input"
            )
        )
    shift = 128 if id(q) in signed else 0
    attrs = {"scale": scale, "zero": zero + shift}
    value = ns(node, "dequantize", [q], attrs, dtype=F32, dims=dims_of(out) or dims_of(q), source=source_of(q))
    _exchange(node, value, keep=True)


def _carry(node: ir.Node, signed: set[int]) -> None:
    """An operator between a Q and a DQ: it may move codes, nothing else."""
    if node.op_type not in _MOVES and not (is_op(node, "Pad")):
        raise UnsupportedError(Problem(f"{node.op_type} computes on signed codes", where=node.name or ""))
    value = array_of(operand(node, 2)) if is_op(node, "Pad") else None
    if is_op(node, "Pad") and node.graph is not None and attr(node, "mode", "constant") == "constant":
        code = 128 + (0 if value is None else int(value.reshape(-1)[0]))
        while len(node.inputs) < 3:
            node.resize_inputs(len(node.inputs) + 1)
        node.replace_input_with(2, constant(node.graph, np.asarray(code, np.uint8), f"{node.name}.value"))
    for out in node.outputs:
        signed.add(id(out))
        out.type = ir.TensorType(U8)


def _exchange(node: ir.Node, new: ir.Value, keep: bool = False) -> None:
    """Put `new` in the place of the node; codes are named after the float value they stand for."""
    source = new.meta.get("source")
    replace(node.outputs[0], new)
    if not keep and source is not None:
        new.meta["source"] = source
    assert node.graph is not None
    node.graph.remove(node, safe=True)
