"""Sign, or 0 and 1, -> Conv, Gemm or MatMul with weights of one magnitude becomes sign_pack -> bconv or blinear.

The scales of signs, weights and a folded BatchNorm are one multiplier per output channel. ONNX Sign is 0 at 0:
sign(x) = ((x >= 0) + (x > 0)) / 2 with both terms +1 or -1, so such a layer is the mean of two one-bit layers, exact
and twice the work; networks that binarize with x >= 0 take one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.binary_forms import Signs, SignWeights, bits_of, is_binary_layer, weight_signs
from netsuke.capture.graph import Array, attr, constant, dims_of, operand, replace, source_of
from netsuke.formats import make_multiplier, pack_bits, word_count
from netsuke.passes.binary_tail import BinaryTail, binary_tail
from netsuke.passes.lower_qconv import conv_window, ohwi
from netsuke.passes.nodes import F32, I64, U8, float_constant, from_nhwc, nhwc_dims, ns, to_nhwc
from netsuke.passes.tail import Tail, as_constant, last_member, place

_MOST = 2**24  # products of one sum (format.md)


def lower_binary(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many layers became one-bit layers."""
    packed: dict[tuple[int, float], ir.Value] = {}
    return sum(_lower(node, packed) for node in list(graph) if is_binary_layer(node))


@dataclass
class _Layer:
    """A layer on its way: op, its window or nothing, channels in, signs of w as [O, ..., channels of a group]."""

    op: str
    attrs: dict[str, Any]
    positive: Array
    mult: Array
    bias: Array | None


def _lower(node: ir.Node, packed: dict[tuple[int, float], ir.Value]) -> bool:
    signs = bits_of(node.inputs[0])
    axis = 0 if node.op_type == "Conv" or int(attr(node, "transB", 0)) else 1
    weights = weight_signs(node.inputs[1], axis)
    assert signs is not None
    assert weights is not None
    layer = _conv(node, signs, weights) if node.op_type == "Conv" else _linear(node, signs, weights, axis)
    if layer is None or layer.positive[0].size > _MOST:
        return False
    thresholds = [signs.threshold]
    if signs.ties:
        thresholds.append(float(np.nextafter(np.float32(0), np.float32(1))))
    found = BinaryTail(Tail(node.outputs[0]))
    if not signs.ties:
        found = binary_tail(node.outputs[0], channels=len(layer.mult), axis=1 if layer.op == "bconv" else -1)
    tail = found.tail
    previous: ir.Value | None = None
    for index, threshold in enumerate(thresholds):
        x = _packed(node, signs.x, threshold, packed, image=layer.op == "bconv")
        previous = _emit(node, x, layer, found, previous, len(thresholds), last=index + 1 == len(thresholds))
    assert previous is not None
    rank = len(dims_of(node.inputs[0]) or ())
    made = from_nhwc(last_member(node, tail), previous, rank) if layer.op == "bconv" else previous
    if tail.grid is None:
        source = source_of(node.outputs[0])
        replace(node.outputs[0], made)
        made.meta["source"] = source
        assert node.graph is not None
        node.graph.remove(node, safe=True)
    else:
        place(tail, node, previous, made)
    return True


def _levels(signs: Signs) -> dict[str, Any]:
    """The attribute of a layer whose bits are not +1 and -1."""
    return {} if signs.levels == "sign" else {"levels": signs.levels}


def _conv(node: ir.Node, signs: Signs, weights: SignWeights) -> _Layer | None:
    window, dims = conv_window(node), dims_of(node.inputs[0])
    bias = operand(node, 2)
    real = None if bias is None else float_constant(bias)
    if window is None or dims is None or not isinstance(dims[1], int) or (bias is not None and real is None):
        return None
    pad_value = 0
    if signs.pads:
        if any(window["pads"]) or len(dims) != 4:
            return None  # zeros around the pads of the sign: two values of padding
        window["pads"], pad_value = list(signs.pads), signs.pad_value
    attrs = {**window, "channels": dims[1], "pad_value": pad_value, **_levels(signs)}
    mult = weights.scale.astype(np.float64) * signs.scale
    return _Layer("bconv", attrs, ohwi(weights.positive), mult, None if real is None else real.reshape(-1))


