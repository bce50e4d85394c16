"""MobileNetV3-Large (Howard et al. 2019, table 1): squeeze-and-excite, hard swish, a cheaper head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netsuke.models.mobilenetv2 import conv_bn

# kernel, expanded, out, squeeze-excite, hard swish, stride
_BLOCKS = (
    (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1), (3, 184, 80, False,
    True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
)  # fmt: skip


class SqueezeExcite(nn.Module):
    """Channel weights from the global average: x * gate(W2 relu(W1 mean(x)))."""

    def __init__(self, channels: int, squeezed: int, act: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.act, self.gate = act, gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(self.act(self.fc1(self.pool(x)))))


class Block(nn.Module):
    """Expand, depthwise, squeeze-and-excite, project."""

    def __init__(self, cin: int, kernel: int, hidden: int, cout: int, excite: bool, hard: bool, stride: int) -> None:
        super().__init__()
        act = nn.Hardswish() if hard else nn.ReLU()
        layers: list[nn.Module] = [] if hidden == cin else [conv_bn(cin, hidden, 1, act=act)]
        layers.append(conv_bn(hidden, hidden, kernel, stride, hidden, act))
        if excite:
            squeezed = max(8, (hidden // 4 + 4) // 8 * 8)
            layers.append(SqueezeExcite(hidden, squeezed, nn.ReLU(), nn.Hardsigmoid()))
        layers.append(conv_bn(hidden, cout, 1))
        self.block, self.residual = nn.Sequential(*layers), stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.residual else self.block(x)


class MobileNetV3(nn.Module):
    """Input [N, 3, H, W], output logits [N, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        blocks: list[nn.Module] = [conv_bn(3, 16, 3, 2, act=nn.Hardswish())]
        channels = 16
        for kernel, hidden, cout, excite, hard, stride in _BLOCKS:
            blocks.append(Block(channels, kernel, hidden, cout, excite, hard, stride))
            channels = cout
        self.features = nn.Sequential(*blocks, conv_bn(channels, 960, 1, act=nn.Hardswish()))
        self.classifier = nn.Sequential(nn.Linear(960, 1280), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(torch.flatten(x, 1))


def mobilenetv3_large() -> MobileNetV3:
    return MobileNetV3()
