"""Bias correction: remove the mean error that quantization leaves in each output channel.

Paper: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019 (arXiv
1906.04721), section 4.2; Finkelstein et al., "Fighting Quantization Bias With Bias", 2019 (arXiv 1906.03193).
Idea: rounding a channel's few weights does not average out, and clipping has a sign; both shift the channel's
mean, and a bias can undo it.
Equations: with W, x the float weight and input and Q(W), Q(x) the quantized ones, b' = b - (Q(W) * E[Q(x)] - W *
E[x]), per output channel, averaged over positions; * is the layer's convolution or product, so padding at the
borders is exact. A fused residual r adds
-(E[Q(r)] - E[r]). E[x], E[Q(x)] are means over the calibration data, per position and channel (empirical). Without
data, behind batch-norm statistics and a ReLU: E[x] = gamma phi(-beta / gamma) + beta (1 - Phi(-beta / gamma)),
E[Q(x)] = E[x] (analytic).
Differences: the paper corrects the weight error only; the activation's clipping error is included here. Means come
from the float network, so layers are corrected independently (the paper's empirical variant works through the
layers one after the other).
Cost: one float run over the calibration data, of large images over 67 (64 of 256 did ResNet-20 and -56 at 32x32 as much
good as all: outputs change by 2.20 and 2.57 %, by 2.23 and 2.58 % with all, by 2.37 and 2.76 % without the step), one
mean image per layer input. A network that is corrected again over the same data (planning judges it after every layer
that is raised) reads them only for layers whose codes or whose inputs' quantizers are new. Limits: needs a bias that
stays float.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from scipy.stats import norm

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.quantize import data_free
from netsuke.methods.quantize._codes import signed_codes
from netsuke.methods.quantize._context import Context, Feeds, ShiftKey, data_inputs
from netsuke.methods.quantize._graph import (
    along,
    attribute,
    bn_statistics,
    dims,
    integer,
    integers,
    new_constant,
    number,
    replace_parameters,
)
from netsuke.methods.quantize._layer import Layer
from netsuke.methods.quantize._parallel import each, threads_of
from netsuke.methods.quantize.insert import layer_codes

Mean = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BiasCorrection:
    """Settings of the step.

    values  calibration samples, drawn by seed, are read until they hold so many input values: 67 images of 224x224, all
            of a usual set of 32x32; 0: all
    """

    values: int = 10_000_000


class Means:
    """Running means of a tensor and of its quantized form, over the samples."""

    def __init__(self, quantizer: tuple[float, int, int] | None) -> None:
        self.quantizer = quantizer  # scale, zero and bits; None: the tensor stays float
        self.count = 0
        self.total: Mean | None = None
        self.codes: Mean | None = None  # of codes minus zero: integers, so their sum is exact

    def add(self, x: npt.NDArray[np.float32]) -> None:
        """Take a batch [N, ...] in, sample by sample: temporaries are one sample."""
        if self.total is None:
            self.total = np.zeros(x.shape[1:])
            self.codes = None if self.quantizer is None else np.zeros(x.shape[1:])
        self.count += len(x)
        for sample in x:
            self.total += sample
            if self.codes is not None and self.quantizer is not None:
                self.codes += signed_codes(sample, *self.quantizer)

    def pair(self) -> tuple[Mean, Mean]:
        """(E[x], E[Q(x)]) without the batch dimension."""
        assert self.total is not None
        exact = self.total / self.count
        if self.codes is None or self.quantizer is None:
            return exact, exact
        return exact, self.codes * (np.float64(np.float32(self.quantizer[0])) / self.count)


def apply(context: Context, config: BiasCorrection) -> None:
    """Correct the bias of every quantized convolution and linear layer in the context's model."""
    limit = _samples(context, config)
    layers = [x for x in context.placement.layers.values() if x.quantized and x.weight is not None]
    coded = {layer.name: _coded(context, layer) for layer in layers}
    keys = {layer.name: _key(context, layer, *coded[layer.name]) for layer in layers}
    fresh = [layer for layer in layers if keys[layer.name] not in context.shifts]
    means = _means(context, fresh, limit) if fresh else {}
    for layer in fresh:
        read = {name: means[name].pair() for name in {v.name or "" for v in layer.reads} if means[name].count}
        context.shifts[keys[layer.name]] = mean_error(context, layer, *coded[layer.name], read)
    for layer in layers:
        add_to_bias(context.model.graph, layer, -context.shifts[keys[layer.name]])
        if layer.name not in context.codes:  # the weight itself must stay what was quantized
            context.scales[layer.name], context.codes[layer.name] = coded[layer.name]


