"""Graph-aware placement: which tensors get a quantizer, and which tensors share one.

Idea. Every quantized operator needs its inputs as codes. So demand starts at the inputs of convolutions and matrix
products and walks back: an operator that can produce codes (a fused layer, a pool, an add, a table) passes the
demand on to its own inputs; one that cannot (LayerNormalization, Softmax, anything kept float) stops it, and a
quantizer stands behind it. What nobody demands stays float: the logits, the residual stream of a transformer, the
tail of a detector.

Rules.
- One quantizer per tensor; every reader sees the quantized tensor.
- None between a convolution or matrix product and the residual add and clipping activation fused behind it.
- Operators that only move data (reshape, transpose, slice, max pool, nearest resize, zero pad ...) share the
quantizer of their input.
- Inputs of a concat share one where that is exact and costs under one bit (decided with the ranges, `share_concats`).
- An elementwise function of one tensor is a table, quantized on both sides, nothing inside.
- Tables of embeddings are stored as codes with one scale a row; what is read from them is float.
- Standalone add and mul read two quantized tensors.
- One-bit layers read packed signs and demand nothing. Where their sums are demanded as codes, the residual, constants
and PReLU behind them run in the layer and the residual is demanded in turn: so the stream between one-bit layers is
INT8 from the first layer to the last.

Source: the usual rules of integer inference as in Krishnamoorthi 2018, sections 3 and 4; the demand formulation is
ours.
Cost: linear in the number of nodes. Limits: float32 tensors of the main graph; subgraphs (If, Loop) are left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from netsuke.methods.quantize import _fusion
from netsuke.methods.quantize._elementwise import per_channel, region
from netsuke.methods.quantize._graph import attribute, constant, dims, integers, is_float, layer_names
from netsuke.methods.quantize._layer import Layer

MOVES = frozenset(
    (
        *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split", "Identity", "Dropout"),
        *("Expand", "Tile", "DepthToSpace", "SpaceToDepth", "MaxPool"),
    )
)
FLOAT = {
    "Softmax": "softmax and its input stay float: small probabilities carry the result",
    "LogSoftmax": "softmax and its input stay float",
    "LayerNormalization": "normalization stays float: it rescales what it reads",
    "LSTM": "recurrent layers have float kernels only",
    "GRU": "recurrent layers have float kernels only",
}
EMBEDDING = 4096  # elements of a table that is worth storing as codes
MEANS = ("AveragePool", "GlobalAveragePool", "ReduceMean")


@dataclass
class Placement:
    """Layers by name in graph order; `group` maps each quantized tensor to the tensor whose quantizer it shares."""

    layers: dict[str, Layer]
    group: dict[ir.Value, ir.Value] = field(default_factory=dict)
    concats: list[tuple[list[ir.Value], ir.Value]] = field(default_factory=list)

    @property
    def roots(self) -> list[ir.Value]:
        """Tensors that own a quantizer, in the order found."""
        return list(dict.fromkeys(self.group.values()))

    def readers(self, root: ir.Value) -> list[Layer]:
        """Quantized layers that read a tensor of the root's group, in graph order."""
        members = {value for value, owner in self.group.items() if owner is root}
        return [layer for layer in self.layers.values() if layer.quantized and members.intersection(layer.reads)]


def place(model: ir.Model, keep: Collection[str] = ()) -> Placement:
    """Find all layers and the tensors that need quantizers. Layers named in `keep` stay float.

    Only convolutions, matrix products and what their demand reaches are quantized; the rest of the layers are listed
    with `quantized=False`.
    """
    placement = Placement(find_layers(model.graph))
    layers = placement.layers
    ends = {layer.output: layer for layer in layers.values()}
    demand: list[ir.Value] = []
    for layer in reversed(layers.values()):
        if layer.kernel in ("qconv", "qlinear", "qmatmul") and not layer.blocked and layer.name not in keep:
            layer.quantized = True
            demand += layer.inputs
    for layer in layers.values():
        layer.quantized |= layer.table is not None and not layer.blocked and layer.name not in keep
    position: dict[ir.Node | None, int] = {node: index for index, node in enumerate(model.graph)}
    while demand:
        value = demand.pop()
        if value not in placement.group:
            demand += _demand(value, placement, ends, keep)
    order = sorted(placement.group, key=lambda v: position.get(v.producer(), -1))
    placement.group = {value: _root(placement.group, value) for value in order}
    placement.concats.sort(key=lambda pair: position[pair[1].producer()])
    return placement


def _root(group: Mapping[ir.Value, ir.Value], value: ir.Value) -> ir.Value:
    while group[value] is not value:
        value = group[value]
    return value


def _demand(
    value: ir.Value, placement: Placement, ends: Mapping[ir.Value, Layer], keep: Collection[str]
) -> list[ir.Value]:
    """Give the tensor a quantizer (its own or its source's) and return the tensors demanded in turn."""
    group, node = placement.group, value.producer()
    group[value] = value
    layer = ends.get(value)
    if layer is not None:
        layer.reached = True
        if layer.blocked or layer.name in keep:
            return []
        layer.quantized = True
        if layer.kernel == "concat":
            placement.concats.append((list(layer.inputs), value))
        return layer.reads
    if node is not None and is_move(node):
        source = node.inputs[0]
        if source is not None and is_float(source) and constant(source) is None:
            group[value] = source
            return [source]
    return []


