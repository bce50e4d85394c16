"""`bench`: one network, several engines, timed in turns in one run."""

from __future__ import annotations

import contextlib
import importlib.metadata
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from netsuke.core.errors import EnvironmentProblem, Problem, UsageError
from netsuke.measure import engines, environment, machine, verdict
from netsuke.measure.engines.base import Array, Engine, Session, Subject, Unavailable
from netsuke.measure.interleave import interleave
from netsuke.measure.layers import layer_table
from netsuke.measure.probe import probe
from netsuke.measure.result import Result, Settings
from netsuke.measure.rows import Row, add_ratios
from netsuke.measure.stats import summarize
from netsuke.measure.subject import Prepared, prepare

Progress = Callable[[str, float], None]


def _version(engine: Engine) -> str:
    found = environment.versions()
    if engine.name.startswith("netsuke"):
        return found["netsuke"]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(engine.packages[0])
    return ""


def _candidates(settings: Settings, compressed: str) -> list[tuple[Engine, str]]:
    """Engines with their precisions; `compressed`: that of our own compressed program."""
    pairs: list[tuple[Engine, str]] = []
    for name in settings.engines:
        engine = engines.engine(name)
        offered = engine.precisions
        if engine.name.startswith("netsuke"):
            offered = tuple(compressed if p == "int8" else p for p in offered)
        pairs.extend((engine, p) for p in offered if p in settings.precisions)
    return pairs


def _check_settings(settings: Settings) -> None:
    cores = environment.usable_cores()
    allowed = f"1 to {4 * cores} ({cores} cores here)"
    bad = [count for count in settings.threads if not 1 <= count <= 4 * cores]
    problems = [Problem("thread count", where="--threads", got=str(count), allowed=allowed) for count in bad]
    problems += [Problem("batch", where="--batch", got=str(b), allowed="1 or more") for b in settings.batch if b < 1]
    if not 0.01 <= settings.seconds <= 600:
        problems.append(
            Problem("seconds per engine", where="--seconds", got=str(settings.seconds), allowed="0.01 to 600")
        )
    if problems:
        raise UsageError(problems)


def _open(engine: Engine, subject: Subject, row: Row, *, memory: bool) -> Session | None:
    """Prepare, probe in a child, load here. A failure is written into the row."""
    gone = engines.missing(engine, row.precision)
    if gone:
        row.status, row.reason, row.install = "missing", f"{', '.join(gone)} not installed", engine.install
        return None
    try:
        engine.prepare(subject, row.precision)
        if memory:
            _probe(engine, subject, row)
        return engine.open(subject, row.precision, row.threads)
    except Unavailable as error:
        row.status, row.reason = "failed", str(error)
    except Exception as error:
        row.status, row.reason = (
            "failed",
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}",
        )
    return None


def _probe(engine: Engine, subject: Subject, row: Row) -> None:
    if subject.module is not None and subject.torch_spec is None and engine.name.startswith("torch"):
        row.memory_note = "not measured: the module was given in memory, a process of its own cannot load it"
        return
    answer = probe(subject, engine.name, row.precision, row.threads)
    if "unavailable" in answer:
        raise Unavailable(answer["unavailable"])
    if "error" in answer:
        raise Unavailable(f"failed when loaded alone: {answer['error']}")
    row.load_ms, row.first_ms, row.peak_bytes = answer["load_ms"], answer["first_ms"], answer["peak_bytes"]


def _cosine(reference: list[Array], outputs: list[Array]) -> float | None:
    """Cosine similarity of all outputs taken together; None where they cannot be compared."""
    if len(reference) != len(outputs) or any(a.size != b.size for a, b in zip(reference, outputs, strict=True)):
        return None
    a = np.concatenate([np.asarray(r, np.float64).ravel() for r in reference])
    b = np.concatenate([np.asarray(o, np.float64).ravel() for o in outputs])
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0 else None


