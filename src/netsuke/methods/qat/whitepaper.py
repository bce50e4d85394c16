"""Whitepaper QAT: batch norm folded into the weights before they are quantized.

Paper: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference: A whitepaper", 2018 (arXiv
1806.08342), section 3.2.2.
Idea: train with the weights inference will use, W gamma / sigma. With batch statistics these would jitter from batch to
batch, so the moving deviation scales the weights and the output is corrected by the ratio of deviations; late in
training the moving statistics are frozen and the correction ends.
Equations: w = Q(W gamma / sigma_moving); y = conv(x, w) sigma_moving / sigma_batch + beta - gamma mu_batch /
sigma_batch; after `freeze_norms()` y = conv(x, w) + beta - gamma mu_moving / sigma_moving. Weight ranges max|w|,
activations by moving extremes, straight-through gradients.
Differences: one convolution more per layer for the batch statistics, as in the paper.
Cost: a training run with up to twice the convolutions. Limits: with one weight scale per channel qat/ste or qat/lsq
give the same served network without the second convolution; this one is for `granularity=tensor`.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.qat._rules import Rules, moving_activations
from netsuke.nn.quantizer_spec import QuantSpec


@dataclass(frozen=True)
class Whitepaper:
    """granularity of the weight scales: "channel" or "tensor"; momentum: of the moving range of activations."""

    granularity: str = "channel"
    momentum: float = 0.95

    def __post_init__(self) -> None:
        if self.granularity not in ("channel", "tensor"):
            raise UsageError(Problem("granularity", "qat/whitepaper", self.granularity, "channel, tensor"))
        if not 0 <= self.momentum < 1:
            raise UsageError(Problem("momentum", "qat/whitepaper", str(self.momentum), "[0, 1)"))


def apply(config: Whitepaper = Whitepaper()) -> Rules:
    """Folded weights, live; moving activations."""

    def weight(bits: int) -> QuantSpec:
        return QuantSpec(
            role="weight",
            bits=bits,
            signed=True,
            granularity=config.granularity,
            statistic="maxabs",
            schedule="live",
            gradient="ste",
        )

    return Rules(
        weight, lambda bits, nonnegative: moving_activations(bits, nonnegative, momentum=config.momentum), fold=True
    )


METHOD = register(
    Method(
        name="qat/whitepaper",
        purpose="train with batch norm folded into the quantized weights, corrected and then frozen",
        paper="quant-whitepaper",
        config=Whitepaper,
        apply=apply,
        needs=("data", "gradients", "training"),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="a training run with up to twice the convolutions",
        tags=("rules",),
    )
)
