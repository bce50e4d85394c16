"""SmoothQuant: move large activation channels into the weights that read them.

Paper: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2022
(arXiv 2211.10438).
Idea: in transformers a few channels of what a normalization writes are far larger than the others and take the
whole range of an activation quantizer, while weights are even; dividing such a channel and multiplying the weights
that read it changes nothing in float and evens out both.
Equations: s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), both maxima at least 1e-5, W_j the weights of all layers
that read channel j. The factor 1 / s_j is folded into gamma and beta of the normalization in front
(LayerNormalization, or a product with a constant vector as RMS norms end with), or into the rows and the bias of a
linear layer in front of a ReLU or of nothing; the readers' weights of channel j are multiplied by s_j.
Differences: `exact` rounds s_j to a power of two, so that the float network keeps its bits; the quantizers behind
are this project's static per-tensor ones, not per token.
Cost: one float run over the calibration data, nothing at run time. Limits: every reader of the tensor must be a
linear layer with weights of its own; other places are left alone. The plan's notes count them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from netsuke.core.method import Method, register
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._graph import (
    along,
    attribute,
    channel_axis,
    constant,
    dims,
    integer,
    new_constant,
    number,
    only_use,
    replace_parameters,
)
from netsuke.methods.quantize._learned import check
from netsuke.methods.quantize._units import stream

Vector = npt.NDArray[np.float64]
LEAST = 1e-5


@dataclass(frozen=True)
class SmoothQuant:
    """Options.

    alpha   how much of the range moves into the weights, 0 to 1
    exact   round factors to powers of two
    samples calibration samples used, at most
    """

    alpha: float = 0.5
    exact: bool = False
    samples: int = 256

    def __post_init__(self) -> None:
        check("quantize/smoothquant", self)


@dataclass(frozen=True)
class Place:
    """A tensor, what writes its channels (a norm, a product with a constant, a linear layer), and what reads it."""

    tensor: ir.Value
    writers: tuple[ir.Node, ...]
    readers: tuple[ir.Node, ...]


def places(graph: ir.Graph) -> list[Place]:
    """Tensors that can be smoothed, in graph order; the channel is the last axis."""
    found = []
    for node in graph:
        readers = tuple(use.node for value in node.outputs[:1] for use in value.uses())
        if not readers or node.outputs[0].is_graph_output() or not all(_linear(n) for n in readers):
            continue
        if any(n.inputs[0] is not node.outputs[0] or n.inputs[1] is node.outputs[0] for n in readers):
            continue
        writers = _writers(node)
        if writers:
            found.append(Place(node.outputs[0], writers, readers))
    return found


def _linear(node: ir.Node) -> bool:
    """A linear layer whose weight is its own."""
    if node.op_type not in ("MatMul", "Gemm") or channel_axis(node) is None or attribute(node, "transA", 0):
        return False
    plain = node.op_type == "MatMul" or (attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0)
    weight = node.inputs[1]
    return bool(plain and weight is not None and constant(weight) is not None and len(list(weight.uses())) == 1)


def _writers(node: ir.Node) -> tuple[ir.Node, ...]:
    """Nodes whose constants scale the channels of this node's output; empty when there are none."""
    rank = len(dims(node.outputs[0]) or ())
    if node.op_type == "LayerNormalization":
        last = integer(node, "axis", -1) in (-1, rank - 1)
        return (node,) if last and all(constant(v) is not None for v in node.inputs[1:] if v is not None) else ()
    if node.op_type == "Mul":
        return (node,) if _vector(node) is not None else ()
    if node.op_type == "Relu":
        before = node.inputs[0].producer() if node.inputs[0] is not None else None
        return _writers(before) if before is not None and only_use(before.outputs[0]) is node else ()
    if _linear(node):
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        return (node,) if bias is None or constant(bias) is not None else ()
    if node.op_type == "Add":
        left = node.inputs[0].producer() if node.inputs[0] is not None else None
        fits = left is not None and _linear(left) and left.op_type == "MatMul" and only_use(left.outputs[0]) is node
        return (left, node) if fits and left is not None and _vector(node) is not None else ()
    return ()


