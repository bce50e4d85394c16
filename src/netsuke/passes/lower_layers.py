"""ONNX layers with weights or windows to program operators, one rule each; wrapped in transposes where needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    PRODUCTS,
    array_of,
    attr,
    dims_of,
    operand,
    replace,
    source_of,
)
from netsuke.formats import f32_to_bf16
from netsuke.passes.lower_qconv import conv_window, ohwi
from netsuke.passes.nodes import F32, from_nhwc, nhwc_dims, ns, to_nhwc, transposed, with_axis, without_axis
from netsuke.passes.pools import pool_window
from netsuke.passes.rules import Rule, like, refuse, scalar
from netsuke.passes.tail import as_constant


def _on_bfloat16(node: ir.Node) -> bool:
    """Whether the plan asks for products of bfloat16 (docs/numerics.md section 8)."""
    return node.metadata_props.get(PRODUCTS) == "bf16"


def _product(node: ir.Node, *, trans_b: int = 0, **given: float) -> dict[str, Any]:
    """Attributes of matmul."""
    compute = {"compute": "bf16"} if _on_bfloat16(node) else {}
    return {"trans_b": trans_b, **given, **compute}


def _weight(node: ir.Node, array: np.ndarray[Any, Any], name: str) -> ir.Value | None:
    """The weight as a constant: float32, or bfloat16 where the plan asks for it (docs/numerics.md section 8)."""
    if _on_bfloat16(node):
        array = f32_to_bf16(array.astype(np.float32)).view(ir.DataType.BFLOAT16.numpy())
    return as_constant(node, array, name)


def _in_nhwc(node: ir.Node, op: str, inputs: list[ir.Value | None], window: dict[str, Any], name: str) -> ir.Value:
    """The layer on NHWC inputs, its output brought back to the layout of the node's."""
    out = node.outputs[0]
    y = ns(node, op, inputs, window, dtype=F32, dims=nhwc_dims(out), name=name, source=source_of(out))
    return from_nhwc(node, y, len(dims_of(out) or ()))


def _conv(node: ir.Node) -> ir.Value:
    window, weight = conv_window(node), array_of(node.inputs[1])
    x = node.inputs[0]
    if window is None or weight is None or x is None:
        raise refuse(node, "the weight must be a constant")
    bias = array_of(operand(node, 2))
    name = node.name or "conv"
    inputs = [to_nhwc(node, x), _weight(node, ohwi(weight), f"{name}.w"), as_constant(node, bias, f"{name}.bias")]
    return _in_nhwc(node, "conv", inputs, window, name)


def _conv_transpose(node: ir.Node) -> ir.Value:
    window, weight = conv_window(node), array_of(node.inputs[1])
    x = node.inputs[0]
    if window is None or weight is None or x is None:
        raise refuse(node, "the weight must be a constant")
    rank = len(dims_of(x) or ())
    full = weight[:, :, None, :] if weight.ndim == 3 else weight
    extra = list(attr(node, "output_padding", [0] * (rank - 2)))
    window["output_padding"] = [0, *extra] if rank == 3 else extra
    name = node.name or "conv_transpose"
    w = np.ascontiguousarray(full.transpose(0, 2, 3, 1))
    inputs = [
        to_nhwc(node, x),
        as_constant(node, w, f"{name}.w"),
        as_constant(node, array_of(operand(node, 2)), f"{name}.bias"),
    ]
    return _in_nhwc(node, "conv_transpose", inputs, window, name)


def _gemm(node: ir.Node) -> ir.Value:
    """alpha * A' B' + beta * C; with a constant B a linear layer, otherwise matmul and add."""
    a, b, c = node.inputs[0], node.inputs[1], operand(node, 2)
    assert a is not None
    assert b is not None
    alpha, beta = float(attr(node, "alpha", 1.0)), float(attr(node, "beta", 1.0))
    if int(attr(node, "transA", 0)):
        a = transposed(node, a, [1, 0])
    weight, bias = array_of(b), array_of(c)
    out = dims_of(node.outputs[0])
    trans_b = bool(int(attr(node, "transB", 0)))
    if weight is not None and weight.dtype == np.float32:
        w = np.ascontiguousarray(weight if trans_b else weight.T)
        w = w if alpha == 1.0 else (w.astype(np.float64) * alpha).astype(np.float32)
        vector = bias is not None and (bias.size in (1, w.shape[0]) and bias.shape[-1:] in ((), (1,), (w.shape[0],)))
        shift = (
            None
            if bias is None or not vector
            else (np.broadcast_to(bias.reshape(-1), (w.shape[0],)) * np.float32(beta))
        )
        name = node.name or "linear"
        inputs = [a, _weight(node, w, f"{name}.w"), as_constant(node, shift, f"{name}.bias")]
        y = ns(node, "linear", inputs, dtype=F32, dims=out, name=name, source=source_of(node.outputs[0]))
        if c is None or shift is not None:
            return y
    else:
        y = ns(node, "matmul", [a, b], _product(node, trans_b=int(trans_b), alpha=alpha), dtype=F32, dims=out)
    if c is None:
        return y
    if beta != 1.0:
        c = ns(node, "binary", [c, scalar(node, beta)], {"fn": "mul"}, dtype=F32, dims=dims_of(c))
    return like(node, "binary", [y, c], {"fn": "add"})


