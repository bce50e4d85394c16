"""`plan`: decide per layer what will be done, without doing it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from netsuke.core.budget import Budget
from netsuke.core.plan import Plan
from netsuke.core.recipe import DEFAULT, Recipe
from netsuke.pipeline import foreign
from netsuke.pipeline.binary_notes import float_notes
from netsuke.pipeline.profiler import file_bytes, layer_profiler
from netsuke.pipeline.runner import EngineRunner
from netsuke.verify.source import capture_model, open_data

Progress = Callable[[str, float], None]


def stages(progress: Progress) -> Callable[[str, int, int], None]:
    """The methods' progress (stage, done, total) as (text, fraction)."""

    def report(stage: str, done: int, total: int) -> None:
        progress(stage, done / total if total else 0.0)

    return report


def plan(
    model: Any,
    calib: Any = None,
    *,
    recipe: str | Recipe | None = None,
    budget: Budget | None = None,
    effort: str = "normal",
    shape: Any = None,
    weights: Any = None,
    seed: int = 0,
    threads: int | None = None,
    data_root: Any = None,
    preprocess: Any = None,
    progress: Progress = lambda _text, _fraction: None,
) -> Plan:
    """The plan for a network: one row per layer with method, bits, bytes, sensitivity and reason. Nothing is written.

    model   ONNX path, .pt2, file.py:factory, reference network, torch module, onnx_ir.Model
    calib   Dataset, array, or what `netsuke.data.load_data` takes; without it ranges are found data-free, and the plan
    says so
    budget  what may be lost and must be won; bops and latency need a recipe with a bit search (cpu-mixed); effort:
    "fast", "normal", "thorough"
    """
    from netsuke.methods.quantize import weight_only
    from netsuke.methods.quantize.ptq import make_plan

    progress("capture", 0.0)
    data = open_data(calib, data_root, role="calib", preprocess=preprocess)
    graph = capture_model(model, shape, weights, sample=data)
    if foreign.stands(graph, recipe, None):
        return foreign.plan_of(graph, seed)
    notes = [foreign.AGAIN] if foreign.is_quantized(graph) else []
    graph = foreign.without_quantizers(graph) if notes else graph
    recipe = DEFAULT if recipe is None else recipe
    if weight_only.is_weight_only([str(step) for step in Recipe.make(recipe).steps]):
        made = weight_only.make_plan(graph, recipe=recipe, seed=seed)
        made.notes += notes
        return made
    runner = EngineRunner(threads)
    seconds = budget.seconds if budget is not None else None
    made = make_plan(
        graph,
        budget=budget,
        recipe=recipe,
        calib=data,
        runner=runner,
        effort=effort,
        seed=seed,
        progress=stages(progress),
        profiler=layer_profiler(data, threads),
        sizer=file_bytes,
        deadline=None if seconds is None else time.monotonic() + seconds,
    )
    made.notes += notes
    if effort != "fast":
        made.notes += float_notes(graph, made, data, runner, threads)
    return made
