"""A detector in the style of YOLOv8-nano: C2f backbone, SPPF, two-way feature pyramid, decoupled anchor-free heads.

Written from public descriptions of the architecture; box decoding and suppression are left to the caller.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Conv(nn.Sequential):
    """Convolution, BatchNorm, SiLU."""

    def __init__(self, cin: int, cout: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout), nn.SiLU())


class C2f(nn.Module):
    """Split, a chain of small residual bottlenecks, concatenate everything, mix."""

    def __init__(self, cin: int, cout: int, depth: int, shortcut: bool) -> None:
        super().__init__()
        half = cout // 2
        self.cv1, self.cv2 = Conv(cin, cout), Conv((2 + depth) * half, cout)
        self.m = nn.ModuleList(nn.Sequential(Conv(half, half, 3), Conv(half, half, 3)) for _ in range(depth))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            y = block(parts[-1])
            parts.append(parts[-1] + y if self.shortcut else y)
        return self.cv2(torch.cat(parts, 1))


class SPPF(nn.Module):
    """Three 5x5 max pools in a row, concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(channels, channels // 2), Conv(2 * channels, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class Head(nn.Module):
    """Box branch (4 * 16 distribution bins) and class branch of one scale."""

    def __init__(self, channels: int, classes: int, bins: int = 16) -> None:
        super().__init__()
        box, label = max(16, 64 // 4, bins * 4), max(64, min(classes, 100))
        self.box = nn.Sequential(Conv(channels, box, 3), Conv(box, box, 3), nn.Conv2d(box, 4 * bins, 1))
        self.label = nn.Sequential(Conv(channels, label, 3), Conv(label, label, 3), nn.Conv2d(label, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.box(x), self.label(x)], 1)


class YOLOv8(nn.Module):
    """Input [N, 3, H, W] with H and W multiples of 32; output [N, 64 + classes, anchors] over strides 8, 16, 32."""

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        w = (16, 32, 64, 128, 256)
        self.stem = nn.Sequential(Conv(3, w[0], 3, 2), Conv(w[0], w[1], 3, 2), C2f(w[1], w[1], 1, True))
        self.p3 = nn.Sequential(Conv(w[1], w[2], 3, 2), C2f(w[2], w[2], 2, True))
        self.p4 = nn.Sequential(Conv(w[2], w[3], 3, 2), C2f(w[3], w[3], 2, True))
        self.p5 = nn.Sequential(Conv(w[3], w[4], 3, 2), C2f(w[4], w[4], 1, True), SPPF(w[4]))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.n4, self.n3 = C2f(w[4] + w[3], w[3], 1, False), C2f(w[3] + w[2], w[2], 1, False)
        self.d4, self.m4 = Conv(w[2], w[2], 3, 2), C2f(w[2] + w[3], w[3], 1, False)
        self.d5, self.m5 = Conv(w[3], w[3], 3, 2), C2f(w[3] + w[4], w[4], 1, False)
        self.heads = nn.ModuleList(Head(c, classes) for c in w[2:])

    def forward(self, x: Tensor) -> Tensor:
        p3 = self.p3(self.stem(x))
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        n4 = self.n4(torch.cat([self.up(p5), p4], 1))
        n3 = self.n3(torch.cat([self.up(n4), p3], 1))
        m4 = self.m4(torch.cat([self.d4(n3), n4], 1))
        m5 = self.m5(torch.cat([self.d5(m4), p5], 1))
        return torch.cat([head(y).flatten(2) for head, y in zip(self.heads, (n3, m4, m5), strict=True)], 2)


def yolov8n() -> YOLOv8:
    return YOLOv8()
