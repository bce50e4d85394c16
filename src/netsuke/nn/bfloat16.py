"""bfloat16 in training, emulated bit for bit: operands of every product rounded, sums and everything else in f32.

Source: Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", 2019 (arXiv 1905.12322). A layer's three
products (forward, gradient of the input, gradient of the weights) read rounded activations, weights and gradients;
products of two bfloat16 numbers are exact in f32 and are added in f32. Bias, norms, losses and the optimizer's master
weights stay f32. The rounding is that of `netsuke.formats.bfloat16`, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsuke.core.errors import Problem, UsageError

ROUNDINGS = ("nearest", "zero", "stochastic")
_NAN = 0x7FC00000


def round_bfloat16(x: Tensor, rounding: str = "nearest", *, noise: Tensor | None = None, flush: bool = False) -> Tensor:
    """f32 -> an f32 that bfloat16 holds. noise: integers 0 .. 65535 of x's shape, for "stochastic".

    flush: subnormal results become zero with their sign. Overflow gives infinity ("zero": the largest number), a NaN
    stays one.
    """
    if rounding not in ROUNDINGS:
        raise UsageError(Problem("rounding", "bfloat16", rounding, ", ".join(ROUNDINGS)))
    if (noise is None) == (rounding == "stochastic"):
        raise UsageError(Problem("noise belongs to stochastic rounding, and only to it", "bfloat16", rounding))
    bits = x.detach().contiguous().view(torch.int32).long() & 0xFFFFFFFF
    finite = torch.isfinite(x)
    if rounding == "nearest":
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
    elif noise is not None:
        bits = bits + torch.where(finite, noise.long(), torch.zeros_like(bits))
    bits = bits & 0xFFFF0000
    bits = torch.where(torch.isnan(x), torch.full_like(bits, _NAN), bits)
    if flush:
        bits = torch.where((bits & 0x7F800000) == 0, bits & 0x80000000, bits)
    signed = torch.where(bits >= 2**31, bits - 2**32, bits)
    return signed.to(torch.int32).view(torch.float32)


@dataclass
class Rule:
    """How a layer rounds: rounding and flush as in `round_bfloat16`; generator of the noise."""

    rounding: str = "nearest"
    flush: bool = True
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def __call__(self, x: Tensor) -> Tensor:
        noise = None
        if self.rounding == "stochastic":
            noise = torch.randint(0, 65536, x.shape, generator=self.generator)
        return round_bfloat16(x, self.rounding, noise=noise, flush=self.flush)


class _Operand(torch.autograd.Function):
    """Rounds on the way in; the gradient passes (it was rounded behind the product)."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor, rule: Rule) -> Tensor:
        return rule(x)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Result(torch.autograd.Function):
    """Passes the f32 sums; rounds the gradient, an operand of the two backward products."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, rule: Rule) -> Tensor:
        ctx.rule = rule
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.rule(gradient), None


def _operand(x: Tensor, rule: Rule) -> Tensor:
    return _Operand.apply(x, rule)  # type: ignore[no-untyped-call]


def _result(y: Tensor, rule: Rule) -> Tensor:
    return _Result.apply(y, rule)  # type: ignore[no-untyped-call]


class Bfloat16Linear(nn.Linear):
    """A linear layer whose three products have bfloat16 operands. `rule` is set by `bfloat16_`."""

    rule: Rule

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():  # programs hold the trained f32 weights
            return super().forward(x)
        y = _result(F.linear(_operand(x, self.rule), _operand(self.weight, self.rule)), self.rule)
        return y if self.bias is None else y + self.bias


class Bfloat16Conv2d(nn.Conv2d):
    """A convolution whose three products have bfloat16 operands."""

    rule: Rule

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return super().forward(x)
        y = self._conv_forward(_operand(x, self.rule), _operand(self.weight, self.rule), None)
        y = _result(y, self.rule)
        return y if self.bias is None else y + self.bias.reshape(-1, 1, 1)


def bfloat16_(model: nn.Module, rule: Rule) -> nn.Module:
    """Convolutions and linear layers of a network become bfloat16 ones, in place; parameters and names stay.

    Raises UsageError when there is none.
    """
    kinds: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: Bfloat16Linear, nn.Conv2d: Bfloat16Conv2d}
    found = [m for m in model.modules() if type(m) in kinds]
    if not found:
        raise UsageError(Problem("no convolution or linear layer", got=type(model).__name__))
    for module in found:
        module.__class__ = kinds[type(module)]
        module.rule = rule  # type: ignore[assignment]
    return model
