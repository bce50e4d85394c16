"""BinaryDM: two binary bases a weight, both scales learned.

Paper: BinaryDM, Zheng et al. 2024 (arXiv 2404.05662); ledger row binarydm.
Idea: a second basis on what the first leaves; it can be dropped where one is enough.
Equations: w -> s1 sign(w) + s2 sign(w - s1 sign(w)), s1, s2 per output channel, started at E|w| and E|rest|, trained;
gradients clipped to [-1, 1]. Activations are left to the network's own quantizers.
Differences: which layers get two bases is said by `keep` and a second call with `two` = false; without the low-rank
mimicking of the float network's features and the progressive start.
Cost: two binary products for each layer with two bases. Limits: weights only.
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
    """two: give layers two bases (else one)."""

    two: bool = True


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of the network binary, in place; see the room's contract."""
    from netsuke.nn.binarizer import Binarizer, Learned, Sign, TwoBases
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Clipped

    def weights(layer: Layer) -> Binarizer:
        channels = layer.weight.shape[0]
        return TwoBases(channels, Clipped()) if config.two else Binarizer(Sign(Clipped()), Learned(channels))

    return binarize(model, weights=weights, inputs=lambda _: None, keep=keep)


METHOD = register(
    Method(
        name="binarize/binarydm",
        purpose="two binary bases a weight with learned scales",
        paper="binarydm",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights",),
        exports=(),
        status="trial",
        cost="one pass over the weights a step; training as long as the float network's or longer",
    )
)
