"""Write the quantizers into the graph: standard ONNX QuantizeLinear / DequantizeLinear.

Activations: uint8, per tensor, affine; a width below 8 bits stands as a Clip to the range of its codes in front of the
QuantizeLinear, which the compiler turns into limits of the codes. Weights: int8 codes (whatever their bits) behind a
DequantizeLinear with one scale per output channel. Biases stay float. Any ONNX runtime can execute the result;
`netsuke.passes` turns it into integer operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import PRODUCTS
from netsuke.core.plan import Plan, Row
from netsuke.methods.quantize._codes import weight_codes, weight_scales
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._graph import Array, constant, new_constant
from netsuke.methods.quantize._layer import Layer
from netsuke.methods.quantize.placement import is_move

REQUANT_KEY = "netsuke.requant"
LIMIT_KEY = "netsuke.limit"  # on the Clip of a width below 8 bits: it is part of the quantizer behind it


@dataclass(frozen=True)
class Quantizer:
    """Scale and zero of a tensor as graph constants; `limits`: the real values of the lowest and the highest code."""

    scale: ir.Value
    zero: ir.Value
    limits: tuple[ir.Value, ir.Value] | None = None


def insert(context: Context) -> None:
    """Put all quantizers of the context's placement into its model, with the context's ranges."""
    graph, placement = context.model.graph, context.placement
    quantizers: dict[ir.Value, Quantizer] = {}
    for value, root in placement.group.items():
        if root not in quantizers:
            name = root.name or ""
            quantizers[root] = _quantizer(graph, name, *context.quantizer(name), context.widths.get(name, 8))
        producer = value.producer()
        moved = producer is not None and is_move(producer) and producer.inputs[0] in placement.group
        activation(graph, value, quantizers[root], limited=not moved)  # moved codes keep their range
    for layer in placement.layers.values():
        if layer.quantized and layer.stored is not None:
            weight(context, layer, context.plan[layer.name].rows[0])
    halves = {row.name for row in context.plan.rows if row.bfloat16}
    for name in halves & placement.layers.keys():
        placement.layers[name].node.metadata_props[PRODUCTS] = "bf16"
    context.model.metadata_props[REQUANT_KEY] = context.plan.requant


def _quantizer(graph: ir.Graph, name: str, scale: float, zero: int, bits: int) -> Quantizer:
    limits = None
    if bits < 8:
        low, high = (np.array(np.float32(q - zero) * np.float32(scale), np.float32) for q in (0, 2**bits - 1))
        limits = (new_constant(graph, f"{name}.lowest", low), new_constant(graph, f"{name}.highest", high))
    return Quantizer(
        new_constant(graph, f"{name}.scale", np.array(scale, np.float32)),
        new_constant(graph, f"{name}.zero", np.array(zero, np.uint8)),
        limits,
    )


def activation(graph: ir.Graph, value: ir.Value, quantizer: Quantizer, *, limited: bool = True) -> None:
    """Let every reader of the tensor see its quantized form; a network output keeps the float one."""
    readers = list(value.uses())
    pair = [quantizer.scale, quantizer.zero]
    float_type = ir.TensorType(ir.DataType.FLOAT)
    codes = ir.Value(name=f"{value.name}.codes", shape=value.shape, type=ir.TensorType(ir.DataType.UINT8))
    back = ir.Value(name=f"{value.name}.quantized", shape=value.shape, type=float_type)
    made, source = [], value
    if quantizer.limits is not None and limited:
        source = ir.Value(name=f"{value.name}.limited", shape=value.shape, type=float_type)
        made.append(ir.node("Clip", [value, *quantizer.limits], outputs=[source], name=f"{value.name}/limit"))
        made[0].metadata_props[LIMIT_KEY] = "codes"
    made.append(ir.node("QuantizeLinear", [source, *pair], outputs=[codes], name=f"{value.name}/quantize"))
    made.append(ir.node("DequantizeLinear", [codes, *pair], outputs=[back], name=f"{value.name}/dequantize"))
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, made)
    else:
        graph.insert_before(graph[0], made)
    for use in readers:
        use.node.replace_input_with(use.idx, back)


def weight(context: Context, layer: Layer, row: Row) -> None:
    """Replace the layer's float weight (or table) by codes behind a DequantizeLinear."""
    graph, value = context.model.graph, layer.stored
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
    layer.node.replace_input_with(1 if layer.table is None else 0, back)
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
