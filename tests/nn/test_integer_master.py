"""Master weights of few bits: on their grid, without bias, resumed bit for bit, the same for every thread count."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from netsuke.core.errors import UsageError
from netsuke.nn import integer_master
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_fold import fold_norms_
from netsuke.nn.integer_master import _UNSET, channels_last, exponent_for, master_codes, settle
from netsuke.nn.integer_products import Kernels
from netsuke.nn.integer_swap import integer_, integer_layers
from netsuke.nn.integer_train import make_integer
from netsuke.pipeline.train import train


def layer_of(weight: Tensor, bits: int, seed: int = 0, kind: str = "kernels") -> Any:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    config = IntegerConfig(4, 4, 4, master_bits=bits, seed=seed, products=kind)
    layer = make_integer(made, config, "layer", 0)
    layer.weight.data.copy_(weight)
    return layer


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))


@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_rounding_is_unbiased(bits: int) -> None:
    """Mean of 3000 roundings of each of 64 weights within 5.5 standard errors (plus the noise's 2^-17 of a step): a
    right rounder fails with probability below 64 * 4e-8 = 3e-6; one that rounds to nearest or down fails."""
    rng = torch.Generator().manual_seed(bits)
    weight = torch.randn(1, 64, generator=rng)
    weight[0, 0] = 3.0  # sets the grid
    layer, draws = layer_of(weight, bits), 3000
    total = torch.zeros(64, dtype=torch.float64)
    for _ in range(draws):
        layer.weight.data.copy_(weight)
        total += settle(layer, channels_last(layer.weight)).flatten().double()
    _, step = master_codes(layer)
    fraction = torch.frac(weight.flatten().double() / step)
    fraction = torch.where(fraction < 0, fraction + 1, fraction)
    error = (total / draws - weight.flatten().double()).abs() / step
    spread = (fraction * (1 - fraction) / draws).sqrt()
    assert bool((error <= 5.5 * spread + 2.0**-16 + 1e-9).all())
    assert float(spread.max()) < 0.01, "enough draws to tell nearest rounding from an unbiased one"


def test_small_updates_are_not_lost() -> None:
    """A thousand updates of a hundredth of a step move the mean of 4096 weights by ten steps, within 1 %."""
    layer = layer_of(torch.zeros(64, 64).index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(1.0)), 8)
    settle(layer, channels_last(layer.weight))
    _, step = master_codes(layer)
    for _ in range(1000):
        layer.weight.data += 0.01 * step
        settle(layer, channels_last(layer.weight))
    moved = (float(layer.weight.detach().mean()) - 1 / 4096) / step
    assert moved == pytest.approx(10.0, rel=0.01)


@given(
    largest=st.floats(2.0**-60, 2.0**60, width=32),
    bits=st.integers(4, 16),
    before=st.one_of(st.just(_UNSET), st.integers(-80, 60)),
)
def test_the_grid_holds_the_largest_weight(largest: float, bits: int, before: int) -> None:
    top = 2 ** (bits - 1) - 1
    exponent = exponent_for(largest, top, before)
    assert largest <= top * 2.0**exponent
    assert largest > top * 2.0 ** (exponent - 4), "no more than two bits and the rounding to a power of two are unused"
    assert exponent_for(largest, top, exponent) == exponent


@pytest.mark.parametrize("kind", ["kernels", "simulation"])
def test_weights_stay_on_their_grid_while_they_train(kind: str) -> None:
    net = integer_(small(), IntegerConfig(4, 8, 8, master_bits=10, products=kind))
    optimizer, rng = torch.optim.Adam(net.parameters(), lr=0.01), torch.Generator().manual_seed(1)
    first: float | None = None
    for _ in range(12):
        x, y = torch.rand(32, 1, 8, 8, generator=rng), torch.arange(32) % 10
        x[:, 0, 0] += torch.nn.functional.one_hot(y % 8, 8)
        loss = nn.functional.cross_entropy(net(x), y)
        first = float(loss.detach()) if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.7 * first  # type: ignore[operator]
    net.eval()(x)
    for layer in integer_layers(net).values():
        codes, step = master_codes(layer)
        assert int(codes.abs().max()) <= 511
        assert torch.equal(codes.float() * step, layer.weight.detach())
        assert int(layer.get_buffer("master_draws")) == 12 + 1
    again = [layer.weight.detach().clone() for layer in integer_layers(net).values()]
    net(x)
    assert all(torch.equal(a, m.weight) for a, m in zip(again, integer_layers(net).values(), strict=True))
    folded = fold_norms_(net, x[:1])
    assert torch.isfinite(folded(x)).all()


def test_kernels_simulation_and_thread_counts_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(70, 90, generator=torch.Generator().manual_seed(0))
    kept = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(integer_master, "products", lambda _kind, n=threads: Kernels(n))
        layer = layer_of(weight, 9, seed=5)
        kept.append(settle(layer, channels_last(layer.weight)))
    monkeypatch.undo()
    layer = layer_of(weight, 9, seed=5, kind="simulation")
    kept.append(settle(layer, channels_last(layer.weight)))
    assert all(torch.equal(kept[0], other) for other in kept[1:])
    other = layer_of(weight, 9, seed=6)
    assert not torch.equal(kept[0], settle(other, channels_last(other.weight)))


def test_a_resumed_run_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((96, 1, 8, 8), np.float32), rng.integers(0, 10, 96)
    options = {"weight_bits": 4, "master_bits": 8, "l1_norm": True}
    settings: Any = {"options": options, "batch": 32, "progress": False, "evaluate": (x, y), "epochs": 3}
    whole = train(small(), (x, y), **settings).model.state_dict()
    path = tmp_path / "run.pt"
    from netsuke.pipeline.train import _Run

    real = _Run.save

    def stop(self: Any, at: Path) -> None:
        real(self, at)
        if self.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(_Run, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        train(small(), (x, y), **settings, checkpoint=path)
    monkeypatch.setattr(_Run, "save", real)
    resumed = train(small(), (x, y), **settings, checkpoint=path).model.state_dict()
    assert whole.keys() == resumed.keys()
    assert "0.master_exponent" in whole
    plain = train(small(), (x, y), **{**settings, "evaluate": None}).model
    for layer in integer_layers(plain).values():
        codes, step = master_codes(layer)
        assert torch.equal(codes.float() * step, layer.weight.detach()), "also the last update"
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    with pytest.raises(UsageError, match="another master_bits"):
        train(small(), (x, y), **{**settings, "options": {**options, "master_bits": 9}}, checkpoint=path)


def test_bad_settings_and_broken_weights_are_named() -> None:
    for bits in (3, 5, 17):
        with pytest.raises(UsageError, match="master_bits"):
            IntegerConfig(6, 6, 6, master_bits=bits)
    layer = layer_of(torch.tensor([[1.0, math.nan]]), 8)
    with pytest.raises(UsageError, match="NaN or Inf"):
        layer(torch.ones(1, 2))
