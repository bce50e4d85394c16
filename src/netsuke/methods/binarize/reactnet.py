"""ReActNet: a learned threshold per channel before the sign.

Paper: Liu et al. 2020 (arXiv 2003.03488); an operator of BiBench (ledger row bibench).
Idea: where the threshold lies decides what a sign tells; learn it per channel.
Equations: a = sign(x + beta_c), slope max(0, 2 - 2|x + beta_c|); w -> E|w| sign(w) per channel, gradient inside |w| <=
1.
Differences: RSign only; RPReLU and the MobileNet-like blocks belong to the network. Two-step training (activations
first) is `keep` and a second call.
Cost: one parameter a channel. Limits: channels must be known, so lazy layers are not supported.
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
    from torch import nn as layers

    from netsuke.nn.binarizer import Binarizer, MeanAbs, One, Shift, Sign
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Clipped, Polynomial

    del config

    def weights(_: Layer) -> Binarizer:
        return Binarizer(Sign(Clipped()), MeanAbs("channel"))

    def inputs(layer: Layer) -> Binarizer:
        channels = layer.in_channels if isinstance(layer, layers.Conv2d) else layer.in_features
        return Binarizer(Sign(Polynomial()), One(), Shift(channels))

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


METHOD = register(
    Method(
        name="binarize/reactnet",
        purpose="a learned threshold per channel before the sign",
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
