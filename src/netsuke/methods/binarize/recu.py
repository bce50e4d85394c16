"""ReCU: weights that drifted far out are held at a quantile, so that their signs can still change.

Paper: ReCU: Reviving the Dead Weights in Binary Neural Networks, Xu et al. 2021 (arXiv 2103.12369); an operator of
BiBench (ledger row bibench).
Idea: weights in the tails hardly ever change sign; clamping them at a quantile of a fitted Laplace law brings them back
to the peak.
Equations: u = (w - mean) / std per filter, clamped to +-Q, Q = -E|u| ln(2 - 2 tau), tau from 0.85 to 0.99
exponentially; b = sign(u), gradient 1; activations x / std of the sample while training, slope max(0, 2 - 2|x|);
y = alpha_o times the product, alpha trained from uniform(0, 1).
Differences: the quantile carries no gradient.
Cost: mean and deviation of each filter. Limits: the clamp changes gradients only, never a sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import nn

    from netsuke.nn.binary_layers import Layer


@dataclass(frozen=True)
class Config:
    """first, last: tau at the start and at the end of training; seed: of the first output scales."""

    first: float = 0.85
    last: float = 0.99
    seed: int = 0


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of the network binary, in place; see the room's contract."""
    import torch

    from netsuke.nn.binarizer import Binarizer, Learned, One, SampleDeviation, Sign
    from netsuke.nn.binarizer_rotation import Clamped
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Identity, Polynomial

    if not 0.5 < config.first <= config.last < 1:
        got = f"first {config.first}, last {config.last}"
        raise UsageError(Problem("quantiles", "binarize/recu", got, "0.5 < first <= last < 1"))
    generator = torch.Generator().manual_seed(config.seed)

    def weights(layer: Layer) -> Binarizer:
        scale = Learned(layer.weight.shape[0], None, generator=generator)
        return Binarizer(Sign(Identity()), scale, Clamped(config.first, config.last))

    def inputs(_: Layer) -> Binarizer:
        return Binarizer(Sign(Polynomial()), One(), SampleDeviation())

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


METHOD = register(
    Method(
        name="binarize/recu",
        purpose="standardized weights clamped at a growing quantile",
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
