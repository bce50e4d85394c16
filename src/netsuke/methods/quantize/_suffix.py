"""The part of an edited network that its edit can change, fed by values of the unedited one.

Measuring what one layer does to the outputs needs only what stands behind the layer: on average half of the network is
neither compiled nor run again. Values that cross the border are cut: they become inputs of the part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class Suffix:
    """A network of its own.

    cuts     float values of the unedited network that it takes as inputs, by name
    sources  inputs of the network that it reads itself
    changed  those of the wanted values that the edit can change; the others are what they were
    """

    model: ir.Model
    cuts: tuple[str, ...]
    sources: tuple[str, ...]
    changed: tuple[str, ...]


def suffix(original: ir.Model, edited: ir.Model, wanted: Sequence[str]) -> Suffix:
    """What follows the nodes that `edited` has and `original` has not; `edited` is consumed.

    wanted  names of values that will be asked for

    Values that are not float32 (sizes, indices) are computed again rather than cut, from the floats they come from.
    """
    graph = edited.graph
    known = {out.name for node in original.graph for out in node.outputs}
    affected = _behind(node for node in graph if any(out.name not in known for out in node.outputs))
    included, crossing, sources = _needed(affected)
    made = {out.name or "" for node in affected for out in node.outputs}
    cuts = {v.name or "": v for v in crossing if v.producer() not in included}
    kept = [v for v in graph.outputs if v.producer() in included]
    graph.outputs.clear()
    fresh = []
    for value in cuts.values():
        stand_in = ir.Value(name=value.name, shape=value.shape, type=value.type)
        for use in list(value.uses()):
            if use.node in included:
                use.node.replace_input_with(use.idx, stand_in)
        fresh.append(stand_in)
    graph.remove([node for node in graph if node not in included], safe=True)
    inputs = [v for v in graph.inputs if v.is_initializer() or v.name in sources]
    graph.inputs.clear()
    graph.inputs.extend([*inputs, *fresh])
    graph.outputs.extend(kept)
    for name in [name for name, value in graph.initializers.items() if not list(value.uses())]:
        del graph.initializers[name]
    return Suffix(edited, tuple(cuts), tuple(sources), tuple(name for name in wanted if name in made))


def _behind(start: Iterable[ir.Node]) -> set[ir.Node]:
    """The nodes and everything that reads them, directly or not."""
    found: set[ir.Node] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [use.node for out in node.outputs for use in out.uses()]
    return found


def _needed(affected: set[ir.Node]) -> tuple[set[ir.Node], list[ir.Value], list[str]]:
    """All nodes of the part, the float values it takes from outside, and the network inputs it reads."""
    included, crossing, sources = set(affected), dict[str, ir.Value](), dict[str, None]()
    waiting = [value for node in affected for value in node.inputs]
    while waiting:
        value = waiting.pop()
        if value is None or value.is_initializer():
            continue
        producer = value.producer()
        if producer is None:
            sources[value.name or ""] = None
        elif producer in included:
            continue
        elif value.dtype == ir.DataType.FLOAT:
            crossing[value.name or ""] = value
        else:
            included.add(producer)
            waiting += producer.inputs
    return included, [crossing[name] for name in sorted(crossing)], sorted(sources)
