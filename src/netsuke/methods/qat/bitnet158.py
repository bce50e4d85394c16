"""BitNet b1.58 in networks with convolutions: ternary weights by median or mean, calibrated activations.

Paper: BitNet b1.58 Reloaded, Nielsen and Schneider-Kamp 2024 (arXiv 2407.09527); ledger row bitnet158-reloaded.
Idea: weights -1, 0, +1 with one scale a layer; the median of |w| as scale suits small networks.
Equations: s = median|w| (or mean|w|) of the layer at every step, w -> s round(clip(w / s, -1, 1)), gradient 1.
Layers of more than 2 bits (the first and the last, usually) have symmetric weights by extremes.
Differences: activations have one calibrated 8-bit grid a tensor (a moving average of batch extremes) instead of a scale
a token, so that convolutions run in integers; batch norm is merged into the multipliers. Linear layers with a scale a
token are binarize/bitnet158.
Cost: a median a layer and step. Limits: weight_bits=2 in `prepare`, whatever the recipe of other methods means by it.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.qat._rules import Rules, channel_weights, moving_activations
from netsuke.nn.quantizer_spec import QuantSpec


@dataclass(frozen=True)
class Bitnet158:
    """scale: "median" or "mean"; momentum: of the moving range of activations."""

    scale: str = "median"
    momentum: float = 0.95

    def __post_init__(self) -> None:
        problems = []
        if self.scale not in ("median", "mean"):
            problems.append(Problem("scale", "qat/bitnet158", self.scale, "median, mean"))
        if not 0 <= self.momentum < 1:
            problems.append(Problem("momentum", "qat/bitnet158", str(self.momentum), "[0, 1)"))
        if problems:
            raise UsageError(problems)


def apply(config: Bitnet158 = Bitnet158()) -> Rules:
    """Ternary weights at 2 bits, symmetric integers above."""

    def weight(bits: int) -> QuantSpec:
        if bits > 2:
            return channel_weights(bits, statistic="maxabs", schedule="live", gradient="ste")
        statistic = f"{config.scale}abs"
        return QuantSpec("weight", "ternary", 2, True, statistic=statistic, schedule="live", gradient="ste")

    return Rules(weight, lambda bits, nonnegative: moving_activations(bits, nonnegative, momentum=config.momentum))


METHOD = register(
    Method(
        name="qat/bitnet158",
        purpose="ternary weights scaled by the median or mean of a layer, 8-bit activations",
        paper="bitnet158-reloaded",
        config=Bitnet158,
        apply=apply,
        needs=("data", "gradients", "training"),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="a training run of the network",
        tags=("rules",),
    )
)
