"""Shape inference: dtypes and dimensions of every value, and shape arithmetic made constant where it can be.

Shapes that a file declares for inner values are dropped first: they may be wrong, and everything after capture
relies on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from netsuke.capture.graph import array_of, attr, constant, dims_of, is_op, operand, replace
from netsuke.capture.symbolic import shape_entries
from netsuke.core.errors import FileError, Problem

SMALL_BYTES = 4096


def forget_shapes(graph: ir.Graph) -> None:
    """Drop declared shapes and types of node outputs (graph inputs and constants keep theirs)."""
    for node in graph:
        for out in node.outputs:
            out.shape = None
            out.type = None


def infer_shapes(model: ir.Model) -> None:
    """Infer dtype and shape of every value, keeping what is known already."""
    inferred = _inferred(model, strict=False)
    for value in (out for node in model.graph for out in node.outputs):
        shape, dtype = inferred.get(value.name or "", (None, None))
        value.shape = _merge(shape, value.shape)
        if dtype is not None:
            value.type = ir.TensorType(dtype)


def check_shapes(model: ir.Model) -> None:
    """FileError where shapes or types contradict each other, and where a rank stays unknown."""
    _inferred(model, strict=True)
    check_ranks(model.graph)


def _inferred(model: ir.Model, *, strict: bool) -> dict[str, tuple[ir.Shape | None, ir.DataType | None]]:
    """Shape and type of every value by ONNX's own inference, run on a copy without large constants."""
    proto = onnx.ModelProto(ir_version=10)
    for domain, version in model.graph.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    graph = proto.graph
    graph.name = "shapes"
    graph.node.extend(ir.serde.serialize_node(node) for node in model.graph)
    for value in [*model.graph.inputs, *model.graph.initializers.values()]:
        if value.is_initializer() and value.const_value is not None:
            _add_constant(graph, value)
        else:
            graph.input.append(ir.serde.serialize_value(value))
    for value in model.graph.outputs:
        graph.output.append(onnx.ValueInfoProto(name=value.name or ""))
    if not strict:  # names found so far travel on; the strict check starts from nothing but the inputs
        values = [out for node in model.graph for out in node.outputs if not out.is_graph_output()]
        graph.value_info.extend(
            ir.serde.serialize_value(v) for v in values if v.shape is not None and v.type is not None
        )
    try:
        result = onnx.shape_inference.infer_shapes(proto, check_type=strict, strict_mode=strict, data_prop=True)
    except Exception as error:
        if not strict:
            return {}
        got = " ".join(str(error).split())[:400]
        raise FileError(Problem("shapes or types of the model contradict each other", got=got)) from None
    found: dict[str, tuple[ir.Shape | None, ir.DataType | None]] = {}
    for info in [*result.graph.value_info, *result.graph.output]:
        tensor = info.type.tensor_type
        kind = ir.DataType(tensor.elem_type) if tensor.elem_type else None
        dims = [d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in tensor.shape.dim]
        found[info.name] = (ir.Shape(dims) if tensor.HasField("shape") else None, kind)
    return found


def _add_constant(graph: onnx.GraphProto, value: ir.Value) -> None:
    """Small constants with their contents (axes, shapes), large ones as inputs."""
    tensor = value.const_value
    assert tensor is not None
    if tensor.nbytes <= SMALL_BYTES:
        copy = ir.serde.serialize_tensor(tensor)
        copy.name = value.name or ""
        graph.initializer.append(copy)
    else:
        dims = [int(d) for d in tensor.shape.numpy()]
        graph.input.append(onnx.helper.make_tensor_value_info(value.name or "", int(tensor.dtype), dims))


def _merge(inferred: ir.Shape | None, known: ir.Shape | None) -> ir.Shape | None:
    """Per dimension the more precise of two: an integer before a name before nothing; names already given win."""
    if inferred is None or known is None:
        return known if inferred is None else inferred
    if len(inferred) != len(known):
        return inferred
    dims: list[Any] = []
    for a, b in zip(inferred, known, strict=True):
        pick = a if isinstance(a, int) else b if isinstance(b, int) or b.value is not None else a
        dims.append(pick)
    return ir.Shape(dims)


