"""A small CNN for Fashion-MNIST (28x28 grey, 10 classes); `python -m netsuke.models.train fashion` trains it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FashionCNN(nn.Module):
    """Input [N, 1, 28, 28] as the data set gives it (mean 0, variance 1), output logits [N, 10]."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for cin, cout, pool in ((1, width, 0), (width, width, 2), (width, 2 * width, 0), (2 * width, 2 * width, 2)):
            layers += [nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU()]
            if pool:
                layers.append(nn.MaxPool2d(pool))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(2 * width * 49, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))

    def hidden(self, x: Tensor) -> Tensor:
        """What the last layer reads, [N, 128]: features of an image."""
        return self.classifier[:2](torch.flatten(self.features(x), 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier[2:](self.hidden(x))


def fashion_cnn() -> FashionCNN:
    return FashionCNN()
