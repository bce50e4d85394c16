"""EfficientNet-B0 (Tan and Le 2019, table 1): MBConv blocks with SiLU and squeeze-and-excite."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netsuke.models.mobilenetv2 import conv_bn
from netsuke.models.mobilenetv3 import SqueezeExcite

# expansion, kernel, channels, repeats, first stride
_STAGES = (
    (1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1), (6, 5, 192, 4, 2), (6, 3, 320, 1, 1),
)  # fmt: skip


class MBConv(nn.Module):
    """Expand, depthwise, squeeze-and-excite to a quarter of the block's input width, project."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = cin * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [conv_bn(cin, hidden, 1, act=nn.SiLU())]
        layers.append(conv_bn(hidden, hidden, kernel, stride, hidden, nn.SiLU()))
        layers.append(SqueezeExcite(hidden, max(1, cin // 4), nn.SiLU(), nn.Sigmoid()))
        layers.append(conv_bn(hidden, cout, 1))
        self.block, self.residual = nn.Sequential(*layers), stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.residual else self.block(x)


class EfficientNet(nn.Module):
    """Input [N, 3, H, W], output logits [N, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        blocks: list[nn.Module] = [conv_bn(3, 32, 3, 2, act=nn.SiLU())]
        channels = 32
        for expansion, kernel, width, repeats, stride in _STAGES:
            for index in range(repeats):
                blocks.append(MBConv(channels, width, kernel, 1 if index else stride, expansion))
                channels = width
        self.features = nn.Sequential(*blocks, conv_bn(channels, 1280, 1, act=nn.SiLU()))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(torch.flatten(x, 1))


def efficientnet_b0() -> EfficientNet:
    return EfficientNet()
