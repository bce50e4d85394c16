"""What the steps of post-training quantization hand to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from netsuke.core.errors import Problem, UsageError
from netsuke.core.plan import Plan
from netsuke.data import Dataset, fields
from netsuke.methods.quantize._codes import affine
from netsuke.methods.quantize._graph import Array
from netsuke.methods.quantize._statistics import Statistics
from netsuke.methods.quantize._store import Store
from netsuke.methods.quantize.placement import Placement

Feeds = Mapping[str, npt.NDArray[np.generic]]
Progress = Callable[[str, int, int], None]


class Runner(Protocol):
    """Runs a graph (float, or with QuantizeLinear/DequantizeLinear) batch by batch and yields the tapped values.

    model    captured graph; it must not be changed
    batches  feeds by input name, one mapping per batch
    taps     names of values of the main graph; empty: the graph's outputs
    yields   per batch a mapping from tap name to float32 array; only one batch is held at a time
    """

    def __call__(
        self, model: ir.Model, batches: Iterable[Feeds], taps: Sequence[str]
    ) -> Iterator[Mapping[str, npt.NDArray[np.float32]]]: ...


# Layer, granularity, whether its output is codes, quantizers of what it reads, digest of its weight's codes.
ShiftKey = tuple[str, str, bool, tuple[tuple[str | None, tuple[float, int, int] | None], ...], str]

Profiler = Callable[[ir.Model, "Plan"], Mapping[str, float]]
"""Milliseconds of one run on one sample of a graph with quantizers, by layer of the plan; "" belongs to none."""

Sizer = Callable[[ir.Model, "Plan"], int]

Finish = Callable[["Context"], ir.Model]
"""Runs the weight steps of the context's plan, writes the quantizers and returns the context's model."""


def silent(stage: str, done: int, total: int) -> None:
    """The progress callback that says nothing."""


@dataclass
class Context:
    """State of one quantization.

    model      the copy that is being edited
    plan       rows per layer; steps may add notes
    placement  where quantizers go (set after the graph steps)
    statistics what calibration remembers, by tensor name
    ranges     (lo, hi) by name of the tensor that owns the quantizer
    widths     bits of the codes, by the same name; 8 where it is absent
    scales     weight scales by layer, for steps that choose their own; else the row's rule
    store      where calibration may find, and leaves, its statistics
    codes      weight codes by layer, for steps that choose their own rounding; else nearest
    shifts     mean errors per channel that bias correction has found over the same network and data
    profiler   times a quantized graph on this machine; None where nothing can be timed
    sizer      bytes of the file of a graph with this plan in it; None: only weights and biases are counted
    """

    model: ir.Model
    plan: Plan
    calib: Dataset | None
    runner: Runner
    seed: int = 0
    batch: int = 16
    progress: Progress = silent
    placement: Placement = field(default_factory=lambda: Placement({}))
    statistics: dict[str, Statistics] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    scales: dict[str, Array] = field(default_factory=dict)
    codes: dict[str, npt.NDArray[np.int8]] = field(default_factory=dict)
    store: Store | None = None
    shifts: dict[ShiftKey, npt.NDArray[np.float64]] = field(default_factory=dict)
    profiler: Profiler | None = None
    sizer: Sizer | None = None

    def quantizer(self, root: str) -> tuple[float, int]:
        """Scale and zero of the tensor that owns this quantizer."""
        return affine(*self.ranges[root], self.widths.get(root, 8))

    def feeds(self, limit: int | None = None) -> Iterator[Feeds]:
        """Calibration batches as feeds of the network's input; `limit`: of so many samples, drawn by `feeds`."""
        if self.calib is None:
            raise ValueError("a step asked for calibration data in a data-free run")
        return feeds(self.model, self.calib, self.batch, limit)


def feeds(model: ir.Model, data: Dataset, batch: int, limit: int | None = None) -> Iterator[Feeds]:
    """Batches of the data set as feeds of the network's inputs.

    limit  so many samples, drawn by seed: the first of a folder of images are all of one class. A network of fixed
           batch gets whole batches: at least one
    """
    names = [value.name or "" for value in data_inputs(model)]
    check_data(model, data)
    fixed = fixed_batch(model)
    chosen = data if limit is None else data.take(-(-limit // (fixed or 1)) * (fixed or 1))
    for x, _ in chosen.batches(fixed or batch):
        if fixed and len(x) < fixed:
            return
        parts = fields(x)
        yield {name: parts["" if "" in parts else name] for name in names}


def check_data(model: ir.Model, data: Dataset) -> None:
    """UsageError with everything in which a sample does not fit the network's inputs."""
    sample, values = fields(next(data.batches(1))[0]), data_inputs(model)
    names = ", ".join(value.name or "" for value in values)
    problems = []
    if "" in sample and len(values) > 1:
        what, hint = (
            "the data feed one input, the network has more",
            "an .npz with one array per input, named as they are",
        )
        raise UsageError(Problem(what, "data", data.source, names, hint))
    unknown = [name for name in sample if name and name not in {value.name for value in values}]
    problems += [Problem("no such input", data.source, name, names) for name in unknown]
    for value in values:
        part = sample.get("") if "" in sample else sample.get(value.name or "")
        if part is None:
            problems.append(Problem("no data for this input", f"input {value.name}", ", ".join(sample), names))
        else:
            problems += _misfits(value, part)
    if problems:
        raise UsageError(problems)


def _misfits(value: ir.Value, part: npt.NDArray[np.generic]) -> list[Problem]:
    """What is wrong with a batch for an input."""
    shape, dtype = part.shape[1:], part.dtype
    wanted = list(value.shape)[1:] if value.shape is not None else None
    problems = []
    if wanted is not None and (
        len(wanted) != len(shape) or any(isinstance(w, int) and w != s for w, s in zip(wanted, shape, strict=True))
    ):
        allowed = f"samples of shape ({', '.join(map(str, wanted))})"
        problems.append(Problem("the data do not fit the network's input", f"input {value.name}", str(shape), allowed))
    if value.dtype is not None and value.dtype.numpy() != dtype:
        allowed = str(value.dtype.numpy())
        problems.append(Problem("the data have the wrong dtype", f"input {value.name}", str(dtype), allowed))
    return problems


def data_inputs(model: ir.Model) -> list[ir.Value]:
    """The network's inputs that the data feed: those that are not initializers."""
    return [v for v in model.graph.inputs if v.name not in model.graph.initializers]


def data_input(model: ir.Model) -> ir.Value:
    """The first of `data_inputs`, the only one of most networks."""
    return data_inputs(model)[0]


def fixed_batch(model: ir.Model) -> int | None:
    """The batch size, when the network was captured with a fixed one."""
    shape = data_input(model).shape
    first = shape[0] if shape is not None and len(shape) else None
    return first if isinstance(first, int) else None
