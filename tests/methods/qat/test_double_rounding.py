"""Every view's codes are shifts of the stored ones, and every view is served as it is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from methods.qat.tiny import SHAPE, images
from netsuke import engine
from netsuke.core.errors import UsageError
from netsuke.methods.qat import TrainConfig, make_loss, prepare
from netsuke.methods.qat.double_rounding import Views
from netsuke.nn.quantizer_double import fewer_bits
from netsuke.passes import compile_program


@given(low=st.integers(2, 8), high=st.integers(2, 8))
@settings(max_examples=40, deadline=None)
def test_shifting_is_rounding_half_up(low: int, high: int) -> None:
    if low > high:
        with pytest.raises(UsageError):
            fewer_bits(torch.zeros(1), high, low)
        return
    top, small = 2 ** (high - 1) - 1, 2 ** (low - 1) - 1
    codes = torch.arange(-top, top + 1, dtype=torch.int32)
    expected = torch.floor(codes.double() / 2 ** (high - low) + 0.5).clamp(-small, small)
    assert torch.equal(fewer_bits(codes, high, low).double(), expected)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
        nn.Linear(128, 5),
    )  # fmt: skip


def test_one_stored_network_serves_every_width() -> None:
    x, y = images()
    options = {"weight_bits": 8, "activation_bits": 8, "calib": x}
    network = prepare(model(), shape=SHAPE, method="qat/double_rounding", **options)  # type: ignore[arg-type]
    views = Views(network, (8, 4, 2))
    views.calibrate(x)
    optimizer = torch.optim.SGD(network.groups(0.05, 1e-4, 0.01), lr=0.05, momentum=0.9)
    loss = make_loss(None, TrainConfig())
    losses = [views.step(network.train(), x, y, loss, optimizer) for _ in range(8)]
    assert losses[-1] < losses[0]
    layer = network.layers()["2"]
    stored = layer.weight.stored(layer.real_weight())  # type: ignore[operator]
    for bits in (8, 4, 2):
        views.switch(bits)
        network.eval()
        assert torch.equal(layer.weight.codes(layer.real_weight()), fewer_bits(stored, 8, bits))
        assert int(layer.serve().codes.abs().max()) <= 2 ** (bits - 1) - 1
        if bits == 4:
            with torch.no_grad():
                expected = network(x[:5]).numpy()
            found = engine.load(compile_program(network.export()))(x[:5].numpy())
            assert np.array_equal(np.asarray(found), expected)
    with pytest.raises(UsageError, match="no such view"):
        views.switch(5)


def test_steps_of_every_width_train_at_the_rate_of_steps() -> None:
    """Those of widths that are switched off would else move at the rate of norms, and low widths are lost."""
    x, _ = images()
    network = prepare(model(), shape=SHAPE, method="qat/double_rounding", weight_bits=8, activation_bits=8, calib=x)
    views = Views(network, (8, 4, 2))
    groups = {g["name"]: {id(p) for p in g["params"]} for g in network.groups(0.05, 1e-4, 0.01)}
    for bits in (8, 4, 2):
        views.switch(bits)
        steps = {id(q.scale) for q in network.quantizers().values() if isinstance(q.scale, nn.Parameter)}
        assert steps
        assert steps <= groups["scales"]


def test_settled_norms_hold_the_moments_of_their_width() -> None:
    x, _ = images()
    network = prepare(model(), shape=SHAPE, method="qat/double_rounding", weight_bits=8, activation_bits=8, calib=x)
    views = Views(network, (8, 2))
    views.calibrate(x)
    views.settle(x, batch=len(x))
    for bits in (2, 8):
        views.switch(bits)
        norm, seen = network.layers()["2"].norm, []
        assert norm is not None
        handle = norm.register_forward_pre_hook(lambda _m, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            network.train()(x)
        handle.remove()
        views.settle(x, batch=len(x))
        assert torch.allclose(seen[0].mean((0, 2, 3)), norm.running_mean, atol=1e-5)
