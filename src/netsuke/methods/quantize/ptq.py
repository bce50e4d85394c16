"""Post-training quantization: a float graph and a plan in, a graph with quantizers out.

    plan = make_plan(model, budget=budget, recipe="cpu-int8", calib=data, runner=runner)
    quantized = quantize(model, plan=plan, calib=data, runner=runner)

The steps are those of the recipe; each is a method record of this room (see the room's index card for the tags).
Nothing here knows a particular method.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from netsuke.core.budget import Budget
from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, find
from netsuke.core.options import configure
from netsuke.core.plan import Plan
from netsuke.core.recipe import Recipe, Step
from netsuke.data import Dataset
from netsuke.methods.quantize import _profile, _rows, _widths, data_free, insert, sensitivity
from netsuke.methods.quantize._calibrate import calibrate, calibrator, choose_batch, memory_bound, settle, sizes, tapped
from netsuke.methods.quantize._context import Context, Profiler, Progress, Runner, Sizer, silent
from netsuke.methods.quantize._graph import clone, macs
from netsuke.methods.quantize._store import Store
from netsuke.methods.quantize.placement import place

__all__ = ["Store", "choose_batch", "layer_macs", "make_plan", "memory_bound", "quantize", "sizes", "tapped"]

EFFORTS = ("fast", "normal", "thorough")
TAGS = ("graph", "weights", "recipe", "requant", "search", "source")


def make_plan(
    model: ir.Model,
    *,
    budget: Budget | None = None,
    recipe: str | Recipe = "cpu-int8",
    calib: Dataset | None = None,
    runner: Runner,
    effort: str = "normal",
    seed: int = 0,
    progress: Progress = silent,
    store: Store | None = None,
    profiler: Profiler | None = None,
    sizer: Sizer | None = None,
    deadline: float | None = None,
) -> Plan:
    """A plan for the captured float graph: one row per layer, with sensitivities and reasons.

    budget   limits on drop, size and time; `drop` decides which layers are raised or kept float
    recipe   name or steps; exactly one step must be a recipe of this room (whitepaper_int8)
    calib    calibration data; None: data-free, and the plan says so
    runner   runs float and QDQ graphs, see `Runner`
    effort   "fast": no sensitivities; "normal": on 16 samples; "thorough": on 64
    profiler times quantized graphs on this machine: rows then say expected_ms, and latency can be budgeted
    sizer    bytes of the file of a graph: a size budget then counts the whole file, not weights and biases alone
    deadline time.monotonic() at which a bit search goes on with what it has measured

    Raises UsageError for an unknown recipe, step, option or effort.
    """
    steps = Recipe.make(recipe)
    if effort not in EFFORTS:
        raise UsageError(Problem("effort", got=effort, allowed=", ".join(EFFORTS)))
    records = _records(steps.steps)
    bases = [(m, c) for m, c in records if "recipe" in m.tags]
    if len(bases) != 1:
        got = ", ".join(m.name for m, _ in bases) or "none"
        raise UsageError(
            Problem("a recipe needs one step that sets the defaults", got=got, hint="quantize/whitepaper_int8")
        )
    budget = budget or Budget()
    searches = _searches(records, budget)
    record, config = bases[0]
    plan = Plan(network=model.graph.name or "", recipe=steps.name, steps=[str(s) for s in steps.steps], seed=seed)
    plan.budget = _rows.budget_table(budget)
    defaults = record.apply(config)
    calibrator(str(defaults["method"]))
    plan.rows = _rows.rows(model, defaults, None if calib is None else sizes(model, calib.shapes))
    _widths.resolve(plan, place(model))
    made = [m.name for m, _ in records if "source" in m.tags]
    if calib is not None and made:
        what = "the step makes its own inputs and calibration data are given"
        raise UsageError(Problem(what, made[0], hint="leave one of the two out"))
    if calib is None:
        plan.data = {"source": f"data-free ({made[0]})" if made else data_free.SOURCE}
        what = f"inputs made by {made[0]}" if made else "synthetic inputs and batch-norm statistics"
        plan.note(f"data-free: no calibration data were given; ranges come from {what}")
    else:
        plan.data = dict(calib.take(config.samples, seed).facts())
    for method, options in records:
        if "requant" in method.tags:
            method.apply(plan, options)
    if effort != "fast" or searches:
        data = None if calib is None else calib.take(config.samples, seed)
        context = prepare(model, plan, data, runner, seed, progress, histograms=True, store=store)
        context.profiler, context.sizer = profiler, sizer
        for method, options in searches:
            chosen = dataclasses.replace(options, samples=0) if effort == "fast" else options
            method.apply(context, budget, chosen, _finish_fast, deadline=deadline)
            settle(context)
        if effort != "fast":
            sensitivity.refine(context, budget, effort, _finish_fast)
            _profile.expect(context)
    _rows.size_note(plan, budget)
    return plan


def _searches(records: list[tuple[Method, Any]], budget: Budget) -> list[tuple[Method, Any]]:
    """The recipe's bit search, at most one; a budget that only a search can meet needs one."""
    found = [(m, c) for m, c in records if "search" in m.tags]
    if len(found) > 1:
        raise UsageError(Problem("a recipe holds at most one bit search", got=", ".join(m.name for m, _ in found)))
    if budget.searches and not found:
        raise UsageError(Problem("this budget needs a bit search", got=str(budget), hint="recipe cpu-mixed"))
    return found