def _samples(context: Context, config: BiasCorrection) -> int | None:
    """How many calibration samples to read; None: all."""
    if config.values < 0:
        raise UsageError(Problem("values", "bias_correction", str(config.values), "0 (all) or more"))
    if context.calib is None or config.values == 0:
        return None
    return -(-config.values // max(1, sum(math.prod(shape) for shape in context.calib.shapes.values())))


def _means(context: Context, layers: Sequence[Layer], limit: int | None) -> dict[str, Means]:
    """Means of what the layers read, over the calibration data or so many samples of them."""
    means = {v.name or "": Means(_quantizer(context, v)) for layer in layers for v in layer.reads}
    sources = {value.name or "" for value in data_inputs(context.model)}
    taps = [name for name in means if name not in sources]
    threads = threads_of(context.runner)
    done, count = 0, context.calib.count if context.calib is not None else 0
    count = count if limit is None else min(count, limit)

    def watched() -> Iterator[Feeds]:
        for batch in context.feeds(limit):
            for name in sources & means.keys():
                means[name].add(np.asarray(batch[name], np.float32))
            yield batch

    context.progress("bias correction", 0, count)
    for tapped in context.runner(context.model, watched(), taps):
        each(functools.partial(_take, means, tapped), taps, threads)
        done = min(done + context.batch, count)
        context.progress("bias correction", done, count)
    return means


def _take(means: dict[str, Means], tapped: Mapping[str, npt.NDArray[np.float32]], name: str) -> None:
    means[name].add(tapped[name])


def _coded(context: Context, layer: Layer) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Scales and codes of the layer's weight."""
    weight = number(layer.weight)
    assert weight is not None
    return layer_codes(context, layer, context.plan[layer.name].rows[0], weight)


def _key(context: Context, layer: Layer, scales: npt.NDArray[np.float32], codes: npt.NDArray[np.int8]) -> ShiftKey:
    """What the layer's mean error depends on, beside the float network and the calibration data."""
    digest = hashlib.sha256(np.ascontiguousarray(codes).data)
    digest.update(np.ascontiguousarray(scales).data)
    read = tuple((v.name, _quantizer(context, v)) for v in layer.reads)
    return layer.name, context.plan[layer.name].rows[0].granularity, layer.reached, read, digest.hexdigest()


def mean_error(
    context: Context,
    layer: Layer,
    scales: npt.NDArray[np.float32],
    codes: npt.NDArray[np.int8],
    means: dict[str, tuple[Mean, Mean]],
) -> Mean:
    """The mean, per output channel, that quantization adds to the layer's output."""
    weight = number(layer.weight)
    assert weight is not None
    axis = layer.axis if context.plan[layer.name].rows[0].granularity == "channel" else None
    steps = np.float64(scales.reshape(())) if axis is None else along(scales.astype(np.float64), axis, weight.ndim)
    exact, coded = means[layer.inputs[0].name or ""]
    if context.plan.data.get("source") == data_free.SOURCE:
        analytic = _analytic(layer)
        if analytic is not None:
            exact = coded = np.broadcast_to(analytic[:, None, None], exact.shape) if exact.ndim == 3 else analytic
    shift = response(layer.node, codes * steps, coded) - response(layer.node, weight.astype(np.float64), exact)
    if layer.residual is not None and layer.reached:
        before, after = means[layer.residual.name or ""]
        shift = shift + channel_mean(after - before, layer.node)
    return shift


def response(node: ir.Node, weight: Mean, mean: Mean) -> Mean:
    """Mean output per channel, without bias, of the layer for a mean input (no batch dimension)."""
    if node.op_type != "Conv":
        matrix = weight.T if node.op_type == "Gemm" and attribute(node, "transB", 0) else weight
        return np.asarray(mean.reshape(-1, mean.shape[-1]).mean(axis=0) @ matrix)
    spatial = weight.ndim - 2
    image = _padded(node, mean, weight.shape[2:])
    strides, dilations = _ints(node, "strides", spatial), _ints(node, "dilations", spatial)
    sizes = [
        (image.shape[1 + i] - dilations[i] * (weight.shape[2 + i] - 1) - 1) // strides[i] + 1 for i in range(spatial)
    ]
    groups = integer(node, "group", 1)
    per_group = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    total = np.zeros(per_group.shape[:2])
    for tap in np.ndindex(*weight.shape[2:]):
        window = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilations, sizes, strides, strict=True)
        )
        average = image[(slice(None), *window)].reshape(groups, -1, int(np.prod(sizes))).mean(axis=2)
        total += np.einsum("goi,gi->go", per_group[(..., *tap)], average)
    return total.reshape(-1)


