"""`plan`: decide per layer what will be done, without doing it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from netsuke.core.budget import Budget
from netsuke.core.errors import Problem, UsageError
from netsuke.core.plan import Plan
from netsuke.core.recipe import Recipe
from netsuke.data import Dataset, load_data
from netsuke.pipeline.runner import EngineRunner
from netsuke.verify.source import capture_model

Progress = Callable[[str, float], None]


def stages(progress: Progress) -> Callable[[str, int, int], None]:
    """The methods' progress (stage, done, total) as (text, fraction)."""

    def report(stage: str, done: int, total: int) -> None:
        progress(stage, done / total if total else 0.0)

    return report


def dataset(spec: Any, root: Any = None, *, role: str, preprocess: Any = None) -> Dataset | None:
    """The data set the user named, arrays or batches as one, or None when nothing was named."""
    if spec is None or (isinstance(spec, str) and not spec):
        return None
    if hasattr(spec, "dtype"):
        return Dataset.from_arrays(spec)
    if isinstance(spec, tuple) and len(spec) == 2 and hasattr(spec[0], "dtype"):
        return Dataset.from_arrays(*spec)
    if not isinstance(spec, (str, Path, Dataset)) and hasattr(spec, "__iter__"):
        return _from_batches(spec)
    return load_data(spec, root, role=role, preprocess=preprocess or None)


def _from_batches(batches: Iterable[Any]) -> Dataset:
    """A data set from what a loader yields: batches of inputs, or pairs of inputs and labels, as arrays or tensors."""
    pairs = [b if isinstance(b, (tuple, list)) else (b, None) for b in batches]
    if not pairs:
        raise UsageError(Problem("the data set is empty", allowed="at least one batch"))
    x = np.concatenate([np.asarray(p[0]) for p in pairs])
    labelled = all(len(p) > 1 and p[1] is not None for p in pairs)
    y = np.concatenate([np.asarray(p[1]) for p in pairs]) if labelled else None
    return Dataset.from_arrays(x, y, source="batches given in memory")


def plan(
    model: Any,
    *,
    recipe: str | Recipe = "cpu-int8",
    calib: Any = None,
    budget: Budget | None = None,
    effort: str = "normal",
    shape: Any = None,
    weights: Any = None,
    seed: int = 0,
    threads: int | None = None,
    data_root: Any = None,
    preprocess: Any = None,
    progress: Progress = lambda _text, _fraction: None,
) -> Plan:
    """The plan for a network: one row per layer with method, bits, bytes, sensitivity and reason. Nothing is written.

    model   ONNX path, .pt2, file.py:factory, reference network, torch module, onnx_ir.Model
    calib   Dataset, array, or what `netsuke.data.load_data` takes; without it ranges are found data-free, and the plan
    says so
    budget  what may be lost and must be won; effort: "fast", "normal", "thorough"
    """
    from netsuke.methods.quantize.ptq import make_plan

    graph = capture_model(model, shape, weights)
    data = dataset(calib, data_root, role="calib", preprocess=preprocess)
    runner = EngineRunner(threads)
    return make_plan(
        graph,
        budget=budget,
        recipe=recipe,
        calib=data,
        runner=runner,
        effort=effort,
        seed=seed,
        progress=stages(progress),
    )
