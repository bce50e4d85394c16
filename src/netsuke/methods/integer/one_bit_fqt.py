"""1-bit fully quantized training: signs of weights and activations, a quarter of the gradient in four bits.

Paper: Gao et al., "1-Bit FQT: Pushing the Limit of Fully Quantized Training to 1-bit", 2024 (arXiv 2408.14267).
Idea: the variance of a b-bit quantizer falls with 4^b, so spend b bits on N / b groups of the gradient and none on the
rest: one bit a value on average. Groups are samples for the input gradient and channels for the weight gradient. Adam
tolerates the noise that is left better than SGD.
Equations: p_i = N R_i / (b sum R), at most 1 with the rest spread over the others; kept groups g_i / p_i in b bits,
stochastically rounded: unbiased. b bits are b planes of signs, so all three products are XNOR and popcount.
Differences: pruning is random and unbiased by default; the released code keeps the largest groups and does not divide
("largest"). Codes are symmetric around zero (min/max in the paper), which leaves no offset in the sums. The weight
scale is mean|w| a channel, not learned.
Cost: forward about as a one-bit network, each backward product about as the forward one.
Limits: fine-tuning; from scratch the paper's own figures collapse. First, last, strided and grouped layers stay float,
as in the paper. Transformers do not train well (paper).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.nn.integer_config import kept

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class OneBitFqt:
    """bits: of the gradient groups that stay, 1 to 8. gradient: "pruned", or the baselines "per-sample" and "float".
    pruning: "random" or "largest". keep_float: names or patterns of layers left alone besides the first, the last and
    those that cannot be one-bit, separated by "|", or "none"."""

    bits: int = 4
    gradient: str = "pruned"
    pruning: str = "random"
    keep_float: str = "none"
    products: str = "kernels"
    seed: int = 0


def apply(model: nn.Module, config: OneBitFqt = OneBitFqt()) -> nn.Module:
    """Make every inner convolution and linear layer one-bit in all three products, in place; layers that are one-bit
    already take the new configuration (binary pre-training with "float" gradients, then fine-tuning).

    Raises UsageError when no layer is left, or a pattern matches nothing.
    """
    from fnmatch import fnmatchcase

    from torch import nn

    from netsuke.nn.kept_memory import keep_memory
    from netsuke.nn.one_bit import OneBitConfig, OneBitLayer, fits, make_one_bit

    arithmetic = OneBitConfig(config.gradient, config.bits, config.pruning, config.products, config.seed)
    named = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    patterns = kept(config.keep_float)
    problems = [
        Problem("the pattern matches no layer", "keep_float", p)
        for p in patterns
        if not any(fnmatchcase(n, p) for n, _ in named)
    ]
    if problems:
        raise UsageError(problems)
    inner = [(n, m) for n, m in named[1:-1] if fits(m) and not any(fnmatchcase(n, p) for p in patterns)]
    if not inner:
        raise UsageError(Problem("no layer can be one-bit besides the first and the last", got=type(model).__name__))
    for index, (name, module) in enumerate(inner):
        if isinstance(module, OneBitLayer):
            module.config = arithmetic
            continue
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent) if parent else model, leaf, make_one_bit(module, arithmetic, name, index))
    keep_memory()
    return model


METHOD = register(
    Method(
        name="integer/one_bit_fqt",
        purpose="fine-tune with one-bit weights, activations and gradients: XNOR and popcount in all three products",
        paper="one-bit-fqt",
        config=OneBitFqt,
        apply=apply,
        needs=("data", "labels", "gradients", "training"),
        touches=("weights", "activations"),
        exports=(),
        status="trial",
        cost="a training run; inner layers cost a fraction of float32",
        tags=("train",),
    )
)
