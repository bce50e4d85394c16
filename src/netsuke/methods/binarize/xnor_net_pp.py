"""XNOR-Net++: the output scale is learned.

Paper: Bulat and Tzimiropoulos 2019 (arXiv 1909.13863); an operator of BiBench (ledger row bibench).
Idea: learn one fused scale of weight and input instead of computing two.
Equations: y = gamma_o sum sign(x) sign(w), gamma trained per output channel, started at E|w|; gradients as BNN.
Differences: only the channel factor of the rank-1 scale; factors over height and width tie a network to one image size.
Cost: one parameter a channel. Limits: the scale must be trained with the network.
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
    from netsuke.nn.binarizer import Binarizer, Learned, One, Sign
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Clipped

    del config

    def weights(layer: Layer) -> Binarizer:
        return Binarizer(Sign(Clipped()), Learned(layer.weight.shape[0]))

    def inputs(_: Layer) -> Binarizer:
        return Binarizer(Sign(Clipped()), One())

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


METHOD = register(
    Method(
        name="binarize/xnor_net_pp",
        purpose="signs with a learned scale per output channel",
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
