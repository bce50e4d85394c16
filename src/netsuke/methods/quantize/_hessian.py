"""A layer as matrix products: its weight as [groups][rows, columns], the second moments of its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._graph import Array, attribute, integer, number
from netsuke.methods.quantize._layer import Layer
from netsuke.methods.quantize._torch_nodes import unfolded
from netsuke.methods.quantize._units import stream
from netsuke.methods.quantize.insert import layer_codes

Matrix = npt.NDArray[np.float64]


def hessians(context: Context, layer: Layer, model: ir.Model, source: str, samples: int) -> list[Matrix]:
    """2 / n sum x x^T over the data, one per group of channels; `source` names the layer's input in `model`."""
    weight = number(layer.weight)
    assert weight is not None
    totals: list[Matrix] = []
    count = 0
    for values in stream(context, model, [source], samples):
        x = torch.from_numpy(np.ascontiguousarray(values[source], np.float32))
        if layer.node.op_type == "Conv":
            flat = x if x.ndim == 4 else x.unsqueeze(2)
            columns = unfolded(layer.node, flat, weight.shape[2:] if weight.ndim == 4 else (1, *weight.shape[2:]))
        else:
            columns = x.reshape(1, -1, x.shape[-1]).transpose(1, 2)
        sums = [np.asarray((c @ c.T).double().numpy()) for c in columns]
        totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
        count += columns.shape[-1]
    return [2 * total / count for total in totals]


def by_rows(context: Context, layer: Layer) -> tuple[list[Array], list[Array], int]:
    """Per group the weight as [rows, columns] (outputs first) and the scale of each row; and the bits."""
    row = context.plan[layer.name].rows[0]
    weight = number(layer.weight)
    assert weight is not None
    scales, _ = layer_codes(context, layer, row, weight)
    matrix = _outputs_first(layer, weight)
    groups = integer(layer.node, "group", 1) if layer.node.op_type == "Conv" else 1
    each = np.broadcast_to(scales.reshape(-1), (len(matrix),)) if scales.size == 1 else scales.reshape(-1)
    return list(np.split(matrix, groups)), list(np.split(np.asarray(each, np.float32), groups)), row.weight_bits or 8


def restored(
    layer: Layer, scales: Sequence[Array], parts: Sequence[npt.NDArray[np.int8]], per_channel: bool
) -> tuple[Array, npt.NDArray[np.int8]]:
    """Scales as the layer has them (one in all unless per channel), and the codes in the shape of the weight."""
    weight = number(layer.weight)
    assert weight is not None
    joined = np.concatenate(list(parts))
    codes = joined.reshape(weight.shape) if _outputs_lead(layer) else joined.T
    steps = np.concatenate(list(scales))
    return steps if per_channel else steps[:1], np.ascontiguousarray(codes, np.int8)


def _outputs_lead(layer: Layer) -> bool:
    return layer.node.op_type == "Conv" or (layer.node.op_type == "Gemm" and attribute(layer.node, "transB", 0) == 1)


def _outputs_first(layer: Layer, weight: Array) -> Array:
    return weight.reshape(len(weight), -1) if _outputs_lead(layer) else np.ascontiguousarray(weight.T)
