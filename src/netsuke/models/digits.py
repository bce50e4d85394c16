"""The network of the demo: a small residual CNN for the 8x8 digits of scikit-learn (10 classes).

`python -m netsuke.models.train digits` trains it; the package ships the weights (`digits_cnn.safetensors`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netsuke.models.cifar_resnet import CifarBlock


class DigitsCNN(nn.Module):
    """Input [N, 1, 8, 8] in [0, 1], output logits [N, 10]."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.block1, self.block2 = CifarBlock(width, width, 1), CifarBlock(width, 2 * width, 2)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(self.stem(x)))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


def digits_cnn() -> DigitsCNN:
    return DigitsCNN()