def _linear(node: ir.Node, signs: Signs, weights: SignWeights, axis: int) -> _Layer | None:
    dims = dims_of(node.inputs[0])
    gemm = node.op_type == "Gemm"
    gain = float(attr(node, "alpha", 1.0)) if gemm else 1.0
    bias = operand(node, 2) if gemm else None
    real = None if bias is None else float_constant(bias)
    if dims is None or weights.positive.ndim != 2 or signs.pads or (gemm and int(attr(node, "transA", 0))):
        return None
    positive = np.ascontiguousarray(weights.positive if axis == 0 else weights.positive.T)
    outputs = positive.shape[0]
    if bias is not None and (real is None or real.size not in (1, outputs) or float(attr(node, "beta", 1.0)) != 1.0):
        return None
    vector = None if real is None else np.broadcast_to(real.reshape(-1), (outputs,)).copy()
    mult = weights.scale.astype(np.float64) * signs.scale * gain
    return _Layer("blinear", {"channels": positive.shape[1], **_levels(signs)}, positive, mult, vector)


def _packed(
    node: ir.Node, x: ir.Value, threshold: float, known: dict[tuple[int, float], ir.Value], *, image: bool
) -> ir.Value:
    """sign_pack of x, channels last; one for all layers that read the same sign."""
    key = (id(x), threshold)
    if key in known:
        return known[key]
    moved = to_nhwc(node, x) if image else x
    dims = list(dims_of(moved) or [])
    channels = int(dims[-1])
    assert node.graph is not None
    limits = constant(node.graph, np.full(channels, threshold, np.float32), f"{node.name}.threshold")
    known[key] = ns(
        node, "sign_pack", [moved, limits], dtype=I64, dims=[*dims[:-1], word_count(channels)], name=f"{node.name}.pack"
    )
    return known[key]


def _emit(
    node: ir.Node, x: ir.Value, layer: _Layer, found: BinaryTail, previous: ir.Value | None, parts: int, *, last: bool
) -> ir.Value:
    tail = found.tail
    at, name = last_member(node, tail), node.name or layer.op
    y_scale = np.float64(1.0 if tail.grid is None else tail.grid.scale)
    mult = make_multiplier(1.0, layer.mult / parts, float(y_scale))
    bias = None if layer.bias is None or previous is not None else layer.bias.astype(np.float64) / y_scale
    if found.bias is not None:
        bias = found.bias.astype(np.float64) / y_scale + (0 if bias is None else bias)
    shift = None if found.shift is None else (found.shift.astype(np.float64) / y_scale).astype(np.float32)
    residual = previous
    attrs: dict[str, Any] = {**layer.attrs, "out": "f32"}
    if tail.grid is not None:
        attrs |= {"out": "u8", **tail.limits()}
        if tail.residual is not None:
            rest = tail.residual
            residual = to_nhwc(at, rest.value) if layer.op == "bconv" else rest.value
            attrs |= {"r_zero": rest.zero, "r_mult": float(make_multiplier(rest.scale, 1.0, float(y_scale)))}
    inputs = [
        x,
        as_constant(at, pack_bits(layer.positive), f"{name}.w"),
        as_constant(at, mult, f"{name}.mult"),
        as_constant(at, None if bias is None else bias.astype(np.float32), f"{name}.bias"),
        as_constant(at, found.slope, f"{name}.slope"),
        as_constant(at, shift, f"{name}.shift"),
        residual,
    ]
    dims = nhwc_dims(node.outputs[0]) if layer.op == "bconv" else dims_of(node.outputs[0])
    dtype = F32 if tail.grid is None else U8
    return ns(
        at, layer.op, inputs, attrs, dtype=dtype, dims=dims, name=name if last else f"{name}.first", source=tail.source
    )
