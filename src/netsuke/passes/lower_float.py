"""ONNX elementwise operators, reductions and normalizations to program operators, one rule each.

Every rule gets the node and returns the value that replaces its first output. The `RULES` here, in `lower_layers`
and in `lower_movement` together are all operators that `netsuke.capture.supported` lets through.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    attr,
    axis_of,
    dims_of,
    ints_of,
    operand,
    scalar_of,
    source_of,
)
from netsuke.passes.nodes import BOOL, F32, ns
from netsuke.passes.rules import Rule, like, refuse, scalar, word


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
    scaled = ns(node, "binary", [x, scalar(node, alpha)], {"fn": "mul"}, dtype=F32, dims=dims)
    gate = ns(node, "unary", [scaled], {"fn": "sigmoid"}, dtype=F32, dims=dims)
    return like(node, "binary", [x, gate], {"fn": "mul"})


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


def _argmax(node: ir.Node) -> ir.Value:
    rank = len(dims_of(node.inputs[0]) or ())
    return like(
        node, "argmax", [node.inputs[0]], {"axis": axis_of(node, rank, 0), "keepdims": int(attr(node, "keepdims", 1))}
    )


def _where(node: ir.Node) -> ir.Value:
    return like(node, "where", list(node.inputs))


def _cast(node: ir.Node) -> ir.Value:
    return like(node, "cast", [node.inputs[0]], {"to": word(ir.DataType(int(attr(node, "to"))))})


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
    "Cast": _cast,
    "Clip": _clip,
    "Elu": _with_alpha("elu", alpha=1.0),
    "Gelu": _gelu,
    "HardSigmoid": _with_alpha("hard_sigmoid", alpha=0.2, beta=0.5),
    "IsNaN": _isnan,
    "LayerNormalization": _layernorm,
    "LeakyRelu": _with_alpha("leaky_relu", alpha=0.01),
    "LogSoftmax": _softmax,
    "Softmax": _softmax,
    "Swish": _swish,
    "Where": _where,
}
