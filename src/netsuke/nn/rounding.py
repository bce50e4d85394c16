"""Rounding rules: which of the two neighbouring grid points a real number goes to.

A rule takes v (in units of the scale, inside the grid's window) and gives a point of the grid; it has no gradient: the
gradient rule decides what flows back (`netsuke.nn.gradients`). `Learned` is the exception: its variables are trained
and the gradient goes to them.

Sources: stochastic rounding as in Gupta et al. 2015 (arXiv 1502.02551); learned rounding as in Nagel et al. 2020,
"Up or Down?" (AdaRound, arXiv 2004.10568).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netsuke.nn.grids import Grid


class Nearest(nn.Module):
    """The nearest point; ties as the grid says (integers: to even)."""

    def forward(self, v: Tensor, grid: Grid) -> Tensor:
        return grid.nearest(v)


class Stochastic(nn.Module):
    """Up with probability (v - below) / (above - below), so the mean is v; nearest in eval mode.

    generator  a seeded torch.Generator; never global state
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, v: Tensor, grid: Grid) -> Tensor:
        if not self.training:
            return grid.nearest(v)
        low, high = grid.below(v), grid.above(v)
        step = torch.where(high > low, high - low, torch.ones_like(low))
        chance = torch.rand(v.shape, generator=self.generator, dtype=v.dtype, device=v.device)
        return torch.where(chance < (v - low) / step, high, low)


class Learned(nn.Module):
    """Rounding of one fixed tensor, learned: below + h (above - below), h = clip(1.2 sigmoid(a) - 0.1, 0, 1).

    Starts where the soft value equals v. In eval mode h is 0 or 1. `regularizer(beta)` is sum(1 - |2h - 1|^beta).
    """

    def __init__(self, v: Tensor, grid: Grid) -> None:
        super().__init__()
        low, high = grid.below(v), grid.above(v)
        step = torch.where(high > low, high - low, torch.ones_like(low))
        share = ((v - low) / step).clamp(1e-4, 1 - 1e-4)
        self.low: Tensor
        self.step: Tensor
        self.register_buffer("low", low.detach())
        self.register_buffer("step", torch.where(high > low, high - low, torch.zeros_like(low)).detach())
        self.alpha = nn.Parameter(-torch.log(1.2 / (share.detach() + 0.1) - 1))

    def soft(self) -> Tensor:
        """h in [0, 1], differentiable."""
        return (1.2 * torch.sigmoid(self.alpha) - 0.1).clamp(0, 1)

    def regularizer(self, beta: float) -> Tensor:
        return (1 - (2 * self.soft() - 1).abs() ** beta).sum()

    def forward(self, _: Tensor, __: Grid) -> Tensor:
        share = self.soft() if self.training else (self.alpha >= 0).to(self.low.dtype)
        return self.low + share * self.step


ROUNDING = ("nearest", "stochastic", "learned")
