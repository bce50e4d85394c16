"""Metrics accumulated batch by batch: accuracy where there are labels, similarity of outputs always."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netsuke.core.errors import Problem, UsageError

Array = np.ndarray[Any, Any]
_SLICE = 1 << 18  # elements compared at a time: their float64 forms stay in the cache and take 8 MiB


@dataclass
class Similarity:
    """How close `other` is to `reference`, over everything added: cosine, SQNR in dB, largest absolute difference."""

    dot: float = 0.0
    reference2: float = 0.0
    other2: float = 0.0
    error2: float = 0.0
    largest: float = 0.0

    def add(self, reference: Array, other: Array) -> None:
        whole, against = reference.ravel(), other.ravel()
        for start in range(0, whole.size, _SLICE):
            self._add_slice(whole[start : start + _SLICE], against[start : start + _SLICE])

    def _add_slice(self, reference: Array, other: Array) -> None:
        a, b = reference.astype(np.float64), other.astype(np.float64)
        difference = a - b
        self.dot += float(a @ b)
        self.reference2 += float(a @ a)
        self.other2 += float(b @ b)
        self.error2 += float(difference @ difference)
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))

    @property
    def cosine(self) -> float:
        norm = math.sqrt(self.reference2 * self.other2)
        if norm == 0.0:
            return 1.0 if self.error2 == 0.0 else 0.0
        return self.dot / norm

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise ratio; infinite for equal outputs, which JSON shows as null."""
        if self.error2 == 0.0:
            return math.inf
        return 10.0 * math.log10(self.reference2 / self.error2) if self.reference2 > 0 else -math.inf

    @property
    def relative(self) -> float:
        """Relative L2 error."""
        return (
            math.sqrt(self.error2 / self.reference2) if self.reference2 > 0 else (0.0 if self.error2 == 0 else math.inf)
        )


def kind_of_labels(labels: Array, output: Array) -> str:
    """ "class" for integer labels over the class axis of the output, "value" for targets of the output's own shape."""
    integers = np.issubdtype(labels.dtype, np.integer)
    if integers and output.ndim >= 2 and labels.shape == output.shape[:1] + output.shape[2:]:
        return "class"
    if labels.shape == output.shape:
        return "value"
    raise UsageError(
        Problem(
            "labels do not fit the output",
            where="y",
            got=f"{labels.dtype} {list(labels.shape)}",
            allowed=f"integers {[*output.shape[:1], *output.shape[2:]]}, or values {list(output.shape)}",
        )
    )


@dataclass
class Score:
    """Metrics of one network against labels: top1 (and top5 from 10 classes on) as fractions, or rmse."""

    hits: dict[str, float] = field(default_factory=dict)
    count: int = 0
    squares: float = 0.0

    def add(self, output: Array, labels: Array) -> None:
        if kind_of_labels(labels, output) == "value":
            difference = output.astype(np.float64) - labels.astype(np.float64)
            self.squares += float((difference**2).sum())
            self.count += difference.size
            return
        self.count += labels.size
        self._hit("top1", output.argmax(axis=1) == labels)
        if output.shape[1] >= 10:
            best = np.argpartition(-output, 4, axis=1)[:, :5]
            self._hit("top5", (best == np.expand_dims(labels, 1)).any(axis=1))

    def _hit(self, name: str, right: Array) -> None:
        self.hits[name] = self.hits.get(name, 0.0) + float(right.sum())

    def values(self) -> dict[str, float]:
        if self.count == 0:
            return {}
        if self.hits:
            return {name: total / self.count for name, total in self.hits.items()}
        return {"rmse": math.sqrt(self.squares / self.count)}


LOWER_IS_BETTER = ("rmse",)


def drop(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What was lost, per metric: positive is worse, whichever way the metric points."""
    sign = {name: -1.0 if name in LOWER_IS_BETTER else 1.0 for name in before}
    return {name: sign[name] * (before[name] - after[name]) for name in before if name in after}


def same_answer(a: Array, b: Array) -> Array:
    """Per sample (and position): does the largest class stay the same. Empty for outputs without a class axis."""
    if a.ndim < 2 or a.shape[1] < 2:
        return np.empty(0, dtype=bool)
    return np.asarray(a.argmax(axis=1) == b.argmax(axis=1)).ravel()


def require_finite(values: Array, what: str, first_sample: int = 0) -> None:
    """UsageError naming the first sample that holds NaN or Inf."""
    if not np.issubdtype(values.dtype, np.floating):
        return
    bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise UsageError(
            Problem(
                f"NaN or Inf in {what}",
                where=f"sample {first_sample + index}",
                got=f"{int(bad.sum())} such samples in this batch",
                hint="look at the preprocessing; nothing was measured",
            )
        )
