"""AdaPT: the information test, the gradients' rule, the log, and resuming in the middle of a window."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from netsuke.core.errors import UsageError
from netsuke.methods.integer import adapt
from netsuke.methods.integer.adapt import AdaPT
from netsuke.nn.integer_swap import integer_layers

SMALL = AdaPT(lookback_min=3, lookback_max=3)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), nn.Flatten())
    return adapt.apply(nn.Sequential(*layers, nn.Linear(72, 4)), SMALL)


def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    rng = torch.Generator().manual_seed(1)
    while True:
        yield torch.rand(8, 1, 8, 8, generator=rng), torch.randint(0, 4, (8,), generator=rng)


def steps(
    net: nn.Module, optimizer: torch.optim.Optimizer, data: Iterator[tuple[torch.Tensor, torch.Tensor]], n: int
) -> None:
    for _ in range(n):
        x, y = next(data)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()


def test_divergence_is_zero_only_for_fine_steps() -> None:
    w = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 0.1
    lost = [adapt.divergence(w, 16, fraction, 100) for fraction in (3, 5, 8, 14)]
    assert lost[0] > 1 > lost[2] > lost[3]
    assert lost[3] < 0.05
    assert adapt.divergence(w, 4, 12, 100) > 1, "saturated"
    assert adapt.divergence(torch.zeros(10), 8, 4, 100) == 0


def test_fewer_bins_and_coarse_weights_give_shorter_words() -> None:
    w = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 0.1
    fine, coarse = (adapt.push_down(w, AdaPT(), bins) for bins in (150, 10))
    assert coarse[1] < fine[1]
    word, fraction = adapt.push_down(torch.tensor([-0.5, 0.0, 0.25, 0.5]).repeat(50), AdaPT(), 100)
    assert fraction == 4, "nothing finer than the lowest fraction is needed"
    assert fraction <= word <= 6


def test_push_up_follows_the_formula() -> None:
    config = AdaPT(headroom=2)
    assert adapt.push_up(6, 4, 1.0, config) == (7, 5), "gradients that agree: one bit"
    diversity = math.exp(1.5)  # l = 0.5: s1 = 4, s2 = 8 - 4
    assert adapt.push_up(6, 4, diversity, config) == (10, 8)
    assert adapt.push_up(6, 4, math.exp(1.25), AdaPT(headroom=2, strategy="max"))[1] == 14, "s1 = 16, at the cap"
    assert adapt.push_up(16, 14, 100.0, config) == (16, 14)


def test_words_switch_and_a_resumed_run_is_the_uninterrupted_one() -> None:
    net, data = network(), batches()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    steps(net, optimizer, data, 4)
    saved = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    kept = [next(data) for _ in range(5)]
    steps(net, optimizer, iter(kept), 5)
    log = adapt.log(net)
    assert [s.step for s in log] == [3] * 3 + [6] * 3 + [9] * 3
    assert len({s.after for s in log}) > 1

    other = network()
    again = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    steps(other, again, iter(kept), 5)
    for name, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert adapt.log(other) == log
    for layer in integer_layers(net).values():
        layer(torch.rand(1, *((72,) if isinstance(layer, nn.Linear) else (layer.in_channels, 8, 8))))
    assert [m.config.weight_bits for m in integer_layers(net).values()] == [
        int(s.word) for s in adapt.states(net).values()
    ]


def test_performance_counts_bits() -> None:
    net = network()
    with pytest.raises(UsageError, match="no training step"):
        adapt.performance(net)
    steps(net, torch.optim.SGD(net.parameters(), lr=0.1), batches(), 2)
    found = adapt.performance(net)
    assert found.bits == pytest.approx(8)
    assert found.inference == pytest.approx(4)
    assert found.size == pytest.approx(0.25)
    assert 2 < found.training < 4, "the controller's own work counts"


def test_weight_gradients_are_clipped_to_norm_one() -> None:
    net = network()
    (net(torch.rand(8, 1, 8, 8)) * 1e4).sum().backward()
    layers = integer_layers(net).values()
    assert max(float(m.weight.grad.norm()) for m in layers if m.weight.grad is not None) < 1 + 1e-5


def test_every_wrong_option_is_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        AdaPT(word=3, headroom=0, lookback_min=1, strategy="most")
    assert {p.what for p in caught.value.problems} == {"word", "fraction", "headroom", "lookback_min", "strategy"}
