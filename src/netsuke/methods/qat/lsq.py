"""LSQ: learned step size quantization.

Paper: Esser et al., "Learned Step Size Quantization", 2020 (arXiv 1902.08153); the trained zero point of tensors that
can be negative as in Bhalgat et al., "LSQ+", 2020 (arXiv 2004.09576).
Idea: the step of every quantizer is a parameter of the network, trained by the task loss together with the weights.
Equations: v = clip(x/s, lo, hi), xhat = s rne(v); d xhat/dx = 1 inside; d xhat/ds = rne(v) - x/s inside, lo or hi
outside, times g = 1/sqrt(N hi), N the values that share the step (of one sample for activations).
Differences: weights have one step per output channel and a symmetric grid (2 bits: -1, 0, 1), because batch norm then
merges into the multipliers without changing a code; first ranges by least squared error instead of 2 mean|x|/sqrt(hi)
(`init=lsq` is the paper's); network input, first and last layer at 8 bits.
Cost: a training run, from the float network. Limits: needs labels or a float teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.qat._rules import Rules
from netsuke.nn.quantizer_spec import QuantSpec


@dataclass(frozen=True)
class Lsq:
    """init: first range by "mse", "maxabs" or "lsq"; granularity of the weight steps: "channel" or "tensor"."""

    init: str = "mse"
    granularity: str = "channel"

    def __post_init__(self) -> None:
        problems = []
        if self.init not in ("mse", "maxabs", "lsq"):
            problems.append(Problem("init", "qat/lsq", self.init, "mse, maxabs, lsq"))
        if self.granularity not in ("channel", "tensor"):
            problems.append(Problem("granularity", "qat/lsq", self.granularity, "channel, tensor"))
        if problems:
            raise UsageError(problems)


def apply(config: Lsq = Lsq()) -> Rules:
    """Learned steps everywhere."""

    def weight(bits: int) -> QuantSpec:
        return QuantSpec(
            role="weight",
            bits=bits,
            signed=True,
            granularity=config.granularity,
            statistic=config.init,
            schedule="learned",
            gradient="lsq",
        )

    def activation(bits: int, nonnegative: bool) -> QuantSpec:
        # A two-sided first range would put the zero point in the middle of the codes.
        statistic = config.init if nonnegative or config.init == "mse" else "minmax"
        return QuantSpec(bits=bits, affine=not nonnegative, statistic=statistic, schedule="learned", gradient="lsq")

    return Rules(weight, activation)


METHOD = register(
    Method(
        name="qat/lsq",
        purpose="train a network with quantizers whose steps are learned by the task loss",
        paper="quant-whitepaper",
        config=Lsq,
        apply=apply,
        needs=("data", "gradients", "training"),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="a training run of the network, about twice the time of a float one",
        tags=("rules",),
    )
)
