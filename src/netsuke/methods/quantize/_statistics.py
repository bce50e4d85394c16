"""What calibration remembers of one tensor: bounded memory, whatever the number of samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from netsuke.core.errors import Problem, UsageError
from netsuke.methods.quantize._histogram import Histogram

STATE_BYTES = 8 * 8192 + 256  # a histogram and a few numbers


class Statistics:
    """Running facts of a tensor.

    count              values seen
    minimum, maximum   of all values
    average_min/max    exponential moving average of the batches' minima and maxima, weight 1 - momentum for a new batch
    histogram          None unless asked for
    known              ranges that were found for these facts, by calibrator, its options and bits; new data empty it
    """

    def __init__(self, name: str, *, histogram: bool = False, momentum: float = 0.9) -> None:
        self.name = name
        self.count = 0
        self.minimum = np.inf
        self.maximum = -np.inf
        self.average_min = 0.0
        self.average_max = 0.0
        self.momentum = momentum
        self.histogram = Histogram() if histogram else None
        self.known: dict[tuple[str, str, int], tuple[float, float]] = {}

    def add(self, x: npt.NDArray[np.float32]) -> None:
        """Take a batch in; UsageError naming the tensor when it holds NaN or infinity."""
        if x.size == 0:
            return
        self.known.clear()
        low, high = float(x.min()), float(x.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UsageError(_not_finite(self.name, x))
        keep = self.momentum if self.count else 0.0
        self.average_min = keep * self.average_min + (1 - keep) * low
        self.average_max = keep * self.average_max + (1 - keep) * high
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.count += x.size
        if self.histogram is not None:
            self.histogram.add(x)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that was counted, as arrays."""
        numbers = [self.count, self.minimum, self.maximum, self.average_min, self.average_max, self.momentum]
        found: dict[str, npt.NDArray[Any]] = {"numbers": np.array(numbers, np.float64)}
        if self.histogram is not None:
            found["histogram"] = self.histogram.counts.copy()
            found["scale"] = np.array([self.histogram.width, self.histogram.zeros], np.float64)
        return found

    def accepts(self, state: Mapping[str, npt.NDArray[Any]]) -> bool:
        """True when a state holds all that these statistics are to keep, under the same momentum."""
        return float(state["numbers"][5]) == self.momentum and (self.histogram is None or "histogram" in state)

    def set_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from a state."""
        count, self.minimum, self.maximum, self.average_min, self.average_max, _ = map(float, state["numbers"])
        self.count = int(count)
        if self.histogram is not None:
            self.histogram.counts = state["histogram"].copy()
            self.histogram.width, self.histogram.zeros = float(state["scale"][0]), int(state["scale"][1])

    def full_histogram(self) -> Histogram:
        """The histogram; a calibrator that needs one says so in its record's tags."""
        if self.histogram is None:
            raise ValueError(f"{self.name}: this calibrator needs a histogram and none was kept")
        return self.histogram


def _not_finite(name: str, x: npt.NDArray[np.float32]) -> Problem:
    bad = int(x.size - np.isfinite(x).sum())
    kind = "NaN" if np.isnan(x).any() else "infinity"
    return Problem(
        "not a finite number during calibration",
        where=f"tensor {name}",
        got=f"{kind} in {bad:,} of {x.size:,} values of one batch",
        allowed="finite values",
        hint="look at the preprocessing, or keep the layer that makes it in float",
    )
