"""From a budget to limits of the knapsack: what may be spent, what is spent already by layers that are not searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netsuke.core.budget import Budget
from netsuke.core.errors import Problem as Trouble
from netsuke.core.errors import UsageError
from netsuke.methods.bits._probe import Probe
from netsuke.methods.quantize._profile import file_bytes, times

# What layers may have by the first kind of budget: for bytes only weights count, for time only formats with kernels of
# their own can differ.
FORMATS = {
    "size": "w2a8+w3a8+w4a8+w5a8+w6a8+w8a8",
    "bops": "w2a4+w3a4+w4a4+w4a6+w4a8+w6a6+w6a8+w8a8",
    "latency": "w4a4+w4a6+w4a8+w8a8",
}
# Bytes by which the text in the file can grow while the plan is completed: notes (that of the whole choices has up to
# 400 characters), and each row's reason.
FILE_MARGIN, ROW_MARGIN = 1536, 110
UNITS = {"size": "bytes", "bops": "bit operations", "latency": "ms"}


@dataclass(frozen=True)
class Limit:
    """total: the limit on the network; fixed: what layers that are not searched spend of it."""

    kind: str
    total: float
    fixed: float

    @property
    def room(self) -> float:
        """What the searched layers may spend."""
        return self.total - self.fixed

    def describe(self, spent: float) -> str:
        """For the plan's notes."""
        return f"{spent + self.fixed:,.6g} of {self.total:,.6g} {UNITS[self.kind]}"


def kinds(budget: Budget) -> tuple[str, ...]:
    """The kinds of cost the budget limits, those that matter to the formats first."""
    found = []
    if budget.latency_ms is not None or budget.latency_ratio is not None:
        found.append("latency")
    if budget.bops is not None or budget.bops_ratio is not None:
        found.append("bops")
    if budget.size_bytes is not None or budget.size_ratio is not None:
        found.append("size")
    if not found:
        raise UsageError(
            Trouble("a bit search needs a budget", "--budget", hint="size=0.15x, bops=0.5x or latency=0.8x")
        )
    return tuple(found)


def limits(probe: Probe, budget: Budget, wanted: Sequence[str], layers: Sequence[str]) -> list[Limit]:
    """Total and fixed part of every limit."""
    makers = {"size": _size, "bops": _bops, "latency": _latency}
    return [makers[kind](probe, budget, layers) for kind in wanted]


def _size(probe: Probe, budget: Budget, layers: Sequence[str]) -> Limit:
    rows = probe.context.plan.rows
    before, after = file_bytes(probe.context) or probe.context.plan.bytes()
    if probe.context.sizer is not None:
        after += FILE_MARGIN + ROW_MARGIN * len(rows)
    ratio = (budget.size_ratio or 0.0) * before
    total = float(budget.size_bytes if budget.size_bytes is not None else ratio)
    return Limit("size", total, after - sum(probe.context.plan[n].rows[0].bytes_after for n in layers))


def _bops(probe: Probe, budget: Budget, layers: Sequence[str]) -> Limit:
    rows = [r for r in probe.context.plan.rows if not r.kept and r.weight_bits is not None]
    full = sum(64 * (r.macs or 0) for r in rows)
    total = float(budget.bops if budget.bops is not None else (budget.bops_ratio or 0.0) * full)
    fixed = sum((r.macs or 0) * (r.weight_bits or 8) * r.activation_bits for r in rows if r.name not in layers)
    return Limit("bops", total, fixed)


def _latency(probe: Probe, budget: Budget, layers: Sequence[str]) -> Limit:
    measured = times(probe.context, dict.fromkeys(layers, (8, 8)))
    full = sum(measured.values())
    total = budget.latency_ms if budget.latency_ms is not None else (budget.latency_ratio or 0.0) * full
    return Limit("latency", total, full - sum(measured.get(n, 0.0) for n in layers))
