"""What follows a one-bit layer whose result becomes codes: constants, a residual, a PReLU, a clip, a quantize.

All of it runs in the layer's epilogue (docs/numerics.md section 10): t = acc * mult + bias + r, PReLU, + shift, codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import Array, array_of, attr, dims_of, is_constant, is_op, only_user
from netsuke.passes.nodes import codes_of, same_dims
from netsuke.passes.tail import Tail, find_tail


@dataclass
class BinaryTail:
    """`tail` is what the layer takes over (its grid is None where the result stays float, then the rest is absent).

    bias, shift: f32 [C] added before and behind the slope; slope: f32 [C] of the PReLU. All in real units.
    """

    tail: Tail
    bias: Array | None = None
    slope: Array | None = None
    shift: Array | None = None


def binary_tail(y: ir.Value, *, channels: int, axis: int) -> BinaryTail:
    """Follow single readers from y, whose channels lie on `axis`."""
    value, members = y, list[ir.Node]()
    bias: Array | None = None
    slope: Array | None = None
    shift: Array | None = None
    residual = None
    while (user := only_user(value)) is not None:
        if is_op(user, "Add"):
            other = user.inputs[1] if user.inputs[0] is value else user.inputs[0]
            vector, codes = _vector(other, value, channels, axis), codes_of(other)
            fits = other is not None and same_dims(value, other)
            if vector is not None and slope is None:
                bias = vector if bias is None else bias + vector
            elif vector is not None:
                shift = vector if shift is None else shift + vector
            elif codes is not None and fits and residual is None and slope is None:
                residual = codes
            else:
                break
        elif slope is None and (found := _slope(user, value, channels, axis)) is not None:
            slope = found
        else:
            break
        members.append(user)
        value = user.outputs[0]
    end = find_tail(value, residual=False)
    if end.grid is None:
        return BinaryTail(Tail(y))
    tail = Tail(end.end, end.grid, end.bounds, residual, members=(*members, *end.members))
    return BinaryTail(tail, bias, slope, shift)


def _slope(user: ir.Node, value: ir.Value, channels: int, axis: int) -> Array | None:
    if is_op(user, "PRelu") and user.inputs[0] is value:
        return _vector(user.inputs[1], value, channels, axis)
    if is_op(user, "LeakyRelu"):
        return np.full(channels, attr(user, "alpha", 0.01), np.float32)
    return None


def _vector(constant: ir.Value | None, value: ir.Value, channels: int, axis: int) -> Array | None:
    """A constant that holds one number, or one a channel on the axis of `value`, as f32 [channels]."""
    array = array_of(constant) if constant is not None and is_constant(constant) else None
    rank = len(dims_of(value) or ())
    if array is None or array.dtype != np.float32 or array.ndim > rank or array.size not in (1, channels):
        return None
    where = axis % rank - (rank - array.ndim) if rank else 0
    if array.size > 1 and (where < 0 or array.shape[where] != channels):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).copy()
