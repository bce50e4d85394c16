"""A weight quantizer with views: the integers of fewer bits are rounded from those of the most bits.

Source: Huang et al. 2025, "Nearly Lossless Adaptive Bit Switching" (double rounding).
W_h = clip(rne(W / s)) at h bits; W_l = clip((W_h + 2^(D-1)) >> D) with D = h - l, standing for W_l s 2^D. One scale,
stored once; the views are integer operations on stored codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netsuke.core.errors import Problem, UsageError
from netsuke.nn.gradients import clip, straight
from netsuke.nn.quantizer import Quantizer, layout
from netsuke.nn.quantizer_spec import QuantSpec


def fewer_bits(codes: Tensor, high: int, low: int) -> Tensor:
    """Symmetric integer codes of `high` bits (int32) -> codes of `low` bits: add, shift, clip."""
    if not 2 <= low <= high <= 8:
        raise UsageError(Problem("bits of a view", got=f"{low} of {high}", allowed="2 <= low <= high <= 8"))
    if low == high:
        return codes
    shift, top = high - low, (1 << (low - 1)) - 1
    return ((codes.to(torch.int32) + (1 << (shift - 1))) >> shift).clamp(-top, top)


class DoubleRounding(Quantizer):
    """A Quantizer of symmetric integers whose `view` says how many bits its values and codes have."""

    def __init__(self, spec: QuantSpec, shape: Sequence[int]) -> None:
        if spec.grid != "integer" or not spec.signed or spec.wide or spec.rounding != "nearest":
            raise UsageError(Problem("views need a symmetric integer grid with nearest rounding", got=str(spec)[:120]))
        super().__init__(spec, shape)
        self.view = spec.bits

    @property
    def factor(self) -> float:
        """2^D: how much larger a step of the view is."""
        return float(1 << (self.spec.bits - self.view))

    def points(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n, scale = super().points(x)
        if self.view == self.spec.bits:
            return n, scale
        top = float((1 << (self.view - 1)) - 1)
        v = n / self.factor
        low = straight(torch.floor(v + 0.5), v)  # half-way goes up, as the shift does
        return clip(low, low.new_tensor(-top), low.new_tensor(top)), scale * self.factor

    def forward(self, x: Tensor) -> Tensor:
        if self.view == self.spec.bits or not self.enabled:
            return super().forward(x)
        n, scale = self.points(x)
        return (n * scale).reshape(x.shape)

    @torch.no_grad()
    def stored(self, x: Tensor) -> Tensor:
        """The codes that are stored: those of the most bits, int32."""
        n, _ = super().points(x)
        return self.grid.codes(n).reshape(x.shape)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        return fewer_bits(self.stored(x), self.spec.bits, self.view)

    @torch.no_grad()
    def values(self, codes: Tensor) -> Tensor:
        at = layout(self.spec, codes.shape)
        scale = self.steps()[0].reshape(at.stretch) * self.factor
        return (codes.reshape(at.view).float() * scale).reshape(codes.shape)
