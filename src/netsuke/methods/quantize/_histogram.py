"""A histogram of fixed size for a stream of unknown range.

Bins are half-open, [k w, (k+1) w) for k = -HALF .. HALF-1, with w a power of two. When a value falls outside, w
doubles and bins are merged in pairs. Because w is a power of two and bins are anchored at 0, x / w is exact and
merging commutes with binning: the result is the histogram of all data at the final width, whatever the order and
the size of the batches. Exact zeros are counted apart, because every quantizer here represents 0 without error and
activations behind a ReLU are mostly zeros.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

HALF = 4096  # bins on each side of 0: a tensor of one sign uses 2048 to 4096 of them, 8 to 16 per 8-bit step
_SMALLEST = 2.0**-100  # below this x / w would overflow float32; such data are zeros for every purpose here
_SLICE = 1 << 16  # elements binned at a time: their bins and indices, 768 KiB, stay in the cache


class Histogram:
    """Counts of a stream. `width` is the bin width, `counts` has 2 * HALF entries, `zeros` counts exact zeros."""

    def __init__(self) -> None:
        self.width = 0.0
        self.zeros = 0
        self.counts = np.zeros(2 * HALF, np.int64)

    @property
    def total(self) -> int:
        """Number of values seen."""
        return int(self.counts.sum()) + self.zeros

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """Middle of each bin."""
        return np.asarray((np.arange(-HALF, HALF) + 0.5) * self.width, np.float64)

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Left edge of each bin and the right edge of the last, 2 * HALF + 1 values."""
        return np.asarray(np.arange(-HALF, HALF + 1) * self.width, np.float64)

    def add(self, x: npt.NDArray[np.float32]) -> None:
        """Count a batch of finite float32 values of any shape."""
        flat = x.reshape(-1)
        for start in range(0, flat.size, _SLICE):
            self._add_slice(flat[start : start + _SLICE])

    def _add_slice(self, x: npt.NDArray[np.float32]) -> None:
        largest = float(max(x.max(), -x.min()))
        if largest > 0:
            self._grow(largest)
        if self.width:
            # the product is exact (power of two), so floor gives the true bin; its sum with HALF is exact as well
            bins = x * np.float32(1 / self.width)
            np.floor(bins, out=bins)
            bins += np.float32(HALF)
            self.counts += np.bincount(bins.astype(np.intp), minlength=2 * HALF)
            nothing = int(x.size - np.count_nonzero(x))
            self.counts[HALF] -= nothing
        else:
            nothing = x.size
        self.zeros += nothing

    def _grow(self, largest: float) -> None:
        """Make the range exceed `largest` strictly with the smallest power of two that does."""
        wanted = max(2.0 ** (math.frexp(largest)[1]) / HALF, _SMALLEST)
        if not self.width:
            self.width = wanted
        while self.width < wanted:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[HALF // 2 : HALF // 2 + HALF] = merged
            self.width *= 2

    def quantile(self, share: float) -> float:
        """The value below which `share` of all data lie, linear inside a bin; zeros count at 0."""
        if not self.width:
            return 0.0
        target = max(share * self.total, 1e-6)  # 0 asks for the left end of the first bin that is not empty
        below = np.concatenate(([0], np.cumsum(self.counts)))
        negative = int(below[HALF])
        if negative < target <= negative + self.zeros:
            return 0.0
        if target > negative + self.zeros:
            target -= self.zeros
        index = int(np.searchsorted(below, target, side="left"))
        index = min(max(index, 1), 2 * HALF)
        inside = (target - below[index - 1]) / max(int(self.counts[index - 1]), 1)
        return float(self.edges[index - 1] + inside * self.width)
