"""Batch-norm tuning of a folded network: give every channel the mean and deviation it had in float.

Paper: Hubara et al., "Improving Post Training Neural Quantization: Layer-wise Calibration and Integer Programming",
2020 (arXiv 2006.10518), section 3.4; Sun et al., "Hybrid 8-bit Floating Point (HFP8) Training and Inference", 2019,
for the idea.
Idea: quantization shifts and shrinks what a channel writes; batch normalization, re-estimated on a few unlabelled
samples through the quantized network, undoes exactly that.
Equations: with mu, sigma of a channel's output in the float network and mu_q, sigma_q behind the quantized layers
in front, the re-estimated normalization has gamma = sigma, beta = mu: y' = (y - mu_q) sigma / sigma_q + mu.
Absorbed again: the channel's weight scale times r = sigma / sigma_q, its bias b' = r (b - mu_q) + mu. Layer by
layer in graph order.
Differences: the normalization was folded at capture, so it is rebuilt from the float network's own statistics on
the calibration data, which are what training's moving statistics estimate; r is limited to [1/2, 2]; a layer with
one weight scale gets the mean only.
Cost: two runs over the calibration data per layer. Limits: layers with weights; too few samples make r noisy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from netsuke.core.method import Method, register
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._graph import clone, number
from netsuke.methods.quantize._layer import Layer
from netsuke.methods.quantize._learned import check
from netsuke.methods.quantize._units import layer_units, prefix, stream, weighted
from netsuke.methods.quantize.bias_correction import add_to_bias
from netsuke.methods.quantize.insert import layer_codes

Vector = npt.NDArray[np.float64]
LIMIT = 2.0


@dataclass(frozen=True)
class Retune:
    """samples  calibration samples used, at most."""

    samples: int = 256

    def __post_init__(self) -> None:
        check("quantize/retune", self)


def moments(context: Context, model: ir.Model, name: str, axis: int, samples: int) -> tuple[Vector, Vector]:
    """Mean and standard deviation per channel of a tensor over the calibration data."""
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for values in stream(context, model, [name], samples):
        x = np.moveaxis(np.asarray(values[name], np.float64), axis, 0)
        flat = x.reshape(len(x), -1)
        count += flat.shape[1]
        total = total + flat.sum(axis=1)
        squares = squares + (flat**2).sum(axis=1)
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


def apply(context: Context, config: Retune) -> None:
    """Correct scales and biases of every quantized layer with weights, in graph order."""
    layers = weighted(context.placement)
    settled, reference = set(context.ranges), clone(context.model)  # before any bias is moved
    for index, (layer, unit) in enumerate(zip(layers, layer_units(context.placement), strict=True)):
        out = _output(layer)
        axis = 1 if layer.node.op_type == "Conv" else -1
        exact = clone(reference)
        _end_at(exact, out.name or "")
        mean, deviation = moments(context, exact, out.name or "", axis, config.samples)
        model, _ = prefix(context, unit, settled)
        _end_at(model, out.name or "")
        mean_q, deviation_q = moments(context, model, out.name or "", axis, config.samples)
        tune(context, layer, (mean, deviation), (mean_q, deviation_q))
        context.progress("retune", index + 1, len(layers))


def _end_at(model: ir.Model, name: str) -> None:
    """Make the tensor the network's only output, so that nothing is fused behind it."""
    found = next(v for node in model.graph for v in node.outputs if v.name == name)
    model.graph.outputs.clear()
    model.graph.outputs.append(found)


def _output(layer: Layer) -> ir.Value:
    """What the batch normalization would read: behind the bias, in front of the residual and the activation."""
    behind = layer.nodes[1] if layer.node.op_type == "MatMul" and len(layer.nodes) > 1 else layer.node
    biased = behind.op_type == "Add" and any(number(v) is not None for v in behind.inputs)
    return behind.outputs[0] if biased else layer.node.outputs[0]


def tune(context: Context, layer: Layer, exact: tuple[Vector, Vector], quantized: tuple[Vector, Vector]) -> None:
    """Scale the layer's channels and move its bias, so that (mean, deviation) become the exact ones."""
    row, weight = context.plan[layer.name].rows[0], number(layer.weight)
    assert weight is not None
    scales, codes = layer_codes(context, layer, row, weight)
    usable = (quantized[1] > 1e-6 * exact[1]) & (exact[1] > 0) & (row.granularity == "channel")
    ratio = np.where(usable, exact[1] / np.where(usable, quantized[1], 1.0), 1.0).clip(1 / LIMIT, LIMIT)
    bias = _bias(layer)
    context.scales[layer.name] = np.asarray(scales * ratio if scales.size == ratio.size else scales, np.float32)
    context.codes[layer.name] = codes
    add_to_bias(context.model.graph, layer, ratio * (bias - quantized[0]) + exact[0] - bias)


def _bias(layer: Layer) -> Vector | float:
    node = layer.node
    if node.op_type == "MatMul":
        read = [number(v) for n in layer.nodes[1:2] if n.op_type == "Add" for v in n.inputs]
        found = [a for a in read if a is not None]
        return found[0].astype(np.float64).reshape(-1) if found else 0.0
    bias = number(node.inputs[2]) if len(node.inputs) > 2 else None
    return 0.0 if bias is None else bias.astype(np.float64).reshape(-1)


METHOD = register(
    Method(
        name="quantize/retune",
        purpose="give every channel the mean and deviation it had in float, as re-estimated batch normalization does",
        paper="adaquant-ip",
        config=Retune,
        apply=apply,
        needs=("data",),
        touches=("weights",),
        exports=("qconv", "qlinear"),
        cost="two runs over the calibration data per layer",
        tags=("weights", "learned"),
    )
)
