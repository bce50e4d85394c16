"""`check`: is the compressed network still as good as the float one, and where does it depart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netsuke.core.errors import CheckFailed, Problem, UsageError
from netsuke.program.model import Program
from netsuke.verify import batches, parity
from netsuke.verify.batches import feeds_of
from netsuke.verify.metrics import LOWER_IS_BETTER, Score, Similarity, drop, require_finite, same_answer
from netsuke.verify.parity import Exactness, LayerParity
from netsuke.verify.runners import Runner, open_runner
from netsuke.verify.source import FloatNetwork, open_data, open_float

SCHEMA = "netsuke.check/1"
Array = np.ndarray[Any, Any]
Progress = Callable[[str, float], None]
EXACT_SAMPLES = 2  # the reference interpreter is slow; two samples already touch every layer and every tile edge
PARITY_SAMPLES = 16
STAND_INS = frozenset({"cosine", "agreement"})  # metrics that say how similar outputs are, where nothing else is known


@dataclass
class Check:
    """What was found. `problems` is empty when nothing is wrong; metrics are fractions (0.915, not 91.5)."""

    float_metrics: dict[str, float]
    compressed_metrics: dict[str, float]
    drop: dict[str, float]
    samples: int
    labelled: bool
    agreement: float | None
    cosine: float
    sqnr_db: float | None
    float_engine: str
    compressed_engine: str
    layers: list[LayerParity] = field(default_factory=list)
    exactness: Exactness | None = None
    batch_sizes: list[dict[str, Any]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def first_departure(self) -> LayerParity | None:
        return parity.first_departure(self.layers)

    def raise_if_bad(self) -> Check:
        """CheckFailed listing every problem; the check itself when there is none."""
        if self.problems:
            raise CheckFailed(
                self.problems, f"check failed: {len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
            )
        return self

    def as_json(self) -> dict[str, Any]:
        """The versioned form, keys documented in docs/json.md."""
        first = self.first_departure
        return {
            "schema": SCHEMA,
            "passed": not self.problems,
            "metrics": {"float": self.float_metrics, "compressed": self.compressed_metrics, "drop": self.drop},
            "samples": self.samples,
            "labelled": self.labelled,
            "agreement": self.agreement,
            "cosine": self.cosine,
            "sqnr_db": self.sqnr_db,
            "float_engine": self.float_engine,
            "compressed_engine": self.compressed_engine,
            "layers": [p.as_json() for p in self.layers],
            "first_departure": first.as_json() if first else None,
            "exactness": self.exactness.as_json() if self.exactness else None,
            "batch_sizes": self.batch_sizes,
            "data": self.data,
            "limits": self.limits,
            "problems": [{"what": p.what, "where": p.where, "got": p.got, "allowed": p.allowed} for p in self.problems],
            "notes": self.notes,
        }

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def percent(value: float) -> str:
    return f"{100 * value:.2f}%"


def _metric_line(name: str, before: float, after: float, lost: float, limit: float | None) -> str:
    plain = name in LOWER_IS_BETTER
    text = f"{before:.4g} -> {after:.4g}" if plain else f"{100 * before:.2f} -> {100 * after:.2f}"
    text = f"{name:10} {text}   ({0.0 - lost * (1 if plain else 100):+.2f}"
    return text + (f", limit {-100 * limit:+.2f})" if limit is not None else ")")


def _lines(check: Check) -> Iterator[str]:
    for name, lost in check.drop.items():
        yield _metric_line(
            name, check.float_metrics[name], check.compressed_metrics[name], lost, check.limits.get(name)
        )
    same = "" if check.agreement is None else f"same answer on {percent(check.agreement)} of {check.samples} samples, "
    decibel = "equal outputs" if check.sqnr_db is None else f"SQNR {check.sqnr_db:.1f} dB"
    yield f"outputs    {same}cosine {check.cosine:.6f}, {decibel}"
    if not check.labelled:
        yield "           no labels given: similarity of outputs stands in for accuracy"
    if check.exactness is not None:
        e = check.exactness
        verdict = "equal bit for bit" if e.exact else f"DIFFERENT in {len(e.differing)} values, first {e.differing[0]}"
        yield f"exactness  {e.codes:,} codes of {e.values} integer values, {e.engine} against the reference: {verdict}"
    if check.batch_sizes:
        told = ", ".join(f"{b['batch']}: {b['result']}" for b in check.batch_sizes)
        yield f"batches    {told}"
    if check.layers:
        worst = min(check.layers, key=lambda p: math.inf if p.sqnr_db is None else p.sqnr_db)
        first = check.first_departure
        start = f"first departs {first.layer} ({first.sqnr_db:.1f} dB)" if first else "no layer departs"
        low = "all equal" if worst.sqnr_db is None else f"lowest {worst.sqnr_db:.1f} dB at {worst.layer}"
        yield f"layers     {len(check.layers)} compared: {start}, {low}"
    yield f"ran on     float: {check.float_engine}; compressed: {check.compressed_engine}"
    yield from (f"note       {n}" for n in check.notes)


def _is_compressed(item: Any) -> bool:
    return (
        isinstance(item, (Program, Runner))
        or isinstance(getattr(item, "program", None), Program)
        or str(item).endswith(".nsk")
    )


def _compressed(item: Any, threads: int | None) -> Runner:
    from netsuke import program

    if isinstance(item, Runner):
        return item
    found = item if isinstance(item, Program) else getattr(item, "program", None)
    if found is None:
        found = program.read(item)
    return open_runner(found, threads)


@dataclass
class _Totals:
    """Accumulators of one pass over the data."""

    before: Score = field(default_factory=Score)
    after: Score = field(default_factory=Score)
    similar: Similarity = field(default_factory=Similarity)
    same: int = 0
    compared: int = 0
    samples: int = 0
    labelled: bool = False
    first: list[dict[str, Array]] = field(default_factory=list)

    def add(
        self, x: Array, y: Array | None, expected: Array, got: Array, feeds: dict[str, Array], *, fixed: bool
    ) -> None:
        require_finite(expected, "the outputs of the float network", self.samples)
        require_finite(got, "the outputs of the compressed network", self.samples)
        self.similar.add(expected, got)
        equal = same_answer(expected, got)
        self.same, self.compared = self.same + int(equal.sum()), self.compared + equal.size
        if y is not None:
            self.labelled = True
            self.before.add(expected, y)
            self.after.add(got, y)
        missing = PARITY_SAMPLES - sum(len(next(iter(f.values()))) for f in self.first)
        if missing > 0:
            self.first.append(feeds if fixed else {name: array[:missing] for name, array in feeds.items()})
        self.samples += len(x)


def _one_pass(
    floating: FloatNetwork, compressed: Runner, data: Any, batch: int, limit: int, progress: Progress
) -> _Totals:
    totals = _Totals()
    ports = compressed.program.inputs
    fixed = batches.fixed_batch(ports)
    count = min(data.count, limit) if limit else data.count
    feeds_of(ports, next(data.batches(1))[0])  # data that do not fit are refused in words of the data
    step = fixed or batches.fitting_batch([floating.runner, compressed], data.shapes, batch)
    for x, y in data.batches(step):
        x, y = (x[: count - totals.samples], None if y is None else y[: count - totals.samples])
        if len(x) == 0 or (fixed and len(x) < fixed):
            break
        feeds = feeds_of(ports, x)
        for array in feeds.values():
            require_finite(array, "the data", totals.samples)
        expected = floating.outputs(feeds if not floating.ports else feeds_of(floating.ports, x))
        totals.add(x, y, expected[0], compressed.outputs(feeds)[0], feeds, fixed=bool(fixed))
        progress("check", min(1.0, totals.samples / max(count, 1)))
    if totals.samples == 0:
        raise UsageError(
            Problem(
                "no sample was checked", where="data", got=f"{data.count} samples", allowed=f"at least {fixed or 1}"
            )
        )
    return totals


def _judge(result: Check) -> None:
    for name, limit in result.limits.items():
        if name not in result.drop:
            known = ", ".join(result.drop) or "none"
            result.problems.append(Problem("no such metric to limit", where=name, allowed=known, hint="give labels"))
        elif result.drop[name] > limit:
            result.problems.append(
                Problem("dropped more than allowed", where=name, got=percent(result.drop[name]), allowed=percent(limit))
            )
    if result.exactness is not None and not result.exactness.exact:
        where = result.exactness.differing[0]
        result.problems.append(
            Problem("codes differ from the reference interpreter", where=where, hint="this is a bug, report it")
        )
    result.problems += [
        Problem("another batch size gives another result", where=f"batch {b['batch']}", got=b["result"])
        for b in result.batch_sizes
        if not b["ok"]
    ]


def check(
    compressed: Any,
    against: Any,
    data: Any,
    *,
    shape: Any = None,
    weights: Any = None,
    limits: Mapping[str, float] | None = None,
    batch: int = 32,
    samples: int = 0,
    layers: bool = True,
    exact: bool = True,
    sizes: tuple[int, ...] = (1, 3, 8),
    evaluate: Callable[[Callable[[Array], Array]], Mapping[str, float]] | None = None,
    threads: int | None = None,
    progress: Progress = lambda _text, _fraction: None,
) -> Check:
    """Compare a compressed network with the float one on data.

    compressed  .nsk path, Program, an open Runner, or an object with `.program`; the first two in either order
    against     the float network: ONNX path, .pt2, file.py:factory, reference network, torch module, onnx_ir.Model, or
                a FloatNetwork that is open
    data        Dataset, arrays, a loader, or what `netsuke.data.load_data` takes; labels optional
    limits      largest allowed drop per metric as a fraction, e.g. {"top1": 0.01}
    batch       samples at a time; fewer where the networks' intermediates would take more than 256 MiB
    samples     at most so many samples, 0 for all
    layers      parity of every layer on the first 16 samples; exact: engine against the reference interpreter on 2
    sizes       batch sizes whose results must equal each other bit for bit
    evaluate    own metric: given a function from a batch of inputs to outputs, returns metrics by name (higher is
    better)

    Returns a Check; `raise_if_bad()` raises CheckFailed. Raises UsageError for data that is empty, not finite or does
    not fit.
    """
    progress("check" if isinstance(against, FloatNetwork) else "capture", 0.0)
    if not _is_compressed(compressed) and _is_compressed(against):
        compressed, against = against, compressed
    data = data if hasattr(data, "batches") else open_data(data, role="eval")
    if data is None:
        raise UsageError(Problem("no data to check on", where="data"))
    small = _compressed(compressed, threads)
    known = isinstance(against, FloatNetwork)
    floating = against if known else open_float(against, shape=shape, weights=weights, threads=threads, sample=data)
    totals = _one_pass(floating, small, data, batch, samples, progress)
    before, after = totals.before.values(), totals.after.values()
    agreement = totals.same / totals.compared if totals.compared else None
    if evaluate is not None:
        before |= evaluate(lambda x: floating.outputs(feeds_of(floating.ports or small.program.inputs, x))[0])
        after |= evaluate(lambda x: small.outputs(feeds_of(small.program.inputs, x))[0])
    if not before:  # the names of STAND_INS
        before = {"cosine": 1.0} | ({"agreement": 1.0} if agreement is not None else {})
        after = {"cosine": totals.similar.cosine} | ({"agreement": agreement} if agreement is not None else {})
    decibel = totals.similar.sqnr_db
    result = Check(
        float_metrics=before, compressed_metrics=after, drop=drop(before, after), samples=totals.samples,
        labelled=totals.labelled, agreement=agreement, cosine=totals.similar.cosine,
        sqnr_db=None if math.isinf(decibel) else decibel, float_engine=floating.name, compressed_engine=small.name,
        data=dict(data.facts()), limits=dict(limits or {}), notes=[floating.note] if floating.note else [],
    )  # fmt: skip
    if layers and floating.runner is not None:
        progress("layers", 0.0)
        result.layers = parity.layer_parity(floating.runner, small, totals.first)
    if exact:
        progress("exactness", 0.0)
        result.exactness = _exactness(small, totals.first[0], result)
    result.batch_sizes = batches.same_results(small, totals.first, sizes)
    _judge(result)
    return result


def _exactness(small: Runner, feeds: Mapping[str, Array], result: Check) -> Exactness | None:
    if small.engine is None:
        result.notes.append("no compiled runtime: the reference interpreter ran, there is nothing to compare it with")
        return None
    fixed = batches.fixed_batch(small.program.inputs)
    return parity.exactness(small, feeds if fixed else {k: v[:EXACT_SAMPLES] for k, v in feeds.items()})
