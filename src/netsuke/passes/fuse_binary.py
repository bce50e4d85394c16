"""What surrounds one-bit layers goes into them: additions, PReLU, the next sign; thresholds on integers where exact.

Thresholds move through a step only when the step is monotone in f32, by bisection with the step evaluated as written
(numerics.md section 10), so that no bit changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    NETSUKE,
    Array,
    array_of,
    attr,
    constant,
    dims_of,
    is_constant,
    only_user,
    operand,
    set_type,
    source_of,
    sweep,
)
from netsuke.capture.graph import replace as replace_value
from netsuke.formats import dequantize, word_count
from netsuke.passes.nodes import F32, I64, bounds_of, from_ns, is_ns, ns, same_dims, transposed

_LAYERS = ("bconv", "blinear")
_MULT, _BIAS, _SLOPE, _SHIFT, _RESIDUAL, _THRESHOLD, _FLIP = range(2, 9)


def fuse_binary(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many nodes went into another."""
    count = 0
    for rule in (_add, _prelu, _add, _clipped_threshold, _moved_threshold, _code_threshold, _bits_alone, _bits_beside):
        for node in list(graph):
            while node.graph is not None and (fused := rule(node)) is not None:
                node = fused
                count += 1
    sweep(graph)
    return count


def _inputs(node: ir.Node) -> list[ir.Value | None]:
    return [*node.inputs, *[None] * (9 - len(node.inputs))]


def _vector(value: ir.Value | None, rank: int, channels: int, axis: int = -1) -> Array | None:
    """A constant on one axis, counted from the last one, as f32 [channels]."""
    array = array_of(value) if value is not None and is_constant(value) else None
    if array is None or array.dtype != np.float32 or array.ndim > rank or array.size not in (1, channels):
        return None
    if array.size > 1 and (array.ndim < -axis or array.shape[axis] != channels):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).copy()


def _channels(node: ir.Node) -> int:
    weight = array_of(node.inputs[1])
    assert weight is not None
    return int(weight.shape[0])


def _again(old: ir.Node, at: ir.Node, inputs: list[ir.Value | None], attrs: dict[str, Any] | None = None) -> ir.Node:
    """`old` again in the place of `at`, whose output it takes over."""
    given = {name: a.value for name, a in old.attributes.items()} | (attrs or {})
    given = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
    out = at.outputs[0]
    source = source_of(out)
    dims = dims_of(out) or dims_of(old.outputs[0])
    y = ns(at, old.op_type, inputs, given, dtype=out.dtype, dims=dims, name=old.name or "", source=source)
    replace_value(out, y)
    y.meta["source"] = source
    assert at.graph is not None
    at.graph.remove(at, safe=True)
    if old is not at:
        assert old.graph is not None
        old.graph.remove(old, safe=True)
    made = y.producer()
    assert made is not None
    return made


def _plain(node: ir.Node) -> bool:
    return is_ns(node, *_LAYERS) and attr(node, "out") == "f32" and len(node.outputs) == 1


def _add(node: ir.Node) -> ir.Node | None:
    """+ a constant per channel: into the bias, behind a slope the shift; + a float value: the residual."""
    user = only_user(node.outputs[0]) if _plain(node) else None
    if user is None or not is_ns(user, "binary") or attr(user, "fn") != "add" or "quant_scale" in user.attributes:
        return None
    inputs, y = _inputs(node), node.outputs[0]
    other = user.inputs[1] if user.inputs[0] is y else user.inputs[0]
    if other is None or other is y or node.graph is None or inputs[_SHIFT] is not None:
        return None
    vector = _vector(other, len(dims_of(y) or ()), _channels(node))
    if vector is not None:
        index = _BIAS if inputs[_SLOPE] is None else _SHIFT
        before = array_of(inputs[index])
        total = vector if before is None else before + vector
        inputs[index] = constant(node.graph, total, f"{node.name}.{'bias' if index == _BIAS else 'shift'}")
        return _again(node, user, inputs)
    taken = inputs[_RESIDUAL] is not None or inputs[_SLOPE] is not None
    if taken or is_constant(other) or other.dtype != F32 or not same_dims(y, other):
        return None
    inputs[_RESIDUAL] = other
    return _again(node, user, inputs)


