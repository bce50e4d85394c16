"""What the user may give to judge a network by: data with labels, or a function of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netsuke.data import Dataset, overlap
from netsuke.verify.source import open_data

if TYPE_CHECKING:
    from netsuke.pipeline.work import Work

OVERLAP_SAMPLES = 256


def load_function(spec: str) -> Any:
    """ "file.py:name" as the function it names, anything else as it is. Naming the file is asking to run it."""
    file, _, name = spec.rpartition(":")
    if not (file.endswith(".py") and name.isidentifier()):
        return spec
    from netsuke.capture.torch_export import named_in

    return named_in(file, name, "function", "--eval")


def metric_function(function: Callable[[Any], Any]) -> Callable[[Any], Mapping[str, float]]:
    """A user's metric as one that returns metrics by name: a bare number gets the function's name."""

    def call(predict: Any) -> Mapping[str, float]:
        found = function(predict)
        return found if isinstance(found, Mapping) else {getattr(function, "__name__", "metric"): float(found)}

    return call


@dataclass(frozen=True)
class Evaluation:
    """Data to judge by, or a function, or neither."""

    data: Dataset | None = None
    function: Callable[[Any], Mapping[str, float]] | None = None

    def warn_overlap(self, work: Work) -> None:
        """A note when calibration samples are evaluation samples too: the metric would be too kind."""
        if work.calib is None or self.data is None:
            return
        shared = overlap(work.calib.take(min(OVERLAP_SAMPLES, work.calib.count), work.seed), self.data)
        if shared:
            work.notes.append(f"{shared} calibration samples are also evaluation samples: the metric is too kind")


def open_evaluation(evaluate: Any, data_root: Any = None, preprocess: Any = None) -> Evaluation:
    """From a data set, what names one, or a function of (inputs -> outputs)."""
    if callable(evaluate) and not isinstance(evaluate, Dataset):
        return Evaluation(function=metric_function(evaluate))
    return Evaluation(data=open_data(evaluate, data_root, role="eval", preprocess=preprocess))
