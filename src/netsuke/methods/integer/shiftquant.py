"""ShiftQuant: channel groups of the gradient whose scales differ by powers of two, and fully quantized L1 norms.

Paper: Guo et al., "Towards Accurate and Efficient Sub-8-Bit Integer Training", 2024 (arXiv 2411.10948).
Idea: channels of dY differ in range, but the input gradient sums over them, so they may not have scales of their
own. Let
their scales differ by powers of two: the sum takes a shift, and the groups need no product each.
Equations: r[c] = max|dY[:, c]| s_w[c], R = max r, e[c] = min(floor(log2(R / r[c])), N_G - 1), s0 = R / (2^(b-1) - 1),
q[t, c] = sr(dY[t, c] s_w[c] / (s0 2^-e[c])), dX = s0 2^-(e_max) sum_c (q w) << (e_max - e[c]), dW[:, c] = s_x (s0
2^-e[c] /
s_w[c]) X^T q[:, c]. Channels are visited group by group and the running sum is shifted left between groups (Horner), so
no operand grows wider than b bits. L1 norm: see nn/l1_norm.py.
Differences: there is no public code. Thresholds are powers of two of the largest range (derived); N_G = 4 (assumed);
weights have one scale per output channel, folded into the gradient's grouping (ours, so that the trained layer is the
engine's); master weights and optimizer stay float32 (assumed; master_bits makes the weights codes); stem and
classifier float unless configured (assumed). The input range follows the largest value and forgets 1 % a step; up to 5
bits it is the octave that loses least, and what it clips gets no gradient (ours). Up to 4 gradient bits every sample is
scaled by a power of two first (ours, nn/integer_samples.py).
Cost: one pass over dY for ranges, one for codes; products of b bits.
Limits: wins where channel ranges differ by octaves (depthwise, transformers, late training); in small plain ResNets
they differ by about one octave. Between layers everything is f32: the L1 norm spends most of its time on ranges, codes
and noise, so with f32 on both sides it is no faster than torch's L2 norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.method import Method, register
from netsuke.nn.integer_config import IntegerConfig, kept

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ShiftQuant:
    """Bits of weights, activations and gradients (2 to 8), channel groups (1 to 8), and whether BatchNorm becomes the
    quantized L1 norm. master_bits: 0, or 4 to 16 for weights that the optimizer keeps as codes, every update rounded
    stochastically (`netsuke.nn.integer_master`). keep_float: names or patterns of layers left alone, separated by "|",
    or "none". clip_bits: activations of at most so many bits clip where that loses less;
    sample_bits: gradients of at most so many bits are scaled a sample; 0: never. gradient: "shift", or
    the baselines "tensor", "channel", "float"."""

    weight_bits: int = 6
    activation_bits: int = 6
    gradient_bits: int = 6
    groups: int = 4
    l1_norm: bool = True
    gradient: str = "shift"
    scale: str = "power-of-two"
    clip_bits: int = 5
    sample_bits: int = 4
    master_bits: int = 0
    keep_float: str = "none"
    products: str = "kernels"
    seed: int = 0

    def arithmetic(self) -> IntegerConfig:
        """The layers' configuration; raises UsageError for values out of range."""
        return IntegerConfig(
            weight_bits=self.weight_bits,
            activation_bits=self.activation_bits,
            gradient_bits=self.gradient_bits,
            groups=self.groups,
            gradient=self.gradient,
            scale=self.scale,
            clip_bits=self.clip_bits,
            sample_bits=self.sample_bits,
            master_bits=self.master_bits,
            products=self.products,
            seed=self.seed,
        )


def apply(model: nn.Module, config: ShiftQuant = ShiftQuant()) -> nn.Module:
    """Make the network train with ShiftQuant, in place."""
    from netsuke.nn.integer_swap import integer_
    from netsuke.nn.l1_norm import use_l1_norm_

    arithmetic = config.arithmetic()
    integer_(model, arithmetic, keep_float=kept(config.keep_float))
    return use_l1_norm_(model, arithmetic) if config.l1_norm else model


METHOD = register(
    Method(
        name="integer/shiftquant",
        purpose="train with integer products of 8 bits and fewer: shift-related channel groups, L1 normalization",
        paper="shiftquant",
        config=ShiftQuant,
        apply=apply,
        needs=("data", "labels", "gradients", "training"),
        touches=("weights", "activations", "graph"),
        exports=("qconv", "qlinear"),
        status="trial",
        cost="a training run; each step costs less than float32 where products dominate",
        tags=("train",),
    )
)
