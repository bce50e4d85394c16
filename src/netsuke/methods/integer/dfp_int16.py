"""Dynamic fixed point training: 16-bit integers with one shared exponent a tensor.

Paper: Das et al., "Mixed Precision Training of Convolutional Neural Networks using Integer Operations", 2018
(arXiv 1802.00930).
Idea: the exponent of a tensor's largest value serves all its values; products are INT16 x INT16 with INT32 sums.
Equations: E = exponent(max|x|) - (P - 1), I = rne(x 2^-E), |I| <= 2^(P-1) - 1. A sum of pairs goes to INT32 for as many
pairs as surely fit, floor((2^31 - 1) / (2 max|a| max|b|)), then is converted to f32 and added there. Exponents are
those
of the current tensors, so nothing saturates except a value that rounds up to 2^(P-1).
Differences: the chain length follows from the widths (P = 16: one pair, P = 14: 15 pairs, P = 12: 255), where the paper
reserves head-room it does not state; nothing is down-converted between layers, since normalization runs in float.
Cost: half the products a cycle of 8-bit operands; at P = 16 the conversion to f32 halves that again.
Limits: P = 8 stalls (small gradients round to zero). No 16-bit engine layer exists: the trained network is float and
goes
through post-training quantization like any other.
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
    """bits  P, 9 to 16. keep_float: names or patterns of layers left alone, separated by "|", or "none"."""

    bits: int = 16
    keep_float: str = "none"


def apply(model: nn.Module, config: DynamicFixedPoint = DynamicFixedPoint()) -> nn.Module:
    """Make every convolution and linear layer compute its three products in dynamic fixed point, in place."""
    from netsuke.nn.integer_swap import integer_

    arithmetic = IntegerConfig(config.bits, config.bits, config.bits, gradient="dfp", stochastic=False)
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
