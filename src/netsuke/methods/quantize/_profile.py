"""Expected milliseconds per layer, from the profiler that a context may have."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import onnx_ir as ir

from netsuke.core.plan import Plan
from netsuke.methods.quantize import insert, sensitivity
from netsuke.methods.quantize._context import Context


def times(context: Context, bits: Mapping[str, tuple[int, int]] | None = None) -> dict[str, float]:
    """Milliseconds by layer of the whole network, with other (weight, activation) bits for some layers; {} without a
    profiler.

    Only the quantizers are written: corrections of biases change no time.
    """
    if context.profiler is None:
        return {}
    plan = _plan(context, bits or {})
    return dict(context.profiler(sensitivity.with_plan(context, plan, _written), plan))


def file_bytes(context: Context) -> tuple[int, int] | None:
    """Bytes of the float file and of the file of the plan as it is; None without a sizer."""
    if context.sizer is None:
        return None
    plan = _plan(context, {})
    quantized = sensitivity.with_plan(context, plan, _written)
    return context.sizer(context.model, Plan()), context.sizer(quantized, plan)


def _plan(context: Context, bits: Mapping[str, tuple[int, int]]) -> Plan:
    plan = copy.deepcopy(context.plan)
    for name, (weight, activation) in bits.items():
        plan[name].weight_bits, plan[name].activation_bits = weight, activation
    return plan


def expect(context: Context) -> None:
    """Fill `expected_ms` of every row that has a node of its own in the program."""
    found = times(context)
    for row in context.plan.rows:
        row.expected_ms = found.get(row.name)


def _written(context: Context) -> ir.Model:
    insert.insert(context)
    return context.model
