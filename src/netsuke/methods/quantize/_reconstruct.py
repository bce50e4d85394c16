"""Fit units one after the other to their float outputs: the loop shared by AdaRound, AdaQuant, BRECQ and their
mixtures.

Imports torch; methods import it when they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from netsuke.core.errors import Problem, UsageError
from netsuke.core.seeds import generator
from netsuke.methods.quantize import _torch_nodes, bias_correction
from netsuke.methods.quantize._codes import affine
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._fisher import squared_scores
from netsuke.methods.quantize._graph import Array, along, clone, number
from netsuke.methods.quantize._layer import Layer
from netsuke.methods.quantize._units import Unit, collect, layer_units, prefix, roots_read
from netsuke.methods.quantize._variables import VARIABLES, ActivationRange, CodebookIndex
from netsuke.methods.quantize.insert import layer_codes


@dataclass(frozen=True)
class Fit:
    """How units are fitted; the records' configs say what each field means."""

    variable: str = "rounding"
    loss: str = "l2"
    optimiser: str = "adam"
    iterations: int = 300
    batch: int = 32
    samples: int = 256
    rate: float = 1e-2
    regular: float = 0.01
    beta: tuple[float, float] = (20.0, 2.0)
    warm: float = 0.2
    drop: float = 0.0
    ranges: float = 0.0
    zeros: float = 0.0
    biases: float = 0.0
    entries: float = 0.0
    inputs: str = "quantized"


@dataclass
class Data:
    """Of one unit: inputs as quantized so far, the same in float, the float output, weights of its error or None."""

    inputs: list[Tensor]
    exact: list[Tensor]
    target: Tensor
    importance: Tensor | None = None


class UnitModel:
    """A unit with its trained parts."""

    def __init__(self, context: Context, unit: Unit, fit: Fit, settled: set[str]) -> None:
        self.unit, self.fit = unit, fit
        self.variables: dict[ir.Node, Any] = {}
        self.start: dict[ir.Node, Tensor] = {}
        self.shifts: dict[ir.Node, Tensor] = {}
        for layer in unit.layers:
            weight, scales, codes, axis, bits = rounded(context, layer)
            self.variables[layer.node] = VARIABLES[fit.variable](weight, scales, axis, bits, codes)
            steps = scales.reshape(()) if axis is None else along(scales, axis, weight.ndim)
            self.start[layer.node] = torch.from_numpy(np.array(codes * steps, np.float32))
            if fit.biases:
                channels = weight.shape[layer.axis or 0]
                self.shifts[layer.node] = torch.zeros(channels, requires_grad=True)
        self.group = {v: root.name or "" for v, root in context.placement.group.items()}
        self.ranges = {
            name: ActivationRange(*quantizer(context, name), width(context, name), train_zero=fit.zeros > 0)
            for name in roots_read(context, unit)
        }
        self.fresh = [name for name in self.ranges if name not in settled]

    def parameters(self) -> list[dict[str, Any]]:
        """Groups for the optimiser."""
        groups = [{"params": [v.values for v in self.variables.values()], "lr": self.fit.rate}]
        if self.fit.entries:
            groups.append({"params": [v.entries for v in self.variables.values()], "lr": self.fit.entries})
        if self.fit.ranges:
            groups.append({"params": [self.ranges[n].log for n in self.fresh], "lr": self.fit.ranges})
        zeros = [self.ranges[n].zero for n in self.fresh if self.ranges[n].zero.requires_grad]
        if zeros:
            groups.append({"params": zeros, "lr": self.fit.zeros})
        if self.shifts:
            groups.append({"params": list(self.shifts.values()), "lr": self.fit.biases})
        return [g for g in groups if g["params"]]

    def output(self, inputs: Sequence[Tensor], weights: dict[ir.Node, Tensor]) -> Tensor:
        """The unit's float output for these inputs and weights, with all quantizers inside."""
        values = {v: self._quantized(v, x) for v, x in zip(self.unit.inputs, inputs, strict=True)}
        done = _torch_nodes.run(self.unit.nodes, values, weights, self._after)
        return done[self.unit.output]

    def _after(self, node: ir.Node, value: ir.Value, y: Tensor) -> Tensor:
        if node in self.shifts:
            shift = self.shifts[node]
            y = y + (shift.reshape(-1, *[1] * (y.ndim - 2)) if node.op_type == "Conv" else shift)
        return y if value is self.unit.output else self._quantized(value, y)

    def _quantized(self, value: ir.Value, x: Tensor) -> Tensor:
        name = self.group.get(value)
        return x if name is None or name not in self.ranges else self.ranges[name](x)

    def hard(self) -> dict[ir.Node, Tensor]:
        """Weights with every decision made."""
        return {node: v.steps * torch.from_numpy(v.codes().astype(np.float32)) for node, v in self.variables.items()}


def width(context: Context, root: str) -> int:
    """Bits of the codes of the tensor that owns this quantizer."""
    return int(context.widths.get(root, 8))


def quantizer(context: Context, root: str) -> tuple[float, int]:
    """Scale and zero of that quantizer."""
    return affine(*context.ranges[root], width(context, root))


def rounded(context: Context, layer: Layer) -> tuple[Array, Array, np.ndarray, int | None, int]:
    """Float weight, scales, codes so far, axis of the scales, bits."""
    row = context.plan[layer.name].rows[0]
    weight = number(layer.weight)
    assert weight is not None
    scales, codes = layer_codes(context, layer, row, weight)
    return weight, scales, codes, layer.axis if row.granularity == "channel" else None, row.weight_bits or 8


