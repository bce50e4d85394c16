"""`inspect`: what is in a network or a compiled program: layers, shapes, bytes, multiply-adds, what is or can be
packed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from netsuke.passes import compile_program, packed_report
from netsuke.pipeline.foreign import is_quantized
from netsuke.pipeline.layers import aligned, constant_bytes
from netsuke.pipeline.small import size
from netsuke.program.model import Port, Program
from netsuke.verify.source import capture_model, model_name, parse_shapes

SCHEMA = "netsuke.inspect/1"


@dataclass(frozen=True)
class Item:
    """One layer. `packed` is bytes once packed for a float network, stored bytes for a program; None where it stays
    float.
    """

    name: str
    op: str
    shape: str
    bytes: int
    packed: int | None
    macs: int | None
    status: str
    reason: str = ""


@dataclass
class Inspection:
    """`kind` is "float network" or "program"."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    items: list[Item]
    meta: dict[str, str] = field(default_factory=dict)

    def totals(self) -> dict[str, Any]:
        """Bytes, bytes once packed, multiply-adds by where they run, layers by status."""
        packed = [i for i in self.items if i.status == "packed"]
        return {
            "layers": dict(Counter(i.status for i in self.items)),
            "bytes": sum(i.bytes for i in self.items),
            "packed_bytes": sum(i.bytes if i.packed is None else i.packed for i in self.items),
            "macs_int8": sum(i.macs or 0 for i in packed),
            "macs_float": sum(i.macs or 0 for i in self.items if i.status != "packed"),
        }

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "name": self.name,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "totals": self.totals(),
            "layers": [asdict(i) for i in self.items],
            "meta": self.meta,
        }

    def __str__(self) -> str:
        network = self.kind == "float network"
        head = ["layer", "op", "output", "bytes", "packed", "MMAC", "can be" if network else "is", "reason"]
        body = []
        for i in self.items:
            packed, macs = (
                ("-" if i.packed is None else f"{i.packed:,}"),
                ("-" if i.macs is None else f"{i.macs / 1e6:.2f}"),
            )
            body.append([i.name, i.op, i.shape, f"{i.bytes:,}", packed, macs, i.status, i.reason])
        t = self.totals()
        told = ", ".join(f"{n} {s}" for s, n in t["layers"].items())
        packed = f", {size(t['packed_bytes'])} packed" if network else ""
        macs = f"{t['macs_int8'] / 1e6:,.1f} MMAC in int8, {t['macs_float'] / 1e6:,.1f} in float"
        lines = [
            aligned([head, *body]),
            "",
            f"{self.kind} {self.name}   {', '.join(self.inputs)} -> {', '.join(self.outputs)}",
        ]
        lines.append(f"{told}; {size(t['bytes'])} of weights{packed}; {macs}")
        return "\n".join([*lines, *(f"{k}: {v}" for k, v in self.meta.items())])


def _port(port: Port) -> str:
    return f"{port.name} {port.dtype} [{', '.join(map(str, port.shape))}]"


def _shape(value: Any, known: Mapping[str, list[int]] | None = None) -> str:
    """The shape of a value of the graph; `known`: sizes per sample by name, for those that the graph leaves free."""
    shape = getattr(value, "shape", None)
    if shape is None:
        return "?"
    dims = [d if isinstance(d, int) else d.value for d in shape]  # None: free, and without a name
    sample = (known or {}).get(value.name or "")
    if sample is not None and len(sample) == len(dims) - 1:
        dims[1:] = sample
    return "x".join("?" if d is None else str(d) for d in dims)


def _sample(model: Any, shape: Any) -> dict[str, tuple[int, ...]]:
    """Shape of one sample by input name, as given or as the reference network's; empty when neither says it."""
    from netsuke.models import MODELS

    name = str(model_name(model))
    given = shape or (MODELS[name].shapes if name in MODELS else None)
    if isinstance(given, str):
        return {key: dims[1:] for key, dims in parse_shapes(given).items()}
    if isinstance(given, Mapping):
        return {key: tuple(dims)[1:] for key, dims in given.items()}
    return {"": tuple(given)[1:]} if given and isinstance(given[0], int) else {}


def _float_network(model: Any, shape: Any, weights: Any) -> Inspection:
    from netsuke.methods.quantize.ptq import layer_macs, make_plan, sizes
    from netsuke.pipeline.runner import EngineRunner

    graph = capture_model(model, shape, weights)
    if is_quantized(graph):
        return _program(compile_program(graph, name=str(graph.graph.name or "network")))
    plan = make_plan(graph, runner=EngineRunner(), effort="fast")
    sample, known = _sample(model, shape), dict[str, list[int]]()
    if sample:
        known = sizes(graph, sample)
        counted = layer_macs(graph, sample)
        for row in plan.rows:
            row.macs = counted[row.name]
    outputs = {node.name: node.outputs[0] for node in graph.graph}
    items = [
        Item(
            name=r.name,
            op=r.op,
            shape=_shape(outputs.get(r.name), known),
            bytes=r.bytes_before,
            packed=r.bytes_after if r.status == "packed" else None,
            macs=r.macs,
            status=r.status,
            reason=r.reason,
        )
        for r in plan.rows
    ]
    inputs = [v for v in graph.graph.inputs if v.name not in graph.graph.initializers]
    name = graph.graph.name or "network"
    return Inspection("float network", name, [f"{v.name} {_shape(v)}" for v in inputs],
                      [f"{v.name} {_shape(v)}" for v in graph.graph.outputs], items)  # fmt: skip


def _program(program: Program) -> Inspection:
    macs: dict[str, int] = {}
    shapes: dict[str, str] = {}
    _costs(program, macs, shapes)
    kinds = {row["name"]: row["kind"] for row in packed_report(program)}
    items = []
    for node in program.nodes:
        stored, status = constant_bytes(program, node), kinds[node.name]
        items.append(Item(node.name, node.op, shapes.get(node.name, ""), stored, None, macs.get(node.name), status))
    return Inspection(
        "program",
        program.name,
        [_port(p) for p in program.inputs],
        [_port(p) for p in program.outputs],
        items,
        dict(program.meta),
    )


def _costs(program: Program, macs: dict[str, int], shapes: dict[str, str]) -> None:
    """Multiply-adds and output shapes by node name, from the runtime's own cost model; nothing where sizes are free."""
    from netsuke.measure.feeds import concrete_shapes, random_feeds
    from netsuke.verify.runners import open_runner

    engine = open_runner(program).engine
    given = parse_shapes(program.meta.get("sample_shape", ""))
    free = any(not isinstance(d, int) for p in program.inputs for d in p.shape[1:])
    if engine is None or (free and not given):
        return
    feeds = random_feeds(program.inputs, concrete_shapes(program.inputs, given, 1))
    for row in engine.profile(feeds, runs=1):
        macs[row["node"]] = row["macs"]
        shapes[row["node"]] = "x".join(map(str, row["shape"]))


def inspect(item: Any, *, shape: Any = None, weights: Any = None) -> Inspection:
    """Look into a float network (any MODEL) or a compiled program (.nsk path, Program, Small)."""
    from netsuke import program

    if isinstance(item, (str, Path)) and str(item).endswith(".nsk"):
        return _program(program.read(Path(item)))
    carried = item if isinstance(item, Program) else getattr(item, "program", None)
    if isinstance(carried, Program):
        return _program(carried)
    return _float_network(item, shape, weights)
