"""Sharpness: exact on a quadratic, blind to the scale of filters, and it leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netsuke.core.errors import UsageError
from netsuke.nn.sharpness import sharpness


def test_a_quadratic_rises_by_radius_squared() -> None:
    """L = c |w|^2: the rise on both sides averages to c r^2 |d|^2 = c r^2 |w|^2, whatever the direction."""
    net = nn.Linear(6, 4)
    size = float(net.weight.detach().square().sum())
    for curvature in (1.0, 5.0):

        def loss(m: nn.Module, c: float = curvature) -> torch.Tensor:
            return c * m.get_parameter("weight").square().sum()

        rise = sharpness(net, loss, radius=0.1, directions=3)
        assert rise == pytest.approx(curvature * 0.01 * size, rel=1e-3)


def test_weights_are_restored_and_seeds_decide() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(20, 5), torch.randint(0, 3, (20,))
    before = [p.detach().clone() for p in net.parameters()]

    def loss(m: nn.Module) -> torch.Tensor:
        return nn.functional.cross_entropy(m(x), y)

    first = sharpness(net, loss)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert first == sharpness(net, loss)
    assert first != sharpness(net, loss, seed=1)
    with pytest.raises(UsageError, match="positive radius"):
        sharpness(net, loss, radius=0)
