"""Min-max calibration: the range is what was seen.

Paper: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018 (arXiv 1806.08342),
section 3.1.
Idea: never clip; pay with a larger step when a tensor has outliers.
Equations: lo = min(0, min x), hi = max(0, max x) over all calibration data (0 must be a code, for padding).
Differences: none. Cost: two numbers per tensor. Limits: one outlier among millions of values sets the step.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.method import Method, register
from netsuke.methods.quantize._statistics import Statistics


@dataclass(frozen=True)
class MinMax:
    """No options."""


def apply(statistics: Statistics, config: MinMax = MinMax(), *, bits: int = 8) -> tuple[float, float]:  # noqa: ARG001
    """The range (lo, hi), lo <= 0 <= hi."""
    return min(0.0, statistics.minimum), max(0.0, statistics.maximum)


METHOD = register(
    Method(
        name="quantize/minmax",
        purpose="calibrate a tensor's range to the smallest and largest value seen",
        paper="quant-whitepaper",
        config=MinMax,
        apply=apply,
        needs=("data",),
        touches=("activations",),
        exports=("qconv", "qlinear", "qmatmul", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="one float run over the calibration data",
        tags=("calibrator",),
    )
)
