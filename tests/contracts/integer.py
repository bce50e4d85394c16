"""How the contract tests exercise a method of the room `integer`: a few steps of a tiny network, beside float."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from contracts.quantize import Observation
from netsuke.core.method import Method


class CountedData:
    """Four batches of random images; remembers whether anyone read them."""

    def __init__(self, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.items = [
            (torch.randn(8, 3, 8, 8, generator=rng), torch.randint(0, 4, (8,), generator=rng)) for _ in "1234"
        ]
        self.reads = 0

    def batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.reads += 1
        return self.items[index]


def network() -> nn.Module:
    layers = (nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten())
    net = nn.Sequential(*layers, nn.Linear(512, 4))
    rng = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data.copy_(torch.randn(p.shape, generator=rng) * 0.1)
    return net


def train(net: nn.Module, data: CountedData) -> tuple[bytes, bytes]:
    """Bytes of the first logits and of the trained weights."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    first = net(data.items[0][0]).detach().numpy().tobytes()
    for index in range(4):
        x, y = data.batch(index)
        loss = functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return first, b"".join(p.detach().contiguous().numpy().tobytes() for p in net.parameters())


def exercise(method: Method, seed: int) -> Observation:
    """Train with and without the method; what differs is what it touches."""
    data, plain = CountedData(seed), network().train()
    changed = method.apply(network().train(), method.config())
    first, weights = train(changed, data)
    reads = data.reads
    plain_first, plain_weights = train(plain, data)
    kinds = [{type(m) for m in net.modules() if "Norm" in type(m).__name__} for net in (plain, changed)]
    touched = {"weights"} if weights != plain_weights else set()
    touched |= {"activations"} if first != plain_first else set()
    touched |= {"graph"} if kinds[0] != kinds[1] else set()
    return Observation(weights, touched, reads > 0)
