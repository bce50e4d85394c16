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
from netsuke.methods.qat._hasb import Hasb, choose, traces
from netsuke.methods.qat.double_rounding import DoubleRounding, Views
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


class Quadratic(nn.Module):
    """Softmax of a linear layer: its Hessian is known."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 8, bias=False), nn.Linear(4, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.conv(x), 1))


def test_traces_are_those_of_the_closed_form() -> None:
    x, y = images()
    y = y % 3
    network = prepare(Quadratic(), shape=SHAPE, method="qat/double_rounding", weight_bits=8, activation_bits=8, calib=x)
    found = traces(network, x, y, draws=400)
    with torch.no_grad():
        inner = network.layers()["head"].layer
        h = Quadratic().conv(x).flatten(1)
        p = (h @ inner.weight.T).softmax(1)  # type: ignore[operator, union-attr]
        exact = float(((p * (1 - p)).sum(1) * (h**2).sum(1)).mean())
    assert found["head"] == pytest.approx(exact, rel=0.1)
    assert all(q.enabled for q in network.quantizers().values())


def mixed(steps: int = 4) -> tuple[Views, torch.Tensor, torch.Tensor]:
    x, y = images()
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(288, 5))
    network = prepare(net, shape=SHAPE, method="qat/double_rounding", weight_bits=8, activation_bits=8, calib=x)
    views = Views(network, (8, 4, 2), DoubleRounding(hasb_steps=steps))
    views.calibrate(x)
    return views, x, y


def test_fragile_layers_draw_more_bits_and_mixes_grow() -> None:
    views, _, _ = mixed()
    names = list(views.layers)
    hasb = Hasb(views, {names[0]: 10.0, **dict.fromkeys(names[1:], 0.1)}, steps=200)
    first = [hasb.draw() for _ in range(20)]
    assert sum(len(set(d.values())) == 1 for d in first) > 10  # at first whole networks of one width
    hasb.drawn = 200
    late = [hasb.draw() for _ in range(600)]
    means = {n: sum(d[n] for d in late) / len(late) for n in names}
    assert means[names[0]] == pytest.approx((64 + 16 + 4) / 14, abs=0.25)
    assert means[names[1]] == pytest.approx(14 / 3, abs=0.3)


def test_a_mix_trains_serves_and_leaves_the_views() -> None:
    views, x, y = mixed()
    with pytest.raises(UsageError, match="without traces"):
        views._turns()
    found = traces(views.network, x, y)
    even = Hasb(views, None, steps=4)
    assert {tuple(c) for c in even.chances.values()} == {tuple([1 / len(views.bits)] * len(views.bits))}
    views.hasb = Hasb(views, found, steps=4)
    assert len({tuple(c) for c in views.hasb.chances.values()}) == 2
    optimizer = torch.optim.SGD(views.network.groups(0.02, 1e-4, 0.01), lr=0.02, momentum=0.9)
    loss = make_loss(None, TrainConfig())
    losses = [views.step(views.network.train(), x, y, loss, optimizer) for _ in range(10)]
    assert losses[-1] < losses[0]
    views.settle(x)
    widths = choose(views, found, 4.0)
    sizes = {n: m.real_weight().numel() for n, m in views.layers.items()}
    assert sum(sizes[n] * b for n, b in widths.items()) <= 4.0 * sum(sizes.values())
    names = list(views.layers)
    widths = dict(zip(names, (4, 8, 2), strict=True))
    views.settle_mix(widths, x)
    for name, layer in views.layers.items():
        stored = layer.weight.stored(layer.real_weight())  # type: ignore[operator]
        assert torch.equal(layer.serve().codes.int(), fewer_bits(stored, 8, widths[name]).int())
    with torch.no_grad():
        expected = views.network(x[:5]).numpy()
    assert np.array_equal(np.asarray(engine.load(compile_program(views.network.export()))(x[:5].numpy())), expected)
    views.switch(4)
    own = views.layers[names[0]].norm
    assert own is views.network.banks["4"][names[0].replace(".", "/") + "_norm"]  # type: ignore[index]
    with pytest.raises(UsageError, match=r"no such view[\s\S]*5|no width"):
        views.mix({names[0]: 5})


def test_options_that_cannot_be() -> None:
    with pytest.raises(UsageError, match=r"init[\s\S]*hasb_steps"):
        DoubleRounding(init="median", hasb_steps=-1)
