"""Sensitivity: what quantizing one layer alone does to its own output and to the network's.

Paper: Wu et al., "Integer Quantization for Deep Learning Inference: Principles and Empirical Evaluation", 2020 (arXiv
2004.09602), section 5.1.
Idea: quantize one layer at a time and look at the output; the layers that hurt most are treated first.
Equations: with only layer l's inputs and weights quantized, sqnr_db = 10 log10(sum y^2 / sum (y_q - y)^2) over the
layer's output, and output_change = ||out_q - out|| / ||out|| over all network outputs and samples.
Differences: the paper ranks layers by accuracy; here by the output's change, which needs no labels, and acts on it: the
whole network is quantized and its output change measured. While it exceeds the limit, the layers with the largest
changes (as many as must go for their squares to add up to the limit) are given 8 bits where they have fewer, another
calibrator when that at least halves their change, else kept in float; each such row says so. A plan below 8 bits
without a limit on the drop is left as it was asked for.
The limit is 10 x the allowed drop of the budget (0.1 when none is given): on the CIFAR ResNets a change of
0.03 goes with 1.3 % changed top-1 answers and a tenth of that in accuracy (docs/calibration.md), so 0.1 stands for
about 4 % changed answers.
A network with one-bit layers and no limit on the drop is left as it was asked for, too: a sign near zero turns with
any rounding, so its outputs move where its answers do not, and no layer of it is at fault.
Cost: one run per layer over a few samples, of what stands behind the layer; 16 samples, or down to 4 where they take
more than 8 GMAC; the whole network is judged on 16. Limits: measured on a few samples, additive effects are not
modelled; it is the network's output that is judged, not the metric, which only an evaluation can measure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from netsuke.core.budget import Budget
from netsuke.core.method import Method, find, register
from netsuke.core.plan import Plan, Row
from netsuke.core.recipe import Step
from netsuke.data import Dataset
from netsuke.methods.quantize import _alone, _rows, _widths
from netsuke.methods.quantize._calibrate import settle
from netsuke.methods.quantize._context import Context, fixed_batch
from netsuke.methods.quantize._graph import clone
from netsuke.methods.quantize.placement import Placement, place

SAMPLES = {"normal": 16, "thorough": 64}
ONE_RUN = 8e9  # MACs of the samples of one run: what a core needs about half a second for
JUDGED = 1e11  # MACs of the samples that weight steps read each time the whole network is judged
FEWEST = 4  # samples: a large network has thousands of outputs and millions of activations in each
DEFAULT_LIMIT = 0.1
ROUNDS = 8
OTHERS = ("quantize/minmax", "quantize/mse", "quantize/percentile")


@dataclass(frozen=True)
class Sensitivity:
    """No options."""


def refine(context: Context, budget: Budget, effort: str, finish: Callable[[Context], ir.Model]) -> None:
    """Fill the plan's sensitivities; raise or keep layers until the whole network's output change meets the limit."""
    samples, few = SAMPLES[effort], ranking_samples(context.plan, effort)
    measure_all(context, few)
    limit = max(10 * min(budget.drop.values()) if budget.drop else DEFAULT_LIMIT, 0.01)
    exact = _alone.batches(context, context.model, _alone.outputs(context.model), samples)
    total = whole(context, samples, finish, exact)
    if not budget.drop and any(_narrow(row) for row in context.plan.rows):
        context.plan.note(f"output change of the whole network {total:.4f} on {samples} samples; bits are as asked for")
        return
    if not budget.drop and any(layer.one_bit for layer in context.placement.layers.values()):
        text = f"output change of the whole network {total:.4f} on {samples} samples"
        why = "signs near zero turn with any rounding: give evaluation data and a limit on the drop to have it judged"
        context.plan.note(f"{text}; {why}")
        return
    tried: set[str] = set()
    for done in range(ROUNDS):
        rows = [r for r in context.plan.rows if not r.kept and r.name not in tried and not _one_bit(context, r)]
        stream = [r for r in context.plan.rows if not r.kept and _one_bit(context, r)]
        if total <= limit or not (rows or stream):
            break
        context.progress("raise layers", done, ROUNDS)
        if stream:  # the values between one-bit layers first: every sign reads them
            for row in stream:
                _rows.keep(row, f"the stream stays float: the network is over its limit {limit:g}")
        for row in [] if stream else condemned(context.plan.rows, rows, total, limit):
            tried.add(row.name)
            _improve(context, row, few, limit)
        _again(context)
        _rows.follow(context.plan, context.placement)
        total = whole(context, samples, finish, exact)
    text = f"output change of the whole network {total:.4f} on {samples} samples, limit {limit:g}"
    context.plan.note(text if total <= limit else f"{text}: MISSED; output similarity stands in for the metric")


def condemned(rows: Sequence[Row], candidates: Sequence[Row], total: float, limit: float) -> list[Row]:
    """The candidates to improve before the network is judged again: the worst, and the next ones as long as the change
    would stay above the limit even if those in front of them changed nothing any more.

    Changes of single layers add as squares, scaled so that those of all planned rows make the total measured.
    """
    squares = {r.name: min(r.output_change or 0.0, 1e9) ** 2 for r in rows if not r.kept}
    whole = left = sum(squares.values())
    chosen: list[Row] = []
    for row in sorted(candidates, key=lambda r: squares[r.name], reverse=True):
        if chosen and (whole == 0 or total * math.sqrt(max(left, 0.0) / whole) <= limit):
            break
        chosen.append(row)
        left -= squares[row.name]
    return chosen


def ranking_samples(plan: Plan, effort: str) -> int:
    """Samples of the runs that quantize one layer each: there is one a layer, so large networks get fewer."""
    macs = sum(row.macs or 0 for row in plan.rows)
    most = SAMPLES[effort]
    return most if effort != "normal" or not macs else max(FEWEST, min(most, int(ONE_RUN / macs)))


def measure_all(context: Context, samples: int) -> None:
    """sqnr_db and output_change of every planned row; the float network runs once per group of layers that fits.

    One-bit layers have none: quantizing what they read changes nothing, and what they write is measured by its readers.
    """
    active = [row for row in context.plan.rows if not row.kept and not _one_bit(context, row)]
    done = 0
    context.progress("sensitivity", 0, len(active))
    for group in _alone.groups(context, active, samples):
        exact = _alone.reference(context, group, samples)
        for found in group:
            found.row.sqnr_db, found.row.output_change = _alone.judge(context, found, exact, samples)
            done += 1
            context.progress("sensitivity", done, len(active))


def _improve(context: Context, row: Row, samples: int, limit: float) -> None:
    """8 bits for a layer with fewer; another calibrator where it at least halves the change; else it stays float."""
    before, method = row.output_change or 0.0, row.method
    if _narrow(row):
        row.bits = 8
        _again(context)
        row.sqnr_db, row.output_change = measure(context, row, samples)
        row.reason = f"raised to 8 bits: output change {before:.4f} before, {row.output_change:.4f} now"
        return
    found: dict[str, tuple[float, float]] = {}
    exact = _alone.reference(context, [_alone.alone(context, row)], samples)
    for other in OTHERS:
        if other != method:
            row.method = other
            _again(context)
            found[other] = measure(context, row, samples, exact)
    best = min(found, key=lambda name: found[name][1])
    if found[best][1] <= before / 2:
        row.method, (row.sqnr_db, row.output_change) = best, found[best]
        row.reason = f"raised: output change {before:.4f} with {method}, {row.output_change:.4f} now"
        return
    _rows.keep(row, f"output change {before:.4f} alone, the network is over its limit {limit:g}")


def _one_bit(context: Context, row: Row) -> bool:
    return context.placement.layers[row.name].one_bit


def _narrow(row: Row) -> bool:
    """A planned layer with weights or operands of fewer than 8 bits."""
    return not row.kept and min(row.weight_bits or 8, row.activation_bits) < 8


def _again(context: Context) -> None:
    """Placement and ranges for the plan as it is now, from the statistics that are there."""
    context.placement = place(context.model, {r.name for r in context.plan.rows if r.kept})
    _widths.resolve(context.plan, context.placement)
    settle(context)


def measure(context: Context, row: Row, samples: int, exact: _alone.Batches | None = None) -> tuple[float, float]:
    """(sqnr_db, output_change) when only this row's layer is quantized; `exact`: see `_alone.reference`."""
    found = _alone.alone(context, row)
    exact = exact if exact is not None else _alone.reference(context, [found], samples)
    return _alone.judge(context, found, exact, samples)