def is_move(node: ir.Node) -> bool:
    """True when every output element is an element of the first input (or an exact zero), so codes can be moved."""
    if node.op_type in MOVES:
        return True
    if node.op_type == "Resize":
        return attribute(node, "mode", "nearest") in ("nearest", "linear") and len(dims(node.inputs[0]) or ()) == 4
    if node.op_type == "Pad":
        fill = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        absent = len(node.inputs) < 3 or node.inputs[2] is None
        zero = absent or (fill is not None and not fill.any())
        return attribute(node, "mode", "constant") != "constant" or zero
    return False


def find_layers(graph: ir.Graph) -> dict[str, Layer]:
    """All layers of the plan by name, in graph order, each with what is fused behind it."""
    names, taken = layer_names(graph), set[ir.Node]()
    found: dict[ir.Node, Layer] = {}
    nodes = list(graph)
    weighted = {node: layer for node in nodes if (layer := _fusion.weighted(node, names[node]))}
    # From the end, so a residual add is fused into the later of its two branches; but one-bit layers take theirs first:
    # the signs of the sum come out of the same pass over memory.
    backward = list(reversed(weighted))
    for node in sorted(backward, key=lambda n: not weighted[n].one_bit):
        if node not in taken:
            _fusion.extend(weighted[node], taken)
            found[node] = weighted[node]
    for node in nodes:
        if node not in taken and node not in found and (layer := _plain(node, names[node])):
            _fusion.activation(layer, taken)
            found[node] = layer
    stops = {layer.output for layer in found.values()}
    for node in reversed(nodes):
        if node in taken or node in found or not node.outputs:
            continue
        if part := region(node.outputs[0], stops):
            taken.update(part[1])
            found[node] = Layer(names[node], node, "lut", [part[0]], node.outputs[0], part[1])
    order = {node: index for index, node in enumerate(nodes)}
    return {layer.name: layer for layer in sorted(found.values(), key=lambda layer: order[layer.node])}


def _plain(node: ir.Node, name: str) -> Layer | None:
    """A layer without a product: an embedding, or arithmetic on codes."""
    return _embedding(node, name) or _arithmetic(node, name)


def _embedding(node: ir.Node, name: str) -> Layer | None:
    """Rows of a constant float matrix, picked by indices that are computed."""
    table = node.inputs[0] if node.op_type == "Gather" else None
    array = constant(table)
    if array is None or array.ndim != 2 or array.size < EMBEDDING or array.dtype != np.float32:
        return None
    if attribute(node, "axis", 0) != 0 or constant(node.inputs[1]) is not None:
        return None
    return Layer(name, node, "gather", [], node.outputs[0], [node], axis=0, table=table)


def _arithmetic(node: ir.Node, name: str) -> Layer | None:
    """Layers without weights that compute on codes: add, mul, means, concat."""
    inputs = [v for v in node.inputs if v is not None]
    if not inputs or not node.outputs or not is_float(node.outputs[0]):
        return None
    out = node.outputs[0]
    if node.op_type in FLOAT:
        return Layer(name, node, node.op_type.lower(), [], out, [node], blocked=FLOAT[node.op_type])
    if node.op_type == "Concat":
        blocked = "an input is a constant" if any(constant(v) is not None for v in inputs) else ""
        return Layer(name, node, "concat", inputs, out, [node], blocked=blocked)
    if node.op_type in MEANS:
        return _mean(node, name, out)
    if node.op_type not in ("Add", "Mul") or len(inputs) != 2:
        return None
    arrays = [constant(v) for v in inputs]
    if any(a is not None for a in arrays):
        rank = len(dims(out) or ())
        if all(a is None or per_channel(a.shape, rank) for a in arrays):
            return None
        return Layer(name, node, "binary", [], out, [node], blocked="adds or multiplies by a full constant tensor")
    part = region(out, set())
    if part is not None and (len(part[1]) > 1 or inputs[0] is inputs[1]):
        return None
    return Layer(name, node, "qadd" if node.op_type == "Add" else "qmul", inputs, out, [node])


def _mean(node: ir.Node, name: str, out: ir.Value) -> Layer:
    source = node.inputs[0]
    assert source is not None
    rank, blocked = len(dims(source) or ()), ""
    kernel = "qavgpool" if node.op_type == "AveragePool" else "qmean"
    if node.op_type == "ReduceMean":
        axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        listed = integers(node, "axes", []) if axes is None else [int(a) for a in axes.reshape(-1).tolist()]
        spatial = rank == 4 and sorted(a % rank for a in listed) == [2, 3]
        blocked = "" if spatial else "the mean is not over height and width"
    elif rank not in (3, 4):
        blocked = "pools over more than two spatial dimensions"
    elif node.op_type == "AveragePool" and set(integers(node, "dilations", [1])) != {1}:
        blocked = "dilated average pooling has no integer kernel"
    return Layer(name, node, kernel, [source], out, [node], blocked=blocked)
