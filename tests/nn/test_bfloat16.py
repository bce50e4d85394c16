"""bfloat16 operands: rounding equals the format's, and all three products read nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from netsuke.core.errors import UsageError
from netsuke.formats import round_bf16
from netsuke.methods.integer.bfloat16 import Bfloat16, apply
from netsuke.nn.bfloat16 import ROUNDINGS, Rule, bfloat16_, round_bfloat16

torch.set_num_threads(1)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50), st.sampled_from(ROUNDINGS), st.integers(0, 9))
def test_every_bit_pattern_rounds_as_the_format_does(patterns: list[int], rounding: str, seed: int) -> None:
    x = np.array(patterns, np.uint32).view(np.float32)
    noise = np.random.default_rng(seed).integers(0, 65536, x.shape)
    random = rounding == "stochastic"
    wanted = round_bf16(x, rounding, uniform=noise / 65536 if random else None)
    found = round_bfloat16(torch.from_numpy(x.copy()), rounding, noise=torch.from_numpy(noise) if random else None)
    bits, expected = found.numpy().view(np.uint32), wanted.view(np.uint32)
    np.testing.assert_array_equal(np.where(np.isnan(x), 0, bits), np.where(np.isnan(x), 0, expected))
    assert np.isnan(found.numpy()[np.isnan(x)]).all()


def test_torchs_own_bfloat16_agrees_and_subnormals_are_flushed() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-40, 40, 0.08)
    assert torch.equal(round_bfloat16(x), x.bfloat16().float())
    small = torch.tensor([1e-39, -1e-39, 2e-38, -0.0])
    flushed = round_bfloat16(small, flush=True)
    assert flushed[0] == 0
    assert torch.signbit(flushed).tolist() == [False, True, False, True]
    assert flushed[2] == small[2].bfloat16().float()


def test_all_three_products_read_rounded_operands() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, padding=1)
    reference = nn.Conv2d(3, 5, 3, padding=1)
    reference.load_state_dict(conv.state_dict())
    x, g = torch.randn(2, 3, 6, 6), torch.randn(2, 5, 6, 6)
    layer = bfloat16_(nn.Sequential(conv), Rule())
    a = x.clone().requires_grad_()
    layer(a).backward(g)
    xr, wr, gr = (t.bfloat16().float() for t in (x, reference.weight.detach(), g))
    xr.requires_grad_()
    wr.requires_grad_()
    y = F.conv2d(xr, wr, padding=1)
    y.backward(gr)
    assert torch.equal(layer(x), (y + reference.bias.reshape(-1, 1, 1)).detach())  # type: ignore[union-attr]
    assert torch.equal(a.grad, xr.grad)  # type: ignore[arg-type]
    assert torch.equal(conv.weight.grad, wr.grad)  # type: ignore[arg-type]
    assert torch.allclose(conv.bias.grad, g.sum((0, 2, 3)), rtol=1e-5)  # type: ignore[union-attr,arg-type]


def test_names_parameters_and_seeds_stay() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    before = {n: id(p) for n, p in model.named_parameters()}
    apply(model, Bfloat16("stochastic", seed=3))
    assert before == {n: id(p) for n, p in model.named_parameters()}
    x = torch.randn(3, 4)
    first = model(x)
    again = apply(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), Bfloat16("stochastic", seed=3))
    again.load_state_dict(model.state_dict())
    assert torch.equal(first, again(x))
    with pytest.raises(UsageError):
        Bfloat16("up")
    with pytest.raises(UsageError):
        apply(nn.Sequential(nn.ReLU()), Bfloat16())
    with pytest.raises(UsageError):
        round_bfloat16(x, "stochastic")
