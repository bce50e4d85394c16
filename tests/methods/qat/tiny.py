"""A small network with everything the placement must know, and data for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsuke.models.cifar_resnet import CifarBlock

SHAPE = (1, 3, 8, 8)


class Everything(nn.Module):
    """Residual blocks with padded shortcut, concat, table, product, standalone add, pools, 1x1 head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.block = CifarBlock(8, 12, 2)
        self.left, self.right = nn.Conv2d(12, 6, 1), nn.Conv2d(12, 6, 3, padding=1, groups=6)
        self.gate = nn.Conv2d(12, 12, 1)
        self.squeeze = nn.Conv2d(12, 12, 1)
        self.pool = nn.AvgPool2d(2, 1)
        self.last = nn.Conv2d(12, 16, 2, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(F.max_pool2d(self.stem(x), 3, 1, 1))
        y = torch.cat([self.left(x), F.relu(self.right(x))], 1)
        y = F.silu(self.gate(y))
        y = y * torch.sigmoid(self.squeeze(F.adaptive_avg_pool2d(y, 1)))
        z = F.relu(F.max_pool2d(y, 1) + F.max_pool2d(x, 1))
        z = F.relu(self.norm(self.last(self.pool(z))))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(z, 1), 1))


def everything(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = Everything()
    with torch.no_grad():  # a flipped and a dead channel: batch norm merges into scales, which must be positive
        network.norm.weight[0], network.norm.weight[1] = -0.7, 0.0
    return network.eval()


class Sliced(nn.Module):
    """Slices of a Sequential are modules that `forward` makes: torch.fx alone refuses them."""

    def __init__(self) -> None:
        super().__init__()
        convolution = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
        self.layers = nn.Sequential(*convolution, nn.Flatten(), nn.Linear(288, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[-2:](self.layers[:-2](x))


class Branching(nn.Module):
    """Control flow on data: torch.fx cannot trace it, torch.export can where the branch is a module's own flag."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        if len(x.shape) + sum(1 for _ in range(x.shape[1])) != 7:
            raise ValueError("images of three channels")
        return self.head(F.relu(self.conv(x)).mean((2, 3)))


def images(count: int = 64, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Images whose class is the place of a bright spot."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 5
    x = torch.randn((count, 3, 8, 8), generator=rng) * 0.3
    for i, label in enumerate(y.tolist()):
        x[i, label % 3, label : label + 3, 2 * (label % 2) :] += 1.5
    return x, y
