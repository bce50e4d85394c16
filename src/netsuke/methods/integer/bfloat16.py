"""Training with bfloat16 operands and f32 sums, emulated bit for bit.

Paper: Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", 2019 (arXiv 1905.12322).
Idea: bfloat16 has the exponents of f32, so nothing overflows and no loss scaling or tuning is needed; only products
read it.
Equations: every product of a layer, forward and backward, reads bf16(x), bf16(w), bf16(g); sums, bias, norms, loss and
the weights that the optimizer keeps are f32. bf16(x) rounds to nearest even (or toward zero, or stochastically) and
flushes subnormal results.
Differences: known from its abstract and common practice. Here operands are rounded but kept in f32: the numbers are
those of bfloat16 hardware with f32 sums, the speed is that of f32 and a little less.
Cost: a training run, about 1.3 times as long as in f32.
Limits: convolutions of two dimensions and linear layers; other layers stay f32. Order of the f32 sums is torch's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Bfloat16:
    """rounding: "nearest", "zero" or "stochastic" (seed: of its noise); flush: subnormal results become zero."""

    rounding: str = "nearest"
    flush: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = ("nearest", "zero", "stochastic")
        if self.rounding not in allowed:
            raise UsageError(Problem("rounding", "integer/bfloat16", self.rounding, ", ".join(allowed)))


def apply(model: nn.Module, config: Bfloat16 = Bfloat16()) -> nn.Module:
    """Make every convolution and linear layer read bfloat16 operands, in place."""
    import torch

    from netsuke.nn.bfloat16 import Rule, bfloat16_

    return bfloat16_(model, Rule(config.rounding, config.flush, torch.Generator().manual_seed(config.seed)))


METHOD = register(
    Method(
        name="integer/bfloat16",
        purpose="train with bfloat16 operands and f32 sums, emulated bit for bit",
        paper="bfloat16-study",
        config=Bfloat16,
        apply=apply,
        needs=("data", "labels", "gradients", "training"),
        touches=("weights", "activations"),
        exports=(),
        cost="a training run, 1.3 times as long as in f32",
        tags=("train",),
    )
)
