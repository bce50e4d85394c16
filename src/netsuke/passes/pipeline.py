"""The order of the passes."""

from __future__ import annotations

import onnx_ir as ir

from netsuke.capture.clean import clean
from netsuke.capture.graph import sweep
from netsuke.capture.nbits import COMPUTE
from netsuke.capture.shapes import infer_shapes
from netsuke.capture.symbolic import name_free_dims
from netsuke.core.errors import Problem, UsageError, near
from netsuke.passes.affine_tables import affine_tables
from netsuke.passes.byte_transposes import transpose_codes
from netsuke.passes.fold_thresholds import fold_thresholds
from netsuke.passes.fuse_binary import fuse_binary
from netsuke.passes.fuse_bmatmul import fuse_bmatmul
from netsuke.passes.fuse_float import fuse_float
from netsuke.passes.fuse_tables import fuse_tables
from netsuke.passes.lower import lower
from netsuke.passes.lower_binary import lower_binary
from netsuke.passes.lower_bmatmul import lower_bmatmul
from netsuke.passes.lower_embeddings import lower_embeddings
from netsuke.passes.lower_qconv import lower_qconv
from netsuke.passes.lower_qelementwise import lower_qelementwise
from netsuke.passes.lower_qlinear import lower_qlinear
from netsuke.passes.lower_weight_only import lower_weight_only
from netsuke.passes.nodes import is_ns
from netsuke.passes.qdq_move import fold_constant_dequantizers, move_qdq
from netsuke.passes.qdq_normalize import normalize_qdq
from netsuke.passes.sink_transposes import sink_transposes
from netsuke.passes.to_program import to_program
from netsuke.passes.views import simplify_views
from netsuke.program.model import Program


def run(model: ir.Model, *, name: str, plan: str, meta: dict[str, str], taps: tuple[str, ...]) -> Program:
    """All passes on a copy of the model."""
    copy = model.clone(deep_copy=False)
    graph = copy.graph
    graph.meta.pop("netsuke_names", None)  # a method may have added values since the capture
    _complete_shapes(copy)
    graph.meta[COMPUTE] = model.metadata_props.get(COMPUTE, "f32")
    graph.meta["requant"] = model.metadata_props.get("netsuke.requant", "float")
    normalize_qdq(graph)
    clean(graph)
    lower_embeddings(graph)
    move_qdq(graph)
    _add_taps(graph, taps)
    lower_binary(graph)
    lower_bmatmul(graph)
    lower_qconv(graph)
    lower_qlinear(graph)
    lower_qelementwise(graph)
    lower_weight_only(graph)
    sweep(graph)
    simulated = fold_constant_dequantizers(graph)
    if simulated:
        meta["simulated"] = ", ".join(sorted(set(simulated)))
    lower(graph)
    for _ in range(8):
        if not sink_transposes(graph) + simplify_views(graph):
            break
    fold_thresholds(graph)
    sweep(graph)
    fuse_binary(graph)
    fuse_bmatmul(graph)
    fuse_tables(graph)
    fuse_float(graph)
    fuse_tables(graph)
    affine_tables(graph)
    transpose_codes(graph)
    clean(graph)
    sweep(graph)
    _outputs_are_nodes(graph)
    program = to_program(graph, name=name or graph.name or "", plan=plan, meta=meta)
    for value in graph.initializers.values():
        value.const_value = None  # graphs are cycles: until they are collected, weights in a new layout would stay
    return program


def _complete_shapes(model: ir.Model) -> None:
    """Shapes and types of values that a method added to the captured graph without saying them."""
    if any(out.shape is None or out.dtype is None for node in model.graph for out in node.outputs):
        infer_shapes(model)
        name_free_dims(model.graph)


def _add_taps(graph: ir.Graph, taps: tuple[str, ...]) -> None:
    """Further outputs: the codes that stand for a name where it was quantized, else the value of that name, else one
    that stands for it (a concat of codes stands for the value behind its dequantize, which keeps the name)."""
    values: dict[str, ir.Value] = {}
    for node in graph:
        for out in node.outputs:
            for key in (out.name or "", str(out.meta.get("source", out.name))):
                old = values.get(key)
                own = key == out.name and old is not None and not is_ns(old.producer(), "quantize")
                if old is None or own or is_ns(node, "quantize"):
                    values[key] = out
    missing = [Problem("no such value to tap", got=t, allowed=near(t, values)) for t in taps if t not in values]
    if missing:
        raise UsageError(missing)
    for tap in taps:
        if not values[tap].is_graph_output():
            graph.outputs.append(values[tap])


def _outputs_are_nodes(graph: ir.Graph) -> None:
    """An output must be made by a node of its own: inputs, constants and repeated outputs pass through identity."""
    seen: set[int] = set()
    for index, value in enumerate(list(graph.outputs)):
        if value.producer() is None or id(value) in seen:
            anchor = ir.node("identity", inputs=[value], domain="netsuke", name=f"output.{index}")
            out = anchor.outputs[0]
            out.name, out.shape, out.type = f"{value.name}.{index}", value.shape, value.type
            graph.append(anchor)
            graph.outputs[index] = out
        seen.add(id(value))
