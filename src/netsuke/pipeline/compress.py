"""`compress`: capture, plan, quantize, compile, write, reload, verify, measure."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from netsuke.core.budget import Budget
from netsuke.core.errors import Problem, UsageError
from netsuke.core.plan import Plan
from netsuke.core.recipe import Recipe
from netsuke.data import Dataset, overlap
from netsuke.measure import environment
from netsuke.pipeline import interrupt, timing
from netsuke.pipeline.evaluate import metric_function
from netsuke.pipeline.layers import layer_table
from netsuke.pipeline.plan import dataset, stages
from netsuke.pipeline.runner import EngineRunner
from netsuke.pipeline.small import Small, meets, size
from netsuke.pipeline.state import RunFolder
from netsuke.program.model import Program
from netsuke.verify.check import Check, check, feeds_of
from netsuke.verify.parity import Exactness, exactness
from netsuke.verify.runners import Runner, open_runner
from netsuke.verify.source import capture_model, format_shapes, model_name

Progress = Callable[[str, float], None]
Array = np.ndarray[Any, Any]
VERIFY_SAMPLES = 64
VERIFY_SECONDS = (
    20.0  # the reference interpreter is slow; a large network is verified on fewer samples, and the line says how many
)
STAND_IN_SAMPLES = 64  # of the calibration data, where no evaluation data were given
FINISH_SHARE = 0.4  # of --time, kept for compiling, verifying and measuring


@dataclass
class Request:
    """Arguments of one run, as they are stored for --resume. Only what can be written as JSON; live objects cannot be
    resumed.
    """

    model: str
    recipe: str = "cpu-int8"
    plan: str = ""
    calib: str = ""
    evaluate: str = ""
    size: str = ""
    drop: str = ""
    time: str = ""
    effort: str = "normal"
    shape: str = ""
    weights: str = ""
    seed: int = 0
    threads: int | None = None
    data_root: str = ""
    preprocess: str = ""
    output: str = ""
    onnx: str = ""


@dataclass
class _Work:
    """What one run knows so far."""

    graph: Any
    floating: Program
    calib: Dataset | None
    runner: EngineRunner
    progress: Progress
    budget: Budget
    seed: int
    threads: int | None
    folder: RunFolder | None = None
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)


def memory_line(graph: Any, floating: Program, calib: Dataset | None, threads: int | None) -> str:
    """The bound on memory, before any of it is used."""
    from netsuke.methods.quantize.ptq import choose_batch, memory_bound

    weights = sum(a.nbytes for a in floating.constants.values())
    samples = calib.count if calib is not None else 32
    batch = choose_batch(graph, samples)
    shapes = {}
    if calib is not None:
        shapes = {graph.graph.inputs[0].name: calib.shape}
    bound = memory_bound(graph, batch, shapes=shapes)
    if bound is None:
        return f"memory: weights {size(weights)} three times, and one batch of {batch} with free sizes: no bound known in advance"
    arena = _arena(floating, calib, batch, threads)
    total = bound + 3 * weights + arena
    return f"memory: at most {size(total)} (calibration {size(bound)} at batch {batch}, network {size(3 * weights + arena)})"


def _arena(floating: Program, calib: Dataset | None, batch: int, threads: int | None) -> int:
    engine = open_runner(floating, threads).engine
    if engine is None or calib is None or len(floating.inputs) != 1:
        return 0
    # Tapped values leave the arena as outputs, so every intermediate may be alive at once: the sum is bounded by
    # memory_bound's tapped activations plus what the plain network needs.
    return int(engine.arena_bytes((batch, *calib.shape)))


def _plan(work: _Work, plan: Plan | None, recipe: Any, effort: str) -> Plan:
    """The plan given, the one of an interrupted run, or a new one."""
    from netsuke.methods.quantize.ptq import make_plan

    saved = work.folder.plan() if work.folder else None
    if plan is not None or saved is not None:
        return plan or saved  # type: ignore[return-value]
    arguments: dict[str, Any] = {"budget": work.budget, "recipe": recipe, "calib": work.calib, "runner": work.runner}
    try:
        with interrupt.raising():
            made = make_plan(work.graph, effort=effort, seed=work.seed, progress=stages(work.progress), **arguments)
    except interrupt.Interrupted:
        work.notes.append("interrupted while planning: sensitivities were skipped, every layer that can be is packed")
        made = make_plan(work.graph, effort="fast", seed=work.seed, **arguments)
        return made
    if work.folder:
        work.folder.save_plan(made)
    return made


def _quantize(work: _Work, plan: Plan) -> Any:
    """The graph with quantizers. An interrupt or the end of the promised time stops calibration early, not the run."""
    from netsuke.methods.quantize.ptq import quantize

    saved = work.folder.quantized() if work.folder else None
    if saved is not None:
        return saved
    runner = work.runner
    runner.samples, runner.cut, runner.may_stop = 0, False, True
    quantized = quantize(
        work.graph, plan=plan, calib=work.calib, runner=runner, seed=work.seed, progress=stages(work.progress)
    )
    runner.may_stop = False
    if runner.cut:
        work.notes.append(f"calibration was cut short after {runner.samples} samples: resume, or give it more --time")
    elif work.folder:
        work.folder.save_quantized(quantized)
    return quantized


def _meta(work: _Work, source: str) -> dict[str, str]:
    """Facts that go into the file: nothing that differs between two runs on the same input."""
    import netsuke

    facts = {"source": source, "seed": str(work.seed), "netsuke": netsuke.__version__}
    if work.calib is not None:
        facts |= {"calibration": work.calib.source, "calibration_sha256": work.calib.sha256}
        name = work.graph.graph.inputs[0].name
        facts["sample_shape"] = format_shapes({name: (1, *work.calib.shape)})
    else:
        facts["calibration"] = "data-free"
    return facts


def _write(program: Program, path: Path) -> tuple[Program, int]:
    """Write, read back and verify the structure. The reloaded program is what everything later runs."""
    from netsuke import program as files

    files.verify(program)
    count = files.write(program, path)
    return files.read(path), int(count)


def _float_bytes(floating: Program) -> int:
    from netsuke.program import to_bytes

    return len(to_bytes(floating))


def _exact(runner: Runner, samples: Array, progress: Progress) -> Exactness | None:
    """The reloaded file on the engine against the reference, sample by sample until enough or out of time."""
    if runner.engine is None:
        return None
    port = runner.program.inputs[0]
    step = port.shape[0] if port.shape and isinstance(port.shape[0], int) else 1
    begin, done = time.monotonic(), 0
    total = Exactness(runner.name, 0, 0, 0, [])
    while done + step <= min(len(samples), VERIFY_SAMPLES) and not total.differing:
        found = exactness(runner, feeds_of(port, samples[done : done + step]))
        total = Exactness(runner.name, done + step, found.values, total.codes + found.codes, found.differing)
        done += step
        spent = time.monotonic() - begin
        progress("verify against the reference", min(1.0, max(done / VERIFY_SAMPLES, spent / VERIFY_SECONDS)))
        if spent > VERIFY_SECONDS:
            break
    return total


def _samples(calib: Dataset | None, graph: Any, seed: int) -> Array:
    """A few inputs to verify and time with: calibration data, or the synthetic inputs that stood in for them."""
    from netsuke.methods.quantize import data_free

    data = calib if calib is not None else data_free.dataset(graph, seed)
    return np.asarray(next(iter(data.batches(VERIFY_SAMPLES)))[0])


def _judge(
    work: _Work,
    small: Program,
    evaluation: Dataset | None,
    function: Any,
    drop: Mapping[str, float],
    floating: Any,
    samples: Array,
) -> Check:
    """Metrics and parity on evaluation data; where there are none, similarity on calibration data stands in and is
    named so.
    """
    data, limit = evaluation, 0
    if data is None:
        data = Dataset.from_arrays(samples[:STAND_IN_SAMPLES], source="calibration data")
        limit = STAND_IN_SAMPLES
        if function is None:
            work.notes.append(
                f"no evaluation data given: outputs were compared on {min(limit, data.count)} calibration samples"
            )
    return check(
        small, floating, data, limits=drop, samples=limit, exact=False, sizes=(1, 3), evaluate=function, threads=work.threads,
        progress=work.progress,
    )  # fmt: skip


@contextlib.contextmanager
def _place(output: Any) -> Iterator[Path]:
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
    recipe: str | Recipe = "cpu-int8",
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
    progress: Progress = lambda _text, _fraction: None,
    say: Callable[[str], None] = lambda _text: None,
) -> Small:
    """Compress a trained network to one INT8 program.

    model     ONNX path, .pt2, file.py:factory, reference network, torch module, onnx_ir.Model
    plan      a Plan or its file; made when not given, by the recipe
    calib     calibration data: Dataset, array, or what `netsuke.data.load_data` takes; None: data-free, and the result
    says so
    evaluate  data with labels, or a function that takes (inputs -> outputs) and returns a metric or metrics by name
    budget    the contract: size, drop per metric, time for the compression itself
    output    where the .nsk goes; without it the program stays in memory (`Small.save`)
    run       folder that makes the run resumable
    say       receives lines a user should see before the work starts, such as the memory bound

    Raises UsageError, UnsupportedError, FileError before slow work; a missed contract is in `Small.missed`, not an
    exception.
    """
    begin = time.monotonic()
    graph = capture_model(model, shape, weights)
    work = _open(graph, calib, budget or Budget(), seed, threads, data_root, preprocess, progress, run)
    evaluation, function = _evaluation(evaluate, data_root, preprocess)
    _warn_overlap(work, evaluation)
    plan = Plan.load(plan) if isinstance(plan, (str, Path)) else plan
    say(memory_line(graph, work.floating, work.calib, threads))
    name = Path(str(model_name(model))).name.split(":")[-1].removesuffix(".onnx") if isinstance(model, (str, Path)) else (
        graph.graph.name or type(model).__name__
    )  # fmt: skip
    with _place(output) as path, interrupt.watching(work.runner):
        made = _plan(work, plan, recipe, effort)
        quantized = _quantize(work, made)
        return _finish(
            work, name, made, quantized, path if output else None, path, evaluation, function, measure, begin
        )


def _open(
    graph: Any, calib: Any, budget: Budget, seed: int, threads: int | None, data_root: Any, preprocess: Any, progress: Progress,
    run: RunFolder | None,
) -> _Work:  # fmt: skip
    from netsuke.passes import compile_program

    floating = compile_program(graph, name="float")
    runner = EngineRunner(threads)
    if budget.seconds is not None:
        runner.deadline = time.monotonic() + (1 - FINISH_SHARE) * budget.seconds
    data = dataset(calib, data_root, role="calib", preprocess=preprocess)
    work = _Work(graph, floating, data, runner, progress, budget, seed, threads, run)
    if open_runner(floating, threads).engine is None:
        work.notes.append(
            "no compiled runtime: the reference interpreter ran, slowly, and nothing was timed (netsuke doctor)"
        )
    return work


def _evaluation(evaluate: Any, data_root: Any, preprocess: Any) -> tuple[Dataset | None, Any]:
    if callable(evaluate) and not isinstance(evaluate, Dataset):
        return None, metric_function(evaluate)
    return dataset(evaluate, data_root, role="eval", preprocess=preprocess), None


def _warn_overlap(work: _Work, evaluation: Dataset | None) -> None:
    if work.calib is None or evaluation is None:
        return
    shared = overlap(work.calib.take(min(256, work.calib.count), work.seed), evaluation)
    if shared:
        work.notes.append(f"{shared} calibration samples are also evaluation samples: the metric is too kind")


def _finish(
    work: _Work, name: str, plan: Plan, quantized: Any, output: Path | None, path: Path, evaluation: Dataset | None, function: Any,
    with_timing: bool, begin: float,
) -> Small:  # fmt: skip
    from netsuke.passes import compile_program

    work.progress("compile", 0.0)
    program = compile_program(quantized, name=name, plan=plan.to_toml(), meta=_meta(work, name))
    program, after = _write(program, path)
    compressed, floating = open_runner(program, work.threads), open_runner(work.floating, work.threads)
    samples = _samples(work.calib, work.graph, work.seed)
    exact = _exact(compressed, samples, work.progress)
    found = _judge(work, program, evaluation, function, dict(work.budget.drop), work.graph, samples)
    port = program.inputs[0]
    one = port.shape[0] if port.shape and isinstance(port.shape[0], int) else 1
    work.progress("time", 0.0)
    timed = timing.measure(floating, compressed, feeds_of(port, samples[:one])) if with_timing else None
    before = _float_bytes(work.floating)
    profiles = (
        [{r["name"]: r["ms"] for r in rows} for rows in (timed.layers, timed.float_layers)] if timed else [None, None]
    )
    small = Small(
        name=name, program=program, quantized=quantized, plan=plan, bytes_before=before, bytes_after=after,
        layers=layer_table(plan, program, work.floating, found.layers, *profiles), check=found, timing=timed, exactness=exact,
        path=output, notes=work.notes, missed=meets(plan.budget, before, after, found), interrupted=work.runner.cut,
    )  # fmt: skip
    if timed is not None and not timed.faster:
        small.notes.append(f"not faster than float: {timed.reason}")
    seconds = time.monotonic() - begin
    if work.budget.seconds is not None and seconds > work.budget.seconds:
        small.missed.append(f"compression took {seconds:.0f} s, limit {work.budget.seconds:.0f} s")
    small.facts = {
        "seconds": round(seconds, 2),
        "peak_memory_bytes": environment.peak_memory_bytes(),
        "calibration": dict(plan.data),
        "evaluation": found.data,
        "environment": environment.capture(),
        "budget": dataclasses.asdict(work.budget),
        "recipe": plan.recipe,
        "runner": work.runner.name,
    }
    return small
