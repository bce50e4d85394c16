"""What sensitivities and cost models may ask about a network: its layers, and runs with one layer changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from netsuke.core.plan import Row
from netsuke.methods.bits._problem import Format
from netsuke.methods.quantize import _alone
from netsuke.methods.quantize._codes import weight_codes, weight_scales
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._graph import Array, along, clone, number, set_constant
from netsuke.methods.quantize._layer import Layer

Table = Mapping[tuple[str, Format], float]
Double = npt.NDArray[np.float64]


class Probe:
    """One network with its calibrated context.

    samples  calibration samples that a run reads
    tick     told after every measured pair (layer, format); it may raise to end a search early
    """

    def __init__(self, context: Context, samples: int, tick: Callable[[], None] = lambda: None) -> None:
        self.context = context
        self.samples = samples
        self.tick = tick
        self.outputs = _alone.outputs(context.model)
        self._exact: dict[str, Array] | None = None

    def layer(self, name: str) -> Layer:
        """The layer of that name."""
        return self.context.placement.layers[name]

    def row(self, name: str, fmt: Format) -> Row:
        """The layer's row with these bits."""
        row: Row = self.context.plan[name].rows[0]
        return dataclasses.replace(row, weight_bits=fmt.weight_bits, activation_bits=fmt.activation_bits)

    def weight(self, name: str) -> Array:
        """The float weight."""
        array = number(self.layer(name).weight)
        assert array is not None
        return array

    def rounding_error(self, name: str, bits: int) -> float:
        """||Q_b(W) - W||^2 by the row's rule and granularity."""
        row, weight = self.context.plan[name].rows[0], self.weight(name)
        axis = self.layer(name).axis if row.granularity == "channel" else None
        scales = weight_scales(weight, axis, bits, row.weights or "maxabs")
        codes = weight_codes(weight, scales, axis, bits)
        steps = scales.reshape(()) if axis is None else along(scales, axis, weight.ndim)
        return float(((codes * steps.astype(np.float64) - weight) ** 2).sum())

    def exact(self) -> dict[str, Array]:
        """Outputs of the float network on the samples; run once."""
        if self._exact is None:
            self._exact = self.run(self.context.model, self.outputs)
        return self._exact

    def run(self, model: ir.Model, taps: Sequence[str]) -> dict[str, Array]:
        """The tapped tensors on the samples."""
        return _alone.run(self.context, model, taps, self.samples)

    def only(self, name: str, fmt: Format, *, output: bool = False) -> dict[str, Array]:
        """The network's outputs when only this layer is quantized; with `output` the layer's own output instead."""
        model, end = _alone.isolated(self.context, self.row(name, fmt))
        found = self.run(model, [end] if output else self.outputs)
        self.tick()
        return found

    def together(self, formats: Mapping[str, Format]) -> dict[str, Array]:
        """The network's outputs when these layers, and no others, are quantized at once."""
        made = _alone.together(self.context, [self.row(name, fmt) for name, fmt in formats.items()])
        return self.run(made.model, self.outputs)

    def moved(self, name: str, weight: Array) -> dict[str, Array]:
        """The network's outputs with another float weight in this layer."""
        model = clone(self.context.model)
        value = model.graph.initializers[self.layer(name).weight.name]  # type: ignore[union-attr, index]
        set_constant(value, weight.astype(np.float32))
        return self.run(model, self.outputs)


def divergence(exact: Mapping[str, Array], other: Mapping[str, Array]) -> float:
    """Mean over samples of KL(softmax(exact) || softmax(other)), summed over outputs that are [N, classes].

    Outputs of another shape are no logits; they add their squared change relative to their power.
    """
    total = 0.0
    for name, reference in exact.items():
        if reference.ndim == 2 and reference.shape[1] > 1:
            p, q = _log_softmax(reference), _log_softmax(other[name])
            total += max(float((np.exp(p) * (p - q)).sum(axis=1).mean()), 0.0)
        else:
            total += relative(reference, other[name])
    return total


def relative(exact: Array, other: Array) -> float:
    """||other - exact||^2 / ||exact||^2; 0 for equal tensors."""
    reference = exact.astype(np.float64)
    noise = float(((other - reference) ** 2).sum())
    return noise / max(float((reference**2).sum()), 1e-30) if noise else 0.0


def _log_softmax(logits: Array) -> Double:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
