"""ReActNet-A (Liu et al. 2020, "ReActNet: Towards Precise Binary Neural Network with Generalized Activation
Functions"), a MobileNet of one-bit layers, and a densely connected binary network in the style of BinaryDenseNet
(Bethge et al. 2019).

Every one-bit layer reads signs of shifted inputs and has a shortcut; channels are doubled by two layers on one input.
Stem, transitions and classifier are ordinary layers, which `compress` makes INT8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netsuke.models.binary import BinaryConv2d

# (channels, stride) of the thirteen blocks behind the stem of 32 channels.
REACTNET_A = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


class Shift(nn.Module):
    """x + a trained offset per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.offset


class RPReLU(nn.Sequential):
    """Shift, PReLU, shift."""

    def __init__(self, channels: int) -> None:
        super().__init__(Shift(channels), nn.PReLU(channels), Shift(channels))


class Unit(nn.Module):
    """Shift -> sign -> one-bit convolution -> BatchNorm -> + shortcut -> RPReLU, channels kept."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.shift, self.conv = Shift(channels), BinaryConv2d(channels, channels, kernel, stride)
        self.bn, self.act = nn.BatchNorm2d(channels), RPReLU(channels)
        self.shortcut = nn.AvgPool2d(2, 2) if stride != 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(self.conv(self.shift(x))) + self.shortcut(x))
        return y


class Block(nn.Module):
    """A 3x3 unit, then one 1x1 unit, or two side by side where the channels double."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.spatial = Unit(cin, 3, stride)
        self.points = nn.ModuleList(Unit(cin, 1) for _ in range(cout // cin))

    def forward(self, x: Tensor) -> Tensor:
        x = self.spatial(x)
        parts = [point(x) for point in self.points]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class ReActNet(nn.Module):
    """Input [N, 3, H, W], output logits [N, classes]."""

    def __init__(
        self, blocks: tuple[tuple[int, int], ...] = REACTNET_A, stem: int = 32, stride: int = 2, classes: int = 1000
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, stem, 3, stride, 1, bias=False), nn.BatchNorm2d(stem)
        layers, channels = list[nn.Module](), stem
        for width, step in blocks:
            layers.append(Block(channels, width, step))
            channels = width
        self.blocks, self.fc = nn.Sequential(*layers), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.bn1(self.conv1(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class DenseLayer(nn.Module):
    """BatchNorm -> sign -> one-bit 3x3 convolution; its new channels join the input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(channels), BinaryConv2d(channels, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.bn(x))], 1)


class BinaryDenseNet(nn.Module):
    """Dense blocks of one-bit layers, ordinary 1x1 transitions. Input [N, 3, H, W], output logits [N, classes]."""

    def __init__(
        self, blocks: tuple[int, ...] = (6, 6, 6, 5), growth: int = 64, stem: int = 64, classes: int = 1000
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False), nn.BatchNorm2d(stem)
        self.pool = nn.MaxPool2d(3, 2, 1)
        layers, channels = list[nn.Module](), stem
        for index, count in enumerate(blocks):
            for _ in range(count):
                layers.append(DenseLayer(channels, growth))
                channels += growth
            if index + 1 < len(blocks):
                half = channels // 2 // 32 * 32 or channels
                layers += [
                    nn.BatchNorm2d(channels),
                    nn.MaxPool2d(2),
                    nn.ReLU(),
                    nn.Conv2d(channels, half, 1, bias=False),
                ]
                channels = half
        self.layers, self.bn2 = nn.Sequential(*layers), nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.pool(torch.relu(self.bn1(self.conv1(x)))))
        logits: Tensor = self.fc(torch.relu(self.bn2(x)).mean((2, 3)))
        return logits


def reactnet_a() -> ReActNet:
    return ReActNet()


def reactnet_small() -> ReActNet:
    return ReActNet(((64, 1), (128, 2), (128, 1)), stem=32, stride=1, classes=10)


def binary_densenet() -> BinaryDenseNet:
    return BinaryDenseNet()


def binary_densenet_small() -> BinaryDenseNet:
    return BinaryDenseNet((2, 2), 32, 32, 10)
