"""`compress`: a trained network in, one small exact program out."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from netsuke.core.budget import Budget
from netsuke.core.errors import Problem, UnsupportedError, UsageError
from netsuke.core.plan import Plan
from netsuke.core.recipe import DEFAULT, Recipe
from netsuke.pipeline import interrupt
from netsuke.pipeline.evaluate import open_evaluation
from netsuke.pipeline.finish import finish
from netsuke.pipeline.memory import bound_of
from netsuke.pipeline.phases import Phases
from netsuke.pipeline.plan import Progress
from netsuke.pipeline.small import Small
from netsuke.pipeline.state import RunFolder
from netsuke.pipeline.work import make_or_load_plan, open_work, quantize


def refuse_simulated(plan: Plan) -> None:
    """UnsupportedError with every planned layer whose format no kernel runs."""
    hint = "--allow-simulated (allow_simulated=True), or a format of `netsuke methods --support`"
    problems = [
        Problem("no kernel runs this layer's format", row.name, row.reason or "simulated", "packed or float", hint)
        for row in plan.rows
        if row.status == "simulated"
    ]
    if problems:
        raise UnsupportedError(problems, "simulated layers are refused: they would be neither small nor fast")


@contextlib.contextmanager
def _place(output: str | Path | None) -> Iterator[Path]:
    """Where the file goes: as asked, or a temporary place for a result that stays in memory."""
    if output:
        path = Path(output)
        if not path.parent.is_dir():
            raise UsageError(Problem("no such folder", where="-o", got=str(path.parent)))
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="netsuke-") as folder:
        yield Path(folder) / "small.nsk"


def compress(
    model: Any,
    plan: Plan | str | Path | None = None,
    *,
    recipe: str | Recipe | None = None,
    calib: Any = None,
    evaluate: Any = None,
    budget: Budget | None = None,
    effort: str = "normal",
    output: str | Path | None = None,
    shape: Any = None,
    weights: Any = None,
    seed: int = 0,
    threads: int | None = None,
    data_root: Any = None,
    preprocess: Any = None,
    run: RunFolder | None = None,
    measure: bool = True,
    allow_simulated: bool = False,
    progress: Progress = lambda _text, _fraction: None,
    say: Callable[[str], None] = lambda _text: None,
) -> Small:
    """Compress a trained network to one INT8 program.

    model     ONNX path, .pt2, file.py:factory, reference network, torch module, onnx_ir.Model
    plan      a Plan or its file; made when not given, by the recipe
    recipe    None: cpu-int8, or the quantization that the network came with; another one quantizes it again
    calib     calibration data: Dataset, array, or what `netsuke.data.load_data` takes; None: data-free, and the result
              says so
    evaluate  data with labels, or a function that takes (inputs -> outputs) and returns a metric or metrics by name
    budget    the contract: size, drop per metric, time for the compression itself
    output    where the .nsk goes; without it the program stays in memory (`Small.save`)
    run       folder that makes the run resumable
    measure   time the result beside the float program on this machine
    allow_simulated  take layers whose format no kernel runs, computed in float with their quantized weights; without
              it they are refused by name as soon as the plan is known
    say       receives lines a user should see before the work starts, such as the memory bound

    Raises UsageError, UnsupportedError, FileError before slow work; a missed contract is in `Small.missed`, not an
    exception. Same model, plan, data and seed: same bytes.
    """
    plan = Plan.load(plan) if isinstance(plan, (str, Path)) else plan
    if plan is not None and not isinstance(plan, Plan):
        raise UsageError(
            Problem(
                "not a plan",
                "compress, second argument",
                type(plan).__name__,
                "a Plan or its file",
                "compress(model, calib=data)",
            )
        )
    evaluation = open_evaluation(evaluate, data_root, preprocess)
    with _place(output) as path:
        work = open_work(
            model,
            calib,
            budget or Budget(),
            plan=plan,
            recipe=recipe,
            shape=shape,
            weights=weights,
            seed=seed,
            threads=threads,
            data_root=data_root,
            preprocess=preprocess,
            progress=Phases(progress),
            folder=run,
        )
        evaluation.warn_overlap(work)
        if not work.foreign:
            steps = plan.steps if plan is not None else [str(s) for s in Recipe.make(recipe or DEFAULT).steps]
            bound = bound_of(work.graph, work.floating, work.calib, threads, steps)
            work.memory_bound = bound.total
            say(str(bound))
        with interrupt.watching(work.runner):
            made = make_or_load_plan(work, plan, recipe, effort)
            if not allow_simulated:
                refuse_simulated(made)
            quantized = quantize(work, made)
            small = finish(work, made, quantized, path, evaluation, timed=measure)
    small.path = path if output else None
    return small
