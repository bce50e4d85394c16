"""RBNN: weights are rotated towards their signs before they are binarized.

Paper: Rotated Binary Neural Network, Lin et al. 2020 (arXiv 2009.13055); a baseline of the area (ledger row bibench).
Idea: the angle between a weight vector and its sign vector costs accuracy; a rotation closes it, and since only signs
are stored it costs nothing when the network is served.
Equations: u = (w - mean) / std per filter, seen as a x b matrices (a the largest divisor of its size below the root);
R1, R2 from three alternations of B = sign(R1^T U R2) and two orthogonal Procrustes problems, once an epoch;
w' = u + |sin theta_n| (R1^T u R2 - u), theta trained from pi / 2; b = sign(w'); slope k max(0, sqrt(2) t - t^2 |z|),
k = max(1/t, 1), t from 0.01 to 10 for weights, 1 to 10 for activations; y = alpha_o times the product, alpha trained.
Differences: activations are scaled by their deviation while training, not centred; alpha starts uniform in (0, 1).
Cost: two small singular value decompositions a layer and epoch, two small products a step. Limits: filters of a prime
size are not split, so only one rotation acts.
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
    """seed: of the first output scales."""

    seed: int = 0


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of the network binary, in place; see the room's contract."""
    import torch

    from netsuke.nn.binarizer import Binarizer, Learned, One, SampleDeviation, Sign
    from netsuke.nn.binarizer_rotation import Rotated
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Ramp

    generator = torch.Generator().manual_seed(config.seed)

    def weights(layer: Layer) -> Binarizer:
        channels, columns = layer.weight.shape[0], layer.weight[0].numel()
        scale = Learned(channels, None, generator=generator)
        return Binarizer(Sign(Ramp(0.01, 10.0)), scale, Rotated(channels, columns))

    def inputs(_: Layer) -> Binarizer:
        return Binarizer(Sign(Ramp(1.0, 10.0)), One(), SampleDeviation())

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


METHOD = register(
    Method(
        name="binarize/rbnn",
        purpose="weights rotated towards their signs",
        paper="bibench",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights", "activations"),
        exports=("bconv", "blinear"),
        status="trial",
        cost="two small singular value decompositions a layer and epoch",
    )
)
