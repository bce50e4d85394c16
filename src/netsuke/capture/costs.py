"""Multiply-accumulates, parameter bytes and shapes per layer of a canonical graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from netsuke.capture.graph import array_of, attr, dims_of, is_constant, is_op, made_by, operand

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU")


@dataclass(frozen=True)
class LayerCost:
    """One layer. macs is per sample of the batch at the given free dimensions, None when a size stays unknown."""

    name: str
    op: str
    input: list[Any]
    output: list[Any]
    weight: list[int]
    parameters: int
    parameter_bytes: int
    macs: int | None


def layer_costs(model: ir.Model, free: dict[str, int] | None = None) -> list[LayerCost]:
    """Costs of all layers with weights and of products of two activations, in execution order.

    free: sizes for named free dimensions, e.g. {"N": 1, "H": 224, "W": 224}; sizes written as arithmetic on them
    are computed.
    """
    return [_cost(node, free or {}) for node in model.graph if is_op(node, *LAYERS)]


def resolve(dim: Any, free: dict[str, int]) -> int | None:
    """An integer for a dimension.

    Itself, a free one, or arithmetic on free ones as `symbolic` writes it ("(H-1)//2+1").
    """
    if dim is None or isinstance(dim, int):
        return dim
    if dim in free:
        return free[dim]
    return _evaluate(str(dim), free)


def _evaluate(text: str, free: dict[str, int]) -> int | None:
    """Integer arithmetic with + - * // and names, by the Python grammar; anything else is None."""
    import ast
    import operator

    operators = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}

    def visit(node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name) and node.id in free:
            return free[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in operators:
            return int(operators[type(node.op)](visit(node.left), visit(node.right)))
        raise ValueError(text)

    try:
        return visit(ast.parse(text, mode="eval").body)
    except (ValueError, SyntaxError, ZeroDivisionError, RecursionError):
        return None


def _weight(value: ir.Value | None) -> tuple[list[int], int] | None:
    """Shape and bytes of a constant weight, also behind DequantizeLinear."""
    node = made_by(value, "DequantizeLinear")
    source = node.inputs[0] if node is not None else value
    array = array_of(source) if is_constant(source) else None
    return None if array is None else (list(array.shape), int(array.nbytes))


def _cost(node: ir.Node, free: dict[str, int]) -> LayerCost:
    shapes = [dims_of(node.inputs[0]) or [], dims_of(node.outputs[0]) or []]
    found = [w for w in (_weight(operand(node, i)) for i in range(1, 4)) if w is not None]
    weight = found[0][0] if found else []
    parameters = sum(math.prod(shape) for shape, _ in found)
    return LayerCost(
        name=node.name or "",
        op=node.op_type,
        input=shapes[0],
        output=shapes[1],
        weight=weight,
        parameters=parameters,
        parameter_bytes=sum(size for _, size in found),
        macs=_macs(node, shapes[0], shapes[1], weight, free),
    )


def _macs(node: ir.Node, before: list[Any], after: list[Any], weight: list[int], free: dict[str, int]) -> int | None:
    """Per output element the number of products; the batch (first) dimension counts once."""
    if node.op_type in ("LSTM", "GRU"):
        steps = resolve(before[0], free) if before else None
        return None if steps is None or not weight else steps * 2 * math.prod(weight)
    spread = before if node.op_type == "ConvTranspose" else after
    sizes = [resolve(d, free) for d in spread[1:]]
    if any(s is None for s in sizes):
        return None
    elements = math.prod(s for s in sizes if s is not None)
    if node.op_type == "Conv":
        return elements * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return elements * math.prod(weight[1:])
    if weight:
        rows = 1 if node.op_type == "Gemm" and int(attr(node, "transB", 0)) else 0
        return elements * weight[len(weight) - 1 if rows else max(0, len(weight) - 2)]
    depth = resolve(before[-1], free) if before else None
    return None if depth is None else elements * depth