def reconstruct(context: Context, units: Sequence[Unit], fit: Fit, name: str) -> None:
    """Fit every unit in order; sets the context's scales, codes and ranges, and biases where they are trained.

    Units with operators that have no torch rule are fitted layer by layer; a note says which. A unit whose error on the
    calibration data is not lower than at the start (nearest rounding, or the codes a step has set) stays as it started.
    """
    todo, split = [], []
    for unit in units:
        missing = _torch_nodes.unsupported(unit.nodes)
        split += [f"{unit.name} ({', '.join(missing)})"] if missing else []
        own = {x.name for x in unit.layers}
        todo += [u for u in layer_units(context.placement) if u.name in own] if missing else [unit]
    if split:
        context.plan.note(f"{name}: fitted layer by layer where a block has other operators: {'; '.join(split)}")
    settled: set[str] = set()
    reference = clone(context.model)  # biases move in the context's model
    ratios, kept = [], 0
    for index, unit in enumerate(todo):
        before, after = fit_unit(context, reference, unit, fit, settled)
        ratios.append(after / before if before else 1.0)
        kept += after >= before
        settled.update(roots_read(context, unit))
        context.progress(name, index + 1, len(todo))
    if ratios:
        text = f"{name}: error of {len(ratios)} units on the calibration data {np.mean(ratios):.3f} of the start's"
        context.plan.note(text + (f"; {kept} stay as they started" if kept else ""))


def fit_unit(context: Context, reference: ir.Model, unit: Unit, fit: Fit, settled: set[str]) -> tuple[float, float]:
    """Fit one unit; (error at the start, error reached) on the calibration data, as the loss measures it."""
    data = gather(context, reference, unit, fit, settled)
    model = UnitModel(context, unit, fit, settled)
    before = _error(model, data, model.start)
    seed = int(generator(context.seed, "reconstruct", unit.name).integers(2**31))
    _optimise(model, data, torch.Generator().manual_seed(seed))
    after = _error(model, data, model.hard())
    if not after < before:
        for layer in unit.layers:
            _, context.scales[layer.name], context.codes[layer.name], _, _ = rounded(context, layer)
        return before, before
    for layer in unit.layers:
        scales = rounded(context, layer)[1]
        context.scales[layer.name] = scales
        context.codes[layer.name] = model.variables[layer.node].codes()
        if layer.node in model.shifts:
            shift = model.shifts[layer.node].detach().numpy().astype(np.float64)
            bias_correction.add_to_bias(context.model.graph, layer, shift)
    for root in model.fresh if fit.ranges else ():
        context.ranges[root] = model.ranges[root].bounds()
    return before, after


def gather(context: Context, reference: ir.Model, unit: Unit, fit: Fit, settled: set[str]) -> Data:
    """The unit's inputs and targets, as many samples as fit into memory."""
    names = [v.name or "" for v in unit.inputs]
    exact = collect(context, reference, [*names, unit.output.name or ""], fit.samples)
    if not len(exact[-1]):
        raise UsageError(Problem("no calibration data reached the unit", unit.name, hint="give at least one batch"))
    inputs = exact[:-1]
    if fit.inputs == "quantized":
        model, taps = prefix(context, unit, settled)
        inputs = collect(context, model, taps, len(exact[-1]))
    count = min(len(exact[-1]), len(inputs[0]))
    tensors = [torch.from_numpy(np.ascontiguousarray(a[:count])) for a in [*inputs, *exact]]
    target = tensors[-1]
    importance = squared_scores(context, unit, target) if fit.loss == "fisher" else None
    mixed = tensors[len(inputs) : -1] if fit.drop else []
    return Data(tensors[: len(inputs)], mixed, target, importance)


def _optimise(model: UnitModel, data: Data, rng: torch.Generator) -> None:
    fit = model.fit
    groups = model.parameters()
    optimiser = torch.optim.Adam(groups) if fit.optimiser == "adam" else torch.optim.SGD(groups, momentum=0.9)
    warm = int(fit.warm * fit.iterations)
    for step in range(fit.iterations):
        rows = torch.randint(len(data.target), (min(fit.batch, len(data.target)),), generator=rng)
        inputs = [x[rows] for x in data.inputs]
        if data.exact:
            masks = [torch.rand(x.shape, generator=rng) < fit.drop for x in inputs]
            inputs = [torch.where(m, e[rows], x) for m, e, x in zip(masks, data.exact, inputs, strict=True)]
        weights = {node: v.weight() for node, v in model.variables.items()}
        importance = None if data.importance is None else data.importance[rows]
        loss = _loss(model.output(inputs, weights), data.target[rows], fit.loss, importance)
        if step >= warm and fit.regular:
            part = (step - warm) / max(1, fit.iterations - warm - 1)
            beta = fit.beta[0] + (fit.beta[1] - fit.beta[0]) * part
            loss = loss + fit.regular * torch.stack([v.penalty(beta) for v in model.variables.values()]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for variable in model.variables.values():
            if isinstance(variable, CodebookIndex):
                variable.project()


def _loss(y: Tensor, target: Tensor, kind: str, importance: Tensor | None) -> Tensor:
    """Sum over channels, mean over samples and positions, of the error of the kind asked for."""
    error = (y - target).abs() if kind == "l1" else (y - target) ** 2
    if importance is not None:
        error = error * importance
    return error.sum(dim=1 if y.ndim == 4 else -1).mean()


def _error(model: UnitModel, data: Data, weights: dict[ir.Node, Tensor]) -> float:
    """The loss over all samples with hard weights."""
    total, size = 0.0, model.fit.batch
    with torch.no_grad():
        for first in range(0, len(data.target), size):
            rows = slice(first, first + size)
            importance = None if data.importance is None else data.importance[rows]
            y = model.output([x[rows] for x in data.inputs], weights)
            total += float(_loss(y, data.target[rows], model.fit.loss, importance)) * len(y)
    return total / len(data.target)
