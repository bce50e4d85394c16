"""Constant folding: nodes whose inputs are all constants are computed once, with ONNX's own reference semantics.

Not folded: DequantizeLinear (its input is the integer weight that has to survive), random operators, and results larger
than `MAX_BYTES` or of unknown size from operators that can make something large out of something small.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from netsuke.capture.graph import array_of, constant, dims_of, replace
from netsuke.capture.opset import CANONICAL
from netsuke.core.errors import FileError, Problem

MAX_BYTES = 256 * 2**20
_NEVER = frozenset(
    [
        "DequantizeLinear",
        "RandomNormal",
        "RandomUniform",
        "RandomNormalLike",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
        "If",
        "Loop",
        "Scan",
    ]
)
_GROWS = frozenset(["ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Pad", "OneHot", "Upsample", "EyeLike"])


def fold_constants(graph: ir.Graph) -> int:
    """Fold in place; returns the number of nodes removed. A node that cannot be computed is a FileError."""
    count = 0
    for node in list(graph):
        if not _foldable(node):
            continue
        inputs = [None if v is None else array_of(v) for v in node.inputs]
        for out, array in zip(node.outputs, _evaluate(node, inputs), strict=False):
            if list(out.uses()) or out.is_graph_output():
                replace(out, constant(graph, np.asarray(array), out.name or "folded"))
        graph.remove(node, safe=True)
        count += 1
    return count


def _foldable(node: ir.Node) -> bool:
    if node.domain != "" or node.op_type in _NEVER or any(out.is_graph_output() for out in node.outputs):
        return False
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return False
    if node.op_type == "Constant":
        return True
    if not node.inputs or any(v is not None and array_of(v) is None for v in node.inputs):
        return False
    if any(v is not None and v.is_graph_input() for v in node.inputs):
        return False
    sizes = [_elements(out) for out in node.outputs]
    if node.op_type in _GROWS and any(s is None for s in sizes):
        return False
    return all(s is None or s * 8 <= MAX_BYTES for s in sizes)


def _elements(value: ir.Value) -> int | None:
    dims = dims_of(value)
    return math.prod(dims) if dims is not None and all(isinstance(d, int) for d in dims) else None


def _evaluate(node: ir.Node, inputs: list[Any]) -> list[Any]:
    """Run one node in the reference implementation of the onnx package."""
    from onnx.reference import ReferenceEvaluator

    if node.op_type == "Transpose" and inputs[0] is not None:  # common on large weights; skips a copy through protobuf
        perm = node.attributes["perm"].value if "perm" in node.attributes else None
        return [np.transpose(inputs[0], perm)]
    names = [f"i{k}" if array is not None else "" for k, array in enumerate(inputs)]
    proto = ir.serde.serialize_node(node)
    del proto.input[:]
    proto.input.extend(names)
    infos = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, inputs, strict=True)
        if n
    ]
    outs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
    graph = onnx.helper.make_graph([proto], "fold", infos, outs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", CANONICAL)])
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, {n: a for n, a in zip(names, inputs, strict=True) if n})
    except Exception as error:  # the evaluator raises whatever the broken node trips over
        got = f"{type(error).__name__}: {str(error)[:160]}"
        raise FileError(
            Problem("a constant node cannot be computed", where=f"{node.op_type} {node.name}", got=got)
        ) from None
    found = iter(results)
    return [next(found) if name else np.zeros(0) for name in proto.output]
