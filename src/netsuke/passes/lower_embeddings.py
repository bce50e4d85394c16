"""Gather of rows of a quantized table (embeddings): the rows are gathered as bytes and decoded afterwards.

    Gather(DequantizeLinear(codes), i)  =  dequantize(Gather(codes, i))                          one scale
                                        =  dequantize(Gather(codes, i)) * Gather(scales, i)      one scale a row

Both are exact: f32(q - zero) * scale is the same product whether it is formed before the rows are copied or after.
The file holds one byte an element and four a row.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import Array, array_of, attr, constant, dims_of, emit, is_constant, made_by, operand, replace
from netsuke.passes.nodes import F32, U8, ns

_TYPES = ("int8", "uint8", "int4", "uint4")


def lower_embeddings(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many gathers read codes."""
    return sum(_lower(node) for node in list(graph) if node.domain == "" and node.op_type == "Gather")


def _lower(node: ir.Node) -> bool:
    table, index = made_by(node.inputs[0], "DequantizeLinear"), node.inputs[1]
    if table is None or index is None or is_constant(index) or int(attr(node, "axis", 0)) != 0 or node.graph is None:
        return False
    found = _codes(table)
    if found is None:
        return False
    codes, zero, scale = found
    name, dims = node.name or "gather", dims_of(node.outputs[0])
    stored = constant(node.graph, codes, f"{name}.table")
    rows = emit(node, "Gather", [stored, index], {"axis": 0}, dtype=U8, dims=dims, name=name)
    one = scale.size == 1
    attrs = {"scale": float(scale.reshape(-1)[0]) if one else 1.0, "zero": zero}
    y = ns(node, "dequantize", [rows], attrs, dtype=F32, dims=dims, name=f"{name}/decode")
    if not one:
        steps = constant(node.graph, scale.reshape(-1, *[1] * (codes.ndim - 1)), f"{name}.scale")
        below = None if dims is None else [*dims[: len(dims) - codes.ndim + 1], *[1] * (codes.ndim - 1)]
        gathered = emit(node, "Gather", [steps, index], {"axis": 0}, dtype=F32, dims=below, name=f"{name}/scale")
        y = emit(node, "Mul", [y, gathered], dtype=F32, dims=dims, name=f"{name}/scaled")
    replace(node.outputs[0], y)
    node.graph.remove(node, safe=True)
    return True


def _codes(node: ir.Node) -> tuple[Array, int, Array] | None:
    """Codes u8, their zero and the scales f32 of a constant table with one scale, or one for each row."""
    q, scale, point = (array_of(operand(node, i)) for i in range(3))
    if q is None or scale is None or q.ndim < 2 or str(q.dtype) not in _TYPES or int(attr(node, "block_size", 0)):
        return None
    rows = int(attr(node, "axis", 1)) % q.ndim == 0 and scale.size == q.shape[0]
    zeros = np.zeros(1, np.int16) if point is None else np.unique(point.astype(np.int16))
    if scale.dtype != np.float32 or not (scale.size == 1 or rows) or zeros.size != 1:
        return None
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        return None
    shift = 0 if str(q.dtype).startswith("u") else 128
    return (q.astype(np.int16) + shift).astype(np.uint8), int(zeros[0]) + shift, scale
