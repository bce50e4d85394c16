"""Binarizers: levels, scales and gradients against their definitions; figures for Gaussian weights; freezing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from netsuke.core.errors import UsageError
from netsuke.nn.binarizer import (
    Binarizer,
    Centred,
    Elastic,
    Learned,
    Live8,
    MeanAbs,
    MedianAbs,
    One,
    Shift,
    Sign,
    Ternary,
    TwoBases,
)
from netsuke.nn.binary_layers import BinaryLayer, binarize, candidates, freeze, keep_edges, layers, set_progress
from netsuke.nn.surrogates import Clipped, Fourier, Identity, Polynomial, Power, Ramp, Surrogate, Tanh, sign

SURROGATES = [Identity(), Clipped(), Polynomial(), Tanh(), Power(), Fourier(), Ramp()]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: type(s).__name__)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), progress=st.floats(0, 1))
def test_the_value_is_a_sign_and_the_gradient_the_slope(surrogate: Surrogate, seed: int, progress: float) -> None:
    surrogate.at(progress)
    z = gaussian(64, seed=seed)
    z[0] = 0.0
    z.requires_grad_()
    y = sign(z, surrogate)
    assert bool((y == torch.where(z >= 0, 1.0, -1.0)).all())
    g = gaussian(64, seed=seed + 1)
    y.backward(g)
    assert z.grad is not None
    torch.testing.assert_close(z.grad, g * surrogate.slope(z.detach()))
    assert bool(torch.isfinite(surrogate.slope(z.detach())).all())


def test_slopes_at_known_points() -> None:
    power = Power()
    power.at(1.0)
    at = torch.tensor([0.05, 0.1, 0.1001, 1.5, 1.6])
    torch.testing.assert_close(
        power.slope(at), torch.tensor([4.6416, 4.6416, 1.5461, 0.2544, 0.0]), rtol=1e-4, atol=1e-4
    )
    power.at(0.0)
    assert bool((power.slope(torch.tensor([0.3, -1.4])) == 1).all())  # the identity
    assert float(Polynomial().slope(torch.tensor(0.25))) == 1.5
    tanh = Tanh(0.1, 10)
    assert float(tanh.slope(torch.tensor(0.0))) == pytest.approx(1.0)
    tanh.at(1.0)
    assert float(tanh.slope(torch.tensor(0.0))) == pytest.approx(10.0)


def integral(surrogate: Surrogate) -> float:
    z = torch.linspace(-1.0, 1.0, 20001, dtype=torch.float64)
    return float(torch.trapezoid(surrogate.slope(z), z))


def test_slopes_that_belong_to_a_step_of_two_integrate_to_two() -> None:
    assert integral(Clipped()) == pytest.approx(2.0)
    assert integral(Polynomial()) == pytest.approx(2.0)
    tanh = Tanh()
    tanh.at(1.0)
    assert integral(tanh) == pytest.approx(2.0, abs=1e-3)
    ramp = Ramp(2.0, 2.0)
    assert integral(ramp) == pytest.approx(2.0, abs=1e-3)


# Relative squared error, share of zeros for weights N(0, 1): what each rule gives by its definition.
GAUSSIAN = [
    (Binarizer(Sign(Identity()), MeanAbs("tensor")), 0.3634, 0.0),
    (Binarizer(Ternary(), MeanAbs("tensor")), 0.2635, 0.310),
    (Binarizer(Ternary(), MedianAbs()), 0.3179, 0.264),
    (Binarizer(Ternary(), MeanAbs("tensor", 4 / 3)), 0.1995, 0.405),
]


@pytest.mark.parametrize(("rule", "error", "zeros"), GAUSSIAN)
def test_error_and_zeros_of_gaussian_weights(rule: Binarizer, error: float, zeros: float) -> None:
    w = gaussian(1000, 1000)
    got = float(((w - rule(w)) ** 2).mean() / (w**2).mean())
    assert got == pytest.approx(error, abs=2e-3)
    assert float((rule.codes(w) == 0).float().mean()) == pytest.approx(zeros, abs=2e-3)


def test_two_bases_leave_a_third_of_the_error() -> None:
    w = gaussian(4, 200_000)
    error = float(((w - TwoBases(4, Clipped())(w).detach()) ** 2).mean())
    assert error == pytest.approx(0.1306, abs=2e-3)
    with pytest.raises(UsageError, match="several bases"):
        TwoBases(4, Clipped()).codes(w)


def test_scales_follow_their_rule() -> None:
    w = gaussian(6, 3, 3, 3) * torch.arange(6).reshape(-1, 1, 1, 1)  # the first channel is all zeros
    scale = MeanAbs("channel")(w)
    torch.testing.assert_close(scale[1:, 0, 0, 0], w[1:].abs().flatten(1).mean(1))
    assert float(scale[0]) == 1.0
    shift = MeanAbs("channel", power_of_two=True)(w)
    exponent = torch.log2(shift)
    assert bool((exponent == exponent.round()).all())
    assert bool(((shift / scale)[1:] >= math.sqrt(0.5) - 1e-6).all())
    assert bool(((shift / scale)[1:] <= math.sqrt(2) + 1e-6).all())
    u = Centred(standardized=True)(w[1:])
    torch.testing.assert_close(u.flatten(1).std(1), torch.ones(5), rtol=1e-3, atol=1e-3)
    sample = MeanAbs("sample")(gaussian(4, 5, 2, 2))
    assert sample.shape == (4, 1, 1, 1)


def test_a_trained_mean_passes_its_gradient() -> None:
    w = gaussian(3, 8).requires_grad_()
    Binarizer(Sign(Identity()), MeanAbs("tensor", trained=True))(w).sum().backward()
    alpha, signs = w.detach().abs().mean(), torch.where(w >= 0, 1.0, -1.0)
    assert w.grad is not None
    torch.testing.assert_close(w.grad, alpha + signs.sum() * signs / w.numel())


def test_elastic_gradients_as_in_lsq() -> None:
    x = torch.tensor([[-0.4, 0.3, 0.9, 2.0]], requires_grad=True)
    scale = Learned(start=1.0, damped=True)
    with torch.no_grad():
        scale.value.fill_(1.0)
        scale.ready.fill_(True)
    Binarizer(Elastic(0, 1), scale)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]
    # inside: level - x/a, above: 1, below: 0; damped by 1/sqrt(4)
    assert float(scale.value.grad) == pytest.approx(((0 - 0.3) + (1 - 0.9) + 1) / 2)


def test_a_learned_scale_starts_at_the_data() -> None:
    x = gaussian(16, 10)
    scale = Learned(start=2.0)
    assert float(scale(x).detach()) == pytest.approx(2 * float(x.abs().mean()))
    assert float(scale(3 * x).detach()) == pytest.approx(2 * float(x.abs().mean()))  # only once
    channels = Learned(16)
    torch.testing.assert_close(channels(x)[:, 0], x.abs().mean(1))


def test_codes_refuse_what_is_not_finite() -> None:
    rule = Binarizer(Sign(Clipped()), One())
    assert rule.codes(torch.tensor([0.0, -0.0, -1e-30])).tolist() == [1, 1, -1]
    with pytest.raises(UsageError, match="2 of 3"):
        rule.codes(torch.tensor([math.nan, math.inf, 1.0]))


def test_live8_is_within_half_a_step() -> None:
    x = gaussian(5, 7)
    ((levels, scale),) = Live8().terms(x)
    assert float(levels.abs().max()) == 127
    assert float((levels * scale - x).abs().max()) <= float(scale) / 2 + 1e-7
    ((levels, scale),) = Live8().terms(torch.zeros(2, 2))
    assert float(scale) == 1.0
    assert not bool(levels.any())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=True)
        self.shortcut = nn.Conv2d(8, 8, 1, stride=2, bias=False)
        self.hidden = nn.Linear(8, 12)
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.middle(torch.tanh(self.first(x)))
        y = self.shortcut(y).mean((2, 3))
        return self.last(torch.tanh(self.hidden(y)))


def signs(_: nn.Module) -> Binarizer:
    return Binarizer(Sign(Polynomial()), MeanAbs("channel"))


def inputs(_: nn.Module) -> Binarizer:
    return Binarizer(Sign(Polynomial()), MeanAbs("sample"))


def test_first_last_and_shortcuts_stay_float() -> None:
    torch.manual_seed(0)
    net = Net()
    assert keep_edges(net) == ("first", "last", "shortcut")
    binarize(net, weights=signs, inputs=inputs)
    assert [name for name, _ in layers(net)] == ["middle", "hidden"]
    assert set(candidates(net)) == {"first", "last", "shortcut"}


def test_a_layer_is_levels_times_scales_and_freezing_keeps_every_bit() -> None:
    torch.manual_seed(0)
    net = binarize(Net(), weights=signs, inputs=inputs)
    layer = dict(layers(net))["middle"]
    x = gaussian(2, 8, 5, 5)
    w = layer.weight
    plain = nn.functional.conv2d(torch.where(x >= 0, 1.0, -1.0), torch.where(w >= 0, 1.0, -1.0), None, 1, 1, 1, 2)
    assert bool((plain == plain.round()).all())
    alpha, beta = w.abs().flatten(1).mean(1), x.abs().flatten(1).mean(1)
    expected = plain * alpha.reshape(1, -1, 1, 1) * beta.reshape(-1, 1, 1, 1)
    assert layer.bias is not None
    torch.testing.assert_close(layer(x), expected + layer.bias.reshape(1, -1, 1, 1))
    image = gaussian(2, 3, 6, 6)
    before = net.eval()(image)
    freeze(net)
    assert bool((net(image) == before).all())
    assert not any("weight" in name for name, _ in dict(layers(net))["middle"].named_parameters())


def test_every_latent_weight_and_shift_is_trained() -> None:
    torch.manual_seed(0)

    def shifted(layer: nn.Conv2d | nn.Linear) -> Binarizer:
        channels = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
        return Binarizer(Sign(Polynomial()), One(), Shift(channels))

    net = binarize(Net(), weights=signs, inputs=shifted)
    net(gaussian(4, 3, 6, 6)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def test_bad_requests_name_every_problem() -> None:
    with pytest.raises(UsageError, match="no layer matches") as caught:
        binarize(Net(), weights=signs, inputs=inputs, keep=("frist", "lsat"))
    assert len(caught.value.problems) == 2
    with pytest.raises(UsageError, match="no layer is left"):
        binarize(Net(), weights=signs, inputs=inputs, keep=("*",))
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(UsageError, match="zeros"):
        binarize(net, weights=signs, inputs=inputs, keep=())
    with pytest.raises(UsageError, match="progress"):
        set_progress(Net(), 1.5)
    broken = BinaryLayer(nn.Linear(3, 2), signs(nn.Identity()), None)
    with torch.no_grad():
        broken.weight[0, 0] = math.nan
    with pytest.raises(UsageError, match="NaN"):
        freeze(nn.Sequential(broken))


def levels_from_0(_: nn.Module) -> Binarizer:
    return Binarizer(Elastic(0, 1), Learned(start=2.0))


def test_activations_outside_the_domain_are_refused_in_training() -> None:
    net = binarize(Net(), weights=signs, inputs=inputs).train()
    x = torch.randn(2, 3, 8, 8)
    x[0, 0, 0, 0] = math.nan
    with pytest.raises(UsageError, match="NaN"):  # signs would hide it from the loss
        net(x)
    unsigned = binarize(nn.Sequential(nn.Linear(4, 2)), weights=signs, inputs=levels_from_0, keep=()).train()
    with pytest.raises(UsageError, match="outside the levels"):
        unsigned(torch.tensor([[1.0, 2.0, -1.0, 0.5]]))
    assert bool(torch.isfinite(unsigned(torch.rand(3, 4))).all())


def test_progress_reaches_every_surrogate() -> None:
    torch.manual_seed(0)

    def sharp(_: nn.Module) -> Binarizer:
        return Binarizer(Sign(Power()), One())

    net = binarize(Net(), weights=sharp, inputs=sharp)
    set_progress(net, 1.0)
    rules = [m.levels for m in net.modules() if isinstance(m, Binarizer)]
    assert len(rules) == 4
    for rule in rules:
        assert isinstance(rule, Sign)
        assert isinstance(rule.surrogate, Power)
        assert rule.surrogate.o == pytest.approx(3.0)
