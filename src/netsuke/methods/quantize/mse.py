"""MSE (L_p) calibration: the range with the smallest quantization error.

Paper: Choukroun et al., "Low-bit Quantization of Neural Networks for Efficient Inference", 2019 (arXiv
1902.06822); the grid over shrunken ranges with exponent 2.4 as in Li et al., "BRECQ", 2021 (arXiv 2102.05426).
Idea: clipping error of the tails against rounding error of the rest, measured on the data.
Equations: for i = 0 .. 79: (lo_i, hi_i) = (1 - 0.01 i) (min x, max x); e_i = mean |x - Q_i(x)|^p; take the i with
the smallest e_i (the first on ties). Q_i is the affine quantizer of docs/numerics.md sections 1 and 2 for that range.
Differences: the mean runs over a histogram (bin centres, exact zeros apart) instead of the tensor, so that memory
is bounded.
Cost: a histogram per tensor, then 80 x 8192 evaluations. Limits: minimises the error of the tensor, not of the
network; min and max shrink together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.quantize._codes import affine
from netsuke.methods.quantize._statistics import Statistics


@dataclass(frozen=True)
class Mse:
    """norm  exponent p of the error: 2 is the mean squared error, larger protects outliers."""

    norm: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.norm <= 8:
            raise UsageError(Problem("norm", "quantize/mse", str(self.norm), "[1, 8]"))


STEPS = 80


def apply(statistics: Statistics, config: Mse = Mse(), *, bits: int = 8) -> tuple[float, float]:
    """The range (lo, hi), lo <= 0 <= hi."""
    histogram = statistics.full_histogram()
    used = np.flatnonzero(histogram.counts)
    low, high = min(0.0, statistics.minimum), max(0.0, statistics.maximum)
    if used.size == 0:
        return low, high
    x = np.clip(histogram.centers[used], low, high)
    weight = histogram.counts[used].astype(np.float64)
    errors = [error(x, weight, low * (1 - 0.01 * i), high * (1 - 0.01 * i), bits, config.norm) for i in range(STEPS)]
    shrink = 1 - 0.01 * int(np.argmin(errors))
    return low * shrink, high * shrink


def error(x: np.ndarray, weight: np.ndarray, low: float, high: float, bits: int, norm: float) -> float:
    """Weighted sum of |x - Q(x)|^norm for the affine quantizer of the range."""
    scale, zero = affine(low, high, bits)
    codes = np.clip(np.rint(x / scale), -zero, 2**bits - 1 - zero)
    return float((weight * np.abs(x - codes * scale) ** norm).sum())


METHOD = register(
    Method(
        name="quantize/mse",
        purpose="calibrate a tensor's range to the least mean error |x - Q(x)|^p",
        paper="quant-whitepaper",
        config=Mse,
        apply=apply,
        needs=("data",),
        touches=("activations",),
        exports=("qconv", "qlinear", "qmatmul", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="one float run over the calibration data and a histogram of every tensor",
        tags=("calibrator", "histogram"),
    )
)
