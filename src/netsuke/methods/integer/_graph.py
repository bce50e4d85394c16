"""A trained integer network as a quantized ONNX graph: the codes and scales of training, nothing fitted again."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from netsuke.capture import capture
from netsuke.core.errors import Problem, UnsupportedError, UsageError
from netsuke.methods.quantize._graph import new_constant
from netsuke.methods.quantize.insert import LIMIT_KEY, REQUANT_KEY

if TYPE_CHECKING:
    from torch import nn


def quantized_graph(model: nn.Module, shape: tuple[int, ...]) -> ir.Model:
    """The canonical graph of the network in eval mode with QuantizeLinear/DequantizeLinear where it trained in
    integers.

    Normalizations behind integer layers are folded first (`netsuke.nn.integer_fold`, on a copy): the program then gives
    what `fold_norms_` of the network gives, bit for bit. Every integer layer must still be recognisable in the captured
    graph by its weights; those that are not are refused, all at once.
    """
    import torch

    from netsuke.nn.integer_fold import fold_norms_
    from netsuke.nn.integer_swap import integer_layers
    from netsuke.nn.one_bit import OneBitLayer
    from netsuke.nn.qtensor import affine

    signs = [
        Problem("one-bit training has no served form", where=name, got=type(layer).__name__)
        for name, layer in model.named_modules()
        if isinstance(layer, OneBitLayer)
    ]
    if signs:
        raise UnsupportedError(signs, "train a one-bit network that is served with a method of the room binarize")
    wide = [
        Problem("no engine layer has this arithmetic", where=name, got=f"{layer.config.weight_bits} bits, fixed point")
        for name, layer in integer_layers(model).items()
        if layer.config.weight_bits > 8 or layer.config.fraction is not None
    ]
    if wide:
        raise UnsupportedError(
            wide, "netsuke.nn.integer_swap.float_network(model) is what compress can quantize instead"
        )
    if integer_layers(model):
        example = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        model = fold_norms_(copy.deepcopy(model), example)
    layers, twin = integer_layers(model), copy.deepcopy(model)
    if not layers:
        raise UsageError(Problem("no integer layer in this network", got=type(model).__name__))
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        plain = torch.nn.Conv2d if isinstance(layer, torch.nn.Conv2d) else torch.nn.Linear
        new = plain.__new__(plain)
        new.__dict__.update({k: v for k, v in twin.get_submodule(name).__dict__.items() if k != "_buffers"})
        new.__dict__["_buffers"] = {}
        w = layer.quantize_weight(layer.weight)
        values = (w.codes.float() * w.scale.view(-1, 1, 1, 1)).permute(0, 3, 1, 2).reshape(layer.weight.shape)
        new.weight = torch.nn.Parameter(values.contiguous())
        setattr(twin.get_submodule(parent) if parent else twin, leaf, new)
    found = capture(twin, shape=shape)
    problems = []
    for name, layer in layers.items():
        w = layer.quantize_weight(layer.weight)
        low, high = (float(v) for v in layer.input_range)
        scale, zero = affine(low, high, layer.config.activation_bits, layer.config.scale)
        codes = w.codes.permute(0, 3, 1, 2).reshape(layer.weight.shape).contiguous().numpy()
        if not _insert(found.graph, name, codes, w.scale.numpy(), scale, zero, layer.config.activation_bits):
            problems.append(Problem("capture changed this layer's weights", where=name, hint="leave it float"))
    if problems:
        raise UnsupportedError(problems, "these layers would not be served with the codes they trained with")
    found.metadata_props[REQUANT_KEY] = "float"
    return found


def served_graph(model: nn.Module, shape: tuple[int, ...]) -> tuple[ir.Model, nn.Module]:
    """The graph of a trained network and the network that it equals: integer with its normalizations folded where all
    integer layers have at most 8 bits, otherwise float (`float_network`)."""
    import torch

    from netsuke.nn.integer_fold import fold_norms_
    from netsuke.nn.integer_swap import float_network, integer_layers

    layers = integer_layers(model).values()
    if layers and all(m.config.weight_bits <= 8 and m.config.fraction is None for m in layers):
        example = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        return quantized_graph(model, shape), fold_norms_(copy.deepcopy(model), example)
    twin = float_network(model)
    return capture(twin, shape=shape), twin


def _insert(graph: ir.Graph, name: str, codes: Any, scales: Any, scale: float, zero: int, bits: int) -> bool:
    """Q and DQ on the layer whose float weight equals codes * scales; False when there is none."""
    values = codes.astype(np.float32) * scales.reshape(-1, *[1] * (codes.ndim - 1))
    for node in list(graph):
        if node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2:
            continue
        weight = node.inputs[1]
        array = None if weight is None or weight.const_value is None else weight.const_value.numpy()
        if array is None or array.ndim != values.ndim:
            continue
        turned = array.ndim == 2 and array.shape != values.shape
        if array.ndim == 2 and node.op_type == "MatMul":
            turned = True
        if array.shape != (values.T if turned else values).shape or not np.array_equal(
            array, values.T if turned else values
        ):
            continue
        assert weight is not None
        _quantize_input(graph, node, name, scale, zero, bits)
        stored = new_constant(graph, f"{name}.codes", np.ascontiguousarray(codes.T if turned else codes))
        step = new_constant(graph, f"{name}.scales", scales)
        none = new_constant(graph, f"{name}.zeros", np.zeros(len(scales), np.int8))
        back = ir.Value(name=f"{name}.weights", shape=weight.shape, type=ir.TensorType(ir.DataType.FLOAT))
        axis = {"axis": 1 if turned else 0}
        graph.insert_before(node, ir.node("DequantizeLinear", [stored, step, none], axis, outputs=[back]))
        node.replace_input_with(1, back)
        return True
    return False


def _quantize_input(graph: ir.Graph, node: ir.Node, name: str, scale: float, zero: int, bits: int) -> None:
    x = node.inputs[0]
    assert x is not None
    pair = [
        new_constant(graph, f"{name}.input_scale", np.array(scale, np.float32)),
        new_constant(graph, f"{name}.input_zero", np.array(zero, np.uint8)),
    ]
    real = ir.TensorType(ir.DataType.FLOAT)
    made, source = [], x
    if bits < 8:
        ends = [np.array(np.float32(q - zero) * np.float32(scale), np.float32) for q in (0, 2**bits - 1)]
        limits = [new_constant(graph, f"{name}.input_{end}", v) for end, v in zip(("low", "high"), ends, strict=True)]
        source = ir.Value(name=f"{name}.limited", shape=x.shape, type=real)
        made.append(ir.node("Clip", [x, *limits], outputs=[source]))
        made[0].metadata_props[LIMIT_KEY] = "codes"
    codes = ir.Value(name=f"{name}.input_codes", shape=x.shape, type=ir.TensorType(ir.DataType.UINT8))
    back = ir.Value(name=f"{name}.input", shape=x.shape, type=real)
    made.append(ir.node("QuantizeLinear", [source, *pair], outputs=[codes]))
    made.append(ir.node("DequantizeLinear", [codes, *pair], outputs=[back]))
    graph.insert_before(node, made)
    node.replace_input_with(0, back)
