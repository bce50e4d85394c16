"""Operators that move, copy or count elements, on any dtype, and resize."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from netsuke.program.reference.call import Array, Call, rule
from netsuke.program.reference.elementwise import DTYPE_CODES

MAX_ELEMENTS = 2**31


def _axis(call: Call, axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise call.wrong("axis out of range", axis, f"-{rank}..{rank - 1}")
    return axis % rank


def _bounded(call: Call, shape: Sequence[int]) -> None:
    """Refuse results that only a damaged file asks for, before NumPy tries to make them."""
    if math.prod(shape) > MAX_ELEMENTS:
        raise call.wrong("the result is too large", list(shape), f"{MAX_ELEMENTS} elements")


def _list(call: Call, index: int) -> list[int]:
    """A known i64 input as a list."""
    array = call.array(index)
    if array.ndim > 1:
        raise call.wrong("sizes, axes and kin have rank 1", array.ndim)
    return [int(v) for v in array.reshape(-1)]


@rule("reshape")
def _reshape(call: Call) -> list[Array]:
    x, shape = call.array(0), _list(call, 1)
    if not call.integer("allowzero"):
        if any(d == 0 and i >= x.ndim for i, d in enumerate(shape)):
            raise call.wrong("a 0 copies a dimension that x does not have", shape)
        shape = [x.shape[i] if d == 0 else d for i, d in enumerate(shape)]
    if shape.count(-1) > 1 or any(d < -1 for d in shape) or len(shape) > 8:
        raise call.wrong("not a shape", shape)
    if -1 in shape:
        rest = math.prod(d for d in shape if d != -1)
        if rest == 0 or x.size % rest:
            raise call.wrong("-1 cannot be inferred", shape)
        shape[shape.index(-1)] = x.size // rest
    if math.prod(shape) != x.size:
        raise call.wrong("the number of elements changes", shape)
    return [x.reshape(shape)]


@rule("transpose")
def _transpose(call: Call) -> list[Array]:
    perm = call.ints("perm")
    if len(perm) != call.array(0).ndim:
        raise call.wrong("perm has another length than the rank", perm)
    return [np.ascontiguousarray(call.array(0).transpose(perm))]


@rule("concat")
def _concat(call: Call) -> list[Array]:
    arrays = [call.array(i) for i in range(len(call.inputs))]
    axis = _axis(call, call.integer("axis"), arrays[0].ndim)
    try:
        return [np.concatenate(arrays, axis=axis)]
    except ValueError as error:
        raise call.wrong("shapes differ outside of the axis") from error


@rule("split")
def _split(call: Call) -> list[Array]:
    x, parts = call.array(0), len(call.node.outputs)
    axis = _axis(call, call.integer("axis"), x.ndim)
    size = x.shape[axis]
    if call.inputs[1] is not None:
        sizes = _list(call, 1)
    else:  # equal parts, the last one smaller when they do not divide
        part = -(-size // parts)
        sizes = [part] * (parts - 1) + [size - part * (parts - 1)]
    if len(sizes) != parts or min(sizes) < 0 or sum(sizes) != size:
        raise call.wrong("sizes do not add up to the dimension", sizes, str(size))
    return list(np.split(x, np.cumsum(sizes)[:-1], axis=axis))


@rule("slice")
def _slice(call: Call) -> list[Array]:
    x = call.array(0)
    starts, ends = _list(call, 1), _list(call, 2)
    axes = list(range(len(starts))) if call.inputs[3] is None else _list(call, 3)
    steps = [1] * len(starts) if call.inputs[4] is None else _list(call, 4)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise call.wrong("starts, ends, axes and steps do not fit", [starts, ends, axes, steps])
    index = [slice(None)] * x.ndim
    for start, end, given, step in zip(starts, ends, axes, steps, strict=True):
        axis = _axis(call, given, x.ndim)
        size = x.shape[axis]
        low, high = (0, size) if step > 0 else (-1, size - 1)
        first = min(max(start + size if start < 0 else start, 0 if step > 0 else low), high)
        last = min(max(end + size if end < 0 else end, low), size if step > 0 else high)
        index[axis] = slice(first, None if step < 0 and last < 0 else last, step)
        if step < 0 and first <= last:
            index[axis] = slice(0, 0)
    return [np.ascontiguousarray(x[tuple(index)])]


@rule("gather")
def _gather(call: Call) -> list[Array]:
    x, indices = call.array(0), call.array(1)
    axis = _axis(call, call.integer("axis"), x.ndim)
    size = x.shape[axis]
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    if 0 in shape:  # nothing is read, so no index can be wrong
        return [np.zeros(shape, x.dtype)]
    if not (-size <= int(indices.min()) and int(indices.max()) < size):
        raise call.wrong("an index is out of range", f"{indices.min()}..{indices.max()}", f"-{size}..{size - 1}")
    return [np.asarray(np.take(x, np.where(indices < 0, indices + size, indices), axis=axis))]


@rule("pad")
def _pad(call: Call) -> list[Array]:
    x, pads, mode = call.array(0), _list(call, 1), call.word("mode")
    if len(pads) != 2 * x.ndim or min(pads, default=0) < 0:
        raise call.wrong("pads must be begins and ends, none negative", pads)
    widths = list(zip(pads[: x.ndim], pads[x.ndim :], strict=True))
    _bounded(call, [size + before + after for size, (before, after) in zip(x.shape, widths, strict=True)])
    value = call.inputs[2]
    if value is not None and value.size != 1:
        raise call.wrong("the pad value must have one element")
    if mode == "constant":
        fill = 0 if value is None else value.reshape(-1)[0]
        return [np.pad(x, widths, constant_values=fill)]
    for (before, after), size in zip(widths, x.shape, strict=True):
        if max(before, after) > 0 and (size == 0 or (mode == "reflect" and max(before, after) >= size)):
            raise call.wrong(f"{mode} padding is longer than the dimension", pads)
    return [np.pad(x, widths, mode="reflect" if mode == "reflect" else "edge")]


@rule("expand")
def _expand(call: Call) -> list[Array]:
    x, shape = call.array(0), _list(call, 1)
    if len(shape) > 8 or min(shape, default=0) < 0:
        raise call.wrong("not a shape", shape)
    try:
        target = np.broadcast_shapes(x.shape, tuple(shape))
    except ValueError as error:
        raise call.wrong("shapes do not broadcast", shape) from error
    _bounded(call, target)
    return [np.ascontiguousarray(np.broadcast_to(x, target))]


@rule("tile")
def _tile(call: Call) -> list[Array]:
    x, repeats = call.array(0), _list(call, 1)
    if len(repeats) != x.ndim or min(repeats, default=0) < 0:
        raise call.wrong("repeats must have one number per dimension, none negative", repeats)
    _bounded(call, [size * repeat for size, repeat in zip(x.shape, repeats, strict=True)])
    return [np.tile(x, repeats)]


@rule("squeeze")
def _squeeze(call: Call) -> list[Array]:
    x = call.array(0)
    axes = tuple({_axis(call, axis, x.ndim) for axis in _list(call, 1)})
    if any(x.shape[axis] != 1 for axis in axes):
        raise call.wrong("a squeezed dimension is not 1", axes)
    return [x.squeeze(axes)]


@rule("unsqueeze")
def _unsqueeze(call: Call) -> list[Array]:
    x, axes = call.array(0), _list(call, 1)
    rank = x.ndim + len(axes)
    places = tuple(_axis(call, axis, rank) for axis in axes)
    if len(set(places)) != len(places) or rank > 8:
        raise call.wrong("an axis occurs twice, or the rank is above 8", axes)
    return [np.expand_dims(x, places)]


def _blocks(call: Call) -> tuple[Array, int]:
    x, block = call.array(0), call.integer("block")
    if x.ndim != 4:
        raise call.wrong("the input must be [N, H, W, C]")
    return x, block


@rule("depth_to_space")
def _depth_to_space(call: Call) -> list[Array]:
    x, b = _blocks(call)
    n, h, w, c = x.shape
    if c % (b * b):
        raise call.wrong("channels are not divisible by block^2", c)
    # DCR: channel = (by * b + bx) * C' + c'; CRD: channel = (c' * b + by) * b + bx.
    if call.word("mode") == "DCR":
        y = x.reshape(n, h, w, b, b, c // (b * b)).transpose(0, 1, 3, 2, 4, 5)
    else:
        y = x.reshape(n, h, w, c // (b * b), b, b).transpose(0, 1, 4, 2, 5, 3)
    return [np.ascontiguousarray(y).reshape(n, h * b, w * b, c // (b * b))]


@rule("space_to_depth")
def _space_to_depth(call: Call) -> list[Array]:
    x, b = _blocks(call)
    n, h, w, c = x.shape
    if h % b or w % b:
        raise call.wrong("height and width are not divisible by block", [h, w])
    y = x.reshape(n, h // b, b, w // b, b, c)
    order = (0, 1, 3, 2, 4, 5) if call.word("mode") == "DCR" else (0, 1, 3, 5, 2, 4)
    return [np.ascontiguousarray(y.transpose(order)).reshape(n, h // b, w // b, c * b * b)]


@rule("shape")
def _shape(call: Call) -> list[Array]:
    shape = list(call.array(0).shape)
    end = call.integer("end") if "end" in call.attrs else len(shape)
    return [np.asarray(shape[call.integer("start") : end], np.int64)]


@rule("range")
def _range(call: Call) -> list[Array]:
    start, limit, delta = (int(call.array(i).reshape(-1)[0]) for i in range(3))
    if delta == 0:
        raise call.wrong("not a range", [start, limit, delta])
    numbers = range(start, limit, delta)
    _bounded(call, [max(0, -((start - limit) // delta))])
    return [np.fromiter(numbers, np.int64, len(numbers))]


@rule("constant_of_shape")
def _constant_of_shape(call: Call) -> list[Array]:
    shape = _list(call, 0)
    if min(shape, default=0) < 0 or len(shape) > 8:
        raise call.wrong("not a shape", shape)
    _bounded(call, shape)
    return [np.full(shape, call.number("value"), DTYPE_CODES[call.word("dtype")])]


@rule("identity")
def _identity(call: Call) -> list[Array]:
    return [call.array(0)]
