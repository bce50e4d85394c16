"""Elementwise operators between a dequantize and a quantize become one table of 256 entries.

A chain dequantize -> unary, binary with a constant, ... -> quantize is a function of one code. It is evaluated on
all 256 codes with the arithmetic of the operators it replaces (each in binary64, rounded to float32). Constants
that vary along the last axis give one table per channel. Tables of tables compose exactly, and so do qadd and qmul
of two tables of one tensor (x * sigmoid(x) quantized in between).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    Array,
    array_of,
    attr,
    constant,
    dims_of,
    is_constant,
    only_user,
    operand,
    replace,
    source_of,
    sweep,
)
from netsuke.formats.integer import dequantize, fma, quantize, requantize
from netsuke.passes import affine_tables, functions
from netsuke.passes.nodes import F32, U8, Grid, codes_of, from_ns, grid_of, is_ns, ns

MAX_TABLES = 4096  # channels: one table each, 1 MiB at most
_CODES = np.arange(256, dtype=np.uint8)
# Functions worth a float table when floats are needed behind them: everything that is not one or two instructions.
_COSTLY = frozenset(
    [
        "cos",
        "elu",
        "erf",
        "exp",
        "gelu",
        "gelu_tanh",
        "hard_swish",
        "log",
        "mish",
        "sigmoid",
        "silu",
        "sin",
        "softplus",
        "tanh",
    ]
)


def fuse_tables(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many tables were made or joined."""
    total = 0
    for _ in range(8):
        count = 0
        for node in list(graph):
            if node.graph is None:
                continue
            if is_ns(node, "dequantize"):
                count += _chains(node)
            elif is_ns(node, "lut"):
                count += _compose(node)
            elif is_ns(node, "qadd", "qmul"):
                count += _pair(node)
        sweep(graph)
        total += count
        if not count:
            break
    return total


def _chains(node: ir.Node) -> int:
    """Every reader of the dequantized value may start a chain of its own."""
    return sum(_chain(node, use.node) for use in list(node.outputs[0].uses()))


def _chain(start: ir.Node, user: ir.Node) -> bool:
    found = codes_of(start.outputs[0])
    if found is None or user.graph is None:
        return False
    values = dequantize(_CODES, found.scale, found.zero).astype(np.float32)[None, :]
    value, float_end = start.outputs[0], None
    line: affine_tables.Line | None = affine_tables.start(found)
    step: ir.Node | None = user
    while step is not None and grid_of(step) is None:
        table = _apply(step, value, values)
        if table is None or table.shape[0] > MAX_TABLES:
            break
        line = _line(line, step, value)
        costly = is_ns(step, "unary") and attr(step, "fn") in _COSTLY
        value, values = step.outputs[0], table
        if "quant_scale" in step.attributes:
            own = Grid(step, float(attr(step, "quant_scale")), int(attr(step, "quant_zero")), 0, 255)
            return _put_codes(step, found.value, values, own, line)
        if costly or float_end is not None:
            float_end = (step, values)
        step = only_user(value)
    grid = grid_of(step)
    if grid is not None and step is not None:
        return _put_codes(step, found.value, values, grid, line)
    return _put(float_end[0], found.value, float_end[1], None) if float_end is not None else False


def _line(line: affine_tables.Line | None, step: ir.Node, value: ir.Value) -> affine_tables.Line | None:
    """The line behind `step`, which reads the value."""
    left = step.inputs[0] is value
    other = None if len(step.inputs) < 2 else _per_channel(step.inputs[1] if left else step.inputs[0], value)
    return affine_tables.follow(line, step, other, left)


def _put_codes(end: ir.Node, q: ir.Value, values: Array, grid: Grid, line: affine_tables.Line | None) -> bool:
    """The table of a chain that ends in codes."""
    codes = quantize(values, grid.scale, grid.zero, grid.lo, grid.hi)
    noted = None if line is None else dataclasses.replace(line, grid=grid)
    return _put(end, q, codes, (grid.scale, grid.zero), noted)


def _apply(step: ir.Node, value: ir.Value, values: Array) -> Array | None:
    """One operator on the table so far: f32 [1 or C, 256]."""
    wide = values.astype(np.float64)
    with np.errstate(all="ignore"):
        if is_ns(step, "unary"):
            result = functions.unary(str(attr(step, "fn")), wide, attr(step, "alpha"), attr(step, "beta"))
        elif is_ns(step, "binary"):
            left = step.inputs[0] is value
            other = step.inputs[1] if left else step.inputs[0]
            operand_table = _per_channel(other, value)
            if operand_table is None or other is value:
                return None
            pair = (wide, operand_table) if left else (operand_table, wide)
            result = functions.binary(str(attr(step, "fn")), *pair)
        else:
            return None
    return None if result is None or step.outputs[0].dtype not in (F32, U8) else result.astype(np.float32)


