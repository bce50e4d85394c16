"""The steps that turn any accepted ONNX model into the canonical graph, in order, until nothing changes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, TopologicalSortPass

from netsuke.capture.batchnorm import fold_batchnorm
from netsuke.capture.clean import clean, inline_constant_ifs
from netsuke.capture.decompose import decompose
from netsuke.capture.dtypes import to_float32
from netsuke.capture.fold import fold_constants
from netsuke.capture.fuse_activations import fuse_activations
from netsuke.capture.fuse_normalization import fuse_normalization
from netsuke.capture.graph import sweep
from netsuke.capture.hoist_signs import hoist_signs
from netsuke.capture.names import name_nodes, name_values
from netsuke.capture.opset import canonical_opset
from netsuke.capture.qonnx import qonnx_to_qdq
from netsuke.capture.qonnx_thresholds import thresholds_to_qdq
from netsuke.capture.shapes import check_shapes, explicit_squeezes, fold_shapes, infer_shapes, simplify_reshapes
from netsuke.capture.supported import check_supported
from netsuke.capture.symbolic import name_free_dims

MAX_ROUNDS = 8


def canonical(model: ir.Model) -> ir.Model:
    """Rewrite `model` in place to the canonical graph and return it.

    Raises FileError for a model that contradicts itself and UnsupportedError listing every node that cannot be
    compiled.
    """
    if model.functions:
        InlinePass()(model)
    graph = model.graph
    for value in [v for v in graph.inputs if v.is_initializer()]:
        graph.inputs.remove(value)  # a weight that old exporters also list as an input
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    TopologicalSortPass()(model)
    name_nodes(graph)
    name_values(graph)
    thresholds_to_qdq(graph, lambda: _infer_at_own_opset(model))
    qonnx_to_qdq(graph)
    to_float32(model)
    _infer_at_own_opset(model)
    canonical_opset(model)
    for _ in range(MAX_ROUNDS):
        if not _round(model):
            break
    fold_batchnorm(graph)
    fuse_normalization(graph)
    fuse_activations(graph)
    for _ in range(MAX_ROUNDS):
        if not _round(model):
            break
    name_nodes(graph)
    name_values(graph)
    check_supported(model)
    check_shapes(model)
    return model


def _infer_at_own_opset(model: ir.Model) -> None:
    """Shapes before the upgrade: old Softmax and GroupNormalization need the rank."""
    infer_shapes(model)


def _round(model: ir.Model) -> int:
    graph = model.graph
    changed = inline_constant_ifs(graph) + fold_constants(graph) + clean(graph) + decompose(graph)
    infer_shapes(model)
    changed += name_free_dims(graph)
    changed += explicit_squeezes(graph) + fold_shapes(graph) + simplify_reshapes(graph)
    changed += hoist_signs(graph)
    sweep(graph)
    return changed
