"""A table per channel of a function that is a line with limits becomes a 1x1 depthwise convolution of the same codes.

A normalization that stands before its convolution (DenseNet) is a * x + b in every channel, then a Relu: 256 bytes a
channel as a table, 9 as weight, multiplier and bias, which vectors run over. The convolution rounds differently from
the operators that the table was made from, so both are evaluated on all 256 codes of every channel; where one
differs, the bias is moved by a few units in the last place, and where that does not help the table stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import Array, array_of, attr, constant, dims_of, operand, source_of
from netsuke.capture.graph import replace as exchange
from netsuke.formats.bound import accumulator_bound
from netsuke.formats.integer import requantize
from netsuke.passes.nodes import U8, Codes, Grid, bounds_of, clamp_codes, is_ns, ns
from netsuke.passes.tail import graph_is_dyadic

LINE = "line"  # in the metadata of a table's value
_INF = float("inf")
_CODES = np.arange(256)
_NUDGES = (0, 1, -1, 2, -2, 3, -3, 4, -4)  # units in the last place of the bias
MIN_CHANNELS = 16  # below, the table costs nothing and depthwise kernels do not apply


@dataclass(frozen=True)
class Line:
    """min(max(gain * (q - zero) + shift, low), high) in reals; gain and shift f64 [1 or C]. `grid`: of the result."""

    zero: int
    gain: Array
    shift: Array
    low: float = -_INF
    high: float = _INF
    grid: Grid | None = None


def start(codes: Codes) -> Line:
    """The line of dequantize."""
    return Line(codes.zero, np.asarray([codes.scale], np.float64), np.zeros(1))


def follow(line: Line | None, step: ir.Node, other: Array | None, left: bool) -> Line | None:
    """The line behind one more operator, or None. other: the constant operand, f64 [1 or C, 1]; left: the line is the
    first operand."""
    if line is None:
        return None
    bounds = bounds_of(step)
    if bounds is not None:
        low, high = (min(max(v, bounds[0]), bounds[1]) for v in (line.low, line.high))
        return replace(line, low=low, high=high)
    limited = (line.low, line.high) != (-_INF, _INF)
    if other is None or limited or not is_ns(step, "binary"):
        return None
    c, fn = other.reshape(-1), attr(step, "fn")
    if fn == "add":
        return replace(line, shift=line.shift + c)
    if fn == "mul":
        return replace(line, gain=line.gain * c, shift=line.shift * c)
    if fn == "sub":
        sign = 1.0 if left else -1.0
        return replace(line, gain=line.gain * sign, shift=(line.shift - c) * sign)
    if fn == "div" and left and (c != 0).all():
        return replace(line, gain=line.gain / c, shift=line.shift / c)
    return None


def affine_tables(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many tables became convolutions. Graphs of dyadic requantization keep theirs."""
    return sum(_convolve(node) for node in list(graph) if is_ns(node, "lut") and not graph_is_dyadic(node))


def _convolve(node: ir.Node) -> bool:
    y, x, table = node.outputs[0], node.inputs[0], array_of(operand(node, 1))
    line = y.meta.get(LINE)
    dims = dims_of(y)
    if not isinstance(line, Line) or line.grid is None or x is None or table is None or node.graph is None:
        return False
    if table.dtype != np.uint8 or table.ndim != 2 or len(table) < MIN_CHANNELS or dims is None or len(dims) != 4:
        return False
    lo, hi = clamp_codes((line.low, line.high), line.grid.scale, line.grid.zero, line.grid.lo, line.grid.hi)
    found = fit(line, table, lo, hi)
    if found is None:
        return False
    w, mult, bias = found
    weight = np.ascontiguousarray(w.reshape(-1, 1, 1, 1))
    bound = int(accumulator_bound(weight, line.zero, 0, 255, None).max(initial=0))
    attrs = {"strides": [1, 1], "pads": [0, 0, 0, 0], "groups": len(w), "x_zero": line.zero, "acc_bound": bound}
    attrs |= {"zero": line.grid.zero, "lo": lo, "hi": hi}
    name = node.name or "affine"
    parts = [constant(node.graph, a, f"{name}.{key}") for a, key in ((weight, "w"), (mult, "mult"), (bias, "bias"))]
    new = ns(node, "qconv", [x, *parts, None, None], attrs, dtype=U8, dims=dims, name=name, source=source_of(y))
    new.meta["grid"] = (line.grid.scale, line.grid.zero)
    source = source_of(y)
    exchange(y, new)
    new.meta["source"] = source
    node.graph.remove(node, safe=True)
    return True


def fit(line: Line, table: Array, lo: int, hi: int) -> tuple[Array, Array, Array] | None:
    """(weights s8, multipliers f32, biases f32), each [C], that give `table` [C, 256] on every code; None: none."""
    assert line.grid is not None
    gain, shift = (np.broadcast_to(v, (len(table),)) / np.float64(line.grid.scale) for v in (line.gain, line.shift))
    w, mult, exact = np.sign(gain).astype(np.int8), np.abs(gain).astype(np.float32), shift.astype(np.float32)
    if not (np.isfinite(mult).all() and np.isfinite(exact).all()):
        return None
    acc = (_CODES - line.zero)[:, None] * w.astype(np.int64)
    bias, open_channels = exact.copy(), np.ones(len(table), bool)
    for ulps in _NUDGES:
        tried = exact + ulps * np.spacing(exact)
        codes = requantize(acc, mult, tried, zero=line.grid.zero, lo=lo, hi=hi).T
        good = open_channels & (codes == table).all(axis=1)
        bias[good], open_channels = tried[good], open_channels & ~good
    return None if open_channels.any() else (w, mult, bias.astype(np.float32))