def with_plan(context: Context, plan: Plan, finish: Callable[[Context], ir.Model]) -> ir.Model:
    """The network quantized by another plan, from the statistics that are there; weight steps read `_few` samples."""
    complete = Context(clone(context.model), plan, context.calib, context.runner, context.seed, context.batch)
    complete.statistics, complete.calib = context.statistics, _few(context)
    if _alone_in_weights(plan, "quantize/bias_correction"):
        complete.shifts = context.shifts
    complete.placement = place(complete.model, {r.name for r in plan.rows if r.kept})
    _rows.follow(plan, complete.placement)
    _widths.resolve(plan, complete.placement)
    settle(complete)
    return finish(complete)


def whole(context: Context, samples: int, finish: Callable[[Context], ir.Model], exact: _alone.Batches) -> float:
    """Relative output change with every planned layer quantized; `exact`: the float network's outputs."""
    copy = clone(context.model)
    complete = Context(copy, context.plan, _few_noted(context), context.runner, context.seed, context.batch)
    complete.placement = place(copy, {r.name for r in context.plan.rows if r.kept})
    _same_groups(context.placement, complete.placement)
    complete.ranges, complete.widths = dict(context.ranges), dict(context.widths)
    if _alone_in_weights(context.plan, "quantize/bias_correction"):  # another step could have changed what layers read
        complete.shifts = context.shifts
    quantized = finish(complete)
    taps, total = _alone.outputs(context.model), _alone.Change()
    for reference, other in zip(exact, _alone.batches(context, quantized, taps, samples), strict=True):
        for name in taps:
            total.add(reference[name], other[name])
    return total.relative


