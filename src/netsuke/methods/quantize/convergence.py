"""Convergence of calibration: how the ranges settle as samples are added.

Paper: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference: A whitepaper", 2018 (arXiv
1806.08342), section 3.1, which asks how many samples are enough.
Idea: the ranges found so far are held against the final ones; when the distance stops falling, more data do not help.
Equations: after n = 1, 2, 4, ... samples (whole batches) and at the end, for every quantizer the distance d_n =
max(|lo_n - lo|, |hi_n - hi|) / (hi - lo) to its final range (lo, hi); a point of the curve is the median and the
maximum of d_n over the quantizers.
Differences: the paper gives a number of mini-batches; here it is measured on the network at hand.
Cost: one float run over the calibration data. Limits: a settled range is not a good range; it only says that more
samples of the same kind would not change it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.core.method import Method, register
from netsuke.methods.quantize._calibrate import ranges, stream
from netsuke.methods.quantize._context import Context

ENOUGH = 0.02  # half of all ranges within 2 % of their end: under 0.03 bit


@dataclass(frozen=True)
class Convergence:
    """No options."""


@dataclass(frozen=True)
class Point:
    """Distance to the final ranges after `samples` samples, as a share of the range."""

    samples: int
    median: float
    worst: float
    worst_tensor: str


def curve(context: Context) -> list[Point]:
    """The curve over the context's calibration data; the last point is the end and has distance 0."""
    seen: list[tuple[int, dict[str, tuple[float, float]]]] = []
    wanted, found, done = 1, {}, 0
    for done, statistics in stream(context):
        found = ranges(context, statistics)
        if done >= wanted:
            seen.append((done, found))
            wanted = 2 ** int(np.floor(np.log2(done)) + 1)
    if done and (not seen or seen[-1][0] != done):
        seen.append((done, found))
    return [_point(count, part, found) for count, part in seen]


def _point(count: int, part: dict[str, tuple[float, float]], end: dict[str, tuple[float, float]]) -> Point:
    distances = {}
    for name, (low, high) in end.items():
        extent = max(high - low, 1e-30)
        distances[name] = max(abs(part[name][0] - low), abs(part[name][1] - high)) / extent
    worst = max(distances, key=lambda name: distances[name])
    return Point(count, float(np.median(list(distances.values()))), distances[worst], worst)


def apply(context: Context, config: Convergence) -> None:  # noqa: ARG001
    """Add a note to the plan: after how many samples half of the ranges were settled."""
    points = curve(context)
    settled = next((p for p in points if p.median <= ENOUGH), points[-1])
    context.plan.note(
        f"calibration: half of the ranges were within {ENOUGH:.0%} of their end after {settled.samples} of "
        f"{points[-1].samples} samples"
    )


METHOD = register(
    Method(
        name="quantize/convergence",
        purpose="show how calibrated ranges settle as samples are added",
        paper="quant-whitepaper",
        config=Convergence,
        apply=apply,
        needs=("data",),
        touches=(),
        cost="one float run over the calibration data",
        tags=("weights",),
    )
)
