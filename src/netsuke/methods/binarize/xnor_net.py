"""XNOR-Net: signs with the mean magnitude of each filter and of each input.

Paper: Rastegari et al. 2016 (arXiv 1603.05279); an operator of BiBench (ledger row bibench).
Idea: alpha = E|w| is the best scale of sign(w) in the least-squares sense; inputs get one too.
Equations: u = w - mean of the filter; y = alpha beta sum sign(x) sign(u), alpha = E|u| per filter, beta = E|x| per
sample.
Differences: one input scale per sample instead of the map K over positions (as BiBench; the map costs a convolution and
gains little); alpha takes no gradient.
Cost: two means a layer. Limits: beta is computed on the fly, also when serving.
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
    from netsuke.nn.binarizer import Binarizer, Centred, MeanAbs, Sign
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Clipped

    del config

    def weights(_: Layer) -> Binarizer:
        return Binarizer(Sign(Clipped()), MeanAbs("channel"), Centred())

    def inputs(_: Layer) -> Binarizer:
        return Binarizer(Sign(Clipped()), MeanAbs("sample"))

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


METHOD = register(
    Method(
        name="binarize/xnor_net",
        purpose="signs with mean-magnitude scales of filters and inputs",
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