def check_ranks(graph: ir.Graph) -> None:
    """Every value must have a known rank of at most 8; FileError listing those that have none."""
    problems = [
        Problem("the shape cannot be inferred", where=out.name or "", got=f"output of {node.op_type}")
        for node in graph
        for out in node.outputs
        if out.name and out.shape is None and (list(out.uses()) or out.is_graph_output())
    ]
    if problems:
        raise FileError(problems[:20], summary="shapes are missing: the model is damaged or not of its declared opset")


def fold_shapes(graph: ir.Graph) -> int:
    """Replace Shape results whose dimensions are all integers, and pick known entries out of the others."""
    count = 0
    for node in list(graph):
        found = None if node.outputs[0].is_graph_output() else _known_dims(node)
        if found is None:
            continue
        replace(node.outputs[0], constant(graph, found, node.outputs[0].name or "shape"))
        graph.remove(node, safe=True)
        count += 1
    return count


def _known_dims(node: ir.Node) -> np.ndarray[Any, Any] | None:
    kinds = (
        "Shape",
        "Gather",
        "Slice",
        "Squeeze",
        "Concat",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Reshape",
        "Unsqueeze",
        "Cast",
    )
    if not is_op(node, *kinds) or node.outputs[0].dtype not in (
        ir.DataType.INT64,
        ir.DataType.INT32,
    ):
        return None
    rank = 0 if node.outputs[0].shape is None else len(node.outputs[0].shape)
    if rank > 1 or node.outputs[0].shape is None:
        return None
    entries = shape_entries(node.outputs[0])
    if entries is None or not all(isinstance(e, int) for e in entries):
        return None
    kind = np.int64 if node.outputs[0].dtype == ir.DataType.INT64 else np.int32
    array = np.asarray(entries, kind)
    return array.reshape(()) if node.outputs[0].shape is not None and rank == 0 and array.size == 1 else array


def explicit_squeezes(graph: ir.Graph) -> int:
    """Squeeze without axes gets them where all dimensions are known: its output rank depends on it."""
    count = 0
    for node in graph:
        dims = dims_of(node.inputs[0]) if is_op(node, "Squeeze") and operand(node, 1) is None else None
        if dims is None or not all(isinstance(d, int) for d in dims):
            continue
        axes = np.asarray([i for i, d in enumerate(dims) if d == 1], np.int64)
        node.resize_inputs(2)
        node.replace_input_with(1, constant(graph, axes, f"{node.name}.axes"))
        count += 1
    return count


def simplify_reshapes(graph: ir.Graph) -> int:
    """Give Reshape a constant target where the shapes say it: 0 copies an equal dimension, -1 stands for the one left.

    Also turns Flatten, Squeeze and Unsqueeze of known rank into such a Reshape only when that needs no computed shape.
    """
    count = 0
    for node in graph:
        if not is_op(node, "Reshape") or array_of(node.inputs[1]) is not None:
            continue
        target = _constant_target(node)
        if target is not None:
            node.replace_input_with(1, constant(graph, np.asarray(target, np.int64), f"{node.outputs[0].name}.shape"))
            node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)
            count += 1
    return count


def _constant_target(node: ir.Node) -> list[int] | None:
    before, shape = dims_of(node.inputs[0]), dims_of(node.outputs[0])
    after = shape_entries(node.inputs[1])
    if before is None or (after is None and shape is None):
        return None
    wanted = after if after is not None else shape or []
    if shape is None or len(shape) != len(wanted):
        shape = [None] * len(wanted)
    copies = not attr(node, "allowzero", 0)
    target: list[int] = []
    for index, (dim, known) in enumerate(zip(wanted, shape, strict=True)):
        if isinstance(dim, int) and dim <= 0:  # written as such in the model: 0 copies, -1 infers
            if dim == 0 and not copies:
                return None
            target.append(known if isinstance(known, int) else dim)
            continue
        size = dim if isinstance(dim, int) else known if isinstance(known, int) else None
        same = index < len(before) and before[index] is not None and before[index] in (dim, known)
        target.append(size if size is not None else 0 if same else -1)
    return target if target.count(-1) <= 1 and (copies or 0 not in [e for e in wanted if isinstance(e, int)]) else None
