"""Layer by layer: where the compressed network departs from the float one and how the difference grows, and whether the
engine's codes are the reference interpreter's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from netsuke.program.model import Program
from netsuke.verify.metrics import Similarity
from netsuke.verify.runners import Runner, reference_runner

Array = np.ndarray[Any, Any]
DEPARTS_DB = 20.0  # below 20 dB a tenth of the signal is error: the usual border between noise and damage


@dataclass(frozen=True)
class LayerParity:
    """One value both networks compute. `layer` is the node that makes it; sqnr_db is None when the two are equal."""

    layer: str
    op: str
    value: str
    sqnr_db: float | None
    cosine: float
    relative_error: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def _decibel(value: float) -> float | None:
    return None if math.isinf(value) and value > 0 else max(value, -300.0)


def source_of(program: Program) -> dict[str, tuple[str, str, str]]:
    """Node outputs by their name in the captured graph: source -> (value, node name, op). The last one wins: it is what
    later
    layers read."""
    found: dict[str, tuple[str, str, str]] = {}
    for node in program.nodes:
        for name in node.outputs:
            value = program.values.get(name)
            if value is not None and value.source:
                found[value.source] = (name, node.name, node.op)
    return found


def to_float(program: Program, name: str, array: Array) -> Array:
    """Real values of a tensor: codes are decoded with the scale and zero of the file."""
    value = program.values.get(name)
    if array.dtype == np.uint8 and value is not None and value.scale is not None:
        return ((array.astype(np.int32) - int(value.zero or 0)) * np.float32(value.scale)).astype(np.float32)
    return array.astype(np.float32)


def align(reference: Array, other: Array) -> Array | None:
    """`other` in the layout of `reference` (channel first or last), or None when the two cannot be the same tensor."""
    if reference.shape == other.shape:
        return other
    if reference.size != other.size:
        return None
    if other.ndim == 4:
        for order in ((0, 3, 1, 2), (0, 2, 3, 1)):
            if tuple(other.shape[i] for i in order) == reference.shape:
                return other.transpose(order)
    return other.reshape(reference.shape) if np.squeeze(other).shape == np.squeeze(reference).shape else None


def common_values(float_program: Program, program: Program) -> list[tuple[str, str, str, str, str]]:
    """(source, float value, compressed value, layer, op) of every value both compute, in the order of the compressed
    one.
    """
    reference, own = source_of(float_program), source_of(program)
    order = {name: index for index, node in enumerate(program.nodes) for name in node.outputs}
    rows = [(s, reference[s][0], *own[s]) for s in own if s in reference]
    return sorted(rows, key=lambda row: order[row[2]])


def layer_parity(floating: Runner, compressed: Runner, batches: Sequence[Mapping[str, Array]]) -> list[LayerParity]:
    """Error of every common value over a few batches, in execution order. Memory: the values of one batch, twice."""
    rows = common_values(floating.program, compressed.program)
    similar = [Similarity() for _ in rows]
    comparable = [True] * len(rows)
    for feeds in batches:
        a = floating.run(feeds, [r[1] for r in rows])
        b = compressed.run(feeds, [r[2] for r in rows])
        for index, (_, reference, own, _, _) in enumerate(rows):
            expected = to_float(floating.program, reference, a[reference])
            got = align(expected, to_float(compressed.program, own, b[own]))
            if got is None:
                comparable[index] = False
            else:
                similar[index].add(expected, got)
    return [
        LayerParity(row[3], row[4], row[0], _decibel(s.sqnr_db), s.cosine, s.relative)
        for row, s, fits in zip(rows, similar, comparable, strict=True)
        if fits
    ]


def first_departure(layers: Sequence[LayerParity]) -> LayerParity | None:
    """The first layer in execution order whose output is below DEPARTS_DB, if any."""
    return next((p for p in layers if p.sqnr_db is not None and p.sqnr_db < DEPARTS_DB), None)


@dataclass(frozen=True)
class Exactness:
    """Engine against the reference interpreter, value by value. `differing` lists what is not equal bit for bit."""

    engine: str
    samples: int
    values: int
    codes: int
    differing: list[str]

    @property
    def exact(self) -> bool:
        return not self.differing

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"exact": self.exact}


def integer_values(program: Program) -> list[str]:
    """Node outputs that are codes: those the numerics promise bit for bit."""
    return [
        n for node in program.nodes for n in node.outputs if program.values.get(n) and program.values[n].dtype == "u8"
    ]


def exactness(runner: Runner, feeds: Mapping[str, Array]) -> Exactness:
    """Compare every integer value of the engine with the reference interpreter on these samples.

    Float layers may differ from the interpreter within a tolerance (docs/numerics.md, section 8); codes made from such
    floats are compared too, and counted as differing when they do differ.
    """
    samples = len(next(iter(feeds.values())))
    taps = integer_values(runner.program)
    reference = reference_runner(runner.program)
    expected = reference.run(feeds, taps)
    got = runner.run(feeds, taps)
    differing = [name for name in taps if not np.array_equal(expected[name], got[name])]
    codes = sum(int(expected[name].size) for name in taps)
    return Exactness(runner.name, samples, len(taps), codes, differing)
