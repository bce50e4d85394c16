"""Statistics of timings: quantiles, bootstrap interval of a ratio, and whether a measurement can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """Milliseconds of one row. `spread` is (p90 - p10) / median."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    spread: float
    runs: int
    rounds: int


def summarize(rounds: Sequence[Sequence[float]]) -> Summary:
    """Summary of timings in milliseconds, one list per round; ValueError when there is none."""
    values = np.concatenate([np.asarray(r, dtype=np.float64) for r in rounds]) if rounds else np.empty(0)
    if values.size == 0:
        raise ValueError("no timings")
    p10, p50, p90, p99 = np.quantile(values, [0.1, 0.5, 0.9, 0.99])
    return Summary(
        float(p50),
        float(p10),
        float(p90),
        float(p99),
        float(values.min()),
        float((p90 - p10) / p50),
        values.size,
        len(rounds),
    )


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the baseline: above 1 is faster. [low, high] is the 95% bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        return self.low > 1.0 or self.high < 1.0

    def __str__(self) -> str:
        text = f"{self.value:.2f}x [{self.low:.2f}, {self.high:.2f}]"
        return text if self.differs else text + " no difference"


def speed_ratio(
    baseline: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]], draws: int = 1000, seed: int = 0
) -> Ratio:
    """median(baseline) / median(candidate) with a bootstrap over rounds.

    Rounds are resampled in pairs, because the two were interleaved: whatever disturbed the machine in a round hit both.
    Within a round timings are correlated, so single timings are never resampled.
    """
    if not baseline or not candidate:
        raise ValueError("no timings")
    b = np.array([np.median(r) for r in baseline])
    c = np.array([np.median(r) for r in candidate])
    count = min(len(b), len(c))
    b, c = b[:count], c[:count]
    value = summarize(baseline).median_ms / summarize(candidate).median_ms
    pick = np.random.default_rng(seed).integers(0, count, size=(draws, count))
    drawn = np.median(b[pick], axis=1) / np.median(c[pick], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Ratio(float(value), float(min(low, value)), float(max(high, value)))


def drift(rounds: Sequence[Sequence[float]]) -> float:
    """Relative difference between the medians of the first and the second half of the rounds."""
    medians = [float(np.median(r)) for r in rounds]
    if len(medians) < 4:
        return 0.0
    half = len(medians) // 2
    first, second = float(np.median(medians[:half])), float(np.median(medians[half:]))
    return abs(second - first) / first
