"""From outcomes to a verdict: exact parts must hold on every seed, comparisons are paired over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from netsuke.papers.claim import FAILS, NOT_REPRODUCED, PASSES, Claim, Compare, Outcome


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value); NaN stays NaN."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def compare(rule: Compare, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Mean difference, its spread, effect size (Cohen's d of the paired differences) and 95% interval (Student t)."""
    from scipy import stats

    differences = [o.figures[rule.figure] - (o.figures[rule.baseline] if rule.baseline else 0.0) for o in outcomes]
    mean, spread = _mean_and_spread(differences)
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * spread / math.sqrt(len(differences)) if spread else 0.0
    return {
        "rule": str(rule),
        "mean": mean,
        "spread": spread,
        "effect_size": (mean - rule.margin) / spread if spread else None,
        "interval": [mean - half, mean + half],
        "holds": mean >= rule.margin + (spread if rule.clear else 0.0),
    }


def judge(claim: Claim, outcomes: Mapping[int, Outcome]) -> dict[str, Any]:
    """`verdict`, the exact parts that failed (with seeds), every comparison, each figure as mean and spread, curves."""
    runs = list(outcomes.values())
    broken = {
        name: [seed for seed, o in outcomes.items() if not o.exact.get(name, False)]
        for name in sorted({key for o in runs for key in o.exact})
    }
    broken = {name: seeds for name, seeds in broken.items() if seeds}
    comparisons = [compare(rule, runs) for rule in claim.compares]
    # A figure that is not a number is never a pass: comparisons with NaN are false by IEEE rules.
    held = all(c["holds"] for c in comparisons)
    verdict = FAILS if broken else PASSES if held else NOT_REPRODUCED
    figures = {}
    for name in sorted({key for o in runs for key in o.figures}):
        values = [o.figures[name] for o in runs if name in o.figures]
        mean, spread = _mean_and_spread(values)
        figures[name] = {"mean": mean, "spread": spread, "values": values}
    exact = sorted({key for o in runs for key in o.exact})
    row = {"verdict": verdict, "exact": exact, "broken": broken, "comparisons": comparisons, "figures": figures}
    curves = _curves(runs)
    return {**row, "curves": curves} if curves else row


def _curves(runs: Sequence[Outcome]) -> dict[str, list[list[float]]]:
    """Name -> one list a seed, four digits."""
    names = sorted({key for o in runs for key in o.curves})
    return {name: [[float(f"{v:.4g}") for v in o.curves[name]] for o in runs if name in o.curves] for name in names}
