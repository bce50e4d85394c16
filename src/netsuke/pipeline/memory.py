"""The bound on memory, printed before the work begins: of the whole process, so that it can be checked.

It is what the process has taken when the network is captured, plus what comes: copies of the weights, and the largest
working set among the phases, each of which chooses its batch to stay within a budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netsuke.core.errors import UsageError
from netsuke.data import Dataset
from netsuke.measure import environment
from netsuke.pipeline.small import size
from netsuke.program.model import Program
from netsuke.verify import parity
from netsuke.verify.batches import HELD, sample_shapes
from netsuke.verify.runners import open_runner

SYNTHETIC = 32  # samples of a data-free run
# Of the float weights, at most at a time beyond the captured graph and its program: the graph with equalized weights,
# the program compiled from it, its file image, the runtime's copy of that, the packed form, and int8 codes with theirs.
COPIES = 6
RANKED, RANKING = 4, 128 * 2**20  # samples of a run that quantizes one layer; bytes of float values they stand against
CHECKED = 32  # samples that `check` runs at a time, fewer where that would take more than its budget
REST = 96 * 2**20  # graph objects, codes of the network's inputs, temporaries of one layer in the reference


# Steps whose memory is counted below. Others (learned rounding, Hessians, searches) say themselves what they cost.
COUNTED = ("whitepaper_int8", "uniform", "bias_correction", "equalization", "dyadic")


@dataclass(frozen=True)
class Bound:
    """Bytes: in use when it was made, the most until then, copies of weights to come, and the largest set of
    activations and statistics.

    activations is None when it is not known in advance; `unknown` says why.
    """

    now: int
    peak: int
    weights: int
    activations: int | None
    batch: int
    unknown: str = ""

    @property
    def total(self) -> int | None:
        """Most that the process takes; None when that cannot be known."""
        if self.activations is None:
            return None
        return max(self.peak, self.now + self.weights + self.activations + REST)

    def __str__(self) -> str:
        known = f"{size(self.now)} in use now, {size(self.weights)} for copies of weights"
        if self.total is None or self.activations is None:
            return f"memory: {known}; more at batch {self.batch} is not known in advance: {self.unknown}"
        return (
            f"memory: at most {size(self.total)} in all ({known}, {size(self.activations)} for activations and "
            f"statistics at batch {self.batch})"
        )


def bound_of(
    graph: Any, floating: Program, calib: Dataset | None, threads: int | None, steps: Sequence[str] = ()
) -> Bound:
    """The most that a compression of this captured network will take, the Python process included.

    steps  of the recipe, "room/method:options"
    """
    from netsuke.methods.quantize.ptq import choose_batch, memory_bound, sizes, tapped

    data = calib if calib is not None else _synthetic(graph)
    sample = data.shapes if data is not None else None
    batch = choose_batch(graph, data.count if data is not None else SYNTHETIC, sample)
    shapes = sizes(graph, sample) if sample is not None else {}
    held, found = memory_bound(graph, batch, shapes=shapes), tapped(graph, shapes)
    weights = COPIES * sum(array.nbytes for array in floating.constants.values())
    others = [step for step in steps if step.partition(":")[0].rpartition("/")[2] not in COUNTED]
    activations, unknown = None, ", ".join(others) or "sizes of tensors"
    if held is not None and found is not None and data is not None and not others:
        engine = open_runner(floating, threads).engine
        means = 2 * 8 * found[0]  # of every layer's input, in float64, exact and quantized
        calibration = held + means + _arena(engine, floating, data, batch)
        most = _arena(engine, floating, data, CHECKED)
        checking = 2 * parity.HELD + 2 * (most if most <= HELD else HELD)
        activations = max(calibration, checking, RANKING + _arena(engine, floating, data, RANKED))
    now, peak = environment.resident_bytes(), environment.peak_memory_bytes()
    return Bound(now, peak, weights, activations, batch, unknown)


def _synthetic(graph: Any) -> Dataset | None:
    """What a data-free run calibrates on; None where it cannot be made (the run itself then says why)."""
    from netsuke.methods.quantize import data_free

    try:
        return data_free.dataset(graph)
    except UsageError:
        return None


def _arena(engine: Any, floating: Program, data: Dataset, batch: int) -> int:
    """What the float network's own intermediates take at that batch."""
    return 0 if engine is None else int(engine.arena_bytes(sample_shapes(floating.inputs, data.shapes, batch)))


def engine_bytes(engine: Any, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Packed weights and arena of a loaded engine for one batch of these shapes."""
    return None if engine is None else int(engine.packed_bytes) + int(engine.arena_bytes(dict(shapes)))
