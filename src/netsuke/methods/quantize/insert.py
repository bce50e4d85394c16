"""Write the quantizers into the graph: standard ONNX QuantizeLinear / DequantizeLinear.

Activations: uint8, per tensor, affine. Weights: int8 codes behind a DequantizeLinear with one scale per output
channel. Biases stay float. Any ONNX runtime can execute the result; `netsuke.passes` turns it into integer operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from netsuke.core.plan import Plan, Row
from netsuke.methods.quantize._codes import affine, weight_codes, weight_scales
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._graph import Array, constant, new_constant
from netsuke.methods.quantize.placement import Layer

REQUANT_KEY = "netsuke.requant"


@dataclass(frozen=True)
class Quantizer:
    """Scale and zero of a tensor as graph constants."""

    scale: ir.Value
    zero: ir.Value


def insert(context: Context) -> None:
    """Put all quantizers of the context's placement into its model, with the context's ranges."""
    graph, placement = context.model.graph, context.placement
    quantizers: dict[ir.Value, Quantizer] = {}
    for value, root in placement.group.items():
        if root not in quantizers:
            quantizers[root] = _quantizer(graph, root, context.ranges[root.name or ""])
        activation(graph, value, quantizers[root])
    for layer in placement.layers.values():
        if layer.quantized and layer.weight is not None:
            weight(context, layer, context.plan[layer.name].rows[0])
    context.model.metadata_props[REQUANT_KEY] = context.plan.requant


def _quantizer(graph: ir.Graph, root: ir.Value, bounds: tuple[float, float]) -> Quantizer:
    scale, zero = affine(*bounds)
    return Quantizer(
        new_constant(graph, f"{root.name}.scale", np.array(scale, np.float32)),
        new_constant(graph, f"{root.name}.zero", np.array(zero, np.uint8)),
    )


def activation(graph: ir.Graph, value: ir.Value, quantizer: Quantizer) -> None:
    """Let every reader of the tensor see its quantized form; a network output keeps the float one."""
    readers = list(value.uses())
    pair = [quantizer.scale, quantizer.zero]
    codes = ir.Value(name=f"{value.name}.codes", shape=value.shape, type=ir.TensorType(ir.DataType.UINT8))
    back = ir.Value(name=f"{value.name}.quantized", shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
    quantize = ir.node("QuantizeLinear", [value, *pair], outputs=[codes], name=f"{value.name}/quantize")
    restore = ir.node("DequantizeLinear", [codes, *pair], outputs=[back], name=f"{value.name}/dequantize")
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, [quantize, restore])
    else:
        graph.insert_before(graph[0], [quantize, restore])
    for use in readers:
        use.node.replace_input_with(use.idx, back)


def weight(context: Context, layer: Layer, row: Row) -> None:
    """Replace the layer's float weight by codes behind a DequantizeLinear."""
    graph, value = context.model.graph, layer.weight
    array = constant(value)
    assert value is not None
    assert array is not None
    axis = layer.axis if row.granularity == "channel" else None
    scales, codes = layer_codes(context, layer, row, array.astype(np.float32, copy=False))
    scale = new_constant(graph, f"{value.name}.scale", scales if axis is not None else scales.reshape(()))
    zero = new_constant(graph, f"{value.name}.zero", np.zeros(scale.const_value.shape.numpy(), np.int8))  # type: ignore[union-attr]
    stored = new_constant(graph, f"{value.name}.codes", codes)
    back = ir.Value(
        name=f"{value.name}.quantized.{layer.name}", shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT)
    )
    attributes = {} if axis is None else {"axis": axis}
    node = ir.node("DequantizeLinear", [stored, scale, zero], attributes, outputs=[back], name=f"{layer.name}/weight")
    graph.insert_before(layer.node, node)
    layer.node.replace_input_with(1, back)
    name = value.name or ""
    if not list(value.uses()) and name in graph.initializers and not value.is_graph_output():
        del graph.initializers[name]


def layer_codes(context: Context, layer: Layer, row: Row, array: Array) -> tuple[Array, np.ndarray]:
    """Scales and codes of a layer's weight: those a step has chosen, else the row's rule and nearest rounding."""
    axis, bits = (layer.axis if row.granularity == "channel" else None), row.weight_bits or 8
    scales = context.scales.get(layer.name)
    if scales is None:
        scales = weight_scales(array, axis, bits, row.weights or "maxabs")
    codes = context.codes.get(layer.name)
    return scales, weight_codes(array, scales, axis, bits) if codes is None else codes


def requant_of(metadata: Mapping[str, str], plan: Plan | None = None) -> str:
    """The requantization mode a graph asks for: "float" or "dyadic"."""
    return metadata.get(REQUANT_KEY, plan.requant if plan else "float")
