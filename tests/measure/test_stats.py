"""Statistics of timings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netsuke.measure.stats import drift, speed_ratio, summarize

rounds_of_times = st.lists(st.lists(st.floats(0.01, 1000), min_size=1, max_size=5), min_size=1, max_size=12)
unhurried = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # CI machines are busy


@unhurried
@given(rounds_of_times)
def test_summary_is_ordered_and_complete(rounds: list[list[float]]) -> None:
    s = summarize(rounds)
    assert s.min_ms <= s.p10_ms <= s.median_ms <= s.p90_ms <= s.p99_ms <= max(max(r) for r in rounds)
    assert s.runs == sum(len(r) for r in rounds)
    assert s.rounds == len(rounds)
    assert s.median_ms == pytest.approx(np.median(np.concatenate([np.array(r) for r in rounds])))


def test_nothing_timed_is_an_error() -> None:
    with pytest.raises(ValueError, match="no timings"):
        summarize([])
    with pytest.raises(ValueError, match="no timings"):
        speed_ratio([], [[1.0]])


@unhurried
@given(rounds_of_times, st.floats(0.2, 5))
def test_ratio_of_scaled_times_is_the_scale(rounds: list[list[float]], scale: float) -> None:
    ratio = speed_ratio([[scale * t for t in r] for r in rounds], rounds)
    assert ratio.value == pytest.approx(scale)
    assert ratio.low <= ratio.value <= ratio.high


def test_ratio_interval_separates_and_joins() -> None:
    rng = np.random.default_rng(0)
    noise = lambda scale: (scale * (1 + 0.02 * rng.standard_normal((20, 8)))).tolist()  # noqa: E731
    faster = speed_ratio(noise(2.0), noise(1.0))
    assert faster.differs
    assert faster.low > 1.9
    same = speed_ratio(noise(1.0), noise(1.0))
    assert not same.differs
    assert "no difference" in str(same)
    slower = speed_ratio(noise(1.0), noise(1.5))
    assert slower.high < 1


def test_a_disturbance_of_whole_rounds_does_not_move_the_ratio() -> None:
    """Interleaved rounds are resampled in pairs: a slow round slows both sides."""
    slow = [5.0 if i % 3 == 0 else 1.0 for i in range(15)]
    ratio = speed_ratio([[2.0 * s] * 3 for s in slow], [[1.0 * s] * 3 for s in slow])
    assert (ratio.low, ratio.high) == (pytest.approx(2.0), pytest.approx(2.0))


def test_drift() -> None:
    assert drift([[1.0]] * 10) == 0
    assert drift([[1.0]] * 5 + [[1.2]] * 5) == pytest.approx(0.2)
    assert drift([[1.0], [9.0]]) == 0  # too few rounds to say
