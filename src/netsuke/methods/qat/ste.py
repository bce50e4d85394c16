"""Plain straight-through training: the baseline every paper compares with.

Paper: the scheme of Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018 (arXiv
1806.08342), section 3.2, with batch norm merged into the multipliers; the estimator of Bengio et al. 2013 (arXiv
1308.3432).
Idea: quantize in the forward pass, pass the gradient through the rounding.
Equations: weights s = max|W_c| / (2^(b-1) - 1) per output channel, from the current weights at every step; activations
from a moving average of batch extremes; gradient 1 inside the range, 0 outside.
Differences: none for 8 bits; below, extremes are a poor range, which is what the comparison shows.
Cost: a training run. Limits: loses several points at 4 bits and fails at 2; use qat/lsq there.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.qat._rules import Rules, channel_weights, moving_activations


@dataclass(frozen=True)
class Ste:
    """momentum: of the moving range of activations; gradient: "clipped" (zero outside the range) or "ste" (one)."""

    momentum: float = 0.95
    gradient: str = "clipped"

    def __post_init__(self) -> None:
        problems = []
        if not 0 <= self.momentum < 1:
            problems.append(Problem("momentum", "qat/ste", str(self.momentum), "[0, 1)"))
        if self.gradient not in ("clipped", "ste"):
            problems.append(Problem("gradient", "qat/ste", self.gradient, "clipped, ste"))
        if problems:
            raise UsageError(problems)


def apply(config: Ste = Ste()) -> Rules:
    """Weights live, activations moving."""
    return Rules(
        lambda bits: channel_weights(bits, statistic="maxabs", schedule="live", gradient="ste"),
        lambda bits, nonnegative: moving_activations(
            bits, nonnegative, momentum=config.momentum, gradient=config.gradient
        ),
    )


METHOD = register(
    Method(
        name="qat/ste",
        purpose="train with straight-through gradients, weight ranges by extremes, moving activation ranges",
        paper="quant-whitepaper",
        config=Ste,
        apply=apply,
        needs=("data", "gradients", "training"),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="a training run of the network",
        tags=("rules",),
    )
)
