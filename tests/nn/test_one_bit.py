"""One-bit layers: XNOR kernels against float64 products of the same signs, pruning without bias, bad input."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from netsuke.core.errors import UnsupportedError, UsageError
from netsuke.methods.integer.one_bit_fqt import OneBitFqt, apply
from netsuke.nn.integer_products import Kernels, Window
from netsuke.nn.one_bit import (
    BitKernels,
    BitSimulation,
    OneBitConfig,
    OneBitConv2d,
    OneBitLayer,
    keep_probability,
    make_one_bit,
)

KITS = [BitKernels(Kernels(1, isa)) for isa in ("", "portable")]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    window=st.sampled_from([(0, 1, 1), (1, 1, 3), (0, 1, 3), (2, 2, 3), (1, 1, 2)]),
    bits=st.integers(1, 5),
    portable=st.booleans(),
)
def test_products_equal_sums_of_signs(seed: int, window: tuple[int, int, int], bits: int, portable: bool) -> None:
    (pad, dilation, k), rng = window, torch.Generator().manual_seed(seed)
    n, h, w, c, o = (int(torch.randint(1, top, (), generator=rng)) for top in (80, 9, 9, 140, 90))
    h, w = h + dilation * (k - 1), w + dilation * (k - 1)
    kit: Any = KITS[portable]
    other: Any = BitSimulation()
    win = Window((1, 1), (pad, pad), (dilation, dilation))
    x, weight = torch.randn(n, h, w, c, generator=rng), torch.randn(o, k, k, c, generator=rng)
    mult = torch.rand(o, generator=rng) + 0.1
    ours, exact = (m.convolve(win, m.signs(x), m.signs(weight), mult) for m in (kit, other))
    assert torch.equal(ours, exact)
    codes = torch.randint(0, 2**bits, ours.shape, generator=rng, dtype=torch.uint8)
    for made in ("add_planes", "weight_gradient"):
        results = []
        for m in (kit, other):
            if made == "add_planes":
                back = m.signs(weight.flip(1, 2).permute(3, 1, 2, 0).contiguous())
                turned = Window((1, 1), (dilation * (k - 1) - pad,) * 2, (dilation, dilation))
                results.append(m.add_planes(turned, m.planes(codes, bits), back, c))
                assert results[-1].shape == x.shape
            else:
                results.append(m.weight_gradient(win, m.signs(x), m.planes(codes, bits), tuple(weight.shape)))
        assert torch.equal(results[0], results[1]), made


def test_long_weight_gradient_is_split() -> None:
    """70 samples of 32 x 32 positions pass the kernels' 16-bit counters."""
    x, weight = torch.ones(70, 32, 32, 2), torch.ones(3, 1, 1, 2)
    codes = torch.full((70, 32, 32, 3), 15, dtype=torch.uint8)
    kit = KITS[0]
    dw = kit.weight_gradient(Window(), kit.signs(x), kit.planes(codes, 4), tuple(weight.shape))
    assert torch.equal(dw, torch.full((3, 1, 1, 2), 15.0 * 70 * 1024))


def test_keep_probabilities_spend_the_budget() -> None:
    ranges = torch.tensor([100.0, 1, 1, 1, 1, 1, 1, 0])
    p = keep_probability(ranges, 4)
    assert p[0] == 1
    assert p[-1] == 0
    assert float(p.sum()) == pytest.approx(2)
    assert torch.allclose(keep_probability(torch.ones(8), 4), torch.full((8,), 0.25))
    assert not keep_probability(torch.zeros(8), 4).any()
    assert torch.equal(keep_probability(torch.tensor([1.0, 0, 0, 0]), 2), torch.tensor([1.0, 0, 0, 0]))


def layer(config: OneBitConfig) -> OneBitConv2d:
    torch.manual_seed(0)
    made = make_one_bit(nn.Conv2d(5, 6, 3, padding=1), config, "conv", 0)
    assert isinstance(made, OneBitConv2d)
    return made


