"""What a binary network looks like in ONNX: activations of two opposite values, or of 0 and another, weights of one
magnitude."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import Array, array_of, attr, ints_of, is_constant, is_op, made_by, operand, scalar_of

F32 = ir.DataType.FLOAT


@dataclass(frozen=True)
class Signs:
    """A value that is `scale` where x >= threshold and -scale elsewhere (a NaN included).

    ties: the value is 0 where x is 0 (ONNX Sign). pads: [begins, ends] around the two spatial axes, holding pad_value
    in units of scale, when a Pad stands behind the sign. levels: "sign", or "bool" for scale and 0 (`bits_of` only).
    """

    x: ir.Value
    threshold: float
    scale: float
    ties: bool = False
    pads: tuple[int, ...] = ()
    pad_value: int = 0
    levels: str = "sign"


@dataclass(frozen=True)
class _Two:
    """A value that is `high` where x >= threshold and `low` elsewhere."""

    x: ir.Value
    threshold: float
    high: float
    low: float


def signs_of(value: ir.Value | None) -> Signs | None:
    """The sign behind a value, or None.

    Forms: Where(x >= c, a, -a) and the same with Cast, Mul, Add and Sub by constants; Sign(x) and multiples of it; a
    Pad with a, -a or 0 behind any of them.
    """
    pad = made_by(value, "Pad")
    if pad is not None:
        return _padded(pad, signs_of(pad.inputs[0]))
    sign = made_by(value, "Sign")
    if sign is not None and sign.inputs[0] is not None and sign.inputs[0].dtype == F32:
        return Signs(sign.inputs[0], 0.0, 1.0, ties=True)
    two = _two_valued(value)
    if two is not None and two.high == -two.low and two.high != 0:
        return Signs(two.x, two.threshold, two.high)
    product = made_by(value, "Mul")
    if product is not None:
        for index in (0, 1):
            factor, inner = scalar_of(product.inputs[index]), signs_of(product.inputs[1 - index])
            if factor and inner is not None and not inner.pads:
                return replace(inner, scale=float(np.float32(inner.scale * factor)))
    return None


def bits_of(value: ir.Value | None) -> Signs | None:
    """`signs_of`, or a value that is a where x >= c and 0 elsewhere, whose padding is 0: what a one-bit layer reads."""
    found = signs_of(value)
    if found is not None:
        return found
    pad = made_by(value, "Pad")
    if pad is not None:
        padded = _padded(pad, bits_of(pad.inputs[0]))
        return padded if padded is not None and padded.pad_value == 0 else None
    two = _two_valued(value)
    if two is None or two.low != 0 or two.high == 0:
        return None
    return Signs(two.x, two.threshold, two.high, levels="bool")


def zero_one_of(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """(x, threshold) of a value that is 1 where x >= threshold and 0 elsewhere (a NaN included), or None."""
    two = _two_valued(value)
    return (two.x, two.threshold) if two is not None and (two.high, two.low) == (1.0, 0.0) else None


def _padded(pad: ir.Node, inner: Signs | None) -> Signs | None:
    pads = ints_of(operand(pad, 1))
    axes, value = operand(pad, 3), operand(pad, 2)
    fill = 0.0 if value is None else scalar_of(value)
    if inner is None or inner.pads or pads is None or len(pads) != 8 or axes is not None or fill is None:
        return None
    if attr(pad, "mode", "constant") not in ("constant", b"constant") or any(pads[i] for i in (0, 1, 4, 5)):
        return None
    units = fill / inner.scale
    if units not in (-1.0, 0.0, 1.0) or min(pads) < 0:
        return None
    return replace(inner, pads=(pads[2], pads[3], pads[6], pads[7]), pad_value=int(units))


def _two_valued(value: ir.Value | None) -> _Two | None:
    node = value.producer() if value is not None else None
    if node is None or node.domain != "":
        return None
    if node.op_type == "Where":
        compared, high, low = _compared(node.inputs[0]), scalar_of(node.inputs[1]), scalar_of(node.inputs[2])
        return None if compared is None or high is None or low is None else _Two(*compared, high, low)
    if node.op_type == "Cast" and node.outputs[0].dtype == F32:
        compared = _compared(node.inputs[0])
        return None if compared is None else _Two(*compared, 1.0, 0.0)
    if node.op_type in ("Mul", "Add", "Sub"):
        return _shifted(node)
    return _rounded(node) if node.op_type == "Round" else None


def _rounded(node: ir.Node) -> _Two | None:
    """round(clip(x, 0, 1)) and round(clip(x / s, 0, 1)): 1 where the number is above 1/2, which halves to even need."""
    clip = made_by(node.inputs[0], "Clip")
    if clip is None or clip.inputs[0] is None or clip.inputs[0].dtype != F32:
        return None
    if scalar_of(operand(clip, 1)) != 0 or scalar_of(operand(clip, 2)) != 1:
        return None
    half = np.nextafter(np.float32(0.5), np.float32(1))
    divided = made_by(clip.inputs[0], "Div")
    step = None if divided is None else scalar_of(divided.inputs[1])
    if divided is None or step is None or not np.isfinite(step) or step <= 0 or divided.inputs[0] is None:
        return _Two(clip.inputs[0], float(half), 1.0, 0.0)
    return _Two(divided.inputs[0], _first_above(half, np.float32(step)), 1.0, 0.0)


def _first_above(limit: np.float32, step: np.float32) -> float:
    """The smallest f32 x with f32(x / step) >= limit; division is monotone, so it lies next to limit * step."""
    x = limit * step
    while x / step >= limit:
        x = np.nextafter(x, np.float32(-np.inf))
    while not x / step >= limit:
        x = np.nextafter(x, np.float32(np.inf))
    return float(x)


def _shifted(node: ir.Node) -> _Two | None:
    """Both values through one f32 operation with a constant."""
    for index in (0, 1):
        inner, other = _two_valued(node.inputs[index]), scalar_of(node.inputs[1 - index])
        if inner is None or other is None:
            continue
        pair, constant = np.asarray([inner.high, inner.low], np.float32), np.float32(other)
        if node.op_type == "Mul":
            pair = pair * constant
        elif node.op_type == "Add":
            pair = pair + constant
        else:
            pair = pair - constant if index == 0 else constant - pair
        return _Two(inner.x, inner.threshold, float(pair[0]), float(pair[1]))
    return None


def _compared(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """(x, threshold) of x >= threshold; x > c is x >= the next number above c."""
    node = made_by(value, "GreaterOrEqual", "Greater")
    if node is None or node.inputs[0] is None or node.inputs[0].dtype != F32:
        return None
    bound = scalar_of(node.inputs[1])
    if bound is None or not np.isfinite(bound):
        return None
    if is_op(node, "Greater"):
        bound = float(np.nextafter(np.float32(bound), np.float32(np.inf)))
    return node.inputs[0], bound


@dataclass(frozen=True)
class SignWeights:
    """positive: bool in the weight's own shape; scale: f32 [O], the magnitude of each output channel."""

    positive: Array
    scale: Array


