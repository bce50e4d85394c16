"""Dyadic requantization: integers only, from the first code to the last.

Paper: Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", 2021 (arXiv 2011.10680), sections 3.1 and 3.2.
Idea: the factor s_x s_w / s_y of each output channel is replaced by m / 2^e, one integer multiplication and one
shift; a residual is scaled with its own dyadic number and added.
Equations: docs/numerics.md section 5; m has 31 bits, so |M - m / 2^e| <= 2^-31 M.
An add that stands alone scales and rounds each operand on its own; the global mean multiplies its sum once.
Differences: rounding is half to even (the paper rounds half up); activations are affine; the sum of both branches
is clamped once; the mean is rounded, not truncated. The bit assignment of the paper is `bits/search`.
Cost: none in accuracy that can be measured; on CPUs with fast float conversion it is not faster. Limits: layers
whose output stays float (the last one) keep the float multiplier, because they have no output scale; so do
multiplications, window averages and means over images of a free size.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.method import Method, register
from netsuke.core.plan import Plan


@dataclass(frozen=True)
class Dyadic:
    """No options."""


def apply(plan: Plan, config: Dyadic) -> None:  # noqa: ARG001
    """Mark the plan; the graph carries it as metadata "netsuke.requant" and the compiler chooses the operators."""
    plan.requant = "dyadic"


METHOD = register(
    Method(
        name="quantize/dyadic",
        purpose="requantize with an integer multiplication and a shift instead of a float multiplication",
        paper="hawq-v3",
        config=Dyadic,
        apply=apply,
        touches=("activations",),
        exports=("qconv_dyadic", "qlinear_dyadic", "qadd_dyadic", "qmean_dyadic"),
        cost="none",
        tags=("requant",),
    )
)
