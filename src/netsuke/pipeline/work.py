"""The stages of `compress` up to the quantized graph, each of which can be cut short and resumed."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netsuke.core.budget import Budget
from netsuke.core.plan import Plan
from netsuke.core.recipe import DEFAULT, Recipe
from netsuke.data import Dataset
from netsuke.passes import compile_program
from netsuke.pipeline import foreign, interrupt
from netsuke.pipeline.phases import Phases
from netsuke.pipeline.plan import stages
from netsuke.pipeline.profiler import file_bytes, layer_profiler
from netsuke.pipeline.runner import EngineRunner
from netsuke.pipeline.state import RunFolder
from netsuke.program.model import Program
from netsuke.verify.batches import feeds_of
from netsuke.verify.runners import runtime_available
from netsuke.verify.source import capture_model, is_torch, model_name, open_data

# Shares of a promised --time: planning may take this much, calibration must end by that much, the rest is for
# compiling,
# verifying and timing.
SEARCH_SHARE = 0.2  # a bit search stops measuring, in time for the rest of the plan
PLAN_SHARE = 0.35
CALIBRATION_SHARE = 0.65


@dataclass
class Work:
    """What one run knows so far."""

    name: str
    graph: Any
    floating: Program
    calib: Dataset | None
    runner: EngineRunner
    progress: Phases
    budget: Budget
    seed: int
    threads: int | None
    folder: RunFolder | None = None
    foreign: bool = False
    memory_bound: int | None = None
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    store: Any = None

    def deadline(self, share: float) -> float | None:
        """When this share of the promised time is over; None when nothing was promised."""
        return None if self.budget.seconds is None else self.started + share * self.budget.seconds


def name_of(model: Any, graph: Any) -> str:
    """What the result is called: the file's stem, the factory's or the network's name."""
    if isinstance(model, (str, Path)):
        text = str(model_name(model))
        return text.rpartition(":")[2] if ".py:" in text else Path(text).stem
    return type(model).__name__ if is_torch(model) else str(graph.graph.name or "network")


def _digest(graph: Any, calib: Dataset | None) -> str:
    """Of network and calibration data: a resumed run must be about the same."""
    import onnx_ir

    digest = hashlib.sha256(onnx_ir.to_proto(graph).SerializeToString(deterministic=True))
    digest.update((calib.sha256 if calib is not None else "data-free").encode())
    return digest.hexdigest()


def open_work(
    model: Any,
    calib: Any,
    budget: Budget,
    *,
    plan: Plan | None,
    recipe: Any,
    shape: Any,
    weights: Any,
    seed: int,
    threads: int | None,
    data_root: Any,
    preprocess: Any,
    progress: Phases,
    folder: RunFolder | None,
) -> Work:
    """Capture the network and compile its float program: whatever is unsupported is found here."""
    from netsuke.methods.quantize.ptq import Store

    started = time.monotonic()  # an export of PyTorch is part of what the user waits for
    progress("capture", 0.0)
    data = open_data(calib, data_root, role="calib", preprocess=preprocess)
    graph = capture_model(model, shape, weights, sample=data)
    stands = foreign.stands(graph, recipe, plan)
    real = foreign.without_quantizers(graph) if foreign.is_quantized(graph) else graph
    floating = compile_program(real, name="float")
    gc.collect()  # the exporter leaves the module and its programs behind in cycles, the weights several times over
    if data is not None:
        feeds_of(floating.inputs, next(data.batches(1))[0])  # data that do not fit the inputs are refused here
    if folder is not None:
        folder.bind(_digest(graph, data))
    runner = EngineRunner(threads)
    name = name_of(model, graph)
    work = Work(name, graph if stands else real, floating, data, runner, progress, budget, seed, threads, folder)
    work.foreign, work.started = stands, started
    if real is not graph and not stands:
        work.notes.append(foreign.AGAIN)
    work.store = Store(folder.statistics if folder is not None else None)
    runner.deadline = work.deadline(CALIBRATION_SHARE)
    if not runtime_available():
        work.notes.append("no compiled runtime: the reference interpreter ran, and nothing was timed (netsuke doctor)")
    return work


def make_or_load_plan(work: Work, plan: Plan | None, recipe: Any, effort: str) -> Plan:
    """The plan given, the one of an interrupted run, or a new one; a fast one when there is no time for better."""
    from netsuke.methods.quantize import weight_only
    from netsuke.methods.quantize.ptq import make_plan

    if work.foreign:
        made = foreign.plan_of(work.graph, work.seed)
        work.notes += made.notes
        return made
    recipe = DEFAULT if recipe is None else recipe
    saved = work.folder.plan() if work.folder else None
    known = plan if plan is not None else saved
    if known is not None:
        asked = {key: value for key, value in dataclasses.asdict(work.budget).items() if value}
        known.budget = {**known.budget, **asked}  # what is asked now counts over what the plan says
        return known
    if weight_only.is_weight_only([str(step) for step in Recipe.make(recipe).steps]):
        return weight_only.make_plan(work.graph, recipe=recipe, seed=work.seed)
    arguments: dict[str, Any] = {"budget": work.budget, "recipe": recipe, "calib": work.calib, "runner": work.runner}
    arguments["store"] = work.store
    arguments["profiler"] = layer_profiler(work.calib, work.threads)
    arguments["sizer"] = file_bytes
    arguments["deadline"] = work.deadline(SEARCH_SHARE)
    report, limit = stages(work.progress), work.deadline(PLAN_SHARE)

    def watched(stage: str, done: int, total: int) -> None:
        report(stage, done, total)
        if limit is not None and time.monotonic() > limit:
            raise interrupt.Interrupted("out of time")

    try:
        with interrupt.raising():
            made = make_plan(work.graph, effort=effort, seed=work.seed, progress=watched, **arguments)
    except interrupt.Interrupted as cause:
        why = str(cause) or "interrupted"
        work.notes.append(f"{why} while planning: no sensitivities, every layer that can be is packed")
        return make_plan(work.graph, effort="fast", seed=work.seed, **arguments)
    if work.folder:
        work.folder.save_plan(made)
    return made


def quantize(work: Work, plan: Plan) -> Any:
    """The graph with quantizers. Ctrl-C or the end of the promised time stops calibration early, not the run."""
    from netsuke.methods.quantize import weight_only
    from netsuke.methods.quantize.ptq import quantize as apply

    if work.foreign:
        return work.graph
    if weight_only.is_weight_only(plan.steps):
        return weight_only.quantize(work.graph, plan=plan)
    saved = work.folder.quantized() if work.folder else None
    if saved is not None:
        return saved
    runner, report = work.runner, stages(work.progress)
    runner.samples, runner.cut = 0, False

    def watched(stage: str, done: int, total: int) -> None:
        # Only calibration may end early: later steps need what they asked for.
        runner.may_stop = stage == "calibrate" and done < total and not runner.cut
        report(stage, done, total)

    quantized = apply(
        work.graph, plan=plan, calib=work.calib, runner=runner, seed=work.seed, progress=watched, store=work.store
    )
    runner.may_stop = False
    if runner.cut:
        work.notes.append(f"calibration was cut short after {work.store.done} samples: resume, or give it more --time")
    elif work.folder:
        work.folder.save_quantized(quantized)
    return quantized
