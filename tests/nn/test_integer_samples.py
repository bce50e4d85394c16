"""Powers of two a sample in front of gradients of few bits: exact, unbiased, and less noise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netsuke.core.errors import UsageError
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_products import Window, products
from netsuke.nn.integer_samples import OCTAVES, octaves, scaled, weight_gradient
from netsuke.nn.integer_swap import integer_
from netsuke.nn.qtensor import QTensor


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), spread=st.floats(0, 30), dead=st.booleans())
def test_samples_come_within_an_octave_of_the_largest(seed: int, spread: float, dead: bool) -> None:
    rng = torch.Generator().manual_seed(seed)
    g = torch.randn(9, 4, 4, 3, generator=rng) * torch.exp2(-spread * torch.rand(9, 1, 1, 1, generator=rng))
    g[4] *= 0 if dead else 1
    e = octaves(g.abs().amax((1, 2)), "layer")
    up = scaled(g, e)
    largest, before = up.abs().amax((1, 2, 3)), g.abs().amax((1, 2, 3))
    assert torch.equal(scaled(up, e, -1), g)
    assert float(largest.max()) == float(before.max()), "nothing grows beyond the largest value"
    assert bool(((largest * 2 > before.max()) | (e == OCTAVES)).all())
    assert int(e[before.argmax()]) == 0


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), linear=st.booleans())
def test_the_weight_gradient_is_the_sum_over_samples(seed: int, linear: bool) -> None:
    rng = torch.Generator().manual_seed(seed)
    shape, window = ((6, 1, 1, 1), Window()) if linear else ((6, 3, 3, 1), Window(padding=(1, 1)))
    at = (16, 1, 1) if linear else (16, 5, 5)
    x = QTensor(torch.randint(0, 16, (*at, 1), generator=rng, dtype=torch.uint8), torch.ones(1), 3, 0, 15)
    g = QTensor(torch.randint(0, 15, (*at, 6), generator=rng, dtype=torch.uint8), torch.ones(1), 7, 0, 14)
    e = torch.randint(0, OCTAVES + 1, (16,), generator=rng, dtype=torch.uint8)
    mult = torch.rand(6, generator=rng)
    found = [weight_gradient(products(kind), window, shape, x, g, mult, e) for kind in ("kernels", "simulation")]
    assert torch.equal(*found)
    planes = scaled((g.codes.float() - 7) * mult, e, -1).double().permute(0, 3, 1, 2)
    images = (x.codes.double() - 3).permute(0, 3, 1, 2)
    rows = torch.nn.grad.conv2d_weight(images, (6, 1, *shape[1:3]), planes, padding=window.padding)
    assert torch.allclose(found[0].double(), rows.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


def draws(count: int, sample_bits: int) -> list[torch.Tensor]:
    """Weight gradients of the first layer, one a seed; samples' gradients differ by three orders of magnitude."""
    made = []
    for seed in range(count):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.Flatten())
        integer_(net, IntegerConfig(4, 4, 4, sample_bits=sample_bits, seed=seed))
        x = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        (net(x) * torch.logspace(-3, 0, 32)[:, None]).square().sum().backward()
        made.append(net[0].weight.grad.clone())  # type: ignore[union-attr,operator]
    return made


def test_the_mean_stays_and_the_noise_falls() -> None:
    apart, together = torch.stack(draws(150, 4)), torch.stack(draws(150, 0))
    error = (apart.var(0) / 150 + together.var(0) / 150).sqrt()
    # 216 values: the largest of as many normal deviates passes 5 with probability 1e-4.
    assert float(((apart.mean(0) - together.mean(0)).abs() / error).max()) < 5
    assert float(apart.var(0).sum()) < 0.6 * float(together.var(0).sum())


def test_a_gradient_that_is_not_finite_names_the_layer_and_changes_nothing() -> None:
    net = integer_(nn.Sequential(nn.Linear(8, 4)), IntegerConfig(4, 4, 4))
    y = net(torch.randn(5, 8))
    bad = torch.zeros(5, 4)
    bad[2, 1] = float("nan")
    with pytest.raises(UsageError, match="NaN or Inf"):
        y.backward(bad)
    assert int(octaves(torch.zeros(3, 2), "layer").max()) == 0


def test_only_gradients_of_few_bits_and_of_shift_groups() -> None:
    assert IntegerConfig(4, 4, 4).scales_samples
    assert not IntegerConfig(4, 4, 5).scales_samples
    assert not IntegerConfig(4, 4, 4, gradient="tensor").scales_samples
    assert not IntegerConfig(4, 4, 4, sample_bits=0).scales_samples
    with pytest.raises(UsageError, match="sample_bits"):
        IntegerConfig(sample_bits=9)
