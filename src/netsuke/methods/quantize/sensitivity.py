"""Sensitivity: what quantizing one layer alone does to its own output and to the network's.

Paper: Wu et al., "Integer Quantization for Deep Learning Inference: Principles and Empirical Evaluation", 2020 (arXiv
2004.09602), section 5.1.
Idea: quantize one layer at a time and look at the output; the layers that hurt most are treated first.
Equations: with only layer l's inputs and weights quantized, sqnr_db = 10 log10(sum y^2 / sum (y_q - y)^2) over the
layer's output, and output_change = ||out_q - out|| / ||out|| over all network outputs and samples.
Differences: the paper ranks layers by accuracy; here by the output's change, which needs no labels, and acts on it: the
whole network is quantized and its output change measured. While it exceeds the limit, the layer with the
largest change is given another calibrator when that at least halves its change, else kept in float; each such row
says so. The limit is 10 x the allowed drop of the budget (0.1 when none is given): on the CIFAR ResNets a change
of 0.1 costs under one point of agreement (docs/calibration.md).
Cost: two runs over a few samples per layer. Limits: measured on a few samples, additive effects are not modelled;
it is the network's output that is judged, not the metric, which only an evaluation can measure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from netsuke.core.budget import Budget
from netsuke.core.method import Method, register
from netsuke.core.plan import Row
from netsuke.methods.quantize import _rows, insert
from netsuke.methods.quantize._calibrate import gather
from netsuke.methods.quantize._context import Context, feeds, fixed_batch
from netsuke.methods.quantize._graph import clone
from netsuke.methods.quantize.placement import Placement, place

SAMPLES = {"normal": 16, "thorough": 64}
DEFAULT_LIMIT = 0.1
ROUNDS = 8
OTHERS = ("quantize/minmax", "quantize/mse", "quantize/percentile")


@dataclass(frozen=True)
class Sensitivity:
    """No options."""


@dataclass
class Change:
    """Sums of squares of a reference and of a difference."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, reference: np.ndarray, other: np.ndarray) -> None:
        """Take one batch in."""
        exact = reference.astype(np.float64)
        self.signal += float((exact**2).sum())
        self.noise += float(((other - exact) ** 2).sum())

    @property
    def db(self) -> float:
        """Signal to noise ratio in decibels; infinite without noise."""
        return math.inf if self.noise == 0 else 10 * math.log10(max(self.signal, 1e-300) / self.noise)

    @property
    def relative(self) -> float:
        """||difference|| / ||reference||; 0 without noise, infinite for a zero reference."""
        return 0.0 if self.noise == 0 else math.sqrt(self.noise / self.signal) if self.signal else math.inf


def refine(context: Context, budget: Budget, effort: str, finish: Callable[[Context], ir.Model]) -> None:
    """Fill the plan's sensitivities; raise or keep layers until the whole network's output change meets the limit."""
    samples = SAMPLES[effort]
    active = [row for row in context.plan.rows if not row.kept]
    for index, row in enumerate(active):
        row.sqnr_db, row.output_change = measure(context, row, samples)
        context.progress("sensitivity", index + 1, len(active))
    limit = 10 * min(budget.drop.values()) if budget.drop else DEFAULT_LIMIT
    limit = max(limit, 0.01)
    change = whole(context, samples, finish)
    tried: set[str] = set()
    for _ in range(ROUNDS):
        rows = [r for r in context.plan.rows if not r.kept and r.name not in tried]
        worst = max(rows, key=lambda r: r.output_change or 0.0, default=None)
        if change <= limit or worst is None:
            break
        tried.add(worst.name)
        _improve(context, worst, samples, limit)
        context.placement = place(context.model, {r.name for r in context.plan.rows if r.kept})
        _rows.follow(context.plan, context.placement)
        recalibrate(context)
        change = whole(context, samples, finish)
    text = f"output change of the whole network {change:.4f} on {samples} samples, limit {limit:g}"
    context.plan.note(text if change <= limit else f"{text}: MISSED; output similarity stands in for the metric")