def _vector(node: ir.Node) -> int | None:
    """Index of the operand that is a constant vector over the last axis."""
    channels = (dims(node.outputs[0]) or [None])[-1]
    for index, value in enumerate(node.inputs):
        array = constant(value)
        if array is not None and array.size == channels and array.shape[-1] == channels:
            return index
    return None


def factors(largest: Vector, readers: tuple[ir.Node, ...], alpha: float, *, exact: bool) -> Vector:
    """s per channel from the largest absolute activation of each channel."""
    weights = np.max([np.abs(_by_input(n)).max(axis=1) for n in readers], axis=0)
    s = np.maximum(largest, LEAST) ** alpha / np.maximum(weights, LEAST) ** (1 - alpha)
    s = np.maximum(s, LEAST)
    return np.asarray(np.exp2(np.rint(np.log2(s))) if exact else s)


def _by_input(node: ir.Node) -> npt.NDArray[np.float64]:
    weight = number(node.inputs[1])
    assert weight is not None
    exact = weight.astype(np.float64)
    return exact.T if node.op_type == "Gemm" and attribute(node, "transB", 0) else exact


def migrate(graph: ir.Graph, place: Place, s: Vector) -> None:
    """Divide the tensor's channels by s and multiply the weights that read them."""
    for node in place.writers:
        if node.op_type == "LayerNormalization":
            for index in range(1, len(node.inputs)):
                _set(graph, node, index, 1 / s)
        elif node.op_type in ("Mul", "Add"):
            _set(graph, node, int(_vector(node) or 0), 1 / s)
        else:
            weight, bias = number(node.inputs[1]), number(node.inputs[2]) if len(node.inputs) > 2 else None
            axis = channel_axis(node)
            assert weight is not None
            assert axis is not None
            shifted = None if bias is None else bias.astype(np.float64).reshape(-1) / s
            replace_parameters(graph, node, weight * along(1 / s, axis, weight.ndim), shifted)
    for node in place.readers:
        weight, axis = number(node.inputs[1]), channel_axis(node)
        assert weight is not None
        assert axis is not None
        replace_parameters(graph, node, weight * along(s, 1 - axis, weight.ndim), None)


def _set(graph: ir.Graph, node: ir.Node, index: int, factor: Vector) -> None:
    """Multiply a constant operand by the factor; others that share it keep the old one."""
    old = number(node.inputs[index])
    if old is not None:
        fresh = new_constant(graph, f"{node.name}.smoothed.{index}", np.asarray(old * factor, np.float32))
        node.replace_input_with(index, fresh)


def apply(context: Context, config: SmoothQuant) -> None:
    """Smooth every tensor of the context's model that can be."""
    found = places(context.model.graph)
    names = [p.tensor.name or "" for p in found]
    largest: dict[str, Vector] = {}
    if names:
        for values in stream(context, context.model, names, config.samples):
            for name in names:
                x = np.abs(np.asarray(values[name], np.float64))
                now = x.reshape(-1, x.shape[-1]).max(axis=0)
                largest[name] = np.maximum(now, largest.get(name, 0.0))
    for place, name in zip(found, names, strict=True):
        done = factors(largest[name], place.readers, config.alpha, exact=config.exact)
        migrate(context.model.graph, place, done)
    context.plan.note(f"smoothquant: {len(found)} tensors smoothed, alpha {config.alpha:g}")


METHOD = register(
    Method(
        name="quantize/smoothquant",
        purpose="move large activation channels into the weights behind them",
        paper="odysseyllm",
        config=SmoothQuant,
        apply=apply,
        needs=("data",),
        touches=("weights", "activations"),
        exports=("qlinear",),
        cost="one float run over the calibration data",
        tags=("graph",),
    )
)
