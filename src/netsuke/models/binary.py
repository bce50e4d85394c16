"""Binary residual networks in the style of Bi-Real Net (Liu et al. 2018, "Bi-Real Net: Enhancing the Performance of
1-bit CNNs"): every 3x3 convolution is one bit in both operands and has a shortcut of its own.

Signs are +1 where x >= 0 (two values, also at 0), weights have one magnitude per output channel. The first convolution,
the 1x1 convolutions of the shortcuts and the classifier are ordinary layers, which `compress` makes INT8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def binary_sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1; its gradient is that of Bi-Real's piecewise polynomial, 2 - 2|x| inside [-1, 1]."""
    sign = torch.where(x >= 0, 1.0, -1.0)
    if not torch.is_grad_enabled():
        return sign
    inside = x.clamp(-1, 1)
    soft = 2 * inside - inside * inside.abs()
    return soft + (sign - soft).detach()


class BinaryConv2d(nn.Module):
    """Signs of the input times signs of the weight, scaled per output channel by the mean magnitude of the weight."""

    def __init__(self, cin: int, cout: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(cout, cin, kernel, kernel))
        nn.init.kaiming_normal_(self.weight)
        self.stride, self.padding = stride, kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean(dim=(1, 2, 3), keepdim=True).detach()
        weight = torch.where(self.weight >= 0, scale, -scale)
        if torch.is_grad_enabled():  # straight through where the latent weight is inside [-1, 1]
            latent = self.weight.clamp(-1, 1)
            weight = latent + (weight - latent).detach()
        return F.conv2d(binary_sign(x), weight, stride=self.stride, padding=self.padding)


class BiRealLayer(nn.Module):
    """sign -> one-bit 3x3 convolution -> BatchNorm -> + shortcut (average pool, 1x1 convolution where sizes differ)."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv, self.bn = BinaryConv2d(cin, cout, 3, stride), nn.BatchNorm2d(cout)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or cin != cout:
            pool = nn.AvgPool2d(2, 2, ceil_mode=True) if stride != 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(cin, cout, 1, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) + self.shortcut(x)


def _stages(channels: int, widths: tuple[int, ...], layers: int) -> nn.Sequential:
    found: list[nn.Module] = []
    for stage, width in enumerate(widths):
        for index in range(layers):
            found.append(BiRealLayer(channels, width, 2 if stage and not index else 1))
            channels = width
    return nn.Sequential(*found)


class BiRealResNet18(nn.Module):
    """ResNet-18 for 224x224 images with 16 one-bit layers. Input [N, 3, H, W], output logits [N, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layers = _stages(64, (64, 128, 256, 512), 4)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.maxpool(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class BiRealSmall(nn.Module):
    """Nine one-bit layers for images of about 32x32. Input [N, channels, H, W], output logits [N, classes]."""

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        self.layers = _stages(64, (64, 128, 256), 3)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.bn1(self.conv1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def bireal_resnet18() -> BiRealResNet18:
    return BiRealResNet18()


def bireal_small() -> BiRealSmall:
    return BiRealSmall()
