"""Small networks on the shipped digits, trained by `netsuke.train` in float and in integers: shared by claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netsuke.papers.claim import Context

BATCH = 64


@dataclass(frozen=True)
class Budget:
    """What every variant of a comparison gets."""

    epochs: int = 8
    rate: float = 0.1
    adam: bool = False


@dataclass(frozen=True)
class Run:
    """A trained network, its accuracy on the 359 test images, and one row an epoch."""

    model: Any
    top1: float
    history: list[dict[str, float]]

    def curve(self, name: str) -> list[float]:
        return [row[name] for row in self.history if name in row]

    def curves(self, prefix: str) -> dict[str, list[float]]:
        """Everything that was logged, but time and the number of the epoch."""
        return {f"{prefix} {k}": self.curve(k) for k in self.history[-1] if k not in ("epoch", "seconds")}


def resnet(seed: int) -> Any:
    """The residual network of the demo, untrained."""
    from netsuke import models

    return models.build("digits_cnn", weights="random", seed=seed)


def separable(seed: int, width: int = 32) -> Any:
    """Three depthwise-separable blocks: channels of one layer differ by octaves, as in MobileNets."""
    import torch
    from torch import nn

    def block(stride: int) -> list[Any]:
        return [
            *(nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        ]

    torch.manual_seed(seed)
    stem = [nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
    return nn.Sequential(*stem, *block(1), *block(2), *block(1), *pool)


def transformer(seed: int) -> Any:
    """A two-block vision transformer of width 32 on 2x2 patches."""
    import torch
    from torch import nn

    from netsuke.models.vit import ViT

    torch.manual_seed(seed)
    net = ViT(width=32, heads=2, depth=2, size=8, patch=2, classes=10)
    net.patch_embed = nn.Conv2d(1, 32, 2, 2)
    return net


def run(
    context: Context,
    name: str,
    make: Callable[[int], Any],
    seed: int,
    budget: Budget,
    method: str = "",
    *,
    order: int | None = None,
    data: Any = "digits:train",
    **options: Any,
) -> Run:
    """Train the network that `make` gives; the same seed gives the same order of images (or `order`'s)."""
    import torch

    import netsuke

    def optimizer(parameters: Any) -> Any:
        if budget.adam:
            return torch.optim.AdamW(parameters, lr=budget.rate, weight_decay=0.01)
        return torch.optim.SGD(parameters, lr=budget.rate, momentum=0.9, weight_decay=5e-4)

    result = netsuke.train(
        make(seed),
        data,
        method=method,
        options=options,
        epochs=budget.epochs,
        batch=BATCH,
        optimizer=optimizer,
        schedule=lambda o, steps: torch.optim.lr_scheduler.OneCycleLR(o, budget.rate, total_steps=steps),
        evaluate="digits:test",
        seed=seed if order is None else order,
        progress=False,
    )
    last = result.history[-1]
    context.progress(f"seed {seed}: {name}: top1 {last['accuracy']:.4f}, loss {last['loss']:.4f}")
    return Run(result.model, last["accuracy"], result.history)


def batch(count: int = 32) -> tuple[Any, Any]:
    """The first training images and their labels, as tensors."""
    from netsuke.pipeline.train import samples

    x, y = samples("digits:train", "digits")
    return x[:count], y[:count]


def backward(model: Any, count: int = 32) -> list[Any]:
    """Gradients of every parameter on one batch, statistics of the batch in normalizations."""
    import torch

    x, y = batch(count)
    model.train()
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(x), y).backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]
