"""What integer training computes with: bits, scales and groups of a layer. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.errors import Problem, UsageError, near

GRADIENTS = ("shift", "tensor", "channel", "float", "dfp")
SCALES = ("power-of-two", "free")
PRODUCTS = ("kernels", "simulation")


def kept(patterns: str) -> list[str]:
    """ "conv1|head.*" as a list; "none" is an empty one (options on a command line cannot be empty or hold commas)."""
    return [] if patterns == "none" else [p.strip() for p in patterns.split("|") if p.strip()]


@dataclass(frozen=True)
class IntegerConfig:
    """Arithmetic of an integer layer's three products.

    weight_bits, activation_bits, gradient_bits   2 to 8 (dfp: 9 to 16 for all three)
    gradient     "shift"    channel groups whose scales differ by powers of two (ShiftQuant); integer products
                 "tensor"   one scale; integer products
                 "channel"  one float scale a channel: exact for the weight gradient, float for the input gradient
                 "float"    gradients stay float (baseline): both backward products are float
                 "dfp"      16-bit operands with one shared power-of-two exponent a tensor, no stochastic rounding
    groups       channel groups of "shift" (N_G of the paper), 1 to 8
    scale        "power-of-two": activation scales are powers of two, so that a layer followed by a quantizer gives the
                 very codes the engine's fused requantization gives; "free": any f32, up to one bit more precision
    forget       share by which the input range shrinks a step when no value reaches it
    clip_bits    activations of at most so many bits take the range that loses least instead of the largest value
                 (`netsuke.nn.integer_range`); 0: never
    sample_bits  gradients of at most so many bits are scaled by a power of two a sample first
                 (`netsuke.nn.integer_samples`, with "shift"); 0: never
    stochastic   round gradients stochastically
    chain        of "dfp": pairs of products that one int32 sum must hold; an operand whose largest mantissa is too
                 large for that is shifted right until it is not (1: nothing is shifted, sums are short)
    fraction     weights and activations are fixed point with this many fraction bits and saturate (AdaPT); None: their
                 scales follow their values
    master_bits  0: the optimizer's weights are f32; 4 to 16: they are codes of that many bits, every update rounded
                 stochastically (`netsuke.nn.integer_master`); not fewer than weight_bits
    products     "kernels", or "simulation": the same integers in float64, for devices without kernels and for checks
    seed         of stochastic rounding
    """

    weight_bits: int = 8
    activation_bits: int = 8
    gradient_bits: int = 8
    gradient: str = "shift"
    groups: int = 4
    scale: str = "power-of-two"
    forget: float = 0.01
    clip_bits: int = 5
    sample_bits: int = 4
    stochastic: bool = True
    chain: int = 1
    fraction: int | None = None
    master_bits: int = 0
    products: str = "kernels"
    seed: int = 0

    @property
    def clips(self) -> bool:
        """Do inputs clip in training? Fixed point saturates by its own rules."""
        return self.activation_bits <= self.clip_bits and self.fraction is None and self.gradient != "dfp"

    @property
    def scales_samples(self) -> bool:
        """Is every sample's gradient scaled by a power of two before it is quantized?"""
        return self.gradient == "shift" and self.gradient_bits <= self.sample_bits

    def __post_init__(self) -> None:
        problems = []
        for name, allowed in (("gradient", GRADIENTS), ("scale", SCALES), ("products", PRODUCTS)):
            value = getattr(self, name)
            if value not in allowed:
                problems.append(Problem(name, "IntegerConfig", str(value), near(value, allowed)))
        low, high = (9, 16) if self.gradient == "dfp" else (2, 8)
        for name in ("weight_bits", "activation_bits", "gradient_bits"):
            value = getattr(self, name)
            if not low <= value <= high:
                problems.append(Problem(name, "IntegerConfig", str(value), f"{low} to {high} with {self.gradient!r}"))
        if not 1 <= self.groups <= 8:
            problems.append(Problem("groups", "IntegerConfig", str(self.groups), "1 to 8"))
        if not 1 <= self.chain <= 4096:
            problems.append(Problem("chain", "IntegerConfig", str(self.chain), "1 to 4096"))
        if self.fraction is not None and not 0 <= self.fraction <= 30:
            problems.append(Problem("fraction", "IntegerConfig", str(self.fraction), "0 to 30, or None"))
        if self.master_bits != 0 and not max(4, self.weight_bits) <= self.master_bits <= 16:
            bits = f"0, or {max(4, self.weight_bits)} to 16"
            problems.append(Problem("master_bits", "IntegerConfig", str(self.master_bits), bits))
        if not 0 <= self.forget < 1:
            problems.append(Problem("forget", "IntegerConfig", str(self.forget), "[0, 1)"))
        problems += [
            Problem(name, "IntegerConfig", str(getattr(self, name)), "0 to 8")
            for name in ("clip_bits", "sample_bits")
            if not 0 <= getattr(self, name) <= 8
        ]
        if not 0 <= self.seed < 2**64:
            problems.append(Problem("seed", "IntegerConfig", str(self.seed), "0 to 2^64 - 1"))
        if problems:
            raise UsageError(problems)
