"""ReSTE: a power-function slope between the identity and sign.

Paper: Estimator Meets Equilibrium Perspective, Wu et al. 2023 (arXiv 2308.06689); ledger row reste.
Idea: sign(z) |z|^(1/o) is the identity at o = 1 and sign in the limit; o grows during training, trading the stability
of gradients for the error of the estimate, and two indicators show the trade.
Equations: slope (1/o) |z|^((1-o)/o), zero beyond `limit`, the chord m^(1/o)/m within `near` = m of zero; o = 1 + (1 -
cos(pi e / 2E)) (end - 1) in epoch e of E; weights times E|w| of the layer, with its gradient. Indicators: sum over
layers of ||sign(w) - f(w)||_2 at o = end, and of the variance of |dL/dw|.
Differences: none known.
Cost: two powers a value and step. Limits: `end` above 3 loses accuracy on small networks.
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
    """end: exponent o at the end; limit, near: where the slope is cut off and where it is a chord."""

    end: float = 3.0
    limit: float = 1.5
    near: float = 0.1


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of the network binary, in place; see the room's contract."""
    from netsuke.nn.binarizer import Binarizer, MeanAbs, One, Sign
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Power

    def slope() -> Power:
        return Power(config.end, config.limit, config.near)

    def weights(_: Layer) -> Binarizer:
        return Binarizer(Sign(slope()), MeanAbs("tensor", trained=True))

    def inputs(_: Layer) -> Binarizer:
        return Binarizer(Sign(slope()), One())

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


@dataclass(frozen=True)
class Indicators:
    """estimating_error: sum over layers of ||sign(w) - f(w)||_2; instability: sum of the variances of |dL/dw|."""

    estimating_error: float
    instability: float


def indicators(model: nn.Module) -> Indicators:
    """Both indicators of a network of ReSTE layers, after `backward()`. UsageError when a gradient is missing."""
    import torch

    from netsuke.nn.binarizer import Sign
    from netsuke.nn.binary_layers import layers
    from netsuke.nn.surrogates import Power

    error, instability, missing = 0.0, 0.0, []
    for name, layer in layers(model):
        rule = layer.weights.levels
        if not (isinstance(rule, Sign) and isinstance(rule.surrogate, Power)):
            continue
        w = layer.weight.detach()
        error += float(torch.linalg.vector_norm(torch.where(w >= 0, 1.0, -1.0) - rule.surrogate.value(w)))
        if layer.weight.grad is None:
            missing.append(Problem("no gradient yet", name, hint="call indicators after backward()"))
        else:
            instability += float(layer.weight.grad.abs().var())
    if missing:
        raise UsageError(missing)
    return Indicators(error, instability)


METHOD = register(
    Method(
        name="binarize/reste",
        purpose="a power-function slope that moves from the identity to sign",
        paper="reste",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights", "activations"),
        exports=("bconv", "blinear"),
        status="trial",
        cost="one pass over the weights a step; training as long as the float network's or longer",
    )
)
