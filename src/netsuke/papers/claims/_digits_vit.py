"""A small vision transformer trained on the digits in seconds: shared by claims."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from netsuke.models.vit import ViT
from netsuke.papers.claims._digits_train import tensors

SHAPE = (1, 3, 8, 8)


def vit(seed: int) -> nn.Module:
    """16 patches of 2x2, width 48, three blocks; about 90,000 weights."""
    torch.manual_seed(seed)
    return ViT(width=48, heads=3, depth=3, size=8, patch=2, classes=10)


def pictures(split: str) -> tuple[Tensor, Tensor]:
    """Digits of three equal channels, as the transformer reads them."""
    x, y = tensors(split)
    return x.expand(-1, 3, -1, -1).contiguous(), y


def fit(model: nn.Module, x: Tensor, y: Tensor, seed: int, *, epochs: int, loss: Any = None) -> nn.Module:
    """Adam with a cosine schedule, batches of 64; the model in eval mode."""
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-2)
    steps = epochs * (len(x) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    wanted = loss or nn.functional.cross_entropy
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=rng)[: len(x) // 64 * 64].split(64):
            value = wanted(model(x[rows]), y[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
    return model.eval()
