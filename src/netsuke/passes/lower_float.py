"""ONNX operators that compute on floats (and on integers and booleans) to program operators, one rule each.

Every rule gets the node and returns the value that replaces its first output; convolutions, pools and kin come
wrapped in transposes. `RULES` and `netsuke.passes.lower_movement.RULES` together are all operators that
`netsuke.capture.supported` lets through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    array_of,
    attr,
    axis_of,
    constant,
    dims_of,
    ints_of,
    operand,
    scalar_of,
    source_of,
)
from netsuke.core.errors import Problem, UnsupportedError
from netsuke.passes.lower_qconv import conv_window, ohwi
from netsuke.passes.nodes import BOOL, F32, from_nhwc, nhwc_dims, ns, to_nhwc, transposed, with_axis, without_axis
from netsuke.passes.pools import pool_window
from netsuke.passes.tail import as_constant

Rule = Callable[[ir.Node], ir.Value]


def like(node: ir.Node, op: str, inputs: list[ir.Value | None], attrs: dict[str, Any] | None = None) -> ir.Value:
    """A program operator whose output has dtype, shape and name of the node's first output."""
    out = node.outputs[0]
    return ns(node, op, inputs, attrs, dtype=out.dtype, dims=dims_of(out), name=node.name or "", source=source_of(out))


def refuse(node: ir.Node, what: str) -> UnsupportedError:
    return UnsupportedError(Problem(f"{node.op_type}: {what}", where=node.name or ""))


def _unary(fn: str) -> Rule:
    return lambda node: like(node, "unary", [node.inputs[0]], {"fn": fn})


def _binary(fn: str) -> Rule:
    def rule(node: ir.Node) -> ir.Value:
        if len(node.inputs) == 1:
            return like(node, "identity", [node.inputs[0]])
        a, b = node.inputs[0], node.inputs[1]
        assert a is not None
        assert b is not None
        if a.dtype != b.dtype and fn == "pow":
            b = ns(node, "cast", [b], {"to": word(a.dtype)}, dtype=a.dtype, dims=dims_of(b))
        return like(node, "binary", [a, b], {"fn": fn})

    return rule


def word(dtype: ir.DataType | None) -> str:
    """The program's word for an ONNX type."""
    words = {
        ir.DataType.FLOAT: "f32",
        ir.DataType.UINT8: "u8",
        ir.DataType.INT8: "s8",
        ir.DataType.INT32: "i32",
        ir.DataType.INT64: "i64",
        ir.DataType.BOOL: "bool",
    }
    if dtype not in words:
        raise UnsupportedError(Problem("no such type in a program", got=dtype.name if dtype else "unknown"))
    return words[dtype]


def _conv(node: ir.Node) -> ir.Value:
    window, weight = conv_window(node), array_of(node.inputs[1])
    x = node.inputs[0]
    if window is None or weight is None or x is None:
        raise refuse(node, "the weight must be a constant")
    rank = len(dims_of(x) or ())
    bias = array_of(operand(node, 2))
    name = node.name or "conv"
    inputs = [to_nhwc(node, x), as_constant(node, ohwi(weight), f"{name}.w"), as_constant(node, bias, f"{name}.bias")]
    y = ns(
        node,
        "conv",
        inputs,
        window,
        dtype=F32,
        dims=nhwc_dims(node.outputs[0]),
        name=name,
        source=source_of(node.outputs[0]),
    )
    return from_nhwc(node, y, rank)


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
    y = ns(
        node,
        "conv_transpose",
        inputs,
        window,
        dtype=F32,
        dims=nhwc_dims(node.outputs[0]),
        name=name,
        source=source_of(node.outputs[0]),
    )
    return from_nhwc(node, y, rank)


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
        inputs = [a, as_constant(node, w, f"{name}.w"), as_constant(node, shift, f"{name}.bias")]
        y = ns(node, "linear", inputs, dtype=F32, dims=out, name=name, source=source_of(node.outputs[0]))
        if c is None or shift is not None:
            return y
    else:
        y = ns(node, "matmul", [a, b], {"trans_b": int(trans_b), "alpha": alpha}, dtype=F32, dims=out)
    if c is None:
        return y
    if beta != 1.0:
        c = ns(node, "binary", [c, _scalar(node, beta)], {"fn": "mul"}, dtype=F32, dims=dims_of(c))
    return like(node, "binary", [y, c], {"fn": "add"})


