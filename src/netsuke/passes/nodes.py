"""Verbs over nodes of the `netsuke` domain, whose operator types and attributes are those of docs/format.md.

While passes run, program operators live in the same onnx_ir graph as ONNX operators. Operators that take the
channel last are emitted between two transposes; `sink_transposes` removes nearly all of them later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    NETSUKE,
    Array,
    Dims,
    array_of,
    attr,
    constant,
    dims_of,
    emit,
    is_constant,
    made_by,
    only_user,
    operand,
    source_of,
)

F32 = ir.DataType.FLOAT
U8 = ir.DataType.UINT8
I64 = ir.DataType.INT64
BOOL = ir.DataType.BOOL


def ns(
    before: ir.Node,
    op: str,
    inputs: Sequence[ir.Value | None],
    attrs: dict[str, Any] | None = None,
    *,
    dtype: ir.DataType | None,
    dims: Dims | None,
    name: str = "",
    source: str = "",
) -> ir.Value:
    """Insert a program operator in front of `before` and return its output. Attributes that are None are left out."""
    given = {key: value for key, value in (attrs or {}).items() if value is not None}
    return emit(before, op, inputs, given, domain=NETSUKE, dtype=dtype, dims=dims, name=name, source=source)


def is_ns(node: ir.Node | None, *ops: str) -> bool:
    """True when the node is one of these program operators."""
    return node is not None and node.domain == NETSUKE and node.op_type in ops


def from_ns(value: ir.Value | None, *ops: str) -> ir.Node | None:
    """The node that makes the value, if it is one of these program operators."""
    return made_by(value, *ops, domain=NETSUKE)


def inverse(perm: Sequence[int]) -> list[int]:
    """The permutation that undoes `perm`."""
    return [int(i) for i in np.argsort(perm)]


def permuted(dims: Dims | None, perm: Sequence[int]) -> list[Any] | None:
    return None if dims is None else [dims[i] for i in perm]


def transposed(before: ir.Node, x: ir.Value, perm: Sequence[int], *, name: str = "") -> ir.Value:
    """x with its axes permuted."""
    dims = permuted(dims_of(x), perm)
    return ns(before, "transpose", [x], {"perm": list(perm)}, dtype=x.dtype, dims=dims, name=name, source=source_of(x))


def channels_last(rank: int) -> list[int]:
    """(N, C, spatial...) to (N, spatial..., C)."""
    return [0, *range(2, rank), 1]


def channels_first(rank: int) -> list[int]:
    """(N, spatial..., C) to (N, C, spatial...)."""
    return [0, rank - 1, *range(1, rank - 1)]


def reshaped(before: ir.Node, x: ir.Value, target: Sequence[int], dims: Dims | None) -> ir.Value:
    """x reshaped to a constant target (0 copies, -1 infers)."""
    assert before.graph is not None
    shape = constant(before.graph, np.asarray(target, np.int64), f"{before.name}.shape")
    return ns(before, "reshape", [x, shape], dtype=x.dtype, dims=dims, source=source_of(x))


def with_axis(before: ir.Node, x: ir.Value, axis: int) -> ir.Value:
    """x with a dimension of 1 inserted (unsqueeze)."""
    assert before.graph is not None
    dims = dims_of(x)
    assert dims is not None
    axes = constant(before.graph, np.asarray([axis], np.int64), f"{before.name}.axes")
    new = [*dims[:axis], 1, *dims[axis:]]
    return ns(before, "unsqueeze", [x, axes], dtype=x.dtype, dims=new, source=source_of(x))


def without_axis(before: ir.Node, x: ir.Value, axis: int) -> ir.Value:
    """x with a dimension of 1 removed (squeeze)."""
    assert before.graph is not None
    dims = dims_of(x)
    assert dims is not None
    axes = constant(before.graph, np.asarray([axis], np.int64), f"{before.name}.axes")
    return ns(before, "squeeze", [x, axes], dtype=x.dtype, dims=[*dims[:axis], *dims[axis + 1 :]], source=source_of(x))


def to_nhwc(before: ir.Node, x: ir.Value) -> ir.Value:
    """An ONNX (N, C, H, W) or (N, C, L) value as NHWC, H = 1 for the latter."""
    rank = len(dims_of(x) or ())
    if rank == 3:
        x = with_axis(before, x, 2)
    return transposed(before, x, channels_last(4))


def from_nhwc(before: ir.Node, y: ir.Value, rank: int) -> ir.Value:
    """The inverse of `to_nhwc`."""
    y = transposed(before, y, channels_first(4))
    return without_axis(before, y, 2) if rank == 3 else y


def nhwc_dims(value: ir.Value) -> list[Any] | None:
    """Dimensions of an ONNX (N, C, spatial) value in NHWC order."""
    dims = dims_of(value)
    if dims is None:
        return None
    full = [dims[0], dims[1], 1, dims[2]] if len(dims) == 3 else dims
    return permuted(full, channels_last(4))


@dataclass(frozen=True)
class Codes:
    """A value known as codes: `scale * (codes - zero)`."""

    value: ir.Value
    scale: float
    zero: int


def codes_of(value: ir.Value | None) -> Codes | None:
    """The codes behind a float value made by `dequantize`, or None."""
    node = from_ns(value, "dequantize")
    if node is None or node.inputs[0] is None:
        return None
    return Codes(node.inputs[0], float(attr(node, "scale")), int(attr(node, "zero")))


@dataclass(frozen=True)
class Grid:
    """The grid a `quantize` node rounds to."""

    node: ir.Node
    scale: float
    zero: int
    lo: int
    hi: int


def grid_of(node: ir.Node | None) -> Grid | None:
    """The grid of a quantize node, or None when the node is another one."""
    if node is None or not is_ns(node, "quantize"):
        return None
    zero, lo, hi = (int(attr(node, k, d)) for k, d in (("zero", 0), ("lo", 0), ("hi", 255)))
    return Grid(node, float(attr(node, "scale")), zero, lo, hi)


def bounds_of(node: ir.Node | None) -> tuple[float, float] | None:
    """(low, high) of Relu and of Clip with constant bounds, in ONNX or program form; None for other nodes."""
    if node is None:
        return None
    if node.domain == "" and node.op_type == "Relu":
        return 0.0, float("inf")
    if node.domain == "" and node.op_type == "Clip":
        low, high = (_bound(operand(node, i), d) for i, d in ((1, -float("inf")), (2, float("inf"))))
        return None if low is None or high is None or low > high else (low, high)
    if is_ns(node, "unary") and "quant_scale" not in node.attributes:
        if attr(node, "fn") == "relu":
            return 0.0, float("inf")
        if attr(node, "fn") == "clip":
            return float(attr(node, "alpha", -float("inf"))), float(attr(node, "beta", float("inf")))
    return None


def _bound(value: ir.Value | None, default: float) -> float | None:
    if value is None:
        return default
    array = array_of(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def clamp_codes(bounds: tuple[float, float], scale: float, zero: int, lo: int = 0, hi: int = 255) -> tuple[int, int]:
    """The code range of `bounds` on a grid: zero + rne(bound / scale), inside [lo, hi] (numerics.md section 4)."""

    def code(bound: float) -> int:
        with np.errstate(over="ignore", invalid="ignore"):
            steps = float(np.rint(np.float32(bound) / np.float32(scale)))
        return int(min(max(steps + zero, lo), hi))

    return code(bounds[0]), code(bounds[1])


def same_dims(a: ir.Value, b: ir.Value) -> bool:
    """True when two values can be taken to have one shape: equal ranks, no two known dimensions that differ.

    Free dimensions without a name count as equal; a kernel given a residual of another shape reports an error.
    """
    x, y = dims_of(a), dims_of(b)
    if x is None or y is None or len(x) != len(y):
        return False
    return all(p == q or p is None or q is None for p, q in zip(x, y, strict=True))


def float_constant(value: ir.Value | None) -> Array | None:
    """A float constant, directly or as DequantizeLinear of a constant."""
    if value is None:
        return None
    if is_constant(value):
        array = array_of(value)
        return array if array is not None and array.dtype == np.float32 else None
    node = made_by(value, "DequantizeLinear")
    return dequantized(node) if node is not None and is_constant(node.inputs[0]) else None


def dequantized(node: ir.Node) -> Array:
    """The float value of DequantizeLinear of a constant: f32(q - zero) * scale, per tensor, per axis or per block."""
    q, scale = (np.asarray(array_of(node.inputs[i])) for i in (0, 1))
    point = array_of(operand(node, 2))
    axis = int(attr(node, "axis", 1))
    wide = q.astype(np.int64)
    block = int(attr(node, "block_size", 0))
    zero = np.zeros(scale.shape, np.int64) if point is None else point.astype(np.int64)
    if block and scale.ndim == q.ndim:
        scale, zero = (np.repeat(v, block, axis=axis).take(range(q.shape[axis]), axis=axis) for v in (scale, zero))
    elif scale.size > 1:
        shape = [1] * q.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    else:
        scale, zero = scale.reshape(()), zero.reshape(())
    return np.asarray((wide - zero).astype(np.float32) * scale.astype(np.float32), np.float32)


def chain_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads the value (None when several do, or when it is a graph output)."""
    return only_user(value)
