"""The bound on memory, printed before any of it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netsuke.data import Dataset
from netsuke.pipeline.small import size
from netsuke.program.model import Program
from netsuke.verify.batches import sample_shapes
from netsuke.verify.runners import open_runner

SYNTHETIC = 32  # samples of a data-free run


def memory_line(graph: Any, floating: Program, calib: Dataset | None, threads: int | None) -> str:
    """One line: the most that calibration holds at a time beside the Python process itself.

    Weights are counted four times: the captured graph, the program, the file image the engine reads, the packed form.
    """
    from netsuke.methods.quantize.ptq import choose_batch, memory_bound, sizes

    weights = 4 * sum(array.nbytes for array in floating.constants.values())
    sample = calib.shapes if calib is not None else None
    batch = choose_batch(graph, calib.count if calib is not None else SYNTHETIC, sample)
    bound = memory_bound(graph, batch, shapes=sizes(graph, sample) if sample is not None else None)
    if bound is None:
        return f"memory: weights {size(weights)}, and one batch of {batch} at sizes that are not known in advance"
    total = bound + weights + _arena(floating, calib, batch, threads)
    parts = f"{size(bound)} of statistics and activations at batch {batch}, {size(weights)} of weights"
    return f"memory: at most {size(total)} ({parts})"


def _arena(floating: Program, calib: Dataset | None, batch: int, threads: int | None) -> int:
    """What the float network's own intermediates take at that batch."""
    engine = open_runner(floating, threads).engine
    if engine is None or calib is None:
        return 0
    return int(engine.arena_bytes(sample_shapes(floating.inputs, calib.shapes, batch)))


def engine_bytes(engine: Any, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Packed weights and arena of a loaded engine for one batch of these shapes."""
    return None if engine is None else int(engine.packed_bytes) + int(engine.arena_bytes(dict(shapes)))
