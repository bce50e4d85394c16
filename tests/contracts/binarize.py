"""How the contract tests exercise a method of the room `binarize`: two steps of training on a tiny network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from netsuke.core.method import Method
from netsuke.models.vit import EncoderBlock
from netsuke.nn.binary_layers import freeze, layers, set_progress
from netsuke.nn.hash_attention import HashAttention


@dataclass
class Observation:
    """Bytes of the trained network's output, and what differs from the float network."""

    result: bytes
    touched: set[str]
    reads_data: bool


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 8),
        nn.Linear(8, 3),
    )


class Transformer(nn.Module):
    """One block on [N, T, 12], for methods that replace attention."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.block, self.head = EncoderBlock(12, 2), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(x).mean(1))


def exercise(method: Method, seed: int) -> Observation:
    """Apply the method, train two steps, freeze."""
    transformer = "attention" in method.tags
    model: nn.Module = Transformer(seed) if transformer else network(seed)
    method.apply(model, method.config())
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(8, *((5, 12) if transformer else (1, 6, 6)), generator=generator), torch.arange(8) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(2):
        set_progress(model, step / 2)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    touched = set()
    for _, layer in layers(model):
        touched |= {"activations"} if layer.inputs is not None else set()
        served = sum(levels * scale for levels, scale in layer.weight_terms())
        touched |= {"weights"} if not bool((served == layer.weight).all()) else set()
    if any(isinstance(module, HashAttention) for module in model.modules()):
        touched.add("activations")
    with torch.no_grad():
        result = freeze(model)(x).numpy().tobytes()
    return Observation(result, touched, False)
