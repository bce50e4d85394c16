"""The end of `compress`: compile, write, reload, verify against the reference, judge, time."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

import netsuke
from netsuke import program as files
from netsuke.core.plan import Plan
from netsuke.data import Dataset
from netsuke.measure import environment
from netsuke.measure.feeds import concrete_shapes, random_feeds
from netsuke.passes import compile_program
from netsuke.pipeline import timing
from netsuke.pipeline.evaluate import Evaluation
from netsuke.pipeline.layers import layer_table
from netsuke.pipeline.memory import engine_bytes
from netsuke.pipeline.small import Missed, Small, meets
from netsuke.pipeline.work import Work
from netsuke.program.model import Program
from netsuke.verify.batches import feeds_of, fixed_batch, sample_shapes
from netsuke.verify.check import Check, check
from netsuke.verify.parity import Exactness, exactness
from netsuke.verify.runners import Runner, open_runner
from netsuke.verify.source import FloatNetwork, format_shapes

Array = np.ndarray[Any, Any]
VERIFY_SAMPLES = 64
VERIFY_SECONDS = 8.0  # the reference is slow: a large network is verified on fewer samples, and the line says how many
STAND_IN_SAMPLES = 64  # of the calibration data, where no evaluation data were given


def _meta(work: Work, plan: Plan) -> dict[str, str]:
    """Facts that go into the file: nothing that differs between two runs on the same input."""
    facts = {"recipe": plan.recipe, "seed": str(work.seed), "netsuke": netsuke.__version__}
    if work.foreign:
        return facts | {"calibration": "in the quantized file"}
    if work.calib is None:
        return facts | {"calibration": "data-free"}
    facts |= {"calibration": Path(work.calib.source).name, "calibration_sha256": work.calib.sha256}
    return facts | {"sample_shape": format_shapes(sample_shapes(work.floating.inputs, work.calib.shapes))}


def write_and_reload(program: Program, path: Path) -> tuple[Program, int]:
    """Verify, write, read back. The reloaded program is what everything later runs."""
    files.verify(program)
    count = files.write(program, path)
    return files.read(path), int(count)


def verify_exact(runner: Runner, samples: Array, progress: Any) -> Exactness | None:
    """The reloaded file on the engine against the reference, one batch at a time until enough or out of time."""
    if runner.engine is None:
        return None
    ports = runner.program.inputs
    step = fixed_batch(ports) or 1
    begin, done = time.monotonic(), 0
    total = Exactness(runner.name, 0, 0, 0, [])
    while done + step <= min(len(samples), VERIFY_SAMPLES) and not total.differing:
        found = exactness(runner, feeds_of(ports, samples[done : done + step]))
        done += step
        total = Exactness(runner.name, done, found.values, total.codes + found.codes, found.differing)
        spent = time.monotonic() - begin
        progress("verify", min(1.0, max(done / VERIFY_SAMPLES, spent / VERIFY_SECONDS)))
        if spent > VERIFY_SECONDS:
            break
    return total


def _samples(work: Work) -> Array:
    """A few inputs to verify and time with: calibration data, or the synthetic inputs that stood in for them."""
    from netsuke.methods.quantize import data_free

    ports = work.floating.inputs
    if work.calib is None and len(ports) == 1 and ports[0].dtype != "f32":  # indices: any that every table has
        shapes = concrete_shapes(ports, batch=fixed_batch(ports) or VERIFY_SAMPLES)
        return random_feeds(ports, shapes, work.seed)[ports[0].name]
    data = work.calib if work.calib is not None else data_free.dataset(work.graph, work.seed)
    return np.asarray(next(iter(data.batches(VERIFY_SAMPLES)))[0])


def _judge(work: Work, compressed: Runner, floating: Runner, evaluation: Evaluation, samples: Array) -> Check:
    """Metrics and parity on evaluation data; without any, similarity on calibration data stands in, named so."""
    data, limits = evaluation.data, dict(work.budget.drop)
    if data is None:
        data = Dataset.from_arrays(samples[:STAND_IN_SAMPLES], source="calibration data, as a stand-in")
        if evaluation.function is None:
            work.notes.append(f"no evaluation data: outputs were compared on {data.count} calibration samples")
    found = check(
        compressed,
        FloatNetwork(floating, work.floating, work.graph, work.floating.inputs, ""),
        data,
        exact=False,
        sizes=(1, 3),
        evaluate=evaluation.function,
        threads=work.threads,
        progress=work.progress,
    )
    found.limits = limits
    return found


def finish(work: Work, plan: Plan, quantized: Any, path: Path, evaluation: Evaluation, *, timed: bool) -> Small:
    """From the quantized graph to the result and the truth about it."""
    work.progress("compile", 0.0)
    made = compile_program(quantized, name=work.name, plan=plan.to_toml(measured=False), meta=_meta(work, plan))
    program, after = write_and_reload(made, path)
    compressed, floating = open_runner(program, work.threads), open_runner(work.floating, work.threads)
    samples = _samples(work)
    exact = verify_exact(compressed, samples, work.progress)
    found = _judge(work, compressed, floating, evaluation, samples)
    one = feeds_of(program.inputs, samples[: fixed_batch(program.inputs) or 1])
    work.progress("time", 0.0)
    measured = timing.measure(floating, compressed, one) if timed else None
    profiles = (measured.layers, measured.float_layers) if measured is not None else ((), ())
    before = len(files.to_bytes(work.floating))
    small = Small(
        name=work.name,
        program=program,
        quantized=quantized,
        plan=plan,
        bytes_before=before,
        bytes_after=after,
        layers=layer_table(plan, program, work.floating, found.layers, *profiles),
        check=found,
        timing=measured,
        exactness=exact,
        path=path,
        notes=work.notes,
        missed=meets(plan.budget, before, after, found),
        interrupted=work.runner.cut,
        memory={
            name: engine_bytes(r.engine, {n: a.shape for n, a in one.items()})
            for name, r in (("before", floating), ("after", compressed))
        },
    )
    if measured is not None and not measured.faster:
        small.notes.append(f"not faster than float: {measured.reason}")
    _promise(work, small)
    small.facts = _facts(work, plan, found)
    return small


def _promise(work: Work, small: Small) -> None:
    seconds, limit = time.monotonic() - work.started, work.budget.seconds
    if limit is not None and seconds > limit:
        small.missed.append(Missed("time", f"compression took {seconds:.0f} s, limit {limit:.0f} s"))


def _facts(work: Work, plan: Plan, found: Check) -> dict[str, Any]:
    return {
        "seconds": round(time.monotonic() - work.started, 2),
        "phases": work.progress.as_json(),
        "memory_bound_bytes": work.memory_bound,
        "peak_memory_bytes": environment.peak_memory_bytes(),
        "calibration": dict(plan.data),
        "evaluation": found.data,
        "environment": environment.capture(),
        "budget": dataclasses.asdict(work.budget),
        "recipe": plan.recipe,
        "runner": work.runner.name,
    }
