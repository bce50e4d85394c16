"""Small questions about an onnx_ir graph that several methods ask: constants, shapes, uses, layer names, costs."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from netsuke.capture.batchnorm import BN_MEAN, BN_STD

Array = npt.NDArray[np.float32]


def constant(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The array behind an initializer or a Constant node; None when the value is computed (or absent)."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def is_float(value: ir.Value) -> bool:
    """True when the value is known to be float32."""
    return value.dtype == ir.DataType.FLOAT


def dims(value: ir.Value | None) -> list[int | None] | None:
    """The shape with free dimensions as None; None when the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return [d if isinstance(d, int) else None for d in value.shape]


def same_shape(a: ir.Value, b: ir.Value) -> bool:
    """True when no known dimension says that the shapes differ (free dimensions are compared by name)."""
    if a.shape is None or b.shape is None:
        return True
    return len(a.shape) == len(b.shape) and all(str(x) == str(y) for x, y in zip(a.shape, b.shape, strict=True))


def only_use(value: ir.Value) -> ir.Node | None:
    """The node that alone reads the value; None when several do, none does, or it is a network output."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def attribute(node: ir.Node, name: str, default: object) -> object:
    """An attribute's Python value, or the default."""
    found = node.attributes.get(name)
    if found is None:
        return default
    value = found.value
    return list(value) if isinstance(value, tuple) else value


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    value = attribute(node, name, default)
    assert isinstance(value, int)
    return value


def integers(node: ir.Node, name: str, default: list[int]) -> list[int]:
    """An attribute that is a list of integers."""
    value = attribute(node, name, default)
    assert isinstance(value, list)
    return [int(v) for v in value]


def number(value: ir.Value | None) -> Array | None:
    """The float32 array of a constant; None when it is computed."""
    array = constant(value)
    return None if array is None else np.asarray(array, np.float32)


def set_constant(value: ir.Value, array: npt.NDArray[np.generic]) -> None:
    """Replace the contents of an initializer, keeping its name."""
    value.const_value = ir.tensor(np.asarray(array, order="C"), name=value.name)
    value.shape = ir.Shape(array.shape)


def replace_parameters(
    graph: ir.Graph, node: ir.Node, weight: npt.NDArray[np.floating], bias: npt.NDArray[np.floating] | None
) -> None:
    """Give the node a float32 weight and bias of its own, even when it shared them before."""
    for index, array, suffix in ((1, weight, "weight"), (2, bias, "bias")):
        if array is None:
            continue
        value = node.inputs[index] if index < len(node.inputs) else None
        data = np.asarray(array, np.float32)
        if value is not None and value.is_initializer() and len(list(value.uses())) == 1:
            set_constant(value, data)
            continue
        fresh = new_constant(graph, f"{node.name}.{suffix}", data)
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, fresh)


def bn_statistics(node: ir.Node) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Mean and standard deviation per channel of the node's output, where a folded normalization left them.

    The captured graph keeps them in the node's metadata, "netsuke.bn_mean" (beta) and "netsuke.bn_std" (|gamma|),
    as JSON lists.
    """
    if BN_MEAN not in node.metadata_props or BN_STD not in node.metadata_props:
        return None
    return np.array(json.loads(node.metadata_props[BN_MEAN])), np.array(json.loads(node.metadata_props[BN_STD]))


def new_constant(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """A new initializer; the name is made unique."""
    unique, count = name, 1
    while unique in graph.initializers:
        count += 1
        unique = f"{name}_{count}"
    tensor = ir.tensor(np.asarray(array, order="C"), name=unique)
    value = ir.Value(name=unique, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def clone(model: ir.Model) -> ir.Model:
    """A copy whose graph can be edited; tensors are shared (they are replaced, never written to)."""
    return model.clone()


def along(vector: npt.NDArray[np.floating], axis: int, rank: int) -> npt.NDArray[np.floating]:
    """A vector shaped to broadcast over one axis of an array of that rank."""
    return vector.reshape([-1 if i == axis else 1 for i in range(rank)])


def layer_names(graph: ir.Graph) -> dict[ir.Node, str]:
    """A unique name for each node: its own (capture makes these module paths), else its first output's."""
    names: dict[ir.Node, str] = {}
    seen: Counter[str] = Counter()
    for node in graph:
        name = node.name or (node.outputs[0].name if node.outputs else "") or node.op_type
        seen[name] += 1
        names[node] = name if seen[name] == 1 else f"{name}.{seen[name]}"
    return names


def channel_axis(node: ir.Node) -> int | None:
    """Axis of the weight that counts output channels; None when the weight is not one of a conv or linear layer."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    weight = constant(node.inputs[1]) if node.op_type == "MatMul" else None
    return 1 if weight is not None and weight.ndim == 2 else None


def macs(node: ir.Node, shapes: Mapping[str, Sequence[int]] | None = None) -> int | None:
    """Multiply-accumulates per sample; None when a dimension besides the batch is unknown.

    `shapes` gives the shape per sample, by value name, where the network leaves height and width free.
    """
    out, source = (_sample(v, shapes or {}) for v in (node.outputs[0], node.inputs[0] if node.inputs else None))
    if out is None:
        return None
    weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.op_type == "Conv" and weight is not None:
        return math.prod(out) * math.prod(weight.shape[1:])
    if node.op_type == "ConvTranspose" and weight is not None:
        return None if source is None else math.prod(source) * math.prod(weight.shape[1:])
    if node.op_type in ("Gemm", "MatMul"):
        return None if not source else math.prod(out) * source[-1]
    return math.prod(out)


def _sample(value: ir.Value | None, shapes: Mapping[str, Sequence[int]]) -> list[int] | None:
    """Shape per sample (no batch dimension) when it is known."""
    if value is None:
        return None
    known = shapes.get(value.name or "")
    shape = list(known) if known is not None else (dims(value) or [None, None])[1:]
    sizes = [d for d in shape if d is not None]
    return sizes if len(sizes) == len(shape) else None


def normalized(model: ir.Model) -> list[ir.Node]:
    """Layers whose output's mean and deviation per channel are known."""
    return [node for node in model.graph if bn_statistics(node) is not None]