def _prelu(node: ir.Node) -> ir.Node | None:
    user = only_user(node.outputs[0]) if _plain(node) else None
    inputs = _inputs(node)
    if user is None or inputs[_SLOPE] is not None or inputs[_SHIFT] is not None or node.graph is None:
        return None
    vector: Array | None = None
    if is_ns(user, "prelu"):
        vector = _vector(operand(user, 1), 1, _channels(node))
    elif is_ns(user, "unary") and attr(user, "fn") == "leaky_relu" and "quant_scale" not in user.attributes:
        vector = np.full(_channels(node), attr(user, "alpha", 0.01), np.float32)
    if vector is None:
        return None
    inputs[_SLOPE] = constant(node.graph, vector, f"{node.name}.slope")
    return _again(node, user, inputs)


def _ordered(index: Array) -> Array:
    """f32 numbers by their rank: consecutive integers are neighbouring numbers, 0 is +0."""
    bits = np.where(index >= 0, index, np.int64(-(2**31)) - index).astype(np.int64)
    return (bits & 0xFFFFFFFF).astype(np.uint32).view(np.float32)


def smallest(holds: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """For each channel the smallest integer in [low, high] where `holds` (monotone) is true, high + 1 where none is."""
    low, high = low.astype(np.int64), high.astype(np.int64) + 1
    while (low < high).any():
        middle = (low + high) // 2
        found = holds(middle)
        open_ = low < high
        high = np.where(open_ & found, middle, high)
        low = np.where(open_ & ~found, middle + 1, low)
    return low


_INFINITY = 0x7F800000  # rank of +Inf


def float_threshold(step: Callable[[Array], Array], limit: Array) -> Array:
    """The smallest f32 x, -Inf to +Inf, with step(x) >= limit for a monotone step; channels where none is: None of them
    occurs for an addition of finite numbers and a finite limit."""
    edge = np.full(limit.shape, _INFINITY, np.int64)
    with np.errstate(all="ignore"):
        found = smallest(lambda i: step(_ordered(i)) >= limit, -edge, edge - 1)
    return _ordered(found)


def _moved_threshold(node: ir.Node) -> ir.Node | None:
    """sign_pack(x + c) is sign_pack(x) with another threshold; so is sign_pack(c * x) for c > 0. A transpose between
    them goes in front."""
    if not is_ns(node, "sign_pack"):
        return None
    turn = from_ns(node.inputs[0], "transpose")
    perm = None if turn is None else [int(p) for p in attr(turn, "perm")]
    add = from_ns(node.inputs[0] if turn is None else turn.inputs[0], "binary")
    if add is None or attr(add, "fn") not in ("add", "sub", "mul") or node.graph is None:
        return None
    limit = array_of(node.inputs[1])
    if limit is None or limit.dtype != np.float32 or not np.isfinite(limit).all() or "quant_scale" in add.attributes:
        return None
    fn = attr(add, "fn")
    for index in (0, 1) if fn != "sub" else (1,):
        x = add.inputs[1 - index]
        rank = len(dims_of(x) or ())
        vector = _vector(add.inputs[index], rank, limit.shape[0], -1 if perm is None else perm[-1] - rank)
        if vector is None or x is None or is_constant(x) or not same_dims(x, add.outputs[0]):
            continue
        if not np.isfinite(vector).all() or (fn == "mul" and not (vector > 0).all()):
            return None
        steps = {"add": lambda v, c: v + c, "sub": lambda v, c: v - c, "mul": lambda v, c: v * c}
        moved = float_threshold(lambda v, c=vector, f=steps[fn]: f(v, c), limit)  # type: ignore[misc]
        x = x if perm is None else transposed(node, x, perm)
        inputs = [x, constant(node.graph, moved.astype(np.float32), f"{node.name}.threshold"), operand(node, 2)]
        return _again(node, node, inputs)
    return None


def _clipped_threshold(node: ir.Node) -> ir.Node | None:
    """sign_pack(clip(x)) and sign_pack(relu(x)): another threshold, or the same; a NaN must stay what it was, so no
    threshold may become infinite."""
    if not is_ns(node, "sign_pack"):
        return None
    moved_axes = from_ns(node.inputs[0], "transpose")
    clip = from_ns(node.inputs[0] if moved_axes is None else moved_axes.inputs[0], "unary")
    bounds, limit = bounds_of(clip), array_of(operand(node, 1))
    if clip is None or bounds is None or limit is None or limit.dtype != np.float32 or node.graph is None:
        return None
    low, high = np.float32(bounds[0]), np.float32(bounds[1])

    def step(v: Array) -> Array:
        above = np.where(v > low, v, low)
        return np.where(above < high, above, high)

    if not np.isfinite(limit).all() or (limit <= low).any():  # where everything is +1, a NaN is +1 too
        return None
    moved = float_threshold(step, limit)
    if not np.isfinite(moved).all():
        return None
    x = clip.inputs[0]
    assert x is not None
    if moved_axes is not None:
        x = transposed(node, x, list(attr(moved_axes, "perm")))
    threshold = constant(node.graph, moved.astype(np.float32), f"{node.name}.threshold")
    return _again(node, node, [x, threshold, operand(node, 2)])


def _code_threshold(node: ir.Node) -> ir.Node | None:
    """sign_pack(dequantize(q)): the smallest code whose number reaches the threshold."""
    maker = from_ns(node.inputs[0], "dequantize") if is_ns(node, "sign_pack") else None
    limit = array_of(node.inputs[1]) if maker is not None else None
    if maker is None or limit is None or node.graph is None:
        return None
    table = dequantize(np.arange(256, dtype=np.uint8), float(attr(maker, "scale")), int(attr(maker, "zero")))
    codes = np.searchsorted(table, limit, side="left").astype(np.int32)
    inputs = [maker.inputs[0], constant(node.graph, codes, f"{node.name}.codes"), operand(node, 2)]
    return _again(node, node, inputs)


def _bits_alone(node: ir.Node) -> ir.Node | None:
    """A layer that only the next sign reads gives packed signs, by a threshold on its sums."""
    user = only_user(node.outputs[0]) if _plain(node) else None
    if user is None or not is_ns(user, "sign_pack") or node.graph is None or _inputs(node)[_RESIDUAL] is not None:
        return None
    found = integer_threshold(node, array_of(user.inputs[1]), array_of(operand(user, 2)))
    if found is None:
        return None
    threshold, flip = found
    inputs: list[ir.Value | None] = [*node.inputs[:2], *[None] * 7]
    inputs[_THRESHOLD] = constant(node.graph, threshold, f"{node.name}.threshold")
    inputs[_FLIP] = constant(node.graph, flip, f"{node.name}.flip") if flip.any() else None
    return _again(node, user, inputs, {"out": "bits"})


def integer_threshold(node: ir.Node, limit: Array | None, flip: Array | None) -> tuple[Array, Array] | None:
    """(i32 threshold, flip) on the sums of a layer for the signs `y >= limit`; None where y is not monotone."""
    mult, bias, slope, shift = (array_of(operand(node, i)) for i in (_MULT, _BIAS, _SLOPE, _SHIFT))
    weight = array_of(node.inputs[1])
    if mult is None or weight is None or limit is None or (slope is not None and (slope < 0).any()):
        return None
    each = int(attr(node, "channels")) // int(attr(node, "groups", 1))
    most = np.full(mult.shape, int(np.prod(weight.shape[1:-1])) * each, np.int64)
    falling = mult < 0

    def reaches(acc: Array) -> Array:
        with np.errstate(all="ignore"):
            t = acc.astype(np.float32) * mult
            t = t if bias is None else t + bias
            t = t if slope is None else np.where(t > 0, t, t * slope)
            t = t if shift is None else t + shift
        return np.asarray((t >= limit) ^ falling)

    threshold = smallest(reaches, -most, most).astype(np.int32)
    return threshold, falling ^ (np.zeros(mult.shape, bool) if flip is None else flip)


def _bits_beside(node: ir.Node) -> ir.Node | None:
    """sign_pack of a layer's y, which others read too: the layer's second output."""
    layer = node.inputs[0].producer() if is_ns(node, "sign_pack") and node.inputs[0] is not None else None
    if layer is None or not is_ns(layer, *_LAYERS) or len(layer.outputs) != 1 or attr(layer, "out") == "bits":
        return None
    assert layer.graph is not None
    given = {name: a.value for name, a in layer.attributes.items()}
    given = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
    inputs = _inputs(layer)
    inputs[_THRESHOLD], inputs[_FLIP] = node.inputs[1], operand(node, 2)
    while inputs[-1] is None:
        inputs.pop()
    made = ir.node(layer.op_type, inputs=inputs, attributes=given, domain=NETSUKE, name=layer.name or "", num_outputs=2)
    y, bits = made.outputs
    old = layer.outputs[0]
    y.name, bits.name = f"{old.name}/y", f"{node.outputs[0].name}/bits"
    set_type(y, old.dtype, dims_of(old))
    dims = dims_of(old) or []
    set_type(bits, I64, [*dims[:-1], word_count(_channels(layer))])
    y.meta["fresh"] = bits.meta["fresh"] = True
    y.meta.update({k: v for k, v in old.meta.items() if k in ("source", "grid")})
    layer.graph.insert_before(layer, made)
    replace_value(old, y)
    replace_value(node.outputs[0], bits)
    layer.graph.remove(node, safe=True)
    layer.graph.remove(layer, safe=True)
    return None
