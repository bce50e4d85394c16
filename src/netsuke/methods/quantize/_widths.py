"""One tensor, one width: which layers decide how many bits a tensor's codes have, and what the others follow.

Layers that multiply (convolutions, linear layers, matrix products) decide the width of what they read as operands.
Layers that only add, average, look up or join follow, and so does the residual of a fused add. A tensor that no
deciding layer reads has the widest of its readers' widths; one that is only added as a residual has 8 bits, because
narrower codes would save no arithmetic there.
"""

from __future__ import annotations

import onnx_ir as ir

from netsuke.core.errors import Problem
from netsuke.core.plan import Plan, Row
from netsuke.methods.quantize._layer import Layer
from netsuke.methods.quantize.placement import Placement

DECIDING = ("qconv", "qlinear", "qmatmul")


def deciders(placement: Placement, root: ir.Value) -> list[Layer]:
    """Quantized layers that multiply codes of the root's group, in graph order."""
    members = {value for value, owner in placement.group.items() if owner is root}
    return [x for x in placement.readers(root) if x.kernel in DECIDING and members.intersection(x.inputs)]


def conflicts(plan: Plan, placement: Placement) -> list[Problem]:
    """Tensors whose deciding layers want different widths, and bits that a layer cannot have."""
    rows = {row.name: row for row in plan.rows}
    problems = []
    for name, layer in placement.layers.items():
        row = rows[name]
        if not row.kept and layer.stored is None and row.weight_bits is not None:
            problems.append(Problem("the layer has no weights", name, f"weight_bits = {row.weight_bits}", "none"))
        if not row.kept and layer.stored is not None and row.weight_bits is None:
            problems.append(Problem("the layer has weights", name, "no weight_bits", "2 to 8"))
    for root in placement.roots:
        wanted = {x.name: rows[x.name].activation_bits for x in deciders(placement, root)}
        if len(set(wanted.values())) > 1:
            got = ", ".join(f"{name} {bits}" for name, bits in wanted.items())
            hint = f"activation_bits = {max(wanted.values())} for all of them"
            problems.append(Problem("one tensor has one width", f"tensor {root.name}", got, "equal bits", hint))
    return problems


def resolve(plan: Plan, placement: Placement) -> None:
    """Raise activation widths until no two deciding layers disagree; every raised row says why."""
    rows = {row.name: row for row in plan.rows}
    changed = True
    while changed:
        changed = False
        for root in placement.roots:
            readers = [rows[x.name] for x in deciders(placement, root)]
            widest = max(readers, key=lambda row: row.activation_bits, default=None)
            for row in readers:
                if widest is not None and row.activation_bits < widest.activation_bits:
                    row.activation_bits, changed = widest.activation_bits, True
                    row.reason = f"reads the same tensor as {widest.name}"
    follow(plan, placement)


def widths(plan: Plan, placement: Placement) -> dict[str, int]:
    """Bits by name of the tensor that owns the quantizer. The plan must be free of conflicts."""
    rows = {row.name: row for row in plan.rows}
    return {root.name or "": _width(placement, root, rows) for root in placement.roots}


def _width(placement: Placement, root: ir.Value, rows: dict[str, Row]) -> int:
    known = [rows[x.name].activation_bits for x in deciders(placement, root)]
    if not known:
        readers = [x for x in placement.readers(root) if not rows[x.name].kept]
        known = [8 if x.kernel in DECIDING else rows[x.name].activation_bits for x in readers]
    return max(known, default=8)


def follow(plan: Plan, placement: Placement) -> None:
    """Rows of layers that do not decide say the width of what they read."""
    rows, found = {row.name: row for row in plan.rows}, widths(plan, placement)
    for layer in placement.layers.values():
        row = rows[layer.name]
        if row.kept or not layer.quantized or layer.kernel in DECIDING:
            continue
        read = [found[placement.group[v].name or ""] for v in layer.inputs if v in placement.group]
        row.activation_bits = max(read, default=row.activation_bits)
