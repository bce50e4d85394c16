"""Moving-average calibration: an exponential average of each batch's minimum and maximum.

Paper: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018 (arXiv 1712.05877), section 3.1, where it is used during training; used after training by
Krishnamoorthi 2018.
Idea: rare extremes are averaged away instead of deciding the range.
Equations: r <- m r + (1 - m) r_batch, started with the first batch; then 0 is included.
Differences: none. Cost: two numbers per tensor. Limits: depends on the order and the size of the batches (both are
fixed by the seed); a value beyond the average is clipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.quantize._statistics import Statistics


@dataclass(frozen=True)
class MovingAverage:
    """momentum  weight of the past, in [0, 1)."""

    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise UsageError(Problem("momentum", "quantize/moving_average", str(self.momentum), "[0, 1)"))


def apply(statistics: Statistics, config: MovingAverage = MovingAverage(), *, bits: int = 8) -> tuple[float, float]:  # noqa: ARG001
    """The range (lo, hi), lo <= 0 <= hi; the statistics were gathered with the config's momentum."""
    return min(0.0, statistics.average_min), max(0.0, statistics.average_max)


METHOD = register(
    Method(
        name="quantize/moving_average",
        purpose="calibrate a tensor's range to the moving average of the batches' extremes",
        paper="quant-whitepaper",
        config=MovingAverage,
        apply=apply,
        needs=("data",),
        touches=("activations",),
        exports=("qconv", "qlinear", "qmatmul", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="one float run over the calibration data",
        tags=("calibrator",),
    )
)
