"""How close a value must be to the reference, given the inputs that the implementation really had."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from netsuke.program.model import Node
from netsuke.program.opset import OPERATORS, attributes
from netsuke.program.reference import RULES, Call
from netsuke.program.reference.floats import plain_weights

from .maker import Array

_EXACT_UNARY = ["abs", "ceil", "clip", "floor", "identity", "leaky_relu", "neg", "not", "reciprocal", "relu", "round"]
_EXACT_UNARY += ["sign", "sqrt", "isnan"]
_EXACT_OPS = ("prelu", "where", "cast", "argmax", "maxpool", "binary")
CODES = np.dtype(np.uint8)


def is_exact(node: Node) -> bool:
    """True when docs/numerics.md fixes every bit of the node's result."""
    group = OPERATORS[node.op].group
    if group in ("integer", "movement"):
        return True
    if node.op == "wlinear":
        return node.attrs.get("compute") == "s8"
    if node.op == "unary":
        return node.attrs["fn"] in _EXACT_UNARY
    if node.op == "reduce":
        return node.attrs["fn"] in ("max", "min", "any", "all")
    return node.op in _EXACT_OPS and node.attrs.get("fn") != "pow"


def _selects(node: Node) -> bool:
    """True for operators that pick one of their elements: which of +0 and -0 is left open."""
    return node.op == "maxpool" or node.attrs.get("fn") in ("max", "min", "clip", "relu", "sign")


def same_bits(a: Array, b: Array) -> Array:
    """Where two arrays hold the same bits; any two NaN count as the same."""
    if a.dtype != np.float32:
        return np.asarray(a == b)
    return (a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))


def _magnitude(node: Node, inputs: list[Array | None], bf16: bool) -> Array:
    """Sum of absolute values that a sum was made of: its rounding errors are proportional to it."""
    absolute = [None if x is None else np.abs(x) for x in inputs]
    plain = replace(node, attrs={k: v for k, v in node.attrs.items() if k not in ("act", "alpha", "beta")})
    if node.op == "matmul":
        plain.attrs["alpha"] = abs(float(attributes(node)["alpha"]))  # type: ignore[arg-type]
    if node.op == "reduce":
        plain.attrs["fn"] = "sum"
    return RULES[node.op](Call(plain, absolute, attributes(plain), bf16))[0].astype(np.float64)


def _product_tolerance(node: Node, inputs: list[Array | None], want: Array) -> Array:
    """Any value where a partial product, in some order, may overflow or vanish."""
    with np.errstate(divide="ignore"):
        digits = np.abs(np.log2(np.abs(inputs[0]).astype(np.float64)))
    call = replace(node, attrs={**node.attrs, "fn": "sum"})
    spread = RULES["reduce"](Call(call, [digits], attributes(call)))[0]
    return np.where(spread < 100, 1e-4 * np.abs(want), np.inf)


def tolerance(node: Node, inputs: list[Array | None], want: Array, bf16: bool) -> Array | float:
    """Absolute error allowed for each element of the first output of a float operator."""
    relative = 2e-6 * np.abs(want.astype(np.float64))
    if node.op == "wlinear":
        weights = np.abs(plain_weights(Call(node, list(inputs), attributes(node))))
        return 8e-6 * (np.abs(inputs[0]).astype(np.float64) @ weights.T) + relative + 1e-6
    if node.op in ("conv", "conv_transpose", "linear", "matmul", "avgpool"):
        return 8e-6 * _magnitude(node, inputs, bf16) + relative + 1e-6
    if node.op == "reduce":
        if node.attrs["fn"] in ("mean", "sum", "l1", "l2", "sumsq"):
            scale = _magnitude(node, inputs, bf16) * (
                np.abs(inputs[0]).max(initial=1.0) if "sq" in str(node.attrs) else 1
            )
            return 4e-6 * scale + relative + 1e-7
        if node.attrs["fn"] == "prod":
            return _product_tolerance(node, inputs, want)
        return 5 * relative + 1e-5
    peak = max((float(np.abs(x).max(initial=0.0)) for x in inputs if x is not None), default=0.0)
    if node.op == "layernorm":
        return 2e-5 * (1.0 + peak * 32.0)
    if node.op in ("softmax", "lstm", "gru"):
        return 1e-5 * (1.0 + peak * (node.op == "softmax"))
    return relative + 2e-6


def wrong_elements(
    node: Node, inputs: list[Array | None], got: Array, want: Array, bf16: bool, *, foreign: bool = False
) -> Array:
    """Mask of the elements that are further away than allowed.

    foreign: float operators are somebody else's (torch's, whose f32 square root is not always the nearest number).
    """
    if is_exact(node) and not (foreign and want.dtype == np.float32 and OPERATORS[node.op].group == "float"):
        return ~(same_bits(got, want) | ((got == 0) & (want == 0) & _selects(node)))
    if want.dtype == CODES:  # a quantized float result may fall on the other side of a rounding boundary
        return np.abs(got.astype(int) - want.astype(int)) > 1
    with np.errstate(invalid="ignore"):
        allowed = tolerance(node, inputs, want, bf16)
        close = (np.abs(got.astype(np.float64) - want) <= allowed) | np.isinf(allowed)
    return ~(close | same_bits(got, want))
