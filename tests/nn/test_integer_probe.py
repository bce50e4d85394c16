"""Readings of integer layers: what they say, and that nothing is measured without a probe."""

from __future__ import annotations

import torch
from torch import nn

from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_swap import integer_, integer_layers
from netsuke.nn.integer_train import probed, shared_exponent


def backward(net: nn.Module) -> None:
    x = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    net(x).square().sum().backward()


def network(bits: int, gradient: str = "shift") -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    return integer_(net, IntegerConfig(bits, bits, bits, gradient))


def test_error_falls_by_about_four_with_every_bit() -> None:
    errors = []
    for bits in (8, 6, 4):
        net = network(bits)
        with probed(net) as probe:
            backward(net)
        assert set(probe.readings) == {"0", "2"}
        errors.append(probe.means()["gradient_error"])
        assert 0 <= probe.means()["input_ends"] <= 1
        assert all(layer.probe is None for layer in integer_layers(net).values())
    assert 4 < errors[1] / errors[0] < 64
    assert 4 < errors[2] / errors[1] < 64


def test_nothing_is_measured_without_a_probe() -> None:
    net = network(8)
    with probed(net) as probe:
        pass
    backward(net)
    assert probe.means() == {}


def test_shared_exponents_leave_the_head_room_they_are_asked_for() -> None:
    for largest in (1.0, 0.99, 1.37e-20, 3e30, 2.0**-126):
        for chain in (1, 2, 8, 100):
            scale, top = shared_exponent(largest, 16, chain)
            assert abs(float(scale) * top - largest) <= float(scale) * 0.5 + 1e-45 or top == 2**15 - 1
            assert top < 2**15
            assert chain == 1 or 2 * chain * top * top < 2**31
            if largest > 1e-30:
                assert 2 * (2 * top + 2) ** 2 * max(chain, 4) > 2**31, "no more is given away than needed"
    assert shared_exponent(0.0, 16, 8)[1] == 0
