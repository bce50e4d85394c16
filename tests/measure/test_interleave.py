"""Turns, failures and settings of the timing loop; nothing here depends on how fast the machine is."""

from __future__ import annotations

import numpy as np
import pytest

from netsuke.measure.engines.base import Array, Session
from netsuke.measure.interleave import MAX_ROUNDS, MIN_ROUNDS, SETTLE_MOST_S, SETTLE_S, _settle, interleave


class Fake:
    """Counts its calls and remembers who ran last before each."""

    last = ""

    def __init__(self, name: str, fail_at: int = 0) -> None:
        self.name, self.calls, self.fail_at, self.activated, self.before = name, 0, fail_at, 0, []

    def run(self) -> list[Array]:
        self.before.append(Fake.last)
        Fake.last = self.name
        self.calls += 1
        if self.fail_at and self.calls >= self.fail_at:
            raise RuntimeError("broke")
        return [np.zeros(1)]

    def activate(self) -> None:
        self.activated += 1

    def session(self) -> Session:
        return Session(self.run, 1, self.activate)


def test_everyone_gets_the_same_rounds_in_turns() -> None:
    fakes = {n: Fake(n) for n in "abc"}
    progress: list[float] = []
    timings = interleave({n: f.session() for n, f in fakes.items()}, seconds=0.02, progress=progress.append)
    counts = {len(t.rounds_ms) for t in timings.values()}
    assert len(counts) == 1
    assert MIN_ROUNDS <= counts.pop() <= MAX_ROUNDS
    assert all(t > 0 for timing in timings.values() for r in timing.rounds_ms for t in r)
    assert all(set(f.before) >= set("abc") - {n} for n, f in fakes.items()), "each ran right after each of the others"
    assert progress[-1] == 1.0
    for f in fakes.values():
        assert f.activated == len(timings["a"].rounds_ms) + 1


def test_a_failing_session_is_left_out_and_keeps_its_error() -> None:
    at_once, later, fine = Fake("x", fail_at=1), Fake("y", fail_at=8), Fake("z")
    timings = interleave({f.name: f.session() for f in (at_once, later, fine)}, seconds=0.02)
    assert timings["x"].error == "RuntimeError: broke"
    assert not timings["x"].rounds_ms
    assert "broke" in timings["y"].error
    assert later.calls == 8
    assert not timings["z"].error
    assert len(timings["z"].rounds_ms) >= MIN_ROUNDS


def test_nothing_to_time() -> None:
    assert interleave({}) == {}


def test_a_turn_begins_when_threads_of_the_one_before_are_asleep() -> None:
    now, spent = [0.0], [0.0]

    def wait_while_spinning_until(end: float) -> float:
        now[0] = spent[0] = 0.0

        def sleep(seconds: float) -> None:
            spent[0] += max(0.0, min(seconds, end - now[0]))
            now[0] += seconds

        _settle(lambda: spent[0], sleep)
        return now[0]

    assert wait_while_spinning_until(0.0) == pytest.approx(SETTLE_S)
    assert wait_while_spinning_until(0.055) == pytest.approx(0.07)
    assert wait_while_spinning_until(1e9) == pytest.approx(SETTLE_MOST_S)
