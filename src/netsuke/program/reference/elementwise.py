"""binary, where and cast: elementwise operators on several dtypes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netsuke.program.reference.call import Array, Call, rule
from netsuke.program.reference.floats import finish, to_f32

_COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "equal": np.equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}
_EXACT_F32: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "min": np.minimum,
    "max": np.maximum,
    "mod": np.fmod,
    "pow": lambda a, b: to_f32(np.power(a.astype(np.float64), b.astype(np.float64))),
}


def _integer_division(call: Call, a: Array, b: Array) -> Array:
    """Quotient truncated toward zero."""
    if (b == 0).any():
        raise call.wrong("integer division by zero")
    quotient = np.abs(a) // np.abs(b)
    return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient), a.dtype)


def _binary_integer(call: Call, fn: str, a: Array, b: Array) -> Array:
    """i32, i64: wrap around like two's complement; mod takes the sign of the divisor."""
    if fn == "div":
        return _integer_division(call, a, b)
    if fn == "mod":
        if (b == 0).any():
            raise call.wrong("integer division by zero")
        return np.mod(a, b)
    if fn == "pow":
        if (b < 0).any():
            raise call.wrong("integer power with a negative exponent")
        return np.power(a, b)
    table = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.minimum, "max": np.maximum}
    return np.asarray(table[fn](a, b))


@rule("binary")
def _binary(call: Call) -> list[Array]:
    a, b, fn = call.array(0), call.array(1), call.word("fn")
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError as error:
        raise call.wrong("shapes do not broadcast") from error
    with np.errstate(all="ignore"):
        if fn in _COMPARE:
            return [np.asarray(_COMPARE[fn](a, b))]
        if a.dtype == np.float32:
            return finish(call, _EXACT_F32[fn](a, b))
        return [_binary_integer(call, fn, a, b)]


@rule("where")
def _where(call: Call) -> list[Array]:
    try:
        return [np.where(call.array(0), call.array(1), call.array(2))]
    except ValueError as error:
        raise call.wrong("shapes do not broadcast") from error


_INTEGER_RANGE = {"u8": (0, 2**8 - 1), "s8": (-(2**7), 2**7 - 1), "i32": (-(2**31), 2**31 - 1)}
DTYPE_CODES = {"f32": "f4", "u8": "u1", "s8": "i1", "i32": "i4", "i64": "i8", "bool": "?"}


def cast(x: Array, to: str) -> Array:
    """Float to integer truncates and saturates, NaN gives 0; integer to narrower integer wraps; bool is x != 0."""
    if to == "bool":
        return np.asarray(x != 0)
    target = np.dtype(DTYPE_CODES[to])
    if x.dtype != np.float32 or to == "f32":
        return x.astype(target)
    v = np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf))
    if to == "i64":
        inside = np.clip(v, -(2.0**63), 2.0**63 - 1024).astype(np.int64)  # 2^63 - 1024 is the largest f64 below 2^63
        return np.where(v >= 2.0**63, np.int64(2**63 - 1), inside)
    lo, hi = _INTEGER_RANGE[to]
    return np.clip(v, lo, hi).astype(target)


@rule("cast")
def _cast(call: Call) -> list[Array]:
    return [cast(call.array(0), call.word("to"))]
