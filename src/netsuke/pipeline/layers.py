"""The per-layer table of a compressed network: what was planned, what the file holds, what ran."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from netsuke.core.plan import Plan, Row
from netsuke.passes import packed_report
from netsuke.passes.report import ONE_BIT
from netsuke.program.model import Node, Program
from netsuke.program.opset import OPERATORS
from netsuke.program.storage import stored_bytes
from netsuke.verify.parity import LayerParity

PACKED, SIMULATED, FLOAT, FALLBACK = "packed", "simulated", "float", "fallback"
_CONVERSIONS = ("quantize", "dequantize", "sign_pack", "transpose")


@dataclass
class Layer:
    """One layer of the network.

    status       packed: stored and executed in integers; float: kept so by the plan; fallback: planned packed, compiled
    float bytes_before/bytes  stored bytes of weights and biases in the float and in the compressed file
    ms_before/ms  milliseconds in the float and in the compressed program; None when not measured or fused into another
    layer
    sqnr_db      of the layer's output in the compressed network against the float one, errors of earlier layers
    included
    """

    name: str
    op: str
    kernel: str
    status: str
    weight_bits: int | None
    activation_bits: int
    bytes_before: int
    bytes: int
    macs: int | None = None
    ms_before: float | None = None
    ms: float | None = None
    sqnr_db: float | None = None
    sensitivity_db: float | None = None
    reason: str = ""


class Layers:
    """All layers in execution order. `str()` is a table."""

    def __init__(self, rows: list[Layer]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def counts(self) -> dict[str, int]:
        """Number of layers that are packed, simulated, float by plan, and float against the plan (fallback)."""
        found = Counter(row.status for row in self.rows)
        return {status: found[status] for status in (PACKED, SIMULATED, FLOAT, FALLBACK)}

    def worst(self, count: int = 5) -> Layers:
        """The layers with the lowest SQNR: where the error comes from."""
        known = [row for row in self.rows if row.sqnr_db is not None]
        return Layers(sorted(known, key=lambda row: row.sqnr_db if row.sqnr_db is not None else math.inf)[:count])

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.rows]

    def __str__(self) -> str:
        head = ["layer", "op", "bits", "status", "bytes", "ms", "float ms", "SQNR dB", "reason"]
        body = []
        for r in self.rows:
            bits = f"{r.weight_bits or '-'}/{r.activation_bits}"
            decibel = "-" if r.sqnr_db is None else f"{r.sqnr_db:.1f}"
            cells = [r.name, r.op, bits, r.status, f"{r.bytes:,}", _ms(r.ms), _ms(r.ms_before), decibel, r.reason]
            body.append(cells)
        return aligned([head, *body])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text in columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def constant_bytes(program: Program, node: Node) -> int:
    """Bytes of the constants a node reads, as stored in the file."""
    return stored_bytes(program, node.inputs)


def by_layer(program: Program, names: Sequence[str]) -> dict[str, list[Node]]:
    """Nodes of each layer: the node of that name, and nodes the compiler derived from it ("name/...", "name:...")."""
    known = set(names)
    found: dict[str, list[Node]] = {}
    for node in program.nodes:
        name = node.name
        while name and name not in known:
            cut = max(name.rfind("/"), name.rfind(":"), name.rfind("."))
            name = name[:cut] if cut > 0 else ""
        if name:
            found.setdefault(name, []).append(node)
    return found


def _main(nodes: Sequence[Node]) -> Node | None:
    """The node that does the layer's work: not a conversion, the integer one first."""
    work = [n for n in nodes if n.op not in _CONVERSIONS] or list(nodes)
    integer = [n for n in work if is_integer(n)]
    return (integer or work or [None])[0]  # type: ignore[list-item]


def is_integer(node: Node) -> bool:
    """True when the node computes on codes."""
    return node.op not in _CONVERSIONS and OPERATORS[node.op].group == "integer"


def layer_table(
    plan: Plan,
    program: Program,
    floating: Program,
    parity: Sequence[LayerParity] = (),
    profile: Sequence[Mapping[str, Any]] = (),
    float_profile: Sequence[Mapping[str, Any]] = (),
) -> Layers:
    """Rows of the plan with what the compiled program really holds. Profiles are those of `measure.layers`."""
    names = [row.name for row in plan.rows]
    own, before = by_layer(program, names), by_layer(floating, names)
    errors = {p.layer: p.sqnr_db for p in parity}
    timed, float_timed = ({r["name"]: r for r in rows} for rows in (profile, float_profile))
    kinds = {r["name"]: r["kind"] for r in packed_report(program)}
    table = []
    for row in plan.rows:
        nodes, old = own.get(row.name, []), before.get(row.name, [])
        layer = _layer(row, nodes, kinds)
        layer.bytes_before = sum(constant_bytes(floating, n) for n in old)
        layer.bytes = sum(constant_bytes(program, n) for n in nodes)
        layer.ms_before, layer.ms = _total(old, float_timed, "ms"), _total(nodes, timed, "ms")
        layer.macs = row.macs if row.macs is not None else _total(nodes, timed, "macs")
        layer.sqnr_db = next((errors[n.name] for n in nodes if n.name in errors), None)
        table.append(layer)
    return Layers(table)


def _layer(row: Row, nodes: Sequence[Node], kinds: Mapping[str, str]) -> Layer:
    """What the compiled program made of a row: packed only where an integer operator stands in the file."""
    main = _main(nodes)
    kind = kinds[main.name] if main else ""
    status, reason = row.status, row.reason
    weight_bits, activation_bits = row.weight_bits, row.activation_bits
    if main is not None and main.op in ONE_BIT:  # the network is binary already: no plan made it so
        status, reason = PACKED, "signs of weights and activations"
        weight_bits = activation_bits = 1
    elif kind == "simulated" and row.status == FLOAT:
        reason = f"{reason or 'kept float'}; its input is rounded to the codes that another layer reads"
    elif kind == "simulated":
        status, reason = SIMULATED, "quantized, but the compiler computes it in float"
    elif row.status == PACKED and kind == "float":
        status, reason = FALLBACK, "planned packed, but the compiler left it in float"
    return Layer(
        name=row.name,
        op=row.op,
        kernel=main.op if main else "fused",
        status=status,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        bytes_before=0,
        bytes=0,
        macs=row.macs,
        sensitivity_db=row.sqnr_db,
        reason=reason,
    )


def _total(nodes: Sequence[Node], rows: Mapping[str, Mapping[str, Any]], key: str) -> Any:
    """Sum over the nodes that were profiled; None when none was."""
    found = [rows[n.name][key] for n in nodes if n.name in rows]
    return sum(found) if found else None
