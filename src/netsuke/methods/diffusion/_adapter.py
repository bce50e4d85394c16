"""A low-rank correction of a layer's weight (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LowRank(nn.Module):
    """B A in the shape of a weight [O, ...], at most `rank` deep. B starts at zero, A uniform by Kaiming."""

    def __init__(self, shape: tuple[int, ...], rank: int, rng: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        inner = math.prod(shape[1:])
        rank = min(rank, shape[0], inner)
        self.a = nn.Parameter((torch.rand(rank, inner, generator=rng) * 2 - 1) * (3 / inner) ** 0.5)
        self.b = nn.Parameter(torch.zeros(shape[0], rank))

    def forward(self) -> Tensor:
        return (self.b @ self.a).reshape(self.shape)
