"""Add, Sub and Mul of two code tensors followed by a quantize become qadd and qmul.

Averages become qavgpool and qmean. A graph that asks for "dyadic" requantization gets qadd_dyadic, and qmean_dyadic
where the image size is fixed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import attr, constant, dims_of, ints_of, is_constant, made_by, operand
from netsuke.core.errors import Problem, UnsupportedError
from netsuke.formats.integer import dyadic, make_multiplier
from netsuke.passes.lower_qlinear import constant_codes
from netsuke.passes.nodes import U8, Codes, codes_of, from_nhwc, ns, reshaped, to_nhwc
from netsuke.passes.pools import pool_window
from netsuke.passes.tail import Tail, find_tail, graph_is_dyadic, is_single, last_member, multiplier, place


def lower_qelementwise(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many nodes became integer."""
    rules = {
        "Add": _binary,
        "Sub": _binary,
        "Mul": _binary,
        "AveragePool": _average,
        "GlobalAveragePool": _mean,
        "ReduceMean": _mean,
    }
    count = 0
    for node in list(graph):
        rule = rules.get(node.op_type) if node.domain == "" and node.graph is not None else None
        if rule is not None:
            tail = find_tail(node.outputs[0], residual=False)
            count += bool(tail.grid is not None and rule(node, tail))
    return count


def _codes(node: ir.Node, index: int) -> Codes | None:
    value = node.inputs[index]
    dequantize = made_by(value, "DequantizeLinear")
    if dequantize is not None and is_constant(dequantize.inputs[0]):
        return constant_codes(node, dequantize)
    return codes_of(value)


def _binary(node: ir.Node, tail: Tail) -> bool:
    a, b = _codes(node, 0), _codes(node, 1)
    if a is None or b is None or tail.grid is None or (is_constant(a.value) and is_constant(b.value)):
        return False
    at = last_member(node, tail)
    scale = tail.grid.scale
    attrs: dict[str, Any] = {"a_zero": a.zero, "b_zero": b.zero, **tail.limits()}
    if node.op_type == "Sub":
        b = _negated(at, b)
        attrs["b_zero"] = b.zero
    op = "qmul" if node.op_type == "Mul" else "qadd"
    if node.op_type == "Mul":
        attrs["mult"] = float(multiplier(node, a.scale, b.scale, scale))
    elif graph_is_dyadic(node):
        op = "qadd_dyadic"
        attrs["a_m"], attrs["a_e"] = _dyadic(node, a.scale / scale)
        attrs["b_m"], attrs["b_e"] = _dyadic(node, b.scale / scale)
    else:
        attrs["a_mult"] = float(make_multiplier(a.scale, 1.0, scale))
        attrs["b_mult"] = float(make_multiplier(b.scale, 1.0, scale))
        if node.op_type == "Add" and is_single(node):
            attrs["offset"] = sum_offset(attrs)
    dims = dims_of(node.outputs[0])
    place(
        tail, node, ns(at, op, [a.value, b.value], attrs, dtype=U8, dims=dims, name=node.name or "", source=tail.source)
    )
    return True


def sum_offset(attrs: dict[str, Any]) -> float:
    """All zero points of a sum as one f32 number (numerics.md section 6)."""
    f32 = np.float32
    taken = f32(attrs["a_mult"]) * f32(attrs["a_zero"]) + f32(attrs["b_mult"]) * f32(attrs["b_zero"])
    return float(f32(attrs["zero"]) - taken)


def _dyadic(node: ir.Node, mult: float) -> tuple[int, int]:
    try:
        m, e = dyadic(np.float64(mult))
    except ValueError as error:
        raise UnsupportedError(Problem("no dyadic multiplier", where=node.name or "", got=str(error))) from None
    return int(m), int(e)


def _negated(at: ir.Node, b: Codes) -> Codes:
    """-b exactly: code 255 - q with zero 255 - zero."""
    assert at.graph is not None
    table = constant(at.graph, np.arange(255, -1, -1, dtype=np.uint8), f"{at.name}.negate")
    return Codes(ns(at, "lut", [b.value, table], dtype=U8, dims=dims_of(b.value)), b.scale, 255 - b.zero)


def _average(node: ir.Node, tail: Tail) -> bool:
    x, window = codes_of(node.inputs[0]), pool_window(node)
    if x is None or window is None or tail.grid is None:
        return False
    at, rank = last_member(node, tail), len(dims_of(node.inputs[0]) or ())
    mult = float(make_multiplier(x.scale, 1.0, tail.grid.scale))
    attrs = {**window, "x_zero": x.zero, "mult": mult, **tail.limits()}
    attrs.pop("dilations", None)
    q = to_nhwc(at, x.value)
    dims = _nhwc(dims_of(node.outputs[0]))
    y = ns(at, "qavgpool", [q], attrs, dtype=U8, dims=dims, name=node.name or "", source=tail.source)
    place(tail, node, y, from_nhwc(at, y, rank))
    return True


def _nhwc(dims: list[Any] | None) -> list[Any] | None:
    if dims is None:
        return None
    return [dims[0], *dims[2:], dims[1]] if len(dims) == 4 else [dims[0], 1, dims[2], dims[1]]


def _mean(node: ir.Node, tail: Tail) -> bool:
    """The mean over all spatial positions: of NCHW, of NHWC, or of [N, T, C] over T."""
    x, dims = codes_of(node.inputs[0]), dims_of(node.inputs[0])
    if x is None or dims is None or tail.grid is None:
        return False
    rank = len(dims)
    pooled = node.op_type == "GlobalAveragePool"
    axes = list(range(2, rank)) if pooled else ints_of(operand(node, 1))
    if axes is None:
        return False
    axes = sorted(a + rank if a < 0 else a for a in axes)
    keep = pooled or bool(int(attr(node, "keepdims", 1)))
    first = axes == list(range(2, rank)) and rank in (3, 4)
    last = axes == list(range(1, rank - 1)) and rank in (3, 4)
    channels = dims[1] if first and not (last and rank == 3) else dims[-1]
    if not (first or last) or not isinstance(channels, int):
        return False
    at = last_member(node, tail)
    q = to_nhwc(at, x.value) if first else _last_as_nhwc(at, x.value, dims)
    op, attrs = "qmean", {"x_zero": x.zero, **tail.limits()}
    spatial = [dims[i] for i in axes]
    if graph_is_dyadic(node) and all(isinstance(d, int) for d in spatial):
        op, attrs["count"] = "qmean_dyadic", math.prod(spatial)
        attrs["m"], attrs["e"] = _dyadic(node, x.scale / tail.grid.scale / attrs["count"])
    else:  # an image of any size needs a division when it runs
        attrs["mult"] = float(make_multiplier(x.scale, 1.0, tail.grid.scale))
    y = ns(at, op, [q], attrs, dtype=U8, dims=[dims[0], 1, 1, channels], name=node.name or "", source=tail.source)
    wanted = dims_of(node.outputs[0]) or []
    if keep:
        target = [0, channels, *([1] * (rank - 2))] if first else [0, *([1] * (rank - 2)), channels]
    else:
        target = [0, channels]
    place(tail, node, y, reshaped(at, y, target, wanted or None))
    return True


def _last_as_nhwc(at: ir.Node, q: ir.Value, dims: list[Any]) -> ir.Value:
    from netsuke.passes.nodes import with_axis

    return with_axis(at, q, 1) if len(dims) == 3 else q
