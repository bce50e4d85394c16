"""What follows an integer layer: a residual Add, a Relu or Clip, a quantize.

All of it runs in the layer's own requantization.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import Array, array_of, constant, dead, is_op, only_user, operand, replace, source_of
from netsuke.core.errors import Problem, UnsupportedError
from netsuke.formats.bound import ACC_LIMIT, accumulator_bound
from netsuke.formats.integer import dyadic, make_multiplier, single_multiplier
from netsuke.passes.nodes import Codes, Grid, bounds_of, clamp_codes, codes_of, float_constant, grid_of, same_dims
from netsuke.passes.weights import WeightCodes

_INF = float("inf")


@dataclass
class Tail:
    """The nodes that a layer takes over: `end` is the value it then produces; grid is None when that value is float."""

    end: ir.Value
    grid: Grid | None = None
    bounds: tuple[float, float] = (-_INF, _INF)
    residual: Codes | None = None
    shift: Array | None = None  # a constant per output channel added behind the layer
    members: tuple[ir.Node, ...] = ()

    @property
    def source(self) -> str:
        return source_of(self.end)

    @property
    def codes(self) -> bool:
        return self.grid is not None

    def limits(self) -> dict[str, Any]:
        """Attributes of the clamp: code range for u8 output, flo and fhi for float output."""
        if self.grid is not None:
            lo, hi = clamp_codes(self.bounds, self.grid.scale, self.grid.zero, self.grid.lo, self.grid.hi)
            return {"zero": self.grid.zero, "lo": lo, "hi": hi}
        low, high = self.bounds
        return {"out": "f32", "flo": low if low > -_INF else None, "fhi": high if high < _INF else None}


def find_tail(y: ir.Value, *, channels: int | None = None, residual: bool = True) -> Tail:
    """Follow single readers from y.

    `channels`: a constant [channels] added on the last axis becomes `shift` (matrix products).
    """
    bare = Tail(y)
    tail = _clamped(y, ())
    members: tuple[ir.Node, ...] = ()
    value, shift, rest = y, None, None
    if tail.grid is None and channels is not None:
        added = _added_constant(value, channels)
        if added is not None:
            node, shift = added
            value, members = node.outputs[0], (node,)
            tail = _clamped(value, members)
            bare = Tail(value, members=members)
    if tail.grid is None and residual and tail.end is value:
        add = _added_codes(value)
        if add is not None:
            node, rest = add
            tail = _clamped(node.outputs[0], (*members, node))
            if tail.grid is None:  # a float result takes a float residual: left to the passes on float layers
                tail, rest = bare, None
    tail.shift, tail.residual = shift, rest
    return tail


def _clamped(value: ir.Value, members: tuple[ir.Node, ...]) -> Tail:
    """An optional Relu or Clip and an optional quantize behind the value."""
    low, high = -_INF, _INF
    end = value
    user = only_user(end)
    while (found := bounds_of(user)) is not None and user is not None:
        low, high = min(max(low, found[0]), found[1]), max(min(high, found[1]), found[0])
        end, members = user.outputs[0], (*members, user)
        user = only_user(end)
    grid = grid_of(user)
    if grid is not None:
        return Tail(grid.node.outputs[0], grid, (low, high), members=(*members, grid.node))
    return Tail(end, None, (low, high), members=members)


def _added_constant(value: ir.Value, channels: int) -> tuple[ir.Node, Array] | None:
    user = only_user(value)
    if not is_op(user, "Add") or user is None:
        return None
    other = user.inputs[1] if user.inputs[0] is value else user.inputs[0]
    array = float_constant(other)
    if array is None or array.size not in (1, channels) or (array.size > 1 and array.shape[-1] != channels):
        return None
    rank = len(value.shape) if value.shape is not None else 0
    return None if array.ndim > rank else (user, np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float32))


def _added_codes(value: ir.Value) -> tuple[ir.Node, Codes] | None:
    user = only_user(value)
    if user is None or not is_op(user, "Add") or user.inputs[0] is user.inputs[1]:
        return None
    other = user.inputs[1] if user.inputs[0] is value else user.inputs[0]
    found = codes_of(other)
    return None if found is None or other is None or not same_dims(value, other) else (user, found)


def last_member(layer: ir.Node, tail: Tail) -> ir.Node:
    """Where the fused node goes: at the end of the chain, so that a residual made between is ready."""
    return tail.members[-1] if tail.members else layer


@dataclass
class Requantization:
    """What qconv and qlinear (or their dyadic forms) need besides x and w: `constants` are inputs 2 to 4 by name."""

    dyadic: bool
    constants: dict[str, Array | None]
    attrs: dict[str, Any]

    def op(self, name: str) -> str:
        return f"{name}_dyadic" if self.dyadic else name

    def inputs(self, before: ir.Node, name: str) -> list[ir.Value | None]:
        return [as_constant(before, array, f"{name}.{key}") for key, array in self.constants.items()]


def requantization(
    layer: ir.Node,
    x: Codes,
    w: WeightCodes,
    tail: Tail,
    bias: Array | None,
    acc_bias: Array | None,
    *,
    gain: float = 1.0,
) -> Requantization:
    """Multipliers of numerics.md section 4, or of section 5 when the graph asks for "dyadic" and the result is codes.

    w: codes [O, ...] with scales [O]; bias: real f32 [O]; acc_bias: int32 [O] in units of x_scale * w_scale; gain:
    factor on the product. A layer whose accumulator could leave int32 is refused by name.
    """
    steps: Array = np.float64(x.scale) * w.scale.astype(np.float64) * gain
    if is_single(layer):
        steps = single_multiplier(x.scale, w.scale, 1.0) * np.float32(gain)
        bias, acc_bias = _whole_bias(x, w, tail, steps, bias, acc_bias)
    real = None if bias is None and tail.shift is None else np.zeros(w.codes.shape[0])
    for part in (bias, tail.shift):
        if real is not None and part is not None:
            real = real + part.astype(np.float64)
    assert layer.graph is not None
    if tail.grid is not None and graph_is_dyadic(layer):
        found = _dyadic(layer, tail, steps, real, acc_bias)
    else:
        found = _real(tail, steps, real, acc_bias)
    bound = int(accumulator_bound(w.codes, x.zero, 0, 255, found.constants["acc_bias"]).max(initial=0))
    if bound > ACC_LIMIT:
        hint = "keep this layer float or use fewer bits"
        raise UnsupportedError(
            Problem(
                "the accumulator can leave int32",
                where=layer.name or "",
                got=str(bound),
                allowed=str(ACC_LIMIT),
                hint=hint,
            )
        )
    found.attrs |= {"x_zero": x.zero, "acc_bound": bound, **tail.limits()}
    return found


def graph_is_dyadic(node: ir.Node) -> bool:
    """True when the graph asks for integer multipliers."""
    return node.graph is not None and node.graph.meta.get("requant") == "dyadic"


def is_single(node: ir.Node) -> bool:
    """True for a graph quantized by another tool (numerics.md section 4)."""
    return node.graph is not None and node.graph.meta.get("requant") == "single"


def multiplier(node: ir.Node, x_scale: float, w_scale: Array | float, y_scale: float) -> Array:
    """The multiplier of a product of codes, rounded as the graph asks for."""
    if is_single(node):
        return single_multiplier(x_scale, w_scale, y_scale)
    return make_multiplier(x_scale, w_scale, y_scale)


def _whole_bias(
    x: Codes, w: WeightCodes, tail: Tail, steps: Array, bias: Array | None, acc_bias: Array | None
) -> tuple[Array | None, Array | None]:
    """(None, bias in whole steps) where the result is codes and the accumulator has room, else as given."""
    if bias is None or acc_bias is not None or tail.grid is None:
        return bias, acc_bias
    whole = np.rint(bias.astype(np.float64) / steps)
    if not (np.abs(whole) <= ACC_LIMIT).all():
        return bias, acc_bias
    found = np.broadcast_to(whole, steps.shape).astype(np.int32)
    fits = accumulator_bound(w.codes, x.zero, 0, 255, found).max(initial=0) <= ACC_LIMIT
    return (None, found) if fits else (bias, None)


def _real(tail: Tail, steps: Array, real: Array | None, acc_bias: Array | None) -> Requantization:
    y_scale = tail.grid.scale if tail.grid is not None else 1.0
    attrs: dict[str, Any] = {}
    if tail.residual is not None:
        attrs = {"r_zero": tail.residual.zero, "r_mult": float(make_multiplier(tail.residual.scale, 1.0, y_scale))}
    bias = None if real is None or not np.any(real) else (real / y_scale).astype(np.float32)
    mult = (single_multiplier if steps.dtype == np.float32 else make_multiplier)(1.0, steps, y_scale)
    return Requantization(False, {"mult": mult, "bias": bias, "acc_bias": acc_bias}, attrs)


def _dyadic(layer: ir.Node, tail: Tail, steps: Array, real: Array | None, acc_bias: Array | None) -> Requantization:
    """Integers only: the real bias is rounded to the grid of the accumulator."""
    assert tail.grid is not None
    total = np.zeros(steps.shape) if acc_bias is None else acc_bias.astype(np.float64)
    if real is not None:
        total = total + np.rint(real / steps)
    if np.abs(total).max(initial=0) > ACC_LIMIT:
        raise UnsupportedError(Problem("the bias does not fit the accumulator", where=layer.name or ""))
    try:
        m, e = dyadic(steps / np.float64(tail.grid.scale))
        attrs: dict[str, Any] = {}
        if tail.residual is not None:
            r_m, r_e = dyadic(np.float64(tail.residual.scale) / np.float64(tail.grid.scale))
            attrs = {"r_zero": tail.residual.zero, "r_m": int(r_m), "r_e": int(r_e)}
    except ValueError as error:
        raise UnsupportedError(Problem("no dyadic multiplier", where=layer.name or "", got=str(error))) from None
    bias = total.astype(np.int32) if np.any(total) else None
    return Requantization(True, {"m": m, "e": e, "acc_bias": bias}, attrs)


def place(tail: Tail, layer: ir.Node, y: ir.Value, made: ir.Value | None = None) -> None:
    """Let `made` (y behind its layout change.

    Y itself by default) stand for the end of the chain, and note the grid of the codes of y.
    """
    if tail.grid is not None:
        y.meta["grid"] = (tail.grid.scale, tail.grid.zero)
    source = tail.source
    new = y if made is None else made
    replace(tail.end, new)
    new.meta["source"] = source
    nodes = [layer, *tail.members]
    for node in reversed(nodes):
        if node.graph is not None and dead(node):
            node.graph.remove(node, safe=True)


def as_constant(before: ir.Node, array: Array | None, name: str) -> ir.Value | None:
    """The array as an initializer, None as an absent input."""
    assert before.graph is not None
    return None if array is None else constant(before.graph, array, name)


def layer_bias(node: ir.Node, index: int, x_scale: float, w_scale: Array) -> tuple[Array | None, Array | None] | None:
    """(real bias, acc_bias) of a layer; None when the bias is no constant.

    An int32 bias on the grid x_scale * w_scale (as other tools write it) is kept as integers.
    """
    value = operand(node, index)
    if value is None:
        return None, None
    dequantize = value.producer() if is_op(value.producer(), "DequantizeLinear") else None
    if dequantize is not None:
        q, scale, zero = (array_of(operand(dequantize, i)) for i in range(3))
        if q is not None and scale is not None and q.dtype == np.int32 and (zero is None or not zero.any()):
            grid = np.float64(x_scale) * w_scale.astype(np.float64)
            if np.allclose(np.broadcast_to(scale.reshape(-1), grid.shape).astype(np.float64), grid, rtol=1e-6, atol=0):
                return None, q.reshape(-1)
    real = float_constant(value)
    return None if real is None else (real.reshape(-1), None)
