"""One layer quantized alone: the network that has it so, and what that does to the layer's output and to the network's.

The float network runs once for many layers; each layer then runs only what stands behind it (`_suffix`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from netsuke.core.plan import Plan, Row
from netsuke.methods.quantize import _widths, insert
from netsuke.methods.quantize._calibrate import range_at, sizes
from netsuke.methods.quantize._context import Context, Feeds, feeds, fixed_batch
from netsuke.methods.quantize._graph import Array, clone
from netsuke.methods.quantize._suffix import Suffix, suffix
from netsuke.methods.quantize.placement import place

HELD = 128 * 2**20  # bytes of the float network's values held at a time
BATCH = 4  # samples run at a time
Batches = list[Mapping[str, Array]]  # tapped values, batch by batch


@dataclass
class Change:
    """Sums of squares of a reference and of a difference."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, reference: np.ndarray, other: np.ndarray) -> None:
        """Take one batch in."""
        exact = reference.astype(np.float64)
        self.signal += float((exact**2).sum())
        self.noise += float(((other - exact) ** 2).sum())

    @property
    def db(self) -> float:
        """Signal to noise ratio in decibels; infinite without noise."""
        return math.inf if self.noise == 0 else 10 * math.log10(max(self.signal, 1e-300) / self.noise)

    @property
    def relative(self) -> float:
        """||difference|| / ||reference||; 0 without noise, infinite for a zero reference."""
        return 0.0 if self.noise == 0 else math.sqrt(self.noise / self.signal) if self.signal else math.inf


@dataclass(frozen=True)
class Alone:
    """A row, the output of its layer, and the part of the network that its quantizers can change."""

    row: Row
    output: str
    part: Suffix

    @property
    def reads(self) -> list[str]:
        """Values of the float network that are needed to run and to judge it."""
        return [self.output, *self.part.cuts]


def alone(context: Context, row: Row) -> Alone:
    """The row's layer quantized at the row's bits, everything else in float."""
    model, output = isolated(context, row)
    return Alone(row, output, suffix(context.model, model, [output, *outputs(context.model)]))


def isolated(context: Context, row: Row) -> tuple[ir.Model, str]:
    """The network with only this row's layer quantized at the row's bits, and the name of the layer's output."""
    made = together(context, [row])
    return made.model, made.placement.layers[row.name].output.name or ""


def together(context: Context, rows: Sequence[Row]) -> Context:
    """The network with these rows' layers, and no others, quantized at their bits.

    Layers that read one tensor have one activation width.
    """
    made = Context(clone(context.model), Plan(rows=list(rows)), context.calib, context.runner, context.seed)
    made.scales, made.codes = context.scales, context.codes
    layers = place(made.model).layers
    roots = {v.name: r.name or "" for v, r in context.placement.group.items()}
    for row in rows:
        layer = layers[row.name]
        layer.quantized = True
        for value in layer.inputs:
            if value.name not in roots:
                continue
            root, name = roots[value.name], value.name or ""
            bits = row.activation_bits if layer.kernel in _widths.DECIDING else context.widths.get(root, 8)
            made.widths[name] = bits
            made.ranges[name] = range_at(context, root, bits)
            made.placement.group[value] = value
        made.placement.layers[row.name] = layer
    insert.insert(made)
    return made


def groups(context: Context, rows: Sequence[Row], samples: int) -> Iterator[list[Alone]]:
    """Rows in turn, together as long as what they read takes at most 128 MiB; what has no known size stands alone."""
    assert context.calib is not None
    shapes = sizes(context.model, context.calib.shapes)
    group: list[Alone] = []
    read: set[str] = set()
    room = HELD
    for row in rows:
        found = alone(context, row)
        fresh = set(found.reads) - read
        size = sum(4 * samples * math.prod(shapes[n]) if n in shapes else HELD for n in fresh)
        if group and size > room:
            yield group
            group, read, room = [], set(), HELD
            size = sum(4 * samples * math.prod(shapes[n]) if n in shapes else HELD for n in found.reads)
        group.append(found)
        read |= fresh
        room -= size
    if group:
        yield group


def reference(context: Context, group: Sequence[Alone], samples: int) -> Batches:
    """What the group reads of the float network, and its outputs."""
    taps = dict.fromkeys([*(name for found in group for name in found.reads), *outputs(context.model)])
    return batches(context, context.model, list(taps), samples)


def judge(context: Context, found: Alone, exact: Batches, samples: int) -> tuple[float, float]:
    """(sqnr_db, output_change) of the layer, against the float network on the same samples."""
    own, whole = Change(), Change()
    names, changed = outputs(context.model), list(found.part.changed)
    fed = _fed(context, found.part, exact, samples)
    for reference, other in zip(exact, context.runner(found.part.model, fed, changed), strict=True):
        if found.output in changed:
            own.add(reference[found.output], other[found.output])
        for name in names:
            whole.add(reference[name], other[name] if name in changed else reference[name])
    return own.db, whole.relative


def _fed(context: Context, part: Suffix, exact: Batches, samples: int) -> Iterator[Feeds]:
    """Feeds of a part: the network's inputs that it reads, and the float network's values where it was cut."""
    given = _feeds(context, samples) if part.sources else iter([{}] * len(exact))
    for sources, values in zip(given, exact, strict=True):
        yield {**{n: sources[n] for n in part.sources}, **{n: values[n] for n in part.cuts}}


def _feeds(context: Context, samples: int) -> Iterator[Feeds]:
    assert context.calib is not None
    return feeds(context.model, context.calib, fixed_batch(context.model) or min(BATCH, samples), samples)


def batches(context: Context, model: ir.Model, taps: Sequence[str], samples: int) -> Batches:
    """The tapped tensors on the first few calibration samples, batch by batch."""
    return list(context.runner(model, _feeds(context, samples), list(dict.fromkeys(taps))))


def run(context: Context, model: ir.Model, taps: Sequence[str], samples: int) -> dict[str, Array]:
    """The tapped tensors on the first few calibration samples, batches joined."""
    taps = list(dict.fromkeys(taps))
    parts = batches(context, model, taps, samples)
    return {name: np.concatenate([part[name] for part in parts]) for name in taps}


def outputs(model: ir.Model) -> list[str]:
    """Names of the float outputs of the network."""
    return [v.name or "" for v in model.graph.outputs if v.dtype == ir.DataType.FLOAT]
