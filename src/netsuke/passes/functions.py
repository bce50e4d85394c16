"""The functions of `unary` and `binary` in binary64, for tables (numerics.md section 6)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import erf

from netsuke.capture.graph import Array
from netsuke.program.opset import ALPHA, BETA


def _sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, x))


def _gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))))


_PLAIN: dict[str, Callable[[Array], Array]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "cos": np.cos,
    "erf": erf,
    "exp": np.exp,
    "floor": np.floor,
    "gelu": lambda x: 0.5 * x * (1.0 + erf(x / np.sqrt(2.0))),
    "gelu_tanh": _gelu_tanh,
    "hard_swish": lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    "identity": lambda x: x,
    "log": np.log,
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "neg": np.negative,
    "reciprocal": lambda x: 1.0 / x,
    "relu": lambda x: np.maximum(x, 0.0),
    "round": np.rint,
    "sigmoid": _sigmoid,
    "sign": np.sign,
    "silu": lambda x: x * _sigmoid(x),
    "sin": np.sin,
    "softplus": _softplus,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}
_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "min": np.minimum,
    "max": np.maximum,
}


def unary(fn: str, x: Array, alpha: float | None, beta: float | None) -> Array | None:
    """fn(x) in binary64, or None for functions that make no numbers."""
    if fn in _PLAIN:
        return np.asarray(_PLAIN[fn](x), np.float64)
    a = np.float64(np.float32(ALPHA[fn] if alpha is None else alpha)) if fn in ALPHA else np.float64(0)
    b = np.float64(np.float32(BETA[fn] if beta is None else beta)) if fn in BETA else np.float64(0)
    if fn == "clip":
        return np.clip(x, a, b)
    if fn == "elu":
        return np.where(x > 0, x, a * np.expm1(x))
    if fn == "leaky_relu":
        return np.where(x >= 0, x, a * x)
    return np.clip(a * x + b, 0.0, 1.0) if fn == "hard_sigmoid" else None


def binary(fn: str, a: Array, b: Array) -> Array | None:
    """fn(a, b) in binary64, or None for functions that no table holds."""
    return np.asarray(_BINARY[fn](a, b), np.float64) if fn in _BINARY else None