def _per_channel(other: ir.Value | None, value: ir.Value) -> Array | None:
    """A constant that is a scalar or varies along the last axis of the value: f64 [1 or C, 1]."""
    array, dims = array_of(other) if is_constant(other) else None, dims_of(value)
    if array is None or dims is None or array.dtype != np.float32 or array.ndim > len(dims):
        return None
    if array.size == 1:
        return array.reshape(1, 1).astype(np.float64)
    same = array.size == array.shape[-1] == dims[-1]
    return array.reshape(-1, 1).astype(np.float64) if same else None


def _layer_name(end: ir.Node) -> str:
    """The layer that the table stands for: in front of a quantizer at the end of a chain, the step before it."""
    source = end.inputs[0] if is_ns(end, "quantize") else None
    maker = None if source is None else source.producer()
    return (end.name if maker is None or is_ns(maker, "dequantize") else maker.name) or ""


def _put(
    end: ir.Node, q: ir.Value, table: Array, grid: tuple[float, int] | None, line: affine_tables.Line | None = None
) -> bool:
    """lut(q, table) in the place of the last node of a chain."""
    assert end.graph is not None
    out = end.outputs[0]
    same = table.dtype == np.uint8 and table.shape[0] == 1 and np.array_equal(table[0], _CODES)
    if same and not out.is_graph_output():
        replace(out, q)
        end.graph.remove(end, safe=True)
        return True
    flat = table[0] if table.shape[0] == 1 else table
    dtype = U8 if table.dtype == np.uint8 else F32
    name = _layer_name(end)
    weights = constant(end.graph, np.ascontiguousarray(flat), f"{name}.table")
    y = ns(end, "lut", [q, weights], dtype=dtype, dims=dims_of(out), name=name, source=source_of(out))
    if grid is not None:
        y.meta["grid"] = grid
    if line is not None:
        y.meta[affine_tables.LINE] = line
    source = source_of(out)
    replace(out, y)
    y.meta["source"] = source
    end.graph.remove(end, safe=True)
    return True


def _table(node: ir.Node | None) -> Array | None:
    """The table of a lut as [1 or C, 256]."""
    array = array_of(operand(node, 1)) if node is not None and is_ns(node, "lut") else None
    return None if array is None else np.atleast_2d(array)


def _compose(node: ir.Node) -> bool:
    """lut(lut(x)): the second table read at the entries of the first."""
    above = from_ns(node.inputs[0], "lut")
    first, second = _table(above), _table(node)
    if above is None or first is None or second is None or first.dtype != np.uint8 or above.inputs[0] is None:
        return False
    channels = max(first.shape[0], second.shape[0])
    rows = np.arange(channels)[:, None]
    left = np.broadcast_to(first, (channels, 256))
    joined = np.broadcast_to(second, (channels, 256))[rows, left]
    return _put(node, above.inputs[0], np.ascontiguousarray(joined), node.outputs[0].meta.get("grid"))


def _root(value: ir.Value | None) -> tuple[ir.Value, Array] | None:
    """(x, table) with value = table[x]: of a lut, or the identity."""
    if value is None or is_constant(value):
        return None
    node = from_ns(value, "lut")
    table = _table(node)
    if node is not None and table is not None and table.dtype == np.uint8 and node.inputs[0] is not None:
        return node.inputs[0], table
    return value, _CODES[None, :]


def _pair(node: ir.Node) -> bool:
    """qadd or qmul whose operands are tables of one tensor."""
    candidates = [_root(v) for v in node.inputs[:2]]
    bare = [(v, _CODES[None, :]) for v in node.inputs[:2]]
    for a in (candidates[0], bare[0]):
        for b in (candidates[1], bare[1]):
            if a is not None and b is not None and a[0] is b[0] and a[0] is not None:
                return _join(node, a[0], a[1], b[1])
    return False


def _join(node: ir.Node, x: ir.Value, a: Array, b: Array) -> bool:
    given: dict[str, Any] = {key: attr(node, key) for key in node.attributes}
    zero, lo, hi = (int(given.get(key, default)) for key, default in (("zero", 0), ("lo", 0), ("hi", 255)))
    left = a.astype(np.int32) - int(given["a_zero"])
    right = b.astype(np.int32) - int(given["b_zero"])
    if "offset" in given:
        inner = fma(b.astype(np.float32), given["b_mult"], given["offset"])
        codes = quantize(fma(a.astype(np.float32), given["a_mult"], inner), 1.0, 0, lo, hi)
    elif is_ns(node, "qmul"):
        codes = requantize(left * right, float(given["mult"]), zero=zero, lo=lo, hi=hi)
    else:
        t = left.astype(np.float32) * np.float32(given["a_mult"])
        codes = quantize(t + right.astype(np.float32) * np.float32(given["b_mult"]), 1.0, zero, lo, hi)
    return _put(node, x, codes, node.outputs[0].meta.get("grid"))
