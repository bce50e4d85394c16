"""A small vision transformer for 8x8 digits: 2x2 patches, 16 tokens, mean over tokens, linear head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netsuke.models.vit import EncoderBlock


class DigitsViT(nn.Module):
    """Input [N, 1, 8, 8] in [0, 1], output logits [N, 10]."""

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 2, 2)
        self.position = nn.Parameter(0.1 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(tokens)).mean(1))


def digits_vit() -> DigitsViT:
    """Two blocks of width 64."""
    return DigitsViT()
