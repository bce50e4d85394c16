"""Samples as feeds of a program; and the same samples in batches of several sizes must give the same outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from netsuke.core.errors import NetsukeError, Problem, UsageError
from netsuke.data import fields
from netsuke.program.model import Port
from netsuke.verify.runners import Runner

Array = np.ndarray[Any, Any]


HELD = 256 * 2**20  # bytes that the intermediates of one engine may take where the batch is ours to choose
_DTYPES = {"f32": np.float32, "u8": np.uint8, "i64": np.int64, "i32": np.int32, "bool": np.bool_}


def feeds_of(ports: Sequence[Port], x: Array | Mapping[str, Array]) -> dict[str, Array]:
    """One batch as feeds of the ports, in their dtypes: an array for the only one, or fields by name.

    UsageError listing every input without data and all data without input.
    """
    given = dict(x) if isinstance(x, Mapping) else fields(x)
    if "" in given and len(ports) == 1:
        given = {ports[0].name: given[""]}
    wanted = ", ".join(p.name for p in ports)
    hint = "an .npz with one array per input, named as they are"
    if "" in given:
        raise UsageError(Problem("one array for several inputs", where="data", allowed=wanted, hint=hint))
    missing = [p.name for p in ports if p.name not in given]
    problems = [Problem("no data for this input", n, ", ".join(given), wanted, hint) for n in missing]
    problems += [Problem("no such input", "data", n, wanted) for n in given.keys() - {p.name for p in ports}]
    problems += [problem for p in ports if p.name in given for problem in _misfit(p, given[p.name].shape)]
    if problems:
        raise UsageError(problems)
    return {p.name: np.ascontiguousarray(given[p.name], dtype=_DTYPES.get(p.dtype)) for p in ports}


def _misfit(port: Port, shape: tuple[int, ...]) -> list[Problem]:
    """Samples of another rank or another fixed size than the input's; the batch is the caller's business."""
    wanted, got = port.shape[1:], shape[1:]
    fits = len(shape) == len(port.shape) and all(w == g for w, g in zip(wanted, got, strict=True) if isinstance(w, int))
    if fits:
        return []
    allowed = f"samples of shape ({', '.join(map(str, wanted))})"
    return [Problem("the data do not fit the network's input", f"input {port.name}", str(got), allowed)]


def fixed_batch(ports: Sequence[Port]) -> int | None:
    """The batch size, where the program has a fixed one."""
    first = ports[0].shape[0] if ports and ports[0].shape else None
    return first if isinstance(first, int) else None


def sample_shapes(
    ports: Sequence[Port], shapes: Mapping[str, tuple[int, ...]], batch: int = 1
) -> dict[str, tuple[int, ...]]:
    """Shape of every input for a batch of samples of these shapes ("" names the only input).

    A batch that is fixed in the network stays.
    """
    return {p.name: (fixed_batch([p]) or batch, *shapes["" if "" in shapes else p.name]) for p in ports}


def fitting_batch(runners: Sequence[Runner | None], shapes: Mapping[str, tuple[int, ...]], most: int) -> int:
    """The batch, `most` or halves of it, at which no engine's intermediates take more than `HELD` bytes."""
    engines = [r.engine for r in runners if r is not None and r.engine is not None]
    while most > 1 and any(e.arena_bytes(sample_shapes(e.inputs, shapes, most)) > HELD for e in engines):
        most //= 2
    return most


def same_results(runner: Runner, first: Sequence[Mapping[str, Array]], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """One row per batch size: {"batch", "ok", "result"}. A network with a fixed batch has nothing to try."""
    ports = runner.program.inputs
    fixed = fixed_batch(ports)
    if fixed is not None or not all(p.shape for p in ports):
        return [{"batch": fixed or 0, "ok": True, "result": "fixed in the file"}]
    most = max(sizes, default=0)
    samples = {p.name: np.concatenate([f[p.name] for f in first])[:most] for p in ports}
    count = len(samples[ports[0].name])
    rows: list[dict[str, Any]] = []
    expected: Array | None = None
    for size in sizes:
        if size > count:
            rows.append({"batch": size, "ok": True, "result": f"not tried, {count} samples"})
            continue
        try:
            batches = [{n: a[i : i + size] for n, a in samples.items()} for i in range(0, count, size)]
            parts = [runner.outputs(batch)[0] for batch in batches]
        except NetsukeError as error:
            rows.append({"batch": size, "ok": False, "result": error.problems[0].what})
            continue
        found = np.concatenate(parts)
        expected = found if expected is None else expected
        same = np.array_equal(expected, found)
        rows.append({"batch": size, "ok": same, "result": "same" if same else "differs"})
    return rows