def _improve(context: Context, row: Row, samples: int, limit: float) -> None:
    """Another calibrator where it at least halves the layer's change; else the layer stays float."""
    before, method = row.output_change or 0.0, row.method
    found: dict[str, tuple[float, float]] = {}
    for other in OTHERS:
        if other != method:
            row.method = other
            recalibrate(context)
            found[other] = measure(context, row, samples)
    best = min(found, key=lambda name: found[name][1])
    if found[best][1] <= before / 2:
        row.method, (row.sqnr_db, row.output_change) = best, found[best]
        row.reason = f"raised: output change {before:.4f} with {method}, {row.output_change:.4f} now"
        return
    _rows.keep(row, f"output change {before:.4f} alone, the network is over its limit {limit:g}")


def recalibrate(context: Context) -> None:
    """Ranges again, after rows changed their calibrators."""
    from netsuke.methods.quantize._calibrate import ranges, share_concats

    context.ranges = ranges(context, gather(context))
    share_concats(context.placement, context.ranges)


def measure(context: Context, row: Row, samples: int) -> tuple[float, float]:
    """(sqnr_db, output_change) when only this row's layer is quantized."""
    alone = Context(clone(context.model), context.plan, context.calib, context.runner, context.seed)
    alone.ranges, alone.scales, alone.codes = dict(context.ranges), context.scales, context.codes
    everything = place(alone.model)
    layer = everything.layers[row.name]
    layer.quantized = True
    roots = {v.name: r.name for v, r in context.placement.group.items()}
    inputs = [v for v in layer.inputs if v.name in roots]
    alone.ranges |= {v.name or "": context.ranges[roots[v.name] or ""] for v in inputs}
    alone.placement = Placement({row.name: layer}, {v: v for v in inputs})
    output = layer.output.name or ""
    insert.insert(alone)
    taps = list(dict.fromkeys([output, *outputs(context.model)]))
    layer_change, net_change = compare(context, context.model, alone.model, taps, output, samples)
    return layer_change.db, net_change.relative


def whole(context: Context, samples: int, finish: Callable[[Context], ir.Model]) -> float:
    """Relative output change with every planned layer quantized."""
    copy = clone(context.model)
    complete = Context(copy, context.plan, context.calib, context.runner, context.seed, context.batch)
    complete.placement = place(copy, {r.name for r in context.plan.rows if r.kept})
    _same_groups(context.placement, complete.placement)
    complete.ranges = dict(context.ranges)
    quantized = finish(complete)
    return compare(context, context.model, quantized, outputs(context.model), "", samples)[1].relative


def _same_groups(source: Placement, target: Placement) -> None:
    values = {v.name: v for v in target.group}
    target.group = {values[v.name]: values[r.name] for v, r in source.group.items()}


def outputs(model: ir.Model) -> list[str]:
    """Names of the float outputs of the network."""
    return [v.name or "" for v in model.graph.outputs if v.dtype == ir.DataType.FLOAT]


def compare(
    context: Context, first: ir.Model, second: ir.Model, taps: Sequence[str], layer: str, samples: int
) -> tuple[Change, Change]:
    """Changes of the tensor `layer` and of the network's outputs between two graphs on a few samples."""
    assert context.calib is not None
    own, net, wanted = Change(), Change(), set(outputs(first))
    batch = fixed_batch(first) or min(4, samples)
    runs = [context.runner(m, feeds(m, context.calib, batch, samples), taps) for m in (first, second)]
    for exact, other in zip(*runs, strict=True):
        for name in taps:
            if name == layer:
                own.add(exact[name], other[name])
            if name in wanted:
                net.add(exact[name], other[name])
    return own, net


def apply(context: Context, config: Sensitivity) -> None:  # noqa: ARG001
    """Fill sqnr_db and output_change of every quantized row."""
    for row in context.plan.rows:
        if not row.kept:
            row.sqnr_db, row.output_change = measure(context, row, SAMPLES["normal"])


METHOD = register(
    Method(
        name="quantize/sensitivity",
        purpose="measure what quantizing one layer alone does to its output and to the network's",
        paper="quant-whitepaper",
        config=Sensitivity,
        apply=apply,
        needs=("data",),
        touches=(),
        cost="two runs over a few samples per layer",
        tags=("weights",),
    )
)
