"""How the contract tests exercise a method of the room `qat`: a few steps of training on a tiny network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from netsuke.core.method import Method
from netsuke.methods.qat import plain_step, prepare
from netsuke.nn.qlayers import served


@dataclass
class Observation:
    """Bytes of the trained network's output, and what differs from the float network."""

    result: bytes
    touched: set[str]
    reads_data: bool


def _network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def _trained(method: Method, seed: int, shift: float) -> tuple[bytes, set[str]]:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(8, 1, 6, 6, generator=generator) + shift, torch.arange(8) % 3
    rules = method.name if "rules" in method.tags else "qat/lsq"
    network = prepare(_network(seed), shape=(1, 1, 6, 6), method=rules, calib=x)
    step = method.apply(network, method.config()) if "step" in method.tags else plain_step
    optimizer = torch.optim.SGD(network.groups(0.05, 0.0), lr=0.05)

    def loss(out: torch.Tensor, _: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(out, labels)

    for _ in range(3):
        step(network.train(), x, y, loss, optimizer)
    network.eval()
    layer = network.layers()["3"]
    made = layer.serve()
    plain = layer.layer.weight  # type: ignore[union-attr]
    touched = {"weights"} if not torch.equal(made.codes * made.scale.reshape(-1, 1, 1, 1), plain) else set()
    if all(served(q).hi <= 255 for q in network.activation_quantizers().values()):
        touched.add("activations")
    with torch.no_grad():
        return network(torch.ones(1, 1, 6, 6)).numpy().tobytes(), touched


def exercise(method: Method, seed: int) -> Observation:
    """Train with the method on two data sets: what it makes must depend on the data."""
    result, touched = _trained(method, seed, 0.0)
    other, _ = _trained(method, seed, 0.5)
    return Observation(result, touched, result != other)