def quantize(
    model: ir.Model,
    *,
    plan: Plan,
    calib: Dataset | None = None,
    runner: Runner,
    seed: int | None = None,
    progress: Progress = silent,
    store: Store | None = None,
) -> ir.Model:
    """The captured float graph with quantizers as the plan says; the model given is not changed.

    Where a row cannot be as planned (its reader was kept in float, so nobody needs its codes), the row is changed
    and says why. The calibration data are sampled as the recipe says (with the plan's seed unless another is
    given). Same model, plan, data and seed: same graph. Raises UsageError when the plan does not fit the network
    or when calibration meets NaN or infinity.
    """
    seed = plan.seed if seed is None else seed
    fits(plan, model)
    data = None if calib is None else calib.take(_samples(plan), seed)
    return _finish(prepare(model, plan, data, runner, seed, progress, store=store))


def layer_macs(model: ir.Model, sample: Mapping[str, Sequence[int]]) -> dict[str, int | None]:
    """Multiply-accumulates per sample of every layer, for samples of these shapes (as `sizes` takes them)."""
    shapes = sizes(model, sample)
    return {name: macs(layer.node, shapes) for name, layer in place(model).layers.items()}


def fits(plan: Plan, model: ir.Model) -> None:
    """UsageError with everything in the plan that this network cannot have: unknown layers, methods and bits, layers
    without an integer kernel, tensors that would need two widths.
    """
    placement = place(model, {row.name for row in plan.rows if row.kept})
    layers, problems = placement.layers, list[Problem]()
    _rows.follow_edits(plan, layers)
    try:
        plan.validate(list(layers), calibrator)
    except UsageError as error:
        problems += error.problems
    what = "the layer has no integer kernel"
    rows = {row.name: row for row in plan.rows if row.name in layers}
    for row in rows.values():
        if not row.kept and layers[row.name].blocked:
            problems.append(Problem(what, row.name, layers[row.name].blocked, hint="method = keep"))
        if row.bfloat16 and not _rows.has_bfloat16(layers[row.name]):
            problems.append(Problem("the layer has no bfloat16 kernel", row.name, row.op, hint="32 bits"))
    if set(rows) == set(layers):
        problems += _widths.conflicts(plan, placement)
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise UsageError(problems, f"{count} in the plan, nothing was run")


def prepare(
    model: ir.Model,
    plan: Plan,
    calib: Dataset | None,
    runner: Runner,
    seed: int,
    progress: Progress = silent,
    *,
    histograms: bool = False,
    store: Store | None = None,
) -> Context:
    """A copy of the network after the graph steps, with placement and calibrated ranges; nothing is written yet.

    histograms  see `_calibrate.calibrate`
    store       statistics to go on from, and where they are left: a plan and the quantization after it share one run
    """
    data = calib if calib is not None else _made(model, plan, seed)
    context = Context(clone(model), plan, data, runner, seed, choose_batch(model, data.count, data.shapes), progress)
    context.store = store
    for method, config in step_records(plan):
        if "graph" in method.tags:
            method.apply(context, config)
    context.placement = place(context.model, {row.name for row in plan.rows if row.kept})
    _rows.follow(plan, context.placement)
    _widths.follow(plan, context.placement)
    calibrate(context, histograms=histograms)
    return context


def _finish(context: Context) -> ir.Model:
    """Run the weight steps and write the quantizers; the context's model is the result."""
    for method, config in step_records(context.plan):
        if "weights" in method.tags:
            method.apply(context, config)
    insert.insert(context)
    return context.model


def _finish_fast(context: Context) -> ir.Model:
    """The same without learned steps, which take minutes: planning judges the network before they improve it."""
    for method, config in step_records(context.plan):
        if "weights" in method.tags and "learned" not in method.tags:
            method.apply(context, config)
        elif "learned" in method.tags:
            context.plan.note(f"sensitivities and the output change were measured without {method.name}")
    insert.insert(context)
    return context.model


def _made(model: ir.Model, plan: Plan, seed: int) -> Dataset:
    """Inputs where no calibration data are given: those a step of the plan makes, else synthetic ones."""
    for method, config in step_records(plan):
        if "source" in method.tags:
            found: Dataset = method.apply(model, config, seed)
            return found
    return data_free.dataset(model, seed)


def step_records(plan: Plan) -> list[tuple[Method, Any]]:
    """Records and configs of the plan's steps, in order."""
    return _records(tuple(map(Step.parse, plan.steps)))


def _records(steps: tuple[Step, ...]) -> list[tuple[Method, Any]]:
    """Records and configs of the steps; UsageError lists every unknown step, option and kind."""
    problems: list[Problem] = []
    found = []
    for step in steps:
        try:
            record = find(step.method)
            if not set(TAGS) & set(record.tags):
                what = "not a step of post-training quantization"
                problems.append(Problem(what, got=step.method, hint="netsuke methods 'quantize/*'"))
                continue
            found.append((record, configure(record.config, step.options, step.method)))
        except UsageError as error:
            problems += error.problems
    if problems:
        raise UsageError(problems)
    return found


def _samples(plan: Plan) -> int:
    for method, config in step_records(plan):
        if "recipe" in method.tags:
            return int(config.samples)
    raise UsageError(
        Problem("the plan has no step that sets the defaults", got=str(plan.steps), hint="quantize/whitepaper_int8")
    )
