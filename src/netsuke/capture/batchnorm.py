"""BatchNormalization, and per-channel constant Mul and Add, folded into the layer in front of them.

Folded in binary64, rounded once to float32. A BatchNormalization with nothing to fold into becomes Mul and Add.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

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
    made_by,
    only_user,
    operand,
    rank_of,
    replace,
)

BN_MEAN, BN_STD = "netsuke.bn_mean", "netsuke.bn_std"


@dataclass
class _Affine:
    """y = x * scale + shift per channel (axis 1), as float64 vectors."""

    scale: Array
    shift: Array


def fold_batchnorm(graph: ir.Graph) -> int:
    """Rewrite in place until nothing folds; returns how many nodes went."""
    count = 0
    for node in list(graph):
        affine = _affine_of(node)
        if affine is None or node.inputs[0] is None:
            continue
        target = node.inputs[0].producer()
        if target is not None and only_user(node.inputs[0]) is node and _fold(target, affine):
            _keep_statistics(target, node, affine)
            replace(node.outputs[0], target.outputs[0])
            graph.remove(node, safe=True)
            target.meta["norm_name"] = node.name
            count += 1
        elif is_op(node, "BatchNormalization"):
            _standalone(node, affine)
            count += 1
    return count


def _keep_statistics(target: ir.Node, node: ir.Node, affine: _Affine) -> None:
    """Leave mean and standard deviation per output channel with the layer, for data-free quantization."""
    if is_op(node, "BatchNormalization"):
        gamma, beta = (np.asarray(array_of(v), np.float64) for v in node.inputs[1:3])
        mean, std = beta, np.abs(gamma)
    elif BN_MEAN in target.metadata_props:
        mean, std = (np.array(json.loads(target.metadata_props[key])) for key in (BN_MEAN, BN_STD))
        mean, std = mean * affine.scale + affine.shift, std * np.abs(affine.scale)
    else:
        return
    target.metadata_props[BN_MEAN] = json.dumps(mean.tolist())
    target.metadata_props[BN_STD] = json.dumps(std.tolist())


def _affine_of(node: ir.Node) -> _Affine | None:
    if is_op(node, "BatchNormalization"):
        arrays = [array_of(v) for v in node.inputs[1:5]]
        if (
            any(a is None for a in arrays)
            or attr(node, "training_mode", 0)
            or any(list(o.uses()) for o in node.outputs[1:])
        ):
            return None
        gamma, beta, mean, var = (np.asarray(a, np.float64) for a in arrays)
        scale = gamma / np.sqrt(var + float(attr(node, "epsilon", 1e-5)))
        return _Affine(scale, beta - mean * scale)
    if not is_op(node, "Mul", "Add", "Sub", "Div") or node.inputs[0] is None or not is_constant(operand(node, 1)):
        return None
    vector = _channel_vector(node.inputs[0], array_of(node.inputs[1]))
    if vector is None:
        return None
    one, zero = np.ones_like(vector), np.zeros_like(vector)
    with np.errstate(divide="ignore"):
        return {
            "Mul": _Affine(vector, zero),
            "Div": _Affine(1.0 / vector, zero),
            "Add": _Affine(one, vector),
            "Sub": _Affine(one, -vector),
        }[node.op_type]


def _channel_vector(x: ir.Value, array: Array | None) -> Array | None:
    """A constant that varies at most along axis 1 (the last axis for matrix products) of x, as a vector."""
    dims, producer = dims_of(x), x.producer()
    if array is None or dims is None or producer is None or array.dtype != np.float32 or array.ndim > len(dims):
        return None
    axis = len(dims) - 1 if is_op(producer, "MatMul", "Gemm") else 1
    channels = dims[axis] if len(dims) > axis else None
    if not isinstance(channels, int) or not np.isfinite(array).all():
        return None
    full = array.reshape([1] * (len(dims) - array.ndim) + list(array.shape))
    if any(n != 1 for i, n in enumerate(full.shape) if i != axis) or full.size not in (1, channels):
        return None  # of another channel for every position, or stretching x itself
    return np.broadcast_to(full.reshape(-1).astype(np.float64), (channels,)).copy()


def _fold(target: ir.Node, affine: _Affine) -> bool:
    """Change weight and bias of `target`; False when it is not a layer with constant weights, float or coded."""
    coded = made_by(operand(target, 1), "DequantizeLinear")
    weight = array_of(operand(target, 1)) if coded is None else _codes(coded)
    if weight is None or (coded is None and (weight.dtype != np.float32 or not is_constant(operand(target, 1)))):
        return False
    view = _output_axis(target, weight, len(affine.scale))
    if view is None:
        return False
    bias = operand(target, 2)
    old_bias = array_of(bias)
    if bias is not None and (old_bias is None or old_bias.dtype != np.float32):
        return False
    if is_op(target, "MatMul") and np.any(affine.shift != 0):
        return False  # MatMul has no bias; a following Add is fused by the passes
    if is_op(target, "Gemm") and (attr(target, "alpha", 1.0) != 1.0 or attr(target, "beta", 1.0) != 1.0):
        return False
    graph = target.graph
    assert graph is not None
    base = target.inputs[1].name or "w"  # type: ignore[union-attr]
    if coded is not None and not _scale_codes(target, coded, weight, affine.scale, view):
        return False
    if coded is None and np.any(affine.scale != 1.0):
        new = (weight.astype(np.float64) * affine.scale.reshape(view)).astype(np.float32)
        target.replace_input_with(1, constant(graph, new, base))
    if is_op(target, "MatMul"):
        return True
    start = np.zeros(1) if old_bias is None else old_bias.astype(np.float64).reshape(-1)
    new_bias = (start * affine.scale + affine.shift).astype(np.float32)
    if bias is None and not np.any(new_bias):
        return True
    _set_input(target, 2, constant(graph, new_bias, base.removesuffix(".weight") + ".bias"))
    return True


def _codes(node: ir.Node) -> Array | None:
    """Symmetric int8 codes behind DequantizeLinear that one layer reads, or None."""
    codes, zero = array_of(operand(node, 0)), array_of(operand(node, 2))
    plain = is_constant(operand(node, 0)) and is_constant(operand(node, 1)) and not int(attr(node, "block_size", 0))
    if not plain or codes is None or codes.dtype != np.int8 or only_user(node.outputs[0]) is None:
        return None
    return None if zero is not None and np.any(zero) else codes


def _scale_codes(target: ir.Node, node: ir.Node, codes: Array, factor: Array, view: tuple[int, ...]) -> bool:
    """Codes keep their magnitudes: the factor goes into the scale of each output channel, its sign into the codes."""
    scale, graph = array_of(node.inputs[1]), target.graph
    axis = max(range(len(view)), key=lambda i: view[i])
    assert scale is not None
    assert graph is not None
    if np.all(factor == 1.0):
        return True
    other = scale.size > 1 and int(attr(node, "axis", 1)) % codes.ndim != axis
    if other or not np.isfinite(factor).all() or np.any(factor == 0) or (codes.min() < -127 and np.any(factor < 0)):
        return False
    steps = (scale.reshape(-1).astype(np.float64) * np.abs(factor)).astype(np.float32)
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        return False
    turned = codes * np.where(factor < 0, -1, 1).astype(np.int8).reshape(view)
    name = node.outputs[0].name or "w"
    inputs = [constant(graph, turned.astype(np.int8), f"{name}.codes"), constant(graph, steps, f"{name}.scale")]
    dims = [int(d) for d in codes.shape]
    target.replace_input_with(
        1, emit(target, "DequantizeLinear", inputs, {"axis": axis}, dtype=ir.DataType.FLOAT, dims=dims)
    )
    return True


def _output_axis(target: ir.Node, weight: Array, channels: int) -> tuple[int, ...] | None:
    """The shape in which a per-output-channel vector multiplies the weight."""
    if is_op(target, "Conv"):
        return (channels, *([1] * (weight.ndim - 1))) if weight.shape[0] == channels else None
    if is_op(target, "ConvTranspose"):
        grouped = int(attr(target, "group", 1)) != 1
        return None if grouped or weight.shape[1] != channels else (1, channels, *([1] * (weight.ndim - 2)))
    if is_op(target, "Gemm"):
        transposed = bool(attr(target, "transB", 0))
        return (
            ((channels, 1) if transposed else (1, channels))
            if weight.shape[0 if transposed else 1] == channels
            else None
        )
    if is_op(target, "MatMul"):
        return (1, channels) if weight.ndim == 2 and weight.shape[1] == channels else None
    return None


def _set_input(node: ir.Node, index: int, value: ir.Value) -> None:
    while len(node.inputs) <= index:
        node.resize_inputs(len(node.inputs) + 1)
    node.replace_input_with(index, value)


def _standalone(node: ir.Node, affine: _Affine) -> None:
    x, graph = node.inputs[0], node.graph
    assert graph is not None
    assert x is not None
    rank = rank_of(x) or 4
    shape = (-1, *([1] * (rank - 2)))
    out: dict[str, Any] = {"dtype": ir.DataType.FLOAT, "dims": dims_of(x)}
    scale = constant(graph, affine.scale.astype(np.float32).reshape(shape), f"{node.name}.scale")
    shift = constant(graph, affine.shift.astype(np.float32).reshape(shape), f"{node.name}.shift")
    replace(node.outputs[0], emit(node, "Add", [emit(node, "Mul", [x, scale], **out), shift], **out))
    graph.remove(node, safe=True)
