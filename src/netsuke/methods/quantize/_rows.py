"""Rows of a plan from a graph: what each layer is, costs, and what runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.core.budget import Budget
from netsuke.core.plan import BFLOAT16, KEEP, Plan, Row
from netsuke.formats import packed_bytes
from netsuke.methods.quantize._graph import constant, macs
from netsuke.methods.quantize._layer import Layer
from netsuke.methods.quantize._widths import DECIDING
from netsuke.methods.quantize.placement import Placement, place

FLOAT_KERNELS = {"qconv": "conv", "qlinear": "linear", "qmatmul": "matmul", "qadd": "binary", "qmul": "binary"}
FLOAT_KERNELS |= {"qavgpool": "avgpool", "qmean": "reduce", "lut": "unary"}


UNREAD = {False: "no reader needs codes", True: "one-bit layer; no reader needs its sums as codes"}


def rows(
    model: ir.Model, defaults: Mapping[str, str | int], shapes: Mapping[str, Sequence[int]] | None = None
) -> list[Row]:
    """One row per layer in graph order: quantized where an integer kernel exists and its codes are needed.

    `shapes` gives shapes per sample where the network leaves height and width free (for the costs).
    """
    layers = list(place(model).layers.values())
    weighted = [layer for layer in layers if layer.weight is not None and not layer.blocked]
    first, last = (weighted[0].name, weighted[-1].name) if weighted else ("", "")
    made = [_row(layer, defaults, first, last) for layer in layers]
    for row, layer in zip(made, layers, strict=True):
        row.macs = macs(layer.node, shapes)
    return made


def _row(layer: Layer, defaults: Mapping[str, str | int], first: str, last: str) -> Row:
    row = Row(layer.name, layer.node.op_type)
    row.weight_bits = 32 if layer.stored is not None else None
    row.bytes_before = row.bytes_after = _stored(layer)
    row.reason = layer.blocked or UNREAD[layer.one_bit]
    row.kernel = FLOAT_KERNELS.get(layer.kernel, layer.kernel)
    if layer.quantized:
        quantized(row, layer, _with_ends(defaults, layer.name in (first, last)))
        row.reason = {first: "first layer", last: "last layer"}.get(layer.name, "") if layer.weight is not None else ""
        row.reason = "one-bit layer; its sums leave as codes" if layer.one_bit else row.reason
    return row


def _with_ends(defaults: Mapping[str, str | int], end: bool) -> Mapping[str, str | int]:
    """The defaults of this layer: the first and the last one may have bits of their own."""
    bits = defaults.get("ends", 0)
    return {**defaults, "bits": bits, "weight_bits": bits} if end and bits else defaults


def quantized(row: Row, layer: Layer, defaults: Mapping[str, str | int]) -> None:
    """Make the row one of a packed layer with these defaults."""
    bits = int(defaults["bits"])
    row.method, row.activation_bits = str(defaults["method"]), bits if layer.kernel in DECIDING else 8
    row.kernel, row.status = layer.kernel, "packed"
    if layer.stored is not None:
        wanted = int(defaults.get("weight_bits", bits)) if layer.table is None else 8  # rows are few bytes: no fewer
        row.weight_bits, row.weights = wanted, str(defaults["weights"])
        row.granularity = str(defaults["granularity"])
        row.bytes_after = stored_bytes(layer, row.weight_bits)


def follow(plan: Plan, placement: Placement) -> None:
    """Let rows say what the placement did: a planned layer that no longer has to produce codes is left float."""
    for row in plan.rows:
        layer = placement.layers[row.name]
        if not row.kept and not layer.quantized:
            keep(row, layer.blocked or UNREAD[layer.one_bit])
        elif not row.kept and row.weight_bits is not None:
            row.bytes_after = stored_bytes(layer, row.weight_bits)


def keep(row: Row, reason: str) -> None:
    """Make the row one of a layer left in float."""
    row.method, row.status, row.reason = KEEP, "float", reason
    row.activation_bits, row.weights, row.granularity = 32, "", ""
    row.weight_bits = None if row.weight_bits is None else 32
    row.kernel = FLOAT_KERNELS.get(row.kernel, row.kernel)
    row.bytes_after = row.bytes_before


def follow_edits(plan: Plan, layers: Mapping[str, Layer]) -> None:
    """Let rows that a person set to "keep" say what follows from it; 16 bits asked for stay bfloat16."""
    for row in plan.rows:
        if row.kept and row.name in layers and row.status != "float":
            asked, halved = (row.weight_bits, row.activation_bits), row.bfloat16
            keep(row, row.reason or "kept by the plan")
            if halved and not in_bfloat16(row, layers[row.name]):
                row.weight_bits, row.activation_bits = asked  # refused where the plan is checked


def in_bfloat16(row: Row, layer: Layer) -> bool:
    """Let a kept layer compute on bfloat16 where a kernel exists; False where there is none."""
    weight = constant(layer.weight)
    if not row.kept or not has_bfloat16(layer):
        return False
    if weight is None:
        row.weight_bits, row.activation_bits = None, BFLOAT16
        return True
    row.weight_bits, row.activation_bits = BFLOAT16, 32
    row.bytes_after = row.bytes_before - weight.nbytes // 2
    return True


def has_bfloat16(layer: Layer) -> bool:
    """True for convolutions and matrix products: their float kernels take bfloat16."""
    return layer.kernel == "qmatmul" or (layer.weight is not None and layer.kernel in ("qconv", "qlinear"))


def _constants(layer: Layer) -> list[np.ndarray]:
    arrays = [constant(v) for node in layer.nodes for v in node.inputs]
    return [a for a in arrays if a is not None and a.dtype == np.float32]


def _stored(layer: Layer) -> int:
    if layer.one_bit:
        weight = constant(layer.node.inputs[1])
        floats = sum(a.size for a in _constants(layer)) - (0 if weight is None else weight.size)
        return 0 if weight is None else packed_bytes(weight.size, 1) + 4 * (floats + weight.shape[0])
    if layer.stored is None:
        return 256 if layer.kernel == "lut" and layer.quantized else 0
    return sum(a.nbytes for a in _constants(layer))


def stored_bytes(layer: Layer, bits: int) -> int:
    """Codes at `bits` bits, as the file holds them (7 take 8); a float multiplier and a float bias per channel."""
    weight = constant(layer.stored)
    channels = weight.shape[layer.axis] if weight is not None and layer.axis is not None else 0
    if weight is not None and layer.table is not None:
        return weight.size + 4 * channels
    return (0 if weight is None else packed_bytes(weight.size, 8 if bits == 7 else bits)) + 8 * channels


def budget_table(budget: Budget) -> dict[str, Any]:
    """The budget as a TOML table without empty entries."""
    return {k: (dict(v) if isinstance(v, Mapping) else v) for k, v in dataclasses.asdict(budget).items() if v}


def size_note(plan: Plan, budget: Budget) -> None:
    """Note when the planned bytes break the size limit."""
    before, after = plan.bytes()
    limit = budget.size_bytes if budget.size_bytes is not None else None
    if budget.size_ratio is not None:
        limit = int(budget.size_ratio * before)
    if limit is not None and after > limit:
        text = (
            f"size: {after:,} bytes of weights planned, {limit:,} allowed; fewer bits or fewer float layers are needed"
        )
        plan.note(text)