def gradients(module: nn.Module, x: Tensor, *, tails: bool = False) -> tuple[Tensor, Tensor]:
    """dX and dW for a fixed dY; with tails its largest values stand far above the others, as in training."""
    module.zero_grad()
    x = x.clone().requires_grad_()
    y = module(x)
    dy = torch.linspace(-1, 2, y.numel()).view(y.shape)
    (y * (torch.randn(y.shape, generator=torch.Generator().manual_seed(3)) ** 3 if tails else dy)).sum().backward()
    assert x.grad is not None
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    assert weight.grad is not None
    return x.grad, weight.grad


def test_gradients_are_unbiased() -> None:
    """Mean of 600 draws within 5 standard errors of the exact gradient, for almost every one of 765 values."""
    x = torch.randn(8, 5, 3, 3, generator=torch.Generator().manual_seed(1)) * 0.4
    exact = gradients(layer(OneBitConfig("float")), x)
    noisy, draws = layer(OneBitConfig()), 600
    runs = [gradients(noisy, x) for _ in range(draws)]
    for index in (0, 1):
        stack = torch.stack([r[index].clone() for r in runs]).double()
        error = (stack.mean(0) - exact[index]).abs()
        sigma = stack.std(0) / draws**0.5 + 1e-6
        assert float((error < 5 * sigma).double().mean()) > 0.999
    assert not torch.equal(runs[0][1], runs[1][1])


@pytest.mark.parametrize("gradient", ["pruned", "per-sample", "float"])
@pytest.mark.parametrize("pruning", ["random", "largest"])
def test_simulation_gives_the_kernels_bits(gradient: str, pruning: str) -> None:
    x = torch.randn(8, 5, 6, 6, generator=torch.Generator().manual_seed(1))
    ours = layer(OneBitConfig(gradient, pruning=pruning))
    theirs = copy.deepcopy(ours)
    theirs.config = replace(ours.config, products="simulation")
    assert torch.equal(ours(x), theirs(x))
    for a, b in zip(gradients(ours, x), gradients(theirs, x), strict=True):
        assert torch.equal(a, b)


def test_pruning_by_four_beats_one_bit_per_sample() -> None:
    """The paper's point: at one bit a value on average, four bits for a quarter have the smaller variance."""
    x = torch.randn(16, 5, 6, 6, generator=torch.Generator().manual_seed(1)) * 0.4
    exact = gradients(layer(OneBitConfig("float")), x, tails=True)
    errors = {}
    for gradient in ("pruned", "per-sample"):
        noisy = layer(OneBitConfig(gradient))
        runs = [gradients(noisy, x, tails=True) for _ in range(40)]
        errors[gradient] = [
            float(torch.stack([(r[i] - exact[i]).square().sum() for r in runs]).mean() / exact[i].square().sum())
            for i in (0, 1)
        ]
    assert errors["pruned"][0] < 0.5 * errors["per-sample"][0]


def test_bad_input_and_defined_edges() -> None:
    net = layer(OneBitConfig())
    x = torch.randn(1, 5, 4, 4, requires_grad=True)
    y = net(x)
    with pytest.raises(UsageError, match="NaN or Inf"):
        (y * float("nan")).sum().backward()
    (net(x) * 0).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()
    with pytest.raises(UnsupportedError, match="stride 1"):
        make_one_bit(nn.Conv2d(3, 3, 3, 2), OneBitConfig(), "down", 0)
    with pytest.raises(UsageError) as caught:
        OneBitConfig("prune", 9, "none")
    assert len(caught.value.problems) == 3


def test_first_last_and_strided_layers_stay_float() -> None:
    net = nn.Sequential(
        *(
            nn.Conv2d(1, 4, 3),
            nn.Conv2d(4, 4, 3, 2),
            nn.Conv2d(4, 4, 1),
            nn.Conv2d(4, 8, 1),
            nn.Flatten(),
            nn.Linear(72, 4),
        )
    )
    apply(net, OneBitFqt(keep_float="2"))
    assert [i for i, m in enumerate(net) if isinstance(m, OneBitLayer)] == [3]
    with pytest.raises(UsageError, match="matches no layer"):
        apply(net, OneBitFqt(keep_float="stem"))
    with pytest.raises(UsageError, match="no layer can be one-bit"):
        apply(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