def _matmul(node: ir.Node) -> ir.Value:
    """A constant matrix on the right makes a linear layer; vectors get a dimension that is removed again."""
    a, b = node.inputs[0], node.inputs[1]
    assert a is not None
    assert b is not None
    if a.dtype != F32:
        raise refuse(node, "only float matrices")
    ranks = [len(dims_of(v) or ()) for v in (a, b)]
    weight = array_of(b)
    if weight is not None and weight.ndim == 2 and ranks[0] >= 1:
        x = with_axis(node, a, 0) if ranks[0] == 1 else a
        w = _weight(node, np.ascontiguousarray(weight.T), f"{node.name}.w")
        dims = [1, weight.shape[1]] if ranks[0] == 1 else dims_of(node.outputs[0])
        y = ns(node, "linear", [x, w], dtype=F32, dims=dims, name=node.name or "", source=source_of(node.outputs[0]))
        return without_axis(node, y, 0) if ranks[0] == 1 else y
    if min(ranks) >= 2:
        return like(node, "matmul", [a, b], _product(node))
    left, right = with_axis(node, a, 0) if ranks[0] == 1 else a, with_axis(node, b, 1) if ranks[1] == 1 else b
    dims = list(dims_of(node.outputs[0]) or [])
    rank = len(dims)
    if ranks[1] == 1:
        dims = [*dims, 1]
    if ranks[0] == 1:
        dims = [*dims[:-1], 1, *dims[-1:]]
    y = ns(node, "matmul", [left, right], _product(node), dtype=F32, dims=dims, name=node.name or "")
    if ranks[0] == 1:
        y = without_axis(node, y, len(dims) - 2)
    return without_axis(node, y, rank) if ranks[1] == 1 else y


def _prelu(node: ir.Node) -> ir.Value:
    x, slope = node.inputs[0], array_of(node.inputs[1])
    assert x is not None
    assert slope is not None
    rank = len(dims_of(x) or ())
    name = f"{node.name}.slope"
    if slope.size == 1 or rank < 3:
        return like(node, "prelu", [x, as_constant(node, slope.reshape(-1), name)])
    last = transposed(node, x, [0, *range(2, rank), 1])
    dims = dims_of(last)
    y = ns(
        node, "prelu", [last, as_constant(node, slope.reshape(-1), name)], dtype=F32, dims=dims, name=node.name or ""
    )
    return transposed(node, y, [0, rank - 1, *range(1, rank - 1)])


def _pool(node: ir.Node) -> ir.Value:
    x, window = node.inputs[0], pool_window(node)
    if x is None or window is None:
        raise refuse(node, "the window does not fit the input")
    op = "maxpool" if node.op_type == "MaxPool" else "avgpool"
    if op == "avgpool":
        window.pop("dilations")
    rank = len(dims_of(x) or ())
    y = ns(
        node,
        op,
        [to_nhwc(node, x)],
        window,
        dtype=x.dtype,
        dims=nhwc_dims(node.outputs[0]),
        name=node.name or "",
        source=source_of(node.outputs[0]),
    )
    return from_nhwc(node, y, rank)


def _global_pool(node: ir.Node) -> ir.Value:
    rank = len(dims_of(node.inputs[0]) or ())
    fn = "mean" if node.op_type == "GlobalAveragePool" else "max"
    if node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.UINT8:
        return _global_max_codes(node, rank)
    return like(node, "reduce", [node.inputs[0]], {"fn": fn, "axes": list(range(2, rank)), "keepdims": 1})


def _global_max_codes(node: ir.Node, rank: int) -> ir.Value:
    """reduce takes no codes: a max pool over the whole (static) image does."""
    x, dims = node.inputs[0], dims_of(node.inputs[0])
    assert x is not None
    assert dims is not None
    if not all(isinstance(d, int) for d in dims[2:]):
        raise refuse(node, "codes with a dynamic image size; quantize behind it instead")
    kernel = [1, *dims[2:]] if rank == 3 else dims[2:]
    attrs = {"kernel": kernel, "strides": [1, 1], "pads": [0, 0, 0, 0]}
    y = ns(
        node, "maxpool", [to_nhwc(node, x)], attrs, dtype=x.dtype, dims=[dims[0], 1, 1, dims[1]], name=node.name or ""
    )
    return from_nhwc(node, y, rank)


def _recurrent(node: ir.Node) -> ir.Value:
    """LSTM and GRU: the only operators with several outputs here; all are replaced by the rule."""
    gru = node.op_type == "GRU"
    attrs: dict[str, Any] = {"hidden": int(attr(node, "hidden_size")), "direction": attr(node, "direction", "forward")}
    if gru:
        attrs["linear_before_reset"] = int(attr(node, "linear_before_reset", 0))
    count = 6 if gru else 7
    inputs = [operand(node, i) for i in range(count)]
    while inputs and inputs[-1] is None:
        inputs.pop()
    made = ir.node(
        node.op_type.lower(),
        inputs=inputs,
        attributes=attrs,
        domain="netsuke",
        num_outputs=len(node.outputs),
        name=node.name,
    )
    assert node.graph is not None
    node.graph.insert_before(node, made)

    for old, new in zip(node.outputs, made.outputs, strict=True):
        new.name = f"{old.name or node.name}/{node.op_type.lower()}"
        new.meta["fresh"] = True
        new.meta["source"] = source_of(old)
        new.shape, new.type = old.shape, ir.TensorType(F32)
    for old, new in list(zip(node.outputs, made.outputs, strict=True))[1:]:
        replace(old, new)
    return made.outputs[0]


RULES: dict[str, Rule] = {
    "AveragePool": _pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "PRelu": _prelu,
}
