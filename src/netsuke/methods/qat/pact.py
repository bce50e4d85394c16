"""PACT: parameterized clipping activation.

Paper: Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural Networks", 2018 (arXiv 1805.06085).
Idea: the clipping level of every activation is trained, pulled up by what it clips and down by a penalty.
Equations: y = clip(x, 0, alpha) on 2^b levels, s = alpha / (2^b - 1); dy/dalpha = 1 where x >= alpha, else 0;
loss + decay * sum alpha^2 (`penalty`). Weights as DoReFa: tanh(W) / max|tanh(W)| on a symmetric grid.
Differences: weights have 2^b - 1 symmetric levels with one scale per output channel instead of 2^b levels per layer;
the first alpha comes from the data (largest value) instead of 8 to 10.
Cost: a training run. Limits: tensors that can be negative take moving affine ranges, alpha is for ReLU outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.qat._rules import Rules, moving_activations
from netsuke.methods.qat.dorefa import squash, weight_spec
from netsuke.nn.quantizer_spec import QuantSpec

if TYPE_CHECKING:
    from torch import Tensor

    from netsuke.methods.qat._network import QatNetwork


@dataclass(frozen=True)
class Pact:
    """decay: factor of the penalty on alpha^2, that of the weight decay in the paper."""

    decay: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise UsageError(Problem("decay", "qat/pact", str(self.decay), "[0, 1]"))


def apply(config: Pact = Pact()) -> Rules:  # noqa: ARG001 (the penalty belongs to the loss)
    """Trained clipping levels, tanh weights."""

    def activation(bits: int, nonnegative: bool) -> QuantSpec:
        if not nonnegative:
            return moving_activations(bits, nonnegative, momentum=0.95)
        return QuantSpec(bits=bits, statistic="minmax", schedule="learned", gradient="pact")

    return Rules(weight_spec, activation, transform=lambda _bits: squash)


def penalty(network: QatNetwork, config: Pact = Pact()) -> Tensor:
    """decay * sum alpha^2 over the trained clipping levels; add it to the loss."""
    import torch

    levels: list[Any] = [
        q.scale * q.grid.hi for q in network.activation_quantizers().values() if q.spec.gradient == "pact"
    ]
    return config.decay * torch.cat(levels).square().sum() if levels else torch.zeros(())


METHOD = register(
    Method(
        name="qat/pact",
        purpose="train the clipping level of every ReLU output",
        paper="quant-whitepaper",
        config=Pact,
        apply=apply,
        needs=("data", "gradients", "training"),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="a training run of the network",
        tags=("rules",),
    )
)
