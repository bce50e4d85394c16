"""MultiThreshold of QONNX files in FINN's style, written in the canonical form that the passes lower.

    MultiThreshold(x, t [C, T] or [1, T])   out_scale * (number of t[c] <= x) + out_bias; channels on axis 1, or last

One threshold is a comparison: signs (out_scale 2, out_bias -1) or 0 and 1, which layers read as packed bits. More are
counted by comparisons, exactly, into codes 0 .. T behind Clip, QuantizeLinear and DequantizeLinear, so that the layers
behind them run on packed integers. Behind an integer layer the counting becomes its requantization
(`netsuke.passes.fold_thresholds`); on a float input it is float work of T passes. Such files carry integer weights as
plain floats: those of Conv, Gemm and MatMul become int8 codes of scale 1 behind DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    Array,
    array_of,
    attr,
    constant,
    dims_of,
    emit,
    is_constant,
    is_op,
    operand,
    replace,
    set_type,
)
from netsuke.capture.qonnx import DOMAINS, LIMIT_KEY
from netsuke.core.errors import Problem, UnsupportedError

_F32, _BOOL = ir.DataType.FLOAT, ir.DataType.BOOL
_MOST = 255  # thresholds: codes are bytes


def thresholds_to_qdq(graph: ir.Graph, infer: Callable[[], None]) -> int:
    """Rewrite in place; returns how many nodes were replaced. UnsupportedError lists what has no form.

    infer  fills in shapes of the graph's values as far as standard operators tell them
    """
    nodes = [n for n in graph if n.domain in DOMAINS and n.op_type == "MultiThreshold"]
    _shapes(nodes, infer)
    problems = [found for node in nodes for found in _problems(node)]
    if problems:
        raise UnsupportedError(problems)
    for node in nodes:
        new = _one(node) if _limits(node).shape[1] == 1 else _many(node)
        replace(node.outputs[0], new)
        graph.remove(node, safe=True)
    if nodes:
        for node in list(graph):
            _integer_weight(node)
    return len(nodes)


def _shapes(nodes: list[ir.Node], infer: Callable[[], None]) -> None:
    """Thresholds keep shapes, which ONNX does not know: say so and infer what follows, one after the other."""
    for _ in nodes:
        for node in nodes:
            dims = dims_of(node.inputs[0])
            if dims is not None and dims_of(node.outputs[0]) is None:
                set_type(node.outputs[0], _F32, dims)
        if all(dims_of(node.outputs[0]) is not None for node in nodes):
            return
        infer()


def _limits(node: ir.Node) -> Array:
    return np.asarray(array_of(node.inputs[1]), np.float32)


def _axis(node: ir.Node) -> int:
    """Of channels, from the front."""
    rank = len(dims_of(node.inputs[0]) or ())
    return rank - 1 if str(attr(node, "data_layout", "NCHW")).upper().endswith("C") and rank > 2 else 1


def _problems(node: ir.Node) -> list[Problem]:
    """Everything that keeps the node from having a canonical form."""
    where, found = f"MultiThreshold {node.name or ''}".strip(), list[Problem]()
    limits, dims = array_of(operand(node, 1)), dims_of(node.inputs[0])
    if limits is None or limits.ndim != 2 or not limits.size:
        got = "computed at run time" if limits is None else str(list(limits.shape))
        return [Problem("thresholds must be a constant of channels and thresholds", where, got, "[C, T] or [1, T]")]
    if not np.isfinite(limits).all():
        found.append(Problem("thresholds are not finite", where, f"{int((~np.isfinite(limits)).sum())} of them"))
    elif (np.diff(limits, axis=1) < 0).any():
        channel = int(np.flatnonzero((np.diff(limits, axis=1) < 0).any(1))[0])
        found.append(Problem("thresholds are not in rising order", where, f"channel {channel}"))
    if limits.shape[1] > _MOST:
        found.append(Problem("thresholds a channel", where, str(limits.shape[1]), f"1 to {_MOST}"))
    if dims is None or len(dims) < 2:
        found.append(Problem("the shape of the input is not known", where, hint="run shape inference on the file"))
    elif limits.shape[0] not in (1, dims[_axis(node)]):
        found.append(Problem("channels of thresholds", where, str(limits.shape[0]), f"1 or {dims[_axis(node)]}"))
    scale, bias = float(attr(node, "out_scale", 1.0)), float(attr(node, "out_bias", 0.0))
    if not (np.isfinite(scale) and scale > 0 and np.isfinite(bias)):
        found.append(Problem("out_scale and out_bias", where, f"{scale}, {bias}", "positive, finite"))
    elif limits.shape[1] > 1:
        zero = -bias / scale
        if zero != round(zero) or not 0 <= zero <= _MOST:
            hint = "a multiple that keeps 0 among the values"
            found.append(Problem("out_bias is no zero point", where, f"{bias} with out_scale {scale}", hint=hint))
    return found


def _placed(node: ir.Node, limits: Array) -> ir.Value:
    """One threshold a channel as a constant against x; a scalar where all are the same."""
    assert node.graph is not None
    if (limits == limits[0]).all():
        return constant(node.graph, np.asarray(limits[0], np.float32), f"{node.name}.threshold")
    shape = [1] * len(dims_of(node.inputs[0]) or ())
    shape[_axis(node)] = -1
    return constant(node.graph, limits.astype(np.float32).reshape(shape), f"{node.name}.threshold")


def _reached(node: ir.Node, limits: Array) -> ir.Value:
    """x >= t as a bool. x - t is 0 or more exactly where x >= t (gradual underflow): the form `binary_forms` reads."""
    x, graph = node.inputs[0], node.graph
    assert x is not None
    assert graph is not None
    bound = _placed(node, limits)
    if len(bound.shape or ()):
        x = emit(node, "Sub", [x, bound], dtype=_F32, dims=dims_of(x))
        bound = constant(graph, np.asarray(0, np.float32), f"{node.name}.zero")
    return emit(node, "GreaterOrEqual", [x, bound], dtype=_BOOL, dims=dims_of(x))


def _choice(node: ir.Node, above: ir.Value, high: float, low: float) -> ir.Value:
    assert node.graph is not None
    pair = [constant(node.graph, np.asarray(v, np.float32), f"{node.name}.level") for v in (high, low)]
    return emit(node, "Where", [above, *pair], dtype=_F32, dims=dims_of(node.inputs[0]))


def _one(node: ir.Node) -> ir.Value:
    scale, bias = np.float32(attr(node, "out_scale", 1.0)), np.float32(attr(node, "out_bias", 0.0))
    return _choice(node, _reached(node, _limits(node)[:, 0]), float(scale + bias), float(bias))


def _many(node: ir.Node) -> ir.Value:
    """Codes 0 .. T: the count, through a quantizer of step out_scale whose zero point is -out_bias / out_scale."""
    graph, limits, dims = node.graph, _limits(node), dims_of(node.inputs[0])
    assert graph is not None
    terms = [_choice(node, _reached(node, limits[:, i]), 1.0, 0.0) for i in range(limits.shape[1])]
    total = terms[0]
    for term in terms[1:]:
        total = emit(node, "Add", [total, term], dtype=_F32, dims=dims)
    scale, bias = np.float32(attr(node, "out_scale", 1.0)), np.float32(attr(node, "out_bias", 0.0))
    for op, value in (("Mul", scale), ("Add", bias)):
        if value != (1 if op == "Mul" else 0):
            other = constant(graph, np.asarray(value, np.float32), f"{node.name}.{op.lower()}")
            total = emit(node, op, [total, other], dtype=_F32, dims=dims)
    top = np.float32(limits.shape[1]) * scale + bias
    edges = [constant(graph, np.asarray(v, np.float32), f"{node.name}.limit") for v in (bias, top)]
    held = emit(node, "Clip", [total, *edges], dtype=_F32, dims=dims)
    clip = held.producer()
    assert clip is not None
    clip.metadata_props[LIMIT_KEY] = f"{limits.shape[1] + 1} levels"
    grid = [
        constant(graph, np.asarray(scale, np.float32), f"{node.name}.scale"),
        constant(graph, np.asarray(round(float(-bias / scale)), np.uint8), f"{node.name}.point"),
    ]
    codes = emit(node, "QuantizeLinear", [held, *grid], dtype=ir.DataType.UINT8, dims=dims)
    return emit(node, "DequantizeLinear", [codes, *grid], dtype=_F32, dims=dims)


def _integer_weight(node: ir.Node) -> None:
    """A float weight of whole numbers beside an input that is no constant: int8 codes of scale 1."""
    if not is_op(node, "Conv", "Gemm", "MatMul") or is_constant(node.inputs[0]) or not is_constant(node.inputs[1]):
        return
    weight, old = array_of(node.inputs[1]), node.inputs[1]
    if weight is None or weight.dtype != np.float32 or weight.ndim < 2 or not weight.size or node.graph is None:
        return
    if (weight != np.rint(weight)).any() or np.abs(weight).max() > 127 or len(np.unique(np.abs(weight))) == 1:
        return  # weights of one magnitude are one bit already, as floats
    name = old.name if old is not None else node.name
    inputs = [
        constant(node.graph, weight.astype(np.int8), f"{name}.codes"),
        constant(node.graph, np.asarray(1, np.float32), f"{name}.scale"),
    ]
    codes = emit(node, "DequantizeLinear", inputs, dtype=_F32, dims=[int(d) for d in weight.shape])
    node.replace_input_with(1, codes)
