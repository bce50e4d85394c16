"""Timing several engines in one run, in turns, so that whatever disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from netsuke.measure.engines.base import Session

MIN_ROUNDS = 9  # rounds are what the bootstrap resamples; below nine its intervals say little
MAX_ROUNDS = 25
MAX_BLOCK = 64  # timed calls per turn
# Between turns threads of the previous engine must have gone to sleep: those of onnxruntime spin for 50 ms after a call
# and took a core from whatever came next (our MobileNetV2 at two threads: every third turn at the speed of one).
SETTLE_S = 0.01  # one look at the CPU time of the process, whose clock counts other threads in steps of 4 ms
SETTLE_IDLE = 0.2  # of a core
SETTLE_MOST_S = 0.25


@dataclass
class Timing:
    """Timings of one session: a list of milliseconds per round, and CPU time over wall time inside its blocks."""

    rounds_ms: list[list[float]] = field(default_factory=list)
    busy_cores: float = 0.0
    error: str = ""


def _estimate(session: Session) -> float:
    """Seconds of one call, smallest of three after one warm-up, at most one second of calls."""
    session.activate()
    session.run()
    best, spent = float("inf"), 0.0
    for _ in range(3):
        begin = time.perf_counter()
        session.run()
        took = time.perf_counter() - begin
        best, spent = min(best, took), spent + took
        if spent > 1.0:
            break
    return best


def _settle(cpu: Callable[[], float] = time.process_time, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until this process uses no CPU, at most SETTLE_MOST_S."""
    for _ in range(round(SETTLE_MOST_S / SETTLE_S)):
        before = cpu()
        sleep(SETTLE_S)
        if cpu() - before < SETTLE_IDLE * SETTLE_S:
            return


def _block(session: Session, count: int) -> tuple[list[float], float, float]:
    """One untimed call, then `count` timed ones: milliseconds each, wall seconds, CPU seconds of this process."""
    _settle()
    session.activate()
    session.run()
    clock, run = time.perf_counter_ns, session.run
    marks = [0] * (count + 1)
    cpu = time.process_time()
    marks[0] = clock()
    for i in range(count):
        run()
        marks[i + 1] = clock()
    cpu = time.process_time() - cpu
    times = [(b - a) / 1e6 for a, b in itertools.pairwise(marks)]
    return times, (marks[-1] - marks[0]) / 1e9, cpu


def interleave(
    sessions: Mapping[str, Session],
    seconds: float = 1.0,
    seed: int = 0,
    progress: Callable[[float], None] = lambda _fraction: None,
) -> dict[str, Timing]:
    """Time all sessions in turns for about `seconds` each. A session that raises keeps its error and is left out from
    then on.
    """
    timings = {name: Timing() for name in sessions}
    estimates: dict[str, float] = {}
    for name, session in sessions.items():
        try:
            estimates[name] = _estimate(session)
        except Exception as error:  # a competitor's failure is a row, not ours
            timings[name].error = f"{type(error).__name__}: {error}"
    alive = list(estimates)
    if not alive:
        return timings
    rounds = int(np.clip(seconds / max(2.0 * max(estimates.values()), 1e-6), MIN_ROUNDS, MAX_ROUNDS))
    counts = {n: int(np.clip(seconds / rounds / max(e, 1e-6), 1, MAX_BLOCK)) for n, e in estimates.items()}
    wall, cpu = dict.fromkeys(alive, 0.0), dict.fromkeys(alive, 0.0)
    rng = np.random.default_rng(seed)
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for index in range(rounds):
            for name in rng.permutation(alive).tolist():
                try:
                    times, block_wall, block_cpu = _block(sessions[name], counts[name])
                except Exception as error:
                    timings[name].error = f"{type(error).__name__}: {error}"
                    alive.remove(name)
                    continue
                timings[name].rounds_ms.append(times)
                wall[name] += block_wall
                cpu[name] += block_cpu
            progress((index + 1) / rounds)
    finally:
        if enabled:
            gc.enable()
    for name in alive:
        timings[name].busy_cores = cpu[name] / max(wall[name], 1e-9)
    return timings
