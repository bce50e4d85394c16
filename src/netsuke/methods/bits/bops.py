"""Bit operations: multiply-accumulates weighted with the product of the widths.

Paper: Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", 2021 (arXiv 2011.10680), section 3.4 (BOPS limit).
Idea: hardware that multiplies bit by bit takes time in proportion to both widths.
Equations: cost(l, f) = MACs_l b_w b_a.
Differences: none. Cost: none. Limits: CPUs do not multiply bit by bit; `bits/latency` measures what they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netsuke.core.errors import Problem as Trouble
from netsuke.core.errors import UsageError
from netsuke.core.method import Method, register
from netsuke.methods.bits._probe import Probe
from netsuke.methods.bits._problem import Format


@dataclass(frozen=True)
class Bops:
    """No options."""


def apply(
    probe: Probe, layers: Sequence[str], formats: Sequence[Format], config: Bops = Bops()  # noqa: ARG001
) -> dict[tuple[str, Format], float]:  # fmt: skip
    """Bit operations per sample; UsageError naming layers whose multiply-accumulates are unknown."""
    macs = {name: probe.context.plan[name].rows[0].macs for name in layers}
    hint = "calibration data, so that sizes are known"
    unknown = [Trouble("multiply-accumulates are unknown", n, hint=hint) for n in layers if macs[n] is None]
    if unknown:
        raise UsageError(unknown)
    return {(n, f): float((macs[n] or 0) * f.weight_bits * f.activation_bits) for n in layers for f in formats}


METHOD = register(
    Method(
        name="bits/bops",
        purpose="count the bit operations of a layer at a format",
        paper="hawq-v3",
        config=Bops,
        apply=apply,
        cost="none",
        tags=("cost",),
    )
)
