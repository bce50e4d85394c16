"""Ranges of integer layers' inputs: what few bits lose least with, and where gradients pass."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.core.errors import UsageError
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_range import clipping, following, least_error
from netsuke.nn.integer_swap import integer_
from netsuke.nn.qtensor import affine


def squared(x, low, high, bits, scale):
    step, zero = affine(low, high, bits, scale)
    return float((((torch.round(x / step) + zero).clamp(0, 2**bits - 1) - zero) * step - x).square().sum())


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    bits=st.integers(2, 8),
    tail=st.floats(1, 50),
    signed=st.booleans(),
    scale=st.sampled_from(["power-of-two", "free"]),
)
def test_no_octave_loses_less(seed, bits, tail, signed, scale):
    torch.manual_seed(seed)
    x = torch.randn(3000)
    x[:3] *= tail
    x = x if signed else x.relu()
    low, high = float(x.min()), float(x.max())
    chosen = least_error(x, low, high, (0.0, 0.0), bits, scale)
    errors = [squared(x, low * 2.0**-k, high * 2.0**-k, bits, scale) for k in range(5)]
    assert squared(x, *chosen, bits, scale) == pytest.approx(min(errors), rel=1e-4)


def test_few_bits_clip_a_rare_large_value_and_many_bits_do_not():
    x = torch.rand(4000)
    x[17] = 4.0
    assert least_error(x, 0.0, 4.0, (0.0, 0.0), 3, "free") == (0.0, 1.0)
    assert least_error(x, 0.0, 4.0, (0.0, 0.0), 8, "free") == (0.0, 4.0)


def test_every_channel_is_looked_at():
    x = torch.rand(64, 16, 16, 16)  # channels last; a stride of 64 would see one of sixteen
    x[..., 5] *= 100
    high = least_error(x, 0.0, float(x.max()), (0.0, 0.0), 4, "free")[1]
    assert high > 90


def test_the_range_stays_unless_another_is_clearly_better():
    x = torch.rand(4000)
    assert least_error(x, 0.0, 1.0, (0.0, 0.98), 4, "free") == (0.0, 0.98)
    assert least_error(x, 0.0, 1.0, (0.0, 8.0), 4, "free") == (0.0, 1.0)


def test_many_bits_follow_the_largest_value_and_forget():
    assert following(-1.0, 2.0, (-3.0, 1.0), 0.5) == (-1.5, 2.0)


@pytest.mark.parametrize("products", ["kernels", "simulation"])
def test_no_gradient_passes_where_inputs_are_clipped(products):
    torch.manual_seed(0)
    net = integer_(torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3)), IntegerConfig(4, 4, 4, "float", products=products))
    x = torch.rand(8, 4, 12, 12)
    x[3, 2, 5, 5] = 9.0
    x.requires_grad_()
    net(x).square().sum().backward()
    low, high = net[0].input_range.tolist()
    least, most = clipping(*affine(low, high, 4, "power-of-two"), 15)
    cut = (x.detach() < least) | (x.detach() > most)
    assert high < 4
    assert cut.nonzero().tolist() == [[3, 2, 5, 5]]
    assert bool((x.grad[cut] == 0).all())
    assert float((x.grad[~cut] != 0).float().mean()) > 0.99


def test_kernels_and_simulation_agree_while_inputs_clip():
    found = []
    for products in ("kernels", "simulation"):
        torch.manual_seed(0)
        net = integer_(torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3)), IntegerConfig(3, 3, 4, products=products))
        x = torch.randn(8, 4, 12, 12)
        x[0, 0, 0, 0] = 30.0
        x.requires_grad_()
        y = net(x)
        y.square().sum().backward()
        found.append((y.detach(), x.grad, net[0].weight.grad))
    for kernels, simulated in zip(*found, strict=True):
        torch.testing.assert_close(kernels, simulated, rtol=0, atol=0)


def test_impossible_widths_are_refused():
    with pytest.raises(UsageError, match="clip_bits"):
        IntegerConfig(clip_bits=9)
