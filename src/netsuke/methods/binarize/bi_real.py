"""Bi-Real: a triangular slope for activations, scales per channel.

Paper: Liu et al. 2018 (arXiv 1808.00278); an operator of BiBench (ledger row bibench).
Idea: approximate the step of an activation by a piecewise quadratic, whose slope is a tent; keep a real-valued shortcut
around every convolution (the network's affair).
Equations: a = sign(x), da/dx = max(0, 2 - 2|x|); w -> E|w| sign(w) per channel, gradient inside |w| <= 1.
Differences: training starts from given weights; clip(-1, x, 1) in place of ReLU during pre-training is the network's
affair.
Cost: one mean a channel. Limits: without the shortcuts it is little better than clipped gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import nn

    from netsuke.nn.binary_layers import Layer


@dataclass(frozen=True)
class Config:
    """No options."""


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of the network binary, in place; see the room's contract."""
    from netsuke.nn.binarizer import Binarizer, MeanAbs, One, Sign
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Clipped, Polynomial

    del config

    def weights(_: Layer) -> Binarizer:
        return Binarizer(Sign(Clipped()), MeanAbs("channel"))

    def inputs(_: Layer) -> Binarizer:
        return Binarizer(Sign(Polynomial()), One())

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


METHOD = register(
    Method(
        name="binarize/bi_real",
        purpose="tent-shaped slope for activations, scales per channel",
        paper="bibench",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights", "activations"),
        exports=("bconv", "blinear"),
        status="trial",
        cost="one pass over the weights a step; training as long as the float network's or longer",
    )
)
