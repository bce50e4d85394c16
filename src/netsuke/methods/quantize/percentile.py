"""Percentile calibration: clip the outermost share of the values.

Paper: McKinstry et al., "Discovering Low-Precision Networks Close to Full-Precision Networks for Efficient
Embedded Inference", 2018 (arXiv 1809.04191); Wu et al., "Integer Quantization for Deep Learning Inference", 2020
(arXiv 2004.09602), section 3.3.
Idea: a few values in ten thousand may be clipped for a smaller step everywhere else.
Equations: hi = quantile(x, p / 100), lo = quantile(x, 1 - p / 100) over all values, then clipped to what was seen
and 0 included.
Differences: the papers clip |x| symmetrically; ranges here are affine, so each side is cut on its own.
Cost: a histogram of 8192 bins per tensor; quantiles are exact to one bin (at most 1/2048 of the largest |x|).
Limits: blind to how much the clipped values matter.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.quantize._statistics import Statistics


@dataclass(frozen=True)
class Percentile:
    """percent  share of values not clipped on each side, in (50, 100]."""

    percent: float = 99.99

    def __post_init__(self) -> None:
        if not 50 < self.percent <= 100:
            raise UsageError(Problem("percent", "quantize/percentile", str(self.percent), "(50, 100]"))


def apply(statistics: Statistics, config: Percentile = Percentile(), *, bits: int = 8) -> tuple[float, float]:  # noqa: ARG001
    """The range (lo, hi), lo <= 0 <= hi."""
    histogram, share = statistics.full_histogram(), config.percent / 100
    low = max(statistics.minimum, histogram.quantile(1 - share))
    high = min(statistics.maximum, histogram.quantile(share))
    return min(0.0, low), max(0.0, high)


METHOD = register(
    Method(
        name="quantize/percentile",
        purpose="calibrate a tensor's range to a percentile of its values",
        paper="quant-whitepaper",
        config=Percentile,
        apply=apply,
        needs=("data",),
        touches=("activations",),
        exports=("qconv", "qlinear", "qmatmul", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="one float run over the calibration data and a histogram of every tensor",
        tags=("calibrator", "histogram"),
    )
)