def weight_signs(value: ir.Value | None, axis: int) -> SignWeights | None:
    """A constant weight, float or behind DequantizeLinear, whose elements of one output channel have one magnitude."""
    array = _weight(value)
    if array is None or array.ndim < 2 or not array.size:
        return None
    rows = np.abs(np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1))
    if not np.isfinite(rows).all() or (rows != rows[:, :1]).any():
        return None
    return SignWeights(array > 0, rows[:, 0].copy())


def _weight(value: ir.Value | None) -> Array | None:
    """A float constant, or the numbers that constant codes stand for."""
    node = made_by(value, "DequantizeLinear")
    if node is None:
        array = array_of(value) if is_constant(value) else None
        return array if array is not None and array.dtype == np.float32 else None
    codes, scale, zero = (array_of(operand(node, i)) for i in range(3))
    if codes is None or scale is None or not is_constant(node.inputs[0]) or int(attr(node, "block_size", 0)):
        return None
    shape = [1] * codes.ndim
    shape[int(attr(node, "axis", 1)) if scale.size > 1 else 0] = -1
    centred = codes.astype(np.int32) - (0 if zero is None else zero.astype(np.int32).reshape(shape))
    return np.asarray(centred.astype(np.float32) * scale.astype(np.float32).reshape(shape))


def is_binary_layer(node: ir.Node) -> bool:
    """True for a Conv, Gemm or MatMul of two levels with weights of one magnitude: one bit each once compiled."""
    if not is_op(node, "Conv", "Gemm", "MatMul") or bits_of(node.inputs[0]) is None:
        return False
    axis = 0 if node.op_type == "Conv" or int(attr(node, "transB", 0)) else 1
    return weight_signs(node.inputs[1], axis) is not None and array_of(node.inputs[0]) is None
