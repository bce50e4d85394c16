"""Thresholds counted behind an integer layer move into its requantization: sum of (y >= t[c]) becomes the codes.

    qconv (f32) -> [>= t_1 .. t_T, summed] -> (Mul, Add) -> quantize        becomes qconv (u8), or qconv (u8) -> lut

y = f(acc) rises with the accumulator, so y >= t is acc >= a whole number, found by bisection with the layer's own
arithmetic. Thresholds that stem from a uniform quantizer (FINN's do) have a line through all their steps: multiplier
and offset of the channel, rounded as ever, count them. Other thresholds at most 254 apart become an offset and a table
of 256 codes a channel. Both are checked at every step of every channel; where neither holds, the floats stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    Array,
    array_of,
    attr,
    constant,
    dims_of,
    is_constant,
    only_user,
    operand,
    replace,
    source_of,
)
from netsuke.formats.integer import quantize, requantize, requantize_f32
from netsuke.passes.nodes import U8, grid_of, is_ns, ns

_SEARCH = 100  # steps of the search for a slope; each keeps two thirds of an interval of 30 binary orders


@dataclass(frozen=True)
class Count:
    """limits f32 [T, C or 1] rising; the value is scale * (number of limits <= x) + bias."""

    x: ir.Value
    limits: Array
    scale: float
    bias: float
    members: tuple[ir.Node, ...]


def fold_thresholds(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many layers took their thresholds over."""
    if graph.meta.get("requant") == "dyadic":
        return 0
    return sum(_fold(node) for node in list(graph) if is_ns(node, "quantize"))


def _fold(end: ir.Node) -> bool:
    found, grid = counted(end.inputs[0]), grid_of(end)
    layer = None if found is None else found.x.producer()
    if found is None or grid is None or layer is None or not _takes_over(layer, found):
        return False
    numbers = np.arange(len(found.limits) + 1, dtype=np.float32) * np.float32(found.scale) + np.float32(found.bias)
    codes = quantize(numbers, grid.scale, grid.zero, grid.lo, grid.hi).astype(np.int64)
    if (np.diff(codes) != 1).any():
        return False
    bound = int(attr(layer, "acc_bound"))
    steps = whole_thresholds(found.limits, array_of(operand(layer, 2)), array_of(operand(layer, 3)), bound)
    line = fitted(steps, bound)
    if line is not None:
        mult, offset = line
        offset = (offset + np.float64(codes[0] - grid.zero)).astype(np.float32)
        if _holds(steps, mult, offset, bound, codes, grid.zero):
            _put(layer, end, mult, offset, (grid.zero, int(codes[0]), int(codes[-1])), None)
            return True
    first = np.clip(steps[0], -bound, bound)
    if ((np.clip(steps[-1], -bound, bound) - first) > 254).any() or bound > 2**23:
        return False
    ahead = np.arange(256)[:, None] + first - 1  # the accumulator of every code and channel
    table = codes[(ahead[None] >= steps[:, None]).sum(0)].T.astype(np.uint8)
    _put(layer, end, np.ones(len(first), np.float32), (1 - first).astype(np.float32), (0, 0, 255), table)
    return True


def _takes_over(layer: ir.Node, found: Count) -> bool:
    """An integer layer of float result that nothing but the counting reads."""
    if not is_ns(layer, "qconv", "qlinear") or attr(layer, "out") != "f32" or found.x.is_graph_output():
        return False
    if any(key in layer.attributes for key in ("flo", "fhi")) or (operand(layer, 5) is not None):
        return False
    weight = array_of(layer.inputs[1])
    channels = 0 if weight is None else weight.shape[0]
    readers = {use.node for use in found.x.uses()}
    return found.limits.shape[1] in (1, channels) and readers <= set(found.members)


def counted(value: ir.Value | None) -> Count | None:
    """The counting of thresholds that makes the value."""
    members: list[ir.Node] = []
    bias, value = _peeled(value, "add", 0.0, members)
    scale, value = _peeled(value, "mul", 1.0, members)
    terms, waiting, source = list[Array](), [value], None
    while waiting:
        node = None if (here := waiting.pop()) is None else here.producer()
        if node is None or here is None or only_user(here) is None:
            return None
        members.append(node)
        if is_ns(node, "binary") and attr(node, "fn") == "add":
            waiting += node.inputs
            continue
        reached = _reached(node, members)
        if reached is None or (source is not None and reached[0] is not source):
            return None
        source = reached[0]
        terms.append(reached[1])
    if source is None or len({t.size for t in terms}) > 2:
        return None
    width = max(t.size for t in terms)
    limits = np.sort(np.stack([np.broadcast_to(t, (width,)) for t in terms]), axis=0)
    return Count(source, limits, scale, bias, tuple(members))


def _peeled(value: ir.Value | None, fn: str, default: float, members: list[ir.Node]) -> tuple[float, ir.Value | None]:
    """(scalar, what it is combined with) of a binary operator with a constant, or the value as it is."""
    node = None if value is None else value.producer()
    if node is None or not is_ns(node, "binary") or attr(node, "fn") != fn or not is_constant(node.inputs[1]):
        return default, value
    array = array_of(node.inputs[1])
    if array is None or array.size != 1:
        return default, value
    members.append(node)
    return float(array.reshape(-1)[0]), node.inputs[0]


