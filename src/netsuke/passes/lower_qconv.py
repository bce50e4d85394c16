"""dequantize(x), DequantizeLinear(w) -> Conv -> (Add) -> (Relu, Clip) -> (quantize) becomes qconv."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import attr, dims_of
from netsuke.passes.nodes import F32, U8, codes_of, from_nhwc, nhwc_dims, ns, to_nhwc
from netsuke.passes.tail import as_constant, find_tail, last_member, layer_bias, place, requantization
from netsuke.passes.weights import WeightCodes, weight_codes


def lower_qconv(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many convolutions became integer.

    A possible overflow is an UnsupportedError by name.
    """
    return sum(_lower(node) for node in list(graph) if node.domain == "" and node.op_type == "Conv")


def conv_window(node: ir.Node) -> dict[str, Any] | None:
    """strides, pads (top, left, bottom, right), dilations and groups of an ONNX Conv; 1-d convolutions get H = 1."""
    dims = dims_of(node.inputs[0])
    weight = dims_of(node.inputs[1])
    if dims is None or weight is None:
        return None
    spatial = len(dims) - 2
    strides = list(attr(node, "strides", [1] * spatial))
    dilations = list(attr(node, "dilations", [1] * spatial))
    pads = window_pads(node, dims, [int(k) for k in weight[2:]], strides, dilations)
    if spatial == 1:
        strides, dilations, pads = [1, *strides], [1, *dilations], [0, pads[0], 0, pads[1]]
    return {"strides": strides, "pads": pads, "dilations": dilations, "groups": int(attr(node, "group", 1))}


def window_pads(
    node: ir.Node, dims: list[Any], kernel: list[int], strides: list[int], dilations: list[int]
) -> list[int]:
    """Explicit pads [begins..., ends...]; auto_pad SAME needs the image size, which the capture has checked."""
    spatial = len(kernel)
    mode = attr(node, "auto_pad", "NOTSET")
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        return list(attr(node, "pads", [0] * 2 * spatial)) if mode != "VALID" else [0] * 2 * spatial
    begins, ends = [], []
    for axis in range(spatial):
        size = int(dims[2 + axis])
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        total = max(0, (-(-size // strides[axis]) - 1) * strides[axis] + reach - size)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return begins + ends


def ohwi(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[O, I, kh, kw] or [O, I, k] to [O, kh, kw, I]."""
    full = weight[:, :, None, :] if weight.ndim == 3 else weight
    return np.ascontiguousarray(full.transpose(0, 2, 3, 1))


def _lower(node: ir.Node) -> bool:
    x, w = codes_of(node.inputs[0]), weight_codes(node.inputs[1], 0)
    window = conv_window(node)
    if x is None or w is None or window is None:
        return False
    biases = layer_bias(node, 2, x.scale, w.scale)
    if biases is None:
        return False
    tail = find_tail(node.outputs[0])
    w = WeightCodes(ohwi(w.codes), w.scale)
    found = requantization(node, x, w, tail, *biases)
    at, name = last_member(node, tail), node.name or "conv"
    rank = len(dims_of(node.inputs[0]) or ())
    inputs = [to_nhwc(at, x.value), as_constant(at, w.codes, f"{name}.w"), *found.inputs(at, name)]
    inputs.append(to_nhwc(at, tail.residual.value) if tail.residual is not None else None)
    dtype = U8 if tail.codes else F32
    dims = nhwc_dims(node.outputs[0])
    y = ns(
        at, found.op("qconv"), inputs, {**window, **found.attrs}, dtype=dtype, dims=dims, name=name, source=tail.source
    )
    place(tail, node, y, from_nhwc(at, y, rank))
    return True
