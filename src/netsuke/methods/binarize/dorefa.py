"""DoReFa at one bit: one scale a layer, activations 0 or 1.

Paper: Zhou et al. 2016 (arXiv 1606.06160); an operator of BiBench (ledger row bibench).
Idea: bound activations to [0, 1] and round them; weights keep one mean magnitude.
Equations: w -> E|w| sign(w), one scale a layer, gradient 1; x -> round(clip(x, 0, 1)), gradient 1 inside [0, 1].
Differences: none at one bit (BiBench uses signs and scales per channel instead).
Cost: one mean a layer. Limits: activations should be non-negative (after a ReLU).
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
    from netsuke.nn.binarizer import Binarizer, Elastic, MeanAbs, One, Sign
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Identity

    del config

    def weights(_: Layer) -> Binarizer:
        return Binarizer(Sign(Identity()), MeanAbs("tensor"))

    def inputs(_: Layer) -> Binarizer:
        return Binarizer(Elastic(0, 1), One())

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


METHOD = register(
    Method(
        name="binarize/dorefa",
        purpose="one scale a layer and activations of 0 or 1",
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