def _padded(node: ir.Node, mean: Mean, kernel: tuple[int, ...]) -> Mean:
    spatial = len(kernel)
    pads = integers(node, "pads", [0] * (2 * spatial))
    mode = str(attribute(node, "auto_pad", "NOTSET"))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        strides, dilations = _ints(node, "strides", spatial), _ints(node, "dilations", spatial)
        pads = [0] * (2 * spatial)
        for i in range(spatial):
            size = mean.shape[1 + i]
            need = max(0, (-(-size // strides[i]) - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 - size)
            small, large = need // 2, need - need // 2
            pads[i], pads[spatial + i] = (small, large) if mode == "SAME_UPPER" else (large, small)
    widths = [(0, 0), *((pads[i], pads[spatial + i]) for i in range(spatial))]
    return np.pad(mean, widths)


def _ints(node: ir.Node, name: str, count: int) -> list[int]:
    return integers(node, name, [1] * count)


def channel_mean(x: Mean, node: ir.Node) -> Mean:
    """Mean over positions per output channel: the first axis behind a convolution, the last one else."""
    flat, axis = (x.reshape(len(x), -1), 1) if node.op_type == "Conv" else (x.reshape(-1, x.shape[-1]), 0)
    return np.asarray(flat.mean(axis=axis))


def add_to_bias(graph: ir.Graph, layer: Layer, shift: Mean) -> None:
    """Add a vector to the layer's bias, making one where there is none."""
    node = layer.node
    weight = number(node.inputs[1])
    assert weight is not None
    if node.op_type == "MatMul":
        _matmul_bias(graph, layer, shift)
        return
    old = number(node.inputs[2]) if len(node.inputs) > 2 else None
    replace_parameters(graph, node, weight, shift + (0.0 if old is None else old.reshape(-1)))


def _matmul_bias(graph: ir.Graph, layer: Layer, shift: Mean) -> None:
    """MatMul has no bias input: change the constant of the add fused behind it, or write such an add."""
    node = layer.node
    for behind in layer.nodes[1:2]:
        for index, value in enumerate(behind.inputs):
            old = number(value) if behind.op_type == "Add" else None
            if old is not None:
                behind.replace_input_with(
                    index, new_constant(graph, f"{node.name}.bias", np.asarray(old + shift, np.float32))
                )
                return
    # The product moves into a node of its own and the old node becomes the add: the tensor that others read, and that
    # may own a quantizer or be an output of the network, stays the same object, now with the bias in it.
    out = node.outputs[0]
    product = ir.Value(name=f"{out.name}.product", shape=out.shape, type=ir.TensorType(ir.DataType.FLOAT))
    bias = new_constant(graph, f"{node.name}.bias", np.asarray(shift, np.float32))
    fresh = ir.node("MatMul", list(node.inputs), outputs=[product], name=node.name)
    fresh.metadata_props.update(node.metadata_props)
    graph.insert_before(node, fresh)
    node.op_type, node.name = "Add", f"{node.name}.bias_add"
    node.replace_input_with(0, product)
    node.replace_input_with(1, bias)
    layer.node, layer.nodes[:1] = fresh, [fresh, node]


def _quantizer(context: Context, value: ir.Value) -> tuple[float, int, int] | None:
    root = context.placement.group.get(value)
    name = "" if root is None else root.name or ""
    return None if root is None else (*context.quantizer(name), context.widths.get(name, 8))


def _analytic(layer: Layer) -> Mean | None:
    """E[x] per channel of the layer's input when it is relu of a normalized layer's output."""
    producer = layer.inputs[0].producer()
    rectified = producer is not None and producer.op_type == "Relu"
    source = (
        producer.inputs[0].producer()
        if rectified and producer is not None and producer.inputs[0] is not None
        else producer
    )
    found = bn_statistics(source) if source is not None else None
    if found is None or len(dims(layer.inputs[0]) or ()) != 4:
        return None
    return rectified_mean(*found) if rectified else found[0]


def rectified_mean(beta: Mean, gamma: Mean) -> Mean:
    """E[max(0, x)] for x normal with mean beta and standard deviation gamma >= 0."""
    safe = np.where(gamma > 0, gamma, 1.0)
    smooth = gamma * norm.pdf(-beta / safe) + beta * (1 - norm.cdf(-beta / safe))
    return np.asarray(np.where(gamma > 0, smooth, np.maximum(beta, 0.0)))


METHOD = register(
    Method(
        name="quantize/bias_correction",
        purpose="move the mean error of quantization of each channel into its bias",
        paper="quant-whitepaper",
        config=BiasCorrection,
        apply=apply,
        needs=("data",),
        touches=("weights",),
        exports=("qconv", "qlinear"),
        cost="one float run over the calibration data",
        tags=("weights",),
    )
)
