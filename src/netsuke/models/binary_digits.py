"""A small residual CNN for 8x8 digits, made for binary layers: normalize, binarize, convolve, add the shortcut.

Order as in Bi-Real Net (arXiv 1808.00278): every binary convolution has a real-valued shortcut around it. The stem and
the head stay float.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BinaryBlock(nn.Module):
    """x + BN(conv3x3(BN(x))); the convolution is what a binarizer replaces."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.after = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.after(self.conv(self.before(x)))


class BinaryDigitsCNN(nn.Module):
    """Input [N, 1, 8, 8] in [0, 1], output logits [N, 10]."""

    def __init__(self, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.blocks = nn.Sequential(*[BinaryBlock(width) for _ in range(depth)])
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(torch.relu(x), 1), 1))
