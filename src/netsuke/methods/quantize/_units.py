"""Parts of the network that are fitted on their own (a layer, or a block between two cuts), and what flows through
them.

A unit is optimised against the float network: `inputs` come from the network as quantized so far (or from the float
one), `target` is the float output. Both are collected through the runner, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from netsuke.methods.quantize import insert
from netsuke.methods.quantize._context import Context, Feeds
from netsuke.methods.quantize._graph import clone, constant, is_float
from netsuke.methods.quantize._layer import Layer
from netsuke.methods.quantize.placement import Placement, place

HELD = 256 * 2**20  # bytes of activations held for one unit
LARGEST = 12  # weighted layers of a block; larger stretches are fitted layer by layer


@dataclass
class Unit:
    """Nodes in graph order, the weighted layers among them, the tensors read from outside and the one written."""

    name: str
    layers: list[Layer]
    nodes: list[ir.Node]
    output: ir.Value
    inputs: list[ir.Value] = field(default_factory=list)

    def __post_init__(self) -> None:
        inside = {v for node in self.nodes for v in node.outputs}
        read = (v for node in self.nodes for v in node.inputs if v is not None)
        self.inputs = list(dict.fromkeys(v for v in read if v not in inside and constant(v) is None))


def weighted(placement: Placement) -> list[Layer]:
    """Quantized layers with stored weights, in graph order."""
    return [x for x in placement.layers.values() if x.quantized and x.weight is not None]


def layer_units(placement: Placement) -> list[Unit]:
    """One unit per quantized layer with weights: the operator and what is fused behind it."""
    return [Unit(x.name, [x], list(x.nodes), x.output) for x in weighted(placement)]


def block_units(graph: ir.Graph, placement: Placement) -> list[Unit]:
    """Blocks between cuts: a cut is the end of a layer through which alone everything before reaches what follows.

    A residual block is one unit, a plain layer is one too. Stretches without a weighted layer join the next one; where
    one has more than twelve weighted layers, or ends in no single tensor, its layers stand alone.
    """
    owner = {x.node: x for x in weighted(placement)}
    inner = {v for x in placement.layers.values() for node in x.nodes[:-1] for v in node.outputs}
    found: list[Unit] = []
    part: list[ir.Node] = []
    for node, end in _stretches(graph, inner):
        part.append(node)
        layers = [owner[n] for n in part if n in owner]
        if end is None or not layers:
            continue
        if len(layers) > LARGEST:
            found += layer_units(Placement({x.name: x for x in layers}))
        else:
            found.append(Unit(layers[0].name if len(layers) == 1 else end.name or "", layers, part, end))
        part = []
    rest = [owner[n] for n in part if n in owner]
    return found + layer_units(Placement({x.name: x for x in rest}))


def _stretches(graph: ir.Graph, inner: Collection[ir.Value]) -> Iterator[tuple[ir.Node, ir.Value | None]]:
    """Every node with the cut behind it, or None."""
    left: dict[ir.Value, int] = {}
    for value in graph.inputs:
        if value.name not in graph.initializers:
            left[value] = len(list(value.uses()))
    for node in graph:
        for read in node.inputs:
            if read is not None and read in left:
                left[read] -= 1
                if left[read] <= 0:
                    del left[read]
        for value in node.outputs:
            count = len(list(value.uses())) + value.is_graph_output()
            if count:
                left[value] = count
        only = next(iter(left)) if len(left) == 1 else None
        cut = only is not None and only in node.outputs and only not in inner and is_float(only)
        yield node, only if cut else None


def roots_read(context: Context, unit: Unit) -> list[str]:
    """Names of the quantizers that tensors read inside the unit belong to, in graph order; its output's is not one."""
    group = context.placement.group
    values = [*unit.inputs, *(v for node in unit.nodes for v in node.outputs if v is not unit.output)]
    return list(dict.fromkeys(group[v].name or "" for v in values if v in group))


def prefix(context: Context, unit: Unit, settled: Collection[str]) -> tuple[ir.Model, list[str]]:
    """The network quantized so far, and what to tap in it for each input of the unit.

    settled  quantizers whose range is final: their tensors are tapped as quantized. All others among the unit's inputs
             are first read in this unit, so they are left float in front of it.
    Weights of layers without chosen codes are rounded to nearest; they lie behind the unit.
    """
    copy = clone(context.model)
    state = Context(copy, context.plan, context.calib, context.runner, context.seed, context.batch)
    state.placement = place(copy, {row.name for row in context.plan.rows if row.kept})
    values = {v.name: v for v in state.placement.group}
    groups = {values[v.name]: values[r.name] for v, r in context.placement.group.items()}
    owner = {v: root.name or "" for v, root in context.placement.group.items()}
    fresh = {owner[v] for v in unit.inputs if v in owner and owner[v] not in settled}
    state.placement.group = {v: root for v, root in groups.items() if root.name not in fresh}
    state.ranges, state.widths = context.ranges, context.widths
    state.scales, state.codes = context.scales, context.codes
    insert.insert(state)
    taps = [f"{v.name}.quantized" if v in owner and owner[v] not in fresh else v.name or "" for v in unit.inputs]
    return copy, taps


def collect(
    context: Context, model: ir.Model, names: Sequence[str], samples: int, held: int = HELD
) -> list[npt.NDArray[np.generic]]:
    """The named tensors of the model on the first calibration samples, batches joined; floats as float32.

    Stops at `samples`, or before the tensors together take more than `held` bytes (one batch is always taken).
    """
    parts: list[list[npt.NDArray[np.generic]]] = [[] for _ in names]
    count = size = 0
    for values in stream(context, model, names, samples):
        found = [np.asarray(values[name]) for name in names]
        found = [a.astype(np.float32) if np.issubdtype(a.dtype, np.floating) else a for a in found]
        if count and size + sum(a.nbytes for a in found) > held:
            break
        for store, array in zip(parts, found, strict=True):
            store.append(array)
        count, size = count + len(found[0]), size + sum(a.nbytes for a in found)
    return [np.concatenate(store) for store in parts]


def stream(
    context: Context, model: ir.Model, names: Sequence[str], samples: int
) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
    """Per batch the named tensors; the network's inputs may be among them."""
    given = {v.name or "" for v in model.graph.inputs}
    taps = [name for name in dict.fromkeys(names) if name not in given]
    fed: list[Feeds] = []

    def tee() -> Iterator[Feeds]:
        for feed in context.feeds(samples):
            fed.append(feed)
            yield feed

    if not taps:
        for feed in context.feeds(samples):
            yield {name: np.asarray(array) for name, array in feed.items()}
        return
    for values in context.runner(model, tee(), taps):
        feed = fed.pop(0)
        yield {**{name: np.asarray(array) for name, array in feed.items()}, **values}
