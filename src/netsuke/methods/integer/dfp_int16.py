"""Dynamic fixed point training: 16-bit integers with one shared exponent a tensor.

Paper: Das et al., "Mixed Precision Training of Convolutional Neural Networks using Integer Operations", 2018
(arXiv 1802.00930).
Idea: the exponent of a tensor's largest value serves all its values; products are INT16 x INT16 with INT32 sums.
Equations: E = exponent(max|x|) - (P - 1), I = rne(x 2^-E), |I| <= 2^(P-1) - 1. A sum of pairs goes to INT32 for
as many pairs as surely fit, floor((2^31 - 1) / (2 max|a| max|b|)), then is converted to f32 and added there. Overflow:
`chain` pairs must fit, so where a tensor's largest mantissa exceeds floor(sqrt((2^31 - 1) / (2 chain))) its exponent
is raised and every mantissa shifted right, with rounding, before anything is multiplied. Exponents are those of the
current tensors.
Differences: the paper reserves head-room it does not state; here chain = 8, one or two bits as the tensor's largest
value needs (it keeps 12.5 to 13.5 bits of magnitude). Nothing is down-converted between layers, since normalization
runs in float.
Cost: half the products a cycle of 8-bit operands, and one conversion to f32 a chain.
Limits: narrow words round small gradients to zero. No 16-bit engine layer exists: the trained network is float
and goes through post-training quantization like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.method import Method, register
from netsuke.nn.integer_config import IntegerConfig, kept

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class DynamicFixedPoint:
    """bits  P, 9 to 16. chain: pairs of products an INT32 sum must hold (1: no head-room is made). keep_float: names or
    patterns of layers left alone, separated by "|", or "none"."""

    bits: int = 16
    chain: int = 8
    keep_float: str = "none"


def apply(model: nn.Module, config: DynamicFixedPoint = DynamicFixedPoint()) -> nn.Module:
    """Make every convolution and linear layer compute its three products in dynamic fixed point, in place."""
    from netsuke.nn.integer_swap import integer_

    arithmetic = IntegerConfig(
        config.bits, config.bits, config.bits, gradient="dfp", stochastic=False, chain=config.chain
    )
    return integer_(model, arithmetic, keep_float=kept(config.keep_float))


METHOD = register(
    Method(
        name="integer/dfp_int16",
        purpose="train with 16-bit integers that share one exponent a tensor",
        paper="dfp-int16-training",
        config=DynamicFixedPoint,
        apply=apply,
        needs=("data", "labels", "gradients", "training"),
        touches=("weights", "activations"),
        exports=(),
        status="trial",
        cost="a training run",
        tags=("train",),
    )
)
