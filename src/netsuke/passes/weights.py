"""Integer weights behind DequantizeLinear: codes as s8 with one scale per output channel, or the reason why not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import Array, array_of, attr, is_constant, made_by, operand

_KINDS = ("int8", "uint8", "int4", "uint4", "int2", "uint2")


@dataclass(frozen=True)
class WeightCodes:
    """codes: int8 in the weight's own shape; scale: f32 [O] along `axis`."""

    codes: Array
    scale: Array


def weight_codes(value: ir.Value | None, axis: int) -> WeightCodes | None:
    """Codes of a constant weight with one scale per element of `axis` (or one for all).

    None when they do not fit s8 symmetric.

    A zero point is subtracted from the codes, which is exact where all differences fit in [-128, 127].
    """
    node = made_by(value, "DequantizeLinear")
    if node is None or not is_constant(node.inputs[0]) or int(attr(node, "block_size", 0)):
        return None
    q, scale, zero = (array_of(operand(node, i)) for i in range(3))
    if q is None or scale is None or str(q.dtype) not in _KINDS or not (np.isfinite(scale).all() and (scale > 0).all()):
        return None
    axis %= q.ndim
    per_axis = int(attr(node, "axis", 1)) % q.ndim
    if scale.size > 1 and (per_axis != axis or scale.size != q.shape[axis]):
        return None
    wide = q.astype(np.int32)
    if zero is not None:
        points = zero.astype(np.int32).reshape(-1)
        shape = [1] * q.ndim
        shape[axis] = -1
        wide = wide - (points.reshape(shape) if points.size > 1 else points[0])
    if wide.size and (wide.min() < -128 or wide.max() > 127):
        return None
    channels = np.broadcast_to(scale.astype(np.float32).reshape(-1), (q.shape[axis],))
    return WeightCodes(wide.astype(np.int8), np.ascontiguousarray(channels))
