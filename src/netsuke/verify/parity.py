"""Layer by layer: where the compressed network departs from the float one and how the difference grows, and whether the
engine's codes are the reference interpreter's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from netsuke.program.model import Node, Program
from netsuke.verify.batches import fixed_batch
from netsuke.verify.metrics import Similarity
from netsuke.verify.runners import Runner

Array = np.ndarray[Any, Any]
HELD = 64 * 2**20  # bytes of values compared at a time
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
    """`other` in the layout of `reference` (channel first or last), or None when the two cannot be the same tensor.

    Where channels, height and width are equal the shapes do not tell the layouts apart: the nearest one is taken.
    """
    if reference.size != other.size:
        return None
    orders = [tuple(range(other.ndim))] + ([(0, 3, 1, 2), (0, 2, 3, 1)] if other.ndim == 4 else [])
    fits = [other.transpose(o) for o in orders if tuple(other.shape[i] for i in o) == reference.shape]
    if len(fits) > 1:
        exact = reference.astype(np.float64)
        return min(fits, key=lambda found: float(np.abs(found.astype(np.float64) - exact).sum()))
    if fits:
        return fits[0]
    return other.reshape(reference.shape) if np.squeeze(other).shape == np.squeeze(reference).shape else None


def common_values(float_program: Program, program: Program) -> list[tuple[str, str, str, str, str]]:
    """(source, float value, compressed value, layer, op) of every value both compute, in the order of the compressed
    one.
    """
    reference, own = source_of(float_program), source_of(program)
    order = {name: index for index, node in enumerate(program.nodes) for name in node.outputs}
    rows = [(s, reference[s][0], *own[s]) for s in own if s in reference]
    return sorted(rows, key=lambda row: order[row[2]])


class _Errors:
    """Similarity of every common value, over all samples added."""

    def __init__(self, floating: Runner, compressed: Runner) -> None:
        self.floating, self.compressed = floating, compressed
        self.rows = common_values(floating.program, compressed.program)
        self.similar = [Similarity() for _ in self.rows]
        self.comparable = [True] * len(self.rows)

    def add(self, feeds: Mapping[str, Array]) -> int:
        """Run both networks; the bytes that their values took."""
        a = self.floating.run(feeds, [r[1] for r in self.rows])
        b = self.compressed.run(feeds, [r[2] for r in self.rows])
        for index, (_, reference, own, _, _) in enumerate(self.rows):
            expected = to_float(self.floating.program, reference, a[reference])
            got = align(expected, to_float(self.compressed.program, own, b[own]))
            if got is None:
                self.comparable[index] = False
            else:
                self.similar[index].add(expected, got)
        return sum(array.nbytes for found in (a, b) for array in found.values())


def layer_parity(floating: Runner, compressed: Runner, batches: Sequence[Mapping[str, Array]]) -> list[LayerParity]:
    """Error of every common value over a few batches, in execution order.

    Memory: the values of both networks, of one sample or of as many as fit into `HELD` bytes.
    """
    errors, one = _Errors(floating, compressed), 0
    fixed = fixed_batch(compressed.program.inputs)
    for feeds in batches:
        start, count = 0, len(next(iter(feeds.values())))
        while start < count:
            step = count if fixed else max(1, HELD // one) if one else 1
            taken = errors.add({name: array[start : start + step] for name, array in feeds.items()})
            one = one or max(1, taken // step)
            start += step
    return [
        LayerParity(row[3], row[4], row[0], _decibel(s.sqnr_db), s.cosine, s.relative)
        for row, s, fits in zip(errors.rows, errors.similar, errors.comparable, strict=True)
        if fits
    ]


def first_departure(layers: Sequence[LayerParity]) -> LayerParity | None:
    """The first layer in execution order whose output is below DEPARTS_DB, if any."""
    return next((p for p in layers if p.sqnr_db is not None and p.sqnr_db < DEPARTS_DB), None)


@dataclass(frozen=True)
class Exactness:
    """Engine against the reference interpreter, node by node, each given the engine's own inputs.

    codes      codes compared bit for bit; `differing` lists the values that are not equal, first in execution order
    first float_made codes that a float operator made (a softmax that quantizes its output): they may be one code off
    where the
               reference rounds the other way, and are listed in `differing` when they are further off
    """

    engine: str
    samples: int
    values: int
    codes: int
    differing: list[str]
    float_made: int = 0

    @property
    def exact(self) -> bool:
        return not self.differing

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"exact": self.exact}


# Float operators that may write codes: numerics.md promises their float values to a tolerance only.
FLOAT_MADE = ("softmax", "layernorm", "unary", "binary", "resize")


def integer_values(program: Program) -> list[str]:
    """Node outputs that are codes."""
    return [
        n for node in program.nodes for n in node.outputs if program.values.get(n) and program.values[n].dtype == "u8"
    ]


def exactness(runner: Runner, feeds: Mapping[str, Array]) -> Exactness:
    """Judge every node that writes codes: the reference computes it from the engine's inputs, the codes must be equal.

    Because each node starts from the engine's values, a float layer that rounds differently somewhere before does not
    blur what the integer layers promise, and the first name in `differing` is the node that is wrong. Memory: every
    value of the samples given.
    """
    from netsuke.program import interpreter

    program = runner.program
    names = [n for node in program.nodes for n in node.outputs if n in program.values]
    got = runner.run(feeds, names)
    codes = set(integer_values(program))
    differing: list[str] = []
    counts = {"exact": 0, "float": 0}

    def judge(node: Node, results: list[Array]) -> list[Array]:
        kind = "float" if node.op in FLOAT_MADE else "exact"
        for name, expected in zip(node.outputs, results, strict=True):
            if name not in codes:
                continue
            counts[kind] += int(expected.size)
            allowed = 1 if kind == "float" else 0
            same = got[name].shape == expected.shape
            if not same or np.abs(got[name].astype(np.int16) - expected).max(initial=0) > allowed:
                differing.append(name)
        return [got.get(name, result) for name, result in zip(node.outputs, results, strict=True)]

    interpreter.run(program, dict(feeds), after=judge)
    samples = len(next(iter(feeds.values())))
    return Exactness(runner.name, samples, len(codes), counts["exact"], differing, counts["float"])
