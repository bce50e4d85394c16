"""ShuffleNetV2 x1.0 (Ma et al. 2018): channel split, depthwise branch, channel shuffle."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netsuke.models.mobilenetv2 import conv_bn


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave channel groups: [N, g*c, H, W] with channel order (c, g)."""
    _, channels, height, width = x.shape
    return x.reshape(-1, groups, channels // groups, height, width).transpose(1, 2).reshape(-1, channels, height, width)


class ShuffleUnit(nn.Module):
    """Stride 1: half of the channels pass through; stride 2: both halves are computed."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        half = cout // 2
        inner = cin if stride == 2 else half
        self.stride = stride
        self.branch1 = (
            nn.Sequential(conv_bn(cin, cin, 3, 2, cin), conv_bn(cin, half, 1, act=nn.ReLU())) if stride == 2 else None
        )
        self.branch2 = nn.Sequential(
            conv_bn(inner, half, 1, act=nn.ReLU()),
            conv_bn(half, half, 3, stride, half),
            conv_bn(half, half, 1, act=nn.ReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.branch1 is not None:
            left, right = self.branch1(x), self.branch2(x)
        else:
            left, right = x.chunk(2, dim=1)
            right = self.branch2(right)
        return channel_shuffle(torch.cat([left, right], 1), 2)


class ShuffleNetV2(nn.Module):
    """Input [N, 3, H, W], output logits [N, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        units: list[nn.Module] = [conv_bn(3, 24, 3, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
        channels = 24
        for width, repeats in ((116, 4), (232, 8), (464, 4)):
            for index in range(repeats):
                units.append(ShuffleUnit(channels, width, 1 if index else 2))
                channels = width
        self.features = nn.Sequential(*units, conv_bn(channels, 1024, 1, act=nn.ReLU()))
        self.fc = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


def shufflenetv2() -> ShuffleNetV2:
    return ShuffleNetV2()