@dataclass
class _Run:
    """State of one `bench` call: what is known about each engine, and how disturbed the machine was."""

    ready: Prepared
    settings: Settings
    progress: Progress
    known: dict[tuple[str, str], Row] = field(default_factory=dict)
    disturbances: list[environment.Disturbance] = field(default_factory=list)

    def load(self, subject: Subject, threads: int, batch: int) -> tuple[list[Row], dict[str, Session]]:
        """Open every engine. Memory and load time are measured once per engine and precision and carried over."""
        rows: list[Row] = []
        sessions: dict[str, Session] = {}
        pairs = _candidates(self.settings, self.ready.precision)
        for index, (engine, precision) in enumerate(pairs):
            self.progress(f"load {engine.name} {precision}", index / len(pairs))
            row = Row(engine.name, precision, threads, batch, version=_version(engine))
            before = self.known.setdefault((engine.name, precision), row)
            session = _open(engine, subject, row, memory=self.settings.memory and before is row)
            row.load_ms, row.first_ms, row.peak_bytes = before.load_ms, before.first_ms, before.peak_bytes
            row.memory_note = before.memory_note
            rows.append(row)
            if session is not None:
                sessions[row.label] = session
                row.effective_threads, row.note = session.threads, session.note
        return rows, sessions

    def time(self, threads: int, batch: int) -> list[Row]:
        """All rows of one thread count and batch."""
        rows, sessions = self.load(self.ready.subject(batch), threads, batch)
        text = f"time {len(sessions)} engines, {threads} thread{'s' * (threads > 1)}, batch {batch}"
        self.disturbances.append(environment.Disturbance().start())
        settings = self.settings
        timings = interleave(sessions, settings.seconds, settings.seed, lambda part: self.progress(text, part))
        self.disturbances[-1].stop()
        reference: list[Array] | None = None
        for row in rows:
            timing = timings.get(row.label)
            if timing is None:
                continue
            if timing.error or not timing.rounds_ms:
                row.status, row.reason = "failed", timing.error or "no timing"
                continue
            row.rounds_ms, row.busy_cores = timing.rounds_ms, timing.busy_cores
            row.summary = summarize(timing.rounds_ms)
            outputs = sessions[row.label].run()
            reference = outputs if reference is None and row.precision == "f32" else reference
            row.cosine = _cosine(reference, outputs) if reference is not None else None
        return rows


@contextlib.contextmanager
def _restored_torch_threads() -> Iterator[None]:
    """torch.set_num_threads is global: put it back."""
    import sys

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    try:
        yield
    finally:
        if torch and before:
            torch.set_num_threads(before)


def bench(
    item: Any,
    vs: Any = None,
    *,
    threads: Sequence[int] = (1,),
    batch: Sequence[int] = (1,),
    names: Sequence[str] = (),
    precisions: Sequence[str] = (),
    calib: Mapping[str, Any] | None = None,
    shape: Any = None,
    weights: Any = None,
    seconds: float = 1.0,
    memory: bool = True,
    layers: bool = False,
    seed: int = 0,
    progress: Progress = lambda _text, _fraction: None,
) -> Result:
    """Time a compressed program (or a float network alone) beside the engines that are installed.

    item        a .nsk path, a Program, a Small, or a float network (then without `vs`)
    vs          the float network: ONNX path, file.py:factory, .pt2, torch module or onnx_ir.Model
    threads     thread counts, each its own group of rows; batch likewise
    names       engines, default all (`netsuke.measure.engines.NAMES`); precisions: "f32", "bf16", "int8", default all
    calib       arrays by input name for the competitors' own INT8; random inputs otherwise
    seconds     timed seconds per engine and setting
    memory      also load time, first call and peak memory, each in a process of its own

    Raises UsageError for settings that cannot be; a competitor's failure is a row.
    """
    settings = Settings(
        threads=tuple(threads),
        batch=tuple(batch),
        engines=tuple(names) or engines.NAMES,
        precisions=tuple(precisions) or ("f32", "bf16", "int8"),
        seconds=seconds,
        memory=memory,
        layers=layers,
        seed=seed,
    )
    _check_settings(settings)
    for name in settings.engines:
        engines.engine(name)
    with tempfile.TemporaryDirectory(prefix="netsuke-bench-") as folder, _restored_torch_threads():
        ready = prepare(item, vs, Path(folder), shape=shape, weights=weights, calib=calib, seed=seed)
        run = _Run(ready, settings, progress)
        rows = [row for b in settings.batch for t in settings.threads for row in run.time(t, b)]
        if not any(r.status == "ok" for r in rows):
            raise EnvironmentProblem(
                [Problem(r.reason, where=r.label) for r in rows], "no engine could run this network"
            )
        baselines = add_ratios(rows)
        if layers and not machine.read_cached():
            ready.notes.append("this machine's limits are not known: netsuke doctor measures them once")
        by_layer = layer_table(ready, settings.threads[0], settings.batch[0]) if layers else []
    return Result(
        rows=rows,
        baselines=baselines,
        settings=settings,
        environment=environment.capture(),
        verdict=verdict.judge(rows, environment.worst(run.disturbances)),
        notes=ready.notes,
        layers=by_layer,
        files={
            k: {"name": Path(v).name, "bytes": Path(v).stat().st_size}
            for k, v in ready.files.items()
            if Path(v).exists()
        },
    )
