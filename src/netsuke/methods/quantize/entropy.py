"""Entropy calibration: the clipping threshold whose quantized distribution is closest to the original one.

Paper: Migacz, "8-bit Inference with TensorRT", 2017 (conference slides); analysed in Wu et al. 2020 (arXiv
2004.09602), section 3.3.
Idea: keep the information of the distribution instead of the values' squared error.
Equations: histogram of |x| with bins of width d; levels L = 2^(b-1) for tensors of both signs, 2^b for tensors of
one sign. For every i = L .. n bins: P = bins 0 .. i-1 with the mass beyond i added to bin i-1; Q = P (without that
mass) merged into L runs of bins, each run's mass spread evenly over its non-empty bins; both normalised; KL(P||Q).
Threshold T = (i + 0.5) d at the least KL; lo = max(min x, -T), hi = min(max x, T), 0 included.
Differences: L depends on the sign (the slides use 128 throughout); the histogram has 512 to 1024 bins up to the
largest |x| for speed; exact zeros are left out, because every quantizer
here represents them without error and behind a ReLU they would outweigh everything else; bins where P > 0 = Q are
smoothed with 1e-9.
Cost: a histogram per tensor and about 200 divergences. Limits: assumes that 8-bit resolution suffices inside T;
worse than MSE at 4 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netsuke.core.method import Method, register
from netsuke.methods.quantize._histogram import HALF, Histogram
from netsuke.methods.quantize._statistics import Statistics

BINS = 1024
STRIDE = 4  # thresholds tried: every fourth bin, 0.4 % of the range


@dataclass(frozen=True)
class Entropy:
    """No options."""


def apply(statistics: Statistics, config: Entropy = Entropy(), *, bits: int = 8) -> tuple[float, float]:  # noqa: ARG001
    """The range (lo, hi), lo <= 0 <= hi."""
    histogram = statistics.full_histogram()
    low, high = min(0.0, statistics.minimum), max(0.0, statistics.maximum)
    if not histogram.width:
        return low, high
    one_sided = low == 0.0 or high == 0.0
    counts, width = magnitudes(histogram)
    threshold = best_threshold(counts, 2**bits if one_sided else 2 ** (bits - 1)) * width
    return max(low, -threshold), min(high, threshold)


def magnitudes(histogram: Histogram) -> tuple[npt.NDArray[np.float64], float]:
    """Counts of |x| in at most BINS bins up to the largest |x|, and the bin width."""
    folded = histogram.counts[HALF:] + histogram.counts[:HALF][::-1]
    merge = HALF // BINS
    counts = folded.reshape(-1, merge).sum(axis=1).astype(np.float64)
    last = int(np.flatnonzero(counts)[-1])
    return counts[: last + 1], histogram.width * merge


def best_threshold(counts: npt.NDArray[np.float64], levels: int) -> float:
    """The threshold in bins that gives the least divergence; all bins when there are no more than `levels`."""
    size = counts.size
    if size <= levels:
        return float(size)
    ends = np.append(np.arange(levels, size, STRIDE), size)
    values = [divergence(counts, int(end), levels) for end in ends]
    end = int(ends[int(np.argmin(values))])
    return float(size) if end == size else end + 0.5


def divergence(counts: npt.NDArray[np.float64], end: int, levels: int) -> float:
    """KL(P||Q) of the histogram clipped to `end` bins and merged into `levels`."""
    inside = counts[:end]
    clipped = inside.copy()
    clipped[-1] += counts[end:].sum()
    run = np.minimum(np.arange(end) * levels // end, levels - 1)
    filled = (inside > 0).astype(np.float64)
    mass = np.bincount(run, inside, levels)
    width = np.maximum(np.bincount(run, filled, levels), 1)
    merged = (mass / width)[run] * filled
    p, q = clipped / clipped.sum(), merged / max(float(merged.sum()), 1.0)
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-9))).sum())


METHOD = register(
    Method(
        name="quantize/entropy",
        purpose="calibrate a tensor's range to the least divergence between its distributions",
        paper="quant-whitepaper",
        config=Entropy,
        apply=apply,
        needs=("data",),
        touches=("activations",),
        exports=("qconv", "qlinear", "qmatmul", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="one float run over the calibration data and a histogram of every tensor",
        tags=("calibrator", "histogram"),
    )
)
