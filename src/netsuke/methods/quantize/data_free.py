"""Calibration without data: synthetic inputs, and ranges from batch-norm statistics where the graph still has them.

Paper: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019 (arXiv
1906.04721), section 4.1, for the ranges: a channel behind a batch normalization has mean beta and standard
deviation |gamma|.
Idea: batch normalization already says how its outputs are distributed; where it does not, noise that looks like natural
images stands in for data.
Equations: lo = min_c (beta_c - 6 |gamma_c|), hi = max_c (beta_c + 6 |gamma_c|), lo = 0 behind a ReLU; used for
tensors that are the output of a normalized layer (with at most an activation in between). All other ranges come
from running 32 synthetic inputs through the float network: noise with the 1/f spectrum of natural images, mean 0
and standard deviation 1 per sample.
Differences: the paper propagates statistics through adds; synthetic inputs stand in for that here, and work
without batch-norm too.
Cost: one float run on 32 samples. Limits: inputs are assumed to be normalised (mean 0, deviation 1) floats; the
plan and the report name the result data-free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.core.seeds import generator
from netsuke.data import Dataset
from netsuke.methods.quantize._context import Context, data_input
from netsuke.methods.quantize._graph import Array, bn_statistics, dims
from netsuke.methods.quantize._layer import Layer

SOURCE = "data-free (synthetic inputs)"
SAMPLES = 32
SIDE = 64  # height and width where the network leaves them free
SIGMAS = 6.0


def dataset(model: ir.Model, seed: int = 0) -> Dataset:
    """Synthetic inputs for the network; UsageError when its input is not one float tensor of known channels."""
    value = data_input(model)
    shape = dims(value)
    if value.dtype != ir.DataType.FLOAT or shape is None or len(shape) < 2:
        got = f"{value.name}: {value.dtype}, shape {value.shape}"
        raise UsageError(Problem("data-free calibration needs one float input", got=got, hint="give calibration data"))
    sizes = [d if d is not None else (SIDE if i > 1 else None) for i, d in enumerate(shape)][1:]
    if any(d is None for d in sizes):
        raise UsageError(
            Problem("the number of input channels is free", got=str(value.shape), hint="give calibration data")
        )
    rng = generator(seed, "quantize.data_free")
    count = max(SAMPLES, shape[0] or 1)
    x = np.stack([_sample(rng, tuple(d for d in sizes if d is not None)) for _ in range(count)])
    return Dataset.from_arrays(x, source=SOURCE)


def _sample(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """One input: pink noise over the last two axes when there are three or more, white noise else; mean 0,
    deviation 1."""
    x = rng.standard_normal(shape)
    if len(shape) >= 3:
        frequency = np.hypot(np.fft.fftfreq(shape[-2])[:, None], np.fft.rfftfreq(shape[-1])[None])
        frequency[0, 0] = 1 / max(shape[-2:])
        x = np.fft.irfft2(np.fft.rfft2(x) / frequency, s=shape[-2:])
    deviation = float(x.std())
    return np.asarray((x - x.mean()) / (deviation if deviation > 0 else 1), np.float32)


def from_batch_norm(context: Context) -> int:
    """Replace ranges of normalized layers' outputs by beta +- 6 gamma; the number replaced."""
    count = 0
    for layer in context.placement.layers.values():
        bounds = layer_bounds(layer)
        name = layer.output.name or ""
        if bounds is not None and name in context.ranges:
            context.ranges[name] = bounds
            count += 1
    return count


def layer_bounds(layer: Layer) -> tuple[float, float] | None:
    """(lo, hi) of the layer's output from its batch-norm statistics; None when there are none or an add lies
    between."""
    found = bn_statistics(layer.node)
    between = layer.nodes[1:]
    if found is None or layer.residual is not None or any(n.op_type != "Relu" for n in between):
        return None
    mean, std = found
    low, high = float((mean - SIGMAS * std).min()), float((mean + SIGMAS * std).max())
    return (0.0 if between else min(0.0, low)), max(0.0, high)


@dataclass(frozen=True)
class DataFree:
    """No options."""


METHOD = register(
    Method(
        name="quantize/data_free",
        purpose="calibrate without data, from synthetic inputs and batch-norm statistics",
        paper="quant-whitepaper",
        config=DataFree,
        apply=from_batch_norm,
        touches=("activations",),
        exports=("qconv", "qlinear"),
        cost="one float run on 32 synthetic samples",
        tags=("fallback",),
    )
)