def _reached(node: ir.Node, members: list[ir.Node]) -> tuple[ir.Value, Array] | None:
    """(x, limits [C or 1]) of where(x >= limit, 1, 0), also written as x - limit >= 0; channels on the last axis."""
    if not is_ns(node, "where") or [_scalar(node.inputs[i]) for i in (1, 2)] != [1.0, 0.0] or node.inputs[0] is None:
        return None
    test = node.inputs[0].producer()
    if test is None or not is_ns(test, "binary") or attr(test, "fn") != "greater_equal":
        return None
    members.append(test)
    left, limit = test.inputs[0], _vector(test.inputs[1])
    minus = None if left is None else left.producer()
    if minus is not None and is_ns(minus, "binary") and attr(minus, "fn") == "sub" and limit is not None:
        vector = _vector(minus.inputs[1])
        if vector is not None and not limit.any():
            members.append(minus)
            left, limit = minus.inputs[0], vector
    return None if left is None or limit is None else (left, limit)


def _scalar(value: ir.Value | None) -> float | None:
    array = array_of(value) if is_constant(value) else None
    return None if array is None or array.size != 1 else float(array.reshape(-1)[0])


def _vector(value: ir.Value | None) -> Array | None:
    array = array_of(value) if is_constant(value) else None
    if array is None or array.dtype != np.float32 or not array.size or array.size != (array.shape or (1,))[-1]:
        return None
    return array.reshape(-1)


def whole_thresholds(limits: Array, mult: Array | None, bias: Array | None, bound: int) -> Array:
    """int64 [T, C]: the smallest accumulator of -bound .. bound whose real value reaches the limit; bound + 1: none."""
    assert mult is not None
    shape = (limits.shape[0], max(limits.shape[1], mult.size))
    low, high = np.full(shape, -bound, np.int64), np.full(shape, bound + 1, np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        reached = requantize_f32(middle, mult, bias) >= limits
        low, high = np.where(reached | (low >= high), low, middle + 1), np.where(reached, middle, high)
        high = np.maximum(low, high)
    return low


def fitted(steps: Array, bound: int) -> tuple[Array, Array] | None:
    """(multiplier f32 [C], offset f64 [C]) of a line below i + 1/2 at steps[i] - 1 and at or above it at steps[i]."""
    heights = (np.arange(len(steps)) + 0.5)[:, None]
    above = np.where(steps <= bound, 0.0, -np.inf)  # a step that is never reached asks nothing at its upper side
    below = np.where(steps > -bound, 0.0, np.inf)

    def window(slope: Array) -> tuple[Array, Array]:
        least = (heights - slope * steps + above).max(0)
        most = (heights - slope * (steps - 1) + below).min(0)
        return np.maximum(least, np.where(np.isinf(least), most - 1, least)), np.minimum(most, least + 1e9)

    def width(slope: Array) -> Array:
        least, most = window(slope)
        return np.asarray(most - least)

    low, high = np.full(steps.shape[1], -30.0), np.full(steps.shape[1], np.log2(len(steps) + 1.0))
    for _ in range(_SEARCH):  # the width is concave in the slope
        a, b = low + (high - low) / 3, high - (high - low) / 3
        left = width(np.exp2(a)) >= width(np.exp2(b))
        low, high = np.where(left, low, a), np.where(left, b, high)
    mult = np.exp2((low + high) / 2).astype(np.float32)
    least, most = window(mult.astype(np.float64))
    least = np.where(np.isfinite(least), least, most - 0.5)
    most = np.where(np.isfinite(most), most, least + 0.5)
    return None if (most <= least).any() else (mult, (least + np.minimum(most, least + 1)) / 2)


def _holds(steps: Array, mult: Array, offset: Array, bound: int, codes: Array, zero: int) -> bool:
    """Both sides of every step, and the ends, give the code of their count; between them nothing falls."""
    ends = np.broadcast_to(np.array([[-bound], [bound]]), (2, steps.shape[1]))
    acc = np.clip(np.concatenate([steps, steps - 1, ends]), -bound, bound)
    want = codes[(acc[None] >= steps[:, None]).sum(0)]
    got = requantize(acc, mult, offset, zero=zero, lo=int(codes[0]), hi=int(codes[-1]))
    return bool((mult >= 0).all() and np.array_equal(got, want))


def _put(
    layer: ir.Node, end: ir.Node, mult: Array, offset: Array, limits: tuple[int, int, int], table: Array | None
) -> None:
    """The layer with codes as its result, and the table behind it, in the place of the quantizer."""
    graph, grid, name = end.graph, grid_of(end), layer.name or "layer"
    assert graph is not None
    assert grid is not None
    inputs = [*layer.inputs, *[None] * (4 - len(layer.inputs))]
    inputs[2], inputs[3] = constant(graph, mult, f"{name}.mult"), constant(graph, offset, f"{name}.bias")
    attrs = {key: attr(layer, key) for key in layer.attributes if key != "out"}
    attrs |= dict(zip(("zero", "lo", "hi"), limits, strict=True))
    out, dims = end.outputs[0], dims_of(layer.outputs[0])
    y = ns(end, layer.op_type, inputs, attrs, dtype=U8, dims=dims, name=name, source=source_of(out))
    if table is not None:
        codes = constant(graph, np.ascontiguousarray(table), f"{name}.table")
        y = ns(end, "lut", [y, codes], dtype=U8, dims=dims, name=f"{name}.thresholds", source=source_of(out))
    y.meta["grid"] = (grid.scale, grid.zero)
    source = source_of(out)
    replace(out, y)
    y.meta["source"] = source
    graph.remove(end, safe=True)
