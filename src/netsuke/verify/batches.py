"""The same samples in batches of several sizes must give the same outputs, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from netsuke.core.errors import NetsukeError, Problem, UsageError
from netsuke.program.model import Port, Program
from netsuke.verify.runners import Runner

Array = np.ndarray[Any, Any]


def data_port(program: Program) -> Port:
    """The input that data feed; UsageError when there are several, because one array cannot say which is which."""
    if len(program.inputs) != 1:
        names = ", ".join(p.name for p in program.inputs)
        raise UsageError(Problem("data are for networks with one input", where=program.name, got=names))
    return program.inputs[0]


def same_results(runner: Runner, first: Sequence[Mapping[str, Array]], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """One row per batch size: {"batch", "ok", "result"}. A network with a fixed batch has nothing to try."""
    port = data_port(runner.program)
    if not port.shape or isinstance(port.shape[0], int):
        return [{"batch": port.shape[0] if port.shape else 0, "ok": True, "result": "fixed in the file"}]
    samples = np.concatenate([f[port.name] for f in first])[: max(sizes, default=0)]
    rows: list[dict[str, Any]] = []
    expected: Array | None = None
    for size in sizes:
        if size > len(samples):
            rows.append({"batch": size, "ok": True, "result": f"not tried, {len(samples)} samples"})
            continue
        try:
            parts = [runner.outputs({port.name: samples[i : i + size]})[0] for i in range(0, len(samples), size)]
        except NetsukeError as error:
            rows.append({"batch": size, "ok": False, "result": error.problems[0].what})
            continue
        found = np.concatenate(parts)
        expected = found if expected is None else expected
        same = np.array_equal(expected, found)
        rows.append({"batch": size, "ok": same, "result": "same" if same else "differs"})
    return rows
