"""What is fused behind a convolution or matrix product: constant bias add, residual add, clipping activation."""

from __future__ import annotations

import onnx_ir as ir

from netsuke.capture.binary_forms import is_binary_layer
from netsuke.methods.quantize._elementwise import per_channel
from netsuke.methods.quantize._graph import attribute, channel_axis, constant, dims, is_float, only_use, same_shape
from netsuke.methods.quantize._layer import ONE_BIT, Layer

CLAMPING = ("qconv", "conv_transpose", "qlinear", "qmatmul", "qadd", "qmul", "qavgpool", "qmean", *ONE_BIT)


def weighted(node: ir.Node, name: str) -> Layer | None:
    """The layer of a Conv, ConvTranspose, Gemm or MatMul; `blocked` says why it has no integer kernel."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or not is_float(node.outputs[0]):
        return None
    data, weight = node.inputs[0], node.inputs[1]
    assert data is not None
    assert weight is not None
    array = constant(weight)
    kernel = {"Conv": "qconv", "ConvTranspose": "conv_transpose"}.get(node.op_type, "qlinear")
    if node.op_type == "MatMul" and array is None:
        blocked = "the left operand is a constant" if constant(data) is not None else ""
        return Layer(name, node, "qmatmul", [data, weight], node.outputs[0], [node], blocked=blocked)
    if is_binary_layer(node):  # it reads packed signs whatever the plan says: only what it writes is planned
        return Layer(name, node, "bconv" if node.op_type == "Conv" else "blinear", [], node.outputs[0], [node])
    layer = Layer(name, node, kernel, [data], node.outputs[0], [node], weight=weight, axis=channel_axis(node))
    layer.blocked = _blocked(node, array is not None, layer.axis, constant(data) is not None)
    return layer


def _blocked(node: ir.Node, has_weight: bool, axis: int | None, constant_input: bool) -> str:
    if node.op_type == "ConvTranspose":
        return "transposed convolution has a float kernel only"
    if not has_weight:
        return "the weight is computed, not stored"
    if constant_input:
        return "the input is a constant"
    if axis is None:
        return "the weight has more than two dimensions"
    if node.op_type == "Conv" and len(dims(node.inputs[1]) or ()) not in (3, 4):
        return "convolution over more than two spatial dimensions has a float kernel only"
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
        return "" if plain and not attribute(node, "transA", 0) else "Gemm with transA, alpha or beta"
    return ""


def extend(layer: Layer, taken: set[ir.Node]) -> None:
    """Fuse bias add, one residual add and one activation behind a weighted layer; fused nodes join `taken`."""
    if layer.kernel in ("qconv", "qlinear"):
        _bias(layer, taken)
        _residual(layer, taken)
    if layer.kernel in ONE_BIT:
        _one_bit(layer, taken)
    activation(layer, taken)


def _one_bit(layer: Layer, taken: set[ir.Node]) -> None:
    """A residual add, constants per channel and a PReLU: all of it runs in the epilogue of a one-bit layer."""
    sloped = False
    while (node := only_use(layer.output)) is not None and node not in taken:
        if node.op_type == "Add":
            other = _other(node, layer.output)
            array, rank = constant(other), len(dims(layer.output) or ())
            if array is not None and per_channel(array.shape, rank):
                _join(layer, node, taken)
                continue
            if array is not None or other is None or layer.residual is not None or sloped:
                return
            if not _alike(other, layer.output):
                return
            layer.residual = other
        elif not sloped and _slopes(node, layer.output):
            sloped = True
        else:
            return
        _join(layer, node, taken)


def _slopes(node: ir.Node, value: ir.Value) -> bool:
    """True for a LeakyRelu, or a PRelu with one slope a channel, of the value."""
    if node.op_type != "PRelu":
        return node.op_type == "LeakyRelu"
    slope = constant(node.inputs[1])
    return node.inputs[0] is value and slope is not None and per_channel(slope.shape, len(dims(value) or ()))


def _alike(a: ir.Value, b: ir.Value) -> bool:
    """True when no two known dimensions differ; a kernel given a residual of another shape reports an error."""
    x, y = dims(a), dims(b)
    if x is None or y is None or len(x) != len(y):
        return False
    return all(p == q or p is None or q is None for p, q in zip(x, y, strict=True))


def _bias(layer: Layer, taken: set[ir.Node]) -> None:
    """MatMul + Add of a constant vector over the last axis is a linear layer with a bias."""
    node = only_use(layer.output)
    if layer.node.op_type != "MatMul" or node is None or node.op_type != "Add" or node in taken:
        return
    other = _other(node, layer.output)
    array = constant(other)
    weight = dims(layer.weight)
    if array is not None and weight is not None and array.shape in ((weight[-1],), (1,), ()):
        _join(layer, node, taken)


def _residual(layer: Layer, taken: set[ir.Node]) -> None:
    node = only_use(layer.output)
    if node is None or node.op_type != "Add" or node in taken:
        return
    other = _other(node, layer.output)
    if other is None or constant(other) is not None or not same_shape(other, layer.output):
        return
    layer.residual = other
    _join(layer, node, taken)


def activation(layer: Layer, taken: set[ir.Node]) -> None:
    """Relu and Clip with constant bounds become the code limits of the layer in front (not of a concat or a table)."""
    node = only_use(layer.output)
    if layer.kernel not in CLAMPING or node is None or node in taken:
        return
    bounds_known = all(v is None or constant(v) is not None for v in node.inputs[1:])
    if node.op_type == "Relu" or (node.op_type == "Clip" and bounds_known):
        _join(layer, node, taken)


def _other(node: ir.Node, value: ir.Value) -> ir.Value | None:
    first, second = node.inputs[0], node.inputs[1]
    return second if first is value else first


def _join(layer: Layer, node: ir.Node, taken: set[ir.Node]) -> None:
    layer.nodes.append(node)
    layer.output = node.outputs[0]
    taken.add(node)
