"""Minifloat weights of linear layers as codes in the captured graph."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from netsuke.capture.graph import constant, emit
from netsuke.methods.diffusion._floats import FloatLayer

if TYPE_CHECKING:
    from netsuke.methods.diffusion._sampling import Sampling

_TYPES = {"e2m1": ml_dtypes.float4_e2m1fn, "e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}


def packed_graph(network: nn.Module, sampling: Sampling) -> ir.Model:
    """The captured network, every FloatLayer's matrix as DequantizeLinear of minifloat codes.

    Layers are found by their values: what the graph multiplies by is the very array the layer computes with.
    """
    from netsuke.capture import capture
    from netsuke.methods.quantize.weight_only import matrices

    plain, layers = copy.deepcopy(network).eval(), []
    for name, layer in [(n, m) for n, m in plain.named_modules() if isinstance(m, FloatLayer)]:
        inner: Any = layer.layer
        with torch.no_grad():
            inner.weight.copy_(layer.weight())
        layers.append((layer.grid, inner.weight.detach().numpy().copy()))
        parent, _, leaf = name.rpartition(".")
        setattr(plain.get_submodule(parent), leaf, inner)
    model = capture(plain, shape=sampling.shapes, dtype=sampling.dtypes)
    for node, matrix, turned in matrices(model):
        for grid, weight in layers:
            if weight.shape == matrix.shape and np.array_equal(weight, matrix):
                points = (matrix.astype(np.float64) / grid.scale).astype(np.float32)
                _insert(node, points.astype(_TYPES[grid.form.name]), np.float32(grid.scale), turned=turned)
                break
    return model


def _insert(node: ir.Node, codes: Any, scale: np.float32, *, turned: bool) -> None:
    graph = node.graph
    assert graph is not None
    name = node.name or "layer"
    stored = np.ascontiguousarray(codes if turned else codes.T)
    inputs = [
        constant(graph, stored, f"{name}.codes"),
        constant(graph, np.full(len(codes), scale, np.float32), f"{name}.scales"),
    ]
    dims = list(stored.shape)
    attrs = {"axis": 0 if turned else 1}
    made = emit(node, "DequantizeLinear", inputs, attrs, dtype=ir.DataType.FLOAT, dims=dims, name=f"{name}/weight")
    node.replace_input_with(1, made)
