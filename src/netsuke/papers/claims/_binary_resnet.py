"""ResNet-20 for CIFAR-10 with a shortcut around every 3x3 convolution: what one-bit claims train."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Unit(nn.Module):
    """PReLU(shortcut(x) + BN(conv3x3(BN(x)))); a stride halves the shortcut by averaging, new channels repeat it."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.before, self.after, self.act = nn.BatchNorm2d(cin), nn.BatchNorm2d(cout), nn.PReLU(cout)
        self.conv = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.stride, self.copies = stride, cout // cin

    def forward(self, x: Tensor) -> Tensor:
        short = functional.avg_pool2d(x, 2) if self.stride > 1 else x
        short = torch.cat([short] * self.copies, 1) if self.copies > 1 else short
        out: Tensor = self.act(short + self.after(self.conv(self.before(x))))
        return out


class BinaryResNet20(nn.Module):
    """Stem, 18 units of 16, 32 and 64 channels, head. Input [N, 3, H, W], output logits [N, 10]."""

    def __init__(self, per_stage: int = 6) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        rest = per_stage - 1
        plan = [(16, 16, 1)] * per_stage + [(16, 32, 2)] + [(32, 32, 1)] * rest + [(32, 64, 2)] + [(64, 64, 1)] * rest
        self.units = nn.Sequential(*[Unit(*each) for each in plan])
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.units(self.norm(self.stem(x)))
        out: Tensor = self.head(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))
        return out