def _scalar(node: ir.Node, value: float) -> ir.Value:
    assert node.graph is not None
    return constant(node.graph, np.asarray(value, np.float32), f"{node.name}.c")


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
        w = as_constant(node, np.ascontiguousarray(weight.T), f"{node.name}.w")
        dims = [1, weight.shape[1]] if ranks[0] == 1 else dims_of(node.outputs[0])
        y = ns(node, "linear", [x, w], dtype=F32, dims=dims, name=node.name or "", source=source_of(node.outputs[0]))
        return without_axis(node, y, 0) if ranks[0] == 1 else y
    if min(ranks) >= 2:
        return like(node, "matmul", [a, b], {"trans_b": 0})
    left, right = with_axis(node, a, 0) if ranks[0] == 1 else a, with_axis(node, b, 1) if ranks[1] == 1 else b
    dims = list(dims_of(node.outputs[0]) or [])
    rank = len(dims)
    if ranks[1] == 1:
        dims = [*dims, 1]
    if ranks[0] == 1:
        dims = [*dims[:-1], 1, *dims[-1:]]
    y = ns(node, "matmul", [left, right], {"trans_b": 0}, dtype=F32, dims=dims, name=node.name or "")
    if ranks[0] == 1:
        y = without_axis(node, y, len(dims) - 2)
    return without_axis(node, y, rank) if ranks[1] == 1 else y


def _clip(node: ir.Node) -> ir.Value:
    """Constant bounds go into the operator; computed ones and integers use max and min."""
    x = node.inputs[0]
    assert x is not None
    low, high = (operand(node, i) for i in (1, 2))
    known = [None if v is None else scalar_of(v) for v in (low, high)]
    computed = any(v is not None and k is None for v, k in zip((low, high), known, strict=True))
    if x.dtype != F32 or computed or (None not in known and known[0] > known[1]):  # type: ignore[operator]
        for bound, fn in ((low, "max"), (high, "min")):
            if bound is not None:
                x = ns(node, "binary", [x, bound], {"fn": fn}, dtype=x.dtype, dims=dims_of(x))
        return x if x is not node.inputs[0] else like(node, "identity", [x])
    alpha, beta = (None if v is None or not np.isfinite(v) else v for v in known)
    if alpha == 0.0 and beta is None:
        return like(node, "unary", [x], {"fn": "relu"})
    return like(node, "unary", [x], {"fn": "clip", "alpha": alpha, "beta": beta})


def _with_alpha(fn: str, **defaults: float) -> Rule:
    def rule(node: ir.Node) -> ir.Value:
        attrs = {key: float(np.float32(attr(node, key, value))) for key, value in defaults.items()}
        return like(node, "unary", [node.inputs[0]], {"fn": fn, **attrs})

    return rule


def _gelu(node: ir.Node) -> ir.Value:
    fn = "gelu_tanh" if attr(node, "approximate", "none") == "tanh" else "gelu"
    return like(node, "unary", [node.inputs[0]], {"fn": fn})


def _swish(node: ir.Node) -> ir.Value:
    alpha, x = float(attr(node, "alpha", 1.0)), node.inputs[0]
    if alpha == 1.0:
        return like(node, "unary", [x], {"fn": "silu"})
    dims = dims_of(x)
    scaled = ns(node, "binary", [x, _scalar(node, alpha)], {"fn": "mul"}, dtype=F32, dims=dims)
    gate = ns(node, "unary", [scaled], {"fn": "sigmoid"}, dtype=F32, dims=dims)
    return like(node, "binary", [x, gate], {"fn": "mul"})


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


def _softmax(node: ir.Node) -> ir.Value:
    rank = len(dims_of(node.inputs[0]) or ())
    attrs = {"axis": axis_of(node, rank, -1), "log": int(node.op_type == "LogSoftmax")}
    return like(node, "softmax", [node.inputs[0]], attrs)


