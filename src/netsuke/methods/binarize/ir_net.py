"""IR-Net: balanced weights, shift scales, a slope that sharpens.

Paper: Qin et al. 2020 (arXiv 1909.10788); a baseline of the area (ledger row bibench).
Idea: standardized weights have signs of most information; the slope starts wide, so that all weights move, and ends
narrow, so that gradients are right.
Equations: u = (w - mean) / std per filter, w -> 2^round(log2 E|u|) sign(u); slope k t (1 - tanh(t z)^2) for weights and
activations, t from `first` to 10 geometrically, k = max(1/t, 1).
Differences: none known.
Cost: mean and deviation of each filter. Limits: late in training most weights no longer move.
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
    """first: t at the start of training."""

    first: float = 0.1


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of the network binary, in place; see the room's contract."""
    from netsuke.nn.binarizer import Binarizer, Centred, MeanAbs, One, Sign
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Tanh

    def weights(_: Layer) -> Binarizer:
        scale = MeanAbs("channel", power_of_two=True)
        return Binarizer(Sign(Tanh(config.first)), scale, Centred(standardized=True))

    def inputs(_: Layer) -> Binarizer:
        return Binarizer(Sign(Tanh(config.first)), One())

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


METHOD = register(
    Method(
        name="binarize/ir_net",
        purpose="standardized weights, power-of-two scales, a slope that sharpens",
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
