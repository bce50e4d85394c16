"""BNN: signs of weights and activations, no scales.

Paper: Binarized Neural Networks, Hubara et al. 2016 (arXiv 1602.02830), BinaryConnect (arXiv 1511.00363); an operator
of BiBench (ledger row bibench).
Idea: keep latent real weights, use their signs forward, pass gradients straight through.
Equations: b = sign(w), a = sign(x), sign(0) = +1; dL/dw = dL/db for |w| <= 1, dL/dx = dL/da for |x| <= 1.
Differences: latent weights are not clipped to [-1, 1] after a step; outside they simply get no gradient. Inputs of the
first layer stay float instead of 8-bit.
Cost: nothing beyond the float network. Limits: no scale, so batch normalization has to follow.
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
    from netsuke.nn.binarizer import Binarizer, One, Sign
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Clipped

    del config

    def signs(_: Layer) -> Binarizer:
        return Binarizer(Sign(Clipped()), One())

    return binarize(model, weights=signs, inputs=signs, keep=keep)


METHOD = register(
    Method(
        name="binarize/bnn",
        purpose="signs of weights and activations without scales",
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