def _layernorm(node: ir.Node) -> ir.Value:
    rank = len(dims_of(node.inputs[0]) or ())
    if any(list(out.uses()) or out.is_graph_output() for out in node.outputs[1:]):
        raise refuse(node, "mean and inverse deviation as outputs")
    attrs = {"axis": axis_of(node, rank, -1), "eps": float(np.float32(attr(node, "epsilon", 1e-5)))}
    return like(node, "layernorm", [node.inputs[0], operand(node, 1), operand(node, 2)], attrs)


def _reduce(fn: str) -> Rule:
    def rule(node: ir.Node) -> ir.Value:
        axes = ints_of(operand(node, 1))
        rank = len(dims_of(node.inputs[0]) or ())
        if not axes and int(attr(node, "noop_with_empty_axes", 0)):
            return like(node, "identity", [node.inputs[0]])
        wanted = sorted(a + rank if a < 0 else a for a in axes) if axes else list(range(rank))
        return like(
            node, "reduce", [node.inputs[0]], {"fn": fn, "axes": wanted, "keepdims": int(attr(node, "keepdims", 1))}
        )

    return rule


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


def _argmax(node: ir.Node) -> ir.Value:
    rank = len(dims_of(node.inputs[0]) or ())
    return like(
        node, "argmax", [node.inputs[0]], {"axis": axis_of(node, rank, 0), "keepdims": int(attr(node, "keepdims", 1))}
    )


def _where(node: ir.Node) -> ir.Value:
    return like(node, "where", list(node.inputs))


def _cast(node: ir.Node) -> ir.Value:
    return like(node, "cast", [node.inputs[0]], {"to": word(ir.DataType(int(attr(node, "to"))))})


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
    from netsuke.capture.graph import replace

    for old, new in zip(node.outputs, made.outputs, strict=True):
        new.name = f"{old.name or node.name}/{node.op_type.lower()}"
        new.meta["fresh"] = True
        new.meta["source"] = source_of(old)
        new.shape, new.type = old.shape, ir.TensorType(F32)
    for old, new in list(zip(node.outputs, made.outputs, strict=True))[1:]:
        replace(old, new)
    return made.outputs[0]


def _isnan(node: ir.Node) -> ir.Value:
    return ns(
        node,
        "unary",
        [node.inputs[0]],
        {"fn": "isnan"},
        dtype=BOOL,
        dims=dims_of(node.outputs[0]),
        name=node.name or "",
        source=source_of(node.outputs[0]),
    )


_UNARIES = {
    "Abs": "abs",
    "Ceil": "ceil",
    "Cos": "cos",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "HardSwish": "hard_swish",
    "Log": "log",
    "Mish": "mish",
    "Neg": "neg",
    "Not": "not",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Softplus": "softplus",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
}
_BINARIES = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "Pow": "pow",
    "Min": "min",
    "Max": "max",
    "Mod": "mod",
    "And": "and",
    "Or": "or",
    "Xor": "xor",
    "Equal": "equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
}
_REDUCES = {
    "Mean": "mean",
    "Sum": "sum",
    "Max": "max",
    "Min": "min",
    "Prod": "prod",
    "L1": "l1",
    "L2": "l2",
    "SumSquare": "sumsq",
    "LogSumExp": "logsumexp",
}

RULES: dict[str, Rule] = {
    **{op: _unary(fn) for op, fn in _UNARIES.items()},
    **{op: _binary(fn) for op, fn in _BINARIES.items()},
    **{f"Reduce{kind}": _reduce(fn) for kind, fn in _REDUCES.items()},
    "ArgMax": _argmax,
    "AveragePool": _pool,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Elu": _with_alpha("elu", alpha=1.0),
    "GRU": _recurrent,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "HardSigmoid": _with_alpha("hard_sigmoid", alpha=0.2, beta=0.5),
    "IsNaN": _isnan,
    "LSTM": _recurrent,
    "LayerNormalization": _layernorm,
    "LeakyRelu": _with_alpha("leaky_relu", alpha=0.01),
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "PRelu": _prelu,
    "Softmax": _softmax,
    "Swish": _swish,
    "Where": _where,
}
