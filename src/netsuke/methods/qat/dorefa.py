"""DoReFa-Net: bounded weights and activations on fixed grids.

Paper: Zhou et al., "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth Gradients", 2016
(arXiv 1606.06160).
Idea: tanh bounds the weights, a clip to [0, 1] the activations, so no range has to be found; gradients straight
through.
Equations: weights Q(tanh(W) / max|tanh(W)|) on [-1, 1]; activations q_k(clip(x, 0, 1)), q_k(r) = rne((2^k - 1) r) /
(2^k - 1). tanh keeps its true derivative.
Differences: weights on a symmetric grid of 2^b - 1 levels with zero, one scale per output channel; the maximum is a
constant in the gradient; the 1-bit case is a binarizer's; gradients stay float. A batch norm must follow the layer,
and starting from a trained network needs training to adapt to the bounded activations.
Cost: a training run. Limits: activations beyond 1 are lost, which hurts networks not trained for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.method import Method, register
from netsuke.methods.qat._rules import Rules, channel_weights, moving_activations
from netsuke.nn.quantizer_spec import QuantSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Dorefa:
    """No options."""


def squash(w: Tensor) -> Tensor:
    """tanh(W) / max|tanh(W)| over the whole tensor; zeros stay zeros."""
    import torch

    t = torch.tanh(w)
    return t / t.detach().abs().max().clamp(min=torch.finfo(torch.float32).tiny)


def weight_spec(bits: int) -> QuantSpec:
    """Symmetric weights, from the current weights at every step."""
    return channel_weights(bits, statistic="maxabs", schedule="live", gradient="ste")


def apply(config: Dorefa = Dorefa()) -> Rules:  # noqa: ARG001
    """tanh weights, activations on [0, 1]."""

    def activation(bits: int, nonnegative: bool) -> QuantSpec:
        if not nonnegative:
            return moving_activations(bits, nonnegative, momentum=0.95)
        return QuantSpec(bits=bits, statistic="unit", schedule="fixed", gradient="clipped")

    return Rules(weight_spec, activation, transform=lambda _bits: squash)


METHOD = register(
    Method(
        name="qat/dorefa",
        purpose="train with tanh-bounded weights and activations on [0, 1]",
        paper="quant-whitepaper",
        config=Dorefa,
        apply=apply,
        needs=("data", "gradients", "training"),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="a training run of the network",
        tags=("rules",),
    )
)