def _alone_in_weights(plan: Plan, name: str) -> bool:
    """True when no other step of the plan that is run while it is judged edits weights."""
    records = [find(Step.parse(step).method) for step in plan.steps]
    return all(m.name == name for m in records if "weights" in m.tags and "learned" not in m.tags)


def _few(context: Context) -> Dataset | None:
    """What the weight steps read while the network is judged: all samples, fewer where they take more than 100 GMAC.

    The quantization itself reads all of them; here they are read anew for every layer that is raised or kept.
    """
    macs = sum(row.macs or 0 for row in context.plan.rows)
    count = max(SAMPLES["normal"], fixed_batch(context.model) or 1, int(JUDGED / macs) if macs else 0)
    if context.calib is None or not macs or count >= context.calib.count:
        return context.calib
    return context.calib.take(count, context.seed)


def _few_noted(context: Context) -> Dataset | None:
    """The same; the plan says so where they are fewer than there are."""
    data = _few(context)
    if data is not None and context.calib is not None and data.count < context.calib.count:
        told = f"on {data.count} of {context.calib.count} samples"
        context.plan.note(f"the whole network was judged after weight steps {told}")
    return data


def _same_groups(source: Placement, target: Placement) -> None:
    values = {v.name: v for v in target.group}
    target.group = {values[v.name]: values[r.name] for v, r in source.group.items()}


def apply(context: Context, config: Sensitivity) -> None:  # noqa: ARG001
    """Fill sqnr_db and output_change of every quantized row."""
    measure_all(context, ranking_samples(context.plan, "normal"))


METHOD = register(
    Method(
        name="quantize/sensitivity",
        purpose="measure what quantizing one layer alone does to its output and to the network's",
        paper="quant-whitepaper",
        config=Sensitivity,
        apply=apply,
        needs=("data",),
        touches=(),
        cost="one run over a few samples per layer",
        tags=("weights",),
    )
)
