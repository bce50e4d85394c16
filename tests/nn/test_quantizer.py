"""The quantizer protocol: values equal the contract, gradients equal the papers', contradictions are refused."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke import formats
from netsuke.core.errors import UsageError
from netsuke.nn.grids import MINIFLOATS, IntegerGrid, TableGrid, grid, minifloat
from netsuke.nn.quantizer import Quantizer, QuantSpec
from netsuke.nn.rounding import Learned, Nearest, Stochastic

WEIGHT = QuantSpec(
    role="weight", bits=4, signed=True, granularity="channel", statistic="maxabs", schedule="live", gradient="ste"
)
LSQ = QuantSpec(bits=3, statistic="lsq", schedule="learned", gradient="lsq")


def values(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 1000), bits=st.integers(2, 8))
@settings(max_examples=30, deadline=None)
def test_weights_equal_the_formats(seed: int, bits: int) -> None:
    w = values(seed, 5, 3, 2, 2)
    w[0] = 0
    q = Quantizer(dataclasses.replace(WEIGHT, bits=bits), w.shape)
    codes, scale = formats.quantize_weights(w.numpy(), bits)
    assert np.array_equal(q.codes(w).numpy(), codes)
    assert np.array_equal(q.scale.numpy(), scale)
    expected = codes.astype(np.float32) * scale.reshape(-1, 1, 1, 1)
    assert np.array_equal(q(w).numpy(), expected)


@given(seed=st.integers(0, 1000), bits=st.integers(2, 8))
@settings(max_examples=30, deadline=None)
def test_affine_activations_equal_the_formats(seed: int, bits: int) -> None:
    x = values(seed, 4, 50) * 3 + 0.7
    q = Quantizer(QuantSpec(bits=bits, affine=True, schedule="fixed"))
    q.calibrate(x)
    wide = torch.cat([x.flatten() * 2, torch.tensor([math.inf, -math.inf, math.nan])])
    expected = formats.quantize(wide.numpy(), float(q.scale), int(q.zero), 0, 2**bits - 1)
    assert np.array_equal(q.codes(wide).numpy(), expected)
    restored = formats.dequantize(expected, float(q.scale), int(q.zero))
    assert np.array_equal(q(wide).numpy(), restored)
    assert np.array_equal(q.values(q.codes(wide)).numpy(), restored)


def test_lsq_gradients_are_those_of_the_paper() -> None:
    q = Quantizer(LSQ)
    q.set_range(torch.tensor([0.0]), torch.tensor([7.0]))
    x = torch.tensor([[-1.0, 0.4, 2.3, 6.7, 9.0]], requires_grad=True)
    q(x).sum().backward()
    g = 1 / math.sqrt(5 * 7)
    expected = (0.0) + (0.0 - 0.4) + (2.0 - 2.3) + (7.0 - 6.7) + 7.0
    assert q.scale.grad is not None
    assert x.grad is not None
    assert float(q.scale.grad) == pytest.approx(g * expected, rel=1e-5)
    assert x.grad.tolist() == [[0, 1, 1, 1, 0]]


def test_lsq_plus_trains_the_zero_point() -> None:
    q = Quantizer(QuantSpec(bits=2, affine=True, schedule="learned", gradient="lsq"))
    q.set_range(torch.tensor([-1.0]), torch.tensor([2.0]))
    x = torch.tensor([[-5.0, 0.3, 9.0, 9.0]])
    q(x).sum().backward()
    assert q.zero.grad is not None
    assert float(q.zero.grad) == pytest.approx(-3 / math.sqrt(4 * 3))  # three values lie outside


def test_pact_trains_alpha_by_what_it_clips() -> None:
    q = Quantizer(QuantSpec(bits=2, schedule="learned", gradient="pact"))
    q.set_range(torch.tensor([0.0]), torch.tensor([3.0]))
    q(torch.tensor([[-1.0, 0.4, 1.6, 3.5, 8.0]])).sum().backward()
    assert float(q.scale.grad) == 2 * 3.0  # dy/dalpha = 1 for two values, alpha = 3 s


def test_ste_passes_outside_and_clipped_does_not() -> None:
    for name, expected in (("ste", [1.0, 1.0, 1.0]), ("clipped", [0.0, 1.0, 0.0])):
        q = Quantizer(QuantSpec(bits=2, schedule="fixed", gradient=name))
        q.set_range(torch.tensor([0.0]), torch.tensor([3.0]))
        x = torch.tensor([-2.0, 1.2, 7.0], requires_grad=True)
        q(x).sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == expected


@pytest.mark.parametrize("name", sorted(MINIFLOATS))
def test_minifloat_points_are_all_finite_patterns(name: str) -> None:
    made = minifloat(name)
    codes = made.codes(made.table)
    assert len(set(codes.tolist())) == made.levels
    assert torch.equal(made.points(codes), made.table)
    if name == "E5M2":  # torch's own 8-bit float is the oracle: same values, same nearest-even rounding
        v = torch.cat([values(0, 5000) * 100, values(1, 2000) * 1e-5, made.table])
        assert torch.equal(made.nearest(v), v.to(torch.float8_e5m2).float())
    if name == "E4M3":
        v = torch.cat([values(0, 5000) * 60, values(1, 2000) * 1e-2, made.table]).clamp(-448, 448)
        assert torch.equal(made.nearest(v), v.to(torch.float8_e4m3fn).float())


def test_power_of_two_and_sign_and_codebook() -> None:
    assert grid("power2", bits=3, signed=True).table.tolist() == [-1, -0.5, -0.25, 0, 0.25, 0.5, 1]  # type: ignore[attr-defined]
    assert grid("sign").nearest(torch.tensor([-0.1, 0.0, 0.2])).tolist() == [-1, 1, 1]
    table = grid("codebook", entries=(-2.0, 0.5, 3.0))
    assert table.nearest(torch.tensor([-9.0, 0.4, 1.9, 9.0])).tolist() == [-2, 0.5, 3, 3]
    with pytest.raises(UsageError, match="ascending"):
        TableGrid((1.0, 1.0))


@given(seed=st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_stochastic_rounding_has_the_right_mean(seed: int) -> None:
    v = values(seed, 3).clamp(-3, 3)
    rule = Stochastic(torch.Generator().manual_seed(seed))
    mean = rule(v.repeat(20000, 1), IntegerGrid(-7, 7)).mean(0)
    assert torch.allclose(mean, v, atol=0.02)
    rule.eval()
    assert torch.equal(rule(v, IntegerGrid(-7, 7)), Nearest()(v, IntegerGrid(-7, 7)))


def test_learned_rounding_starts_at_the_value_and_ends_on_the_grid() -> None:
    v = values(3, 200).clamp(-2, 2) * 3
    rule = Learned(v, IntegerGrid(-7, 7))
    assert torch.allclose(rule(v, IntegerGrid(-7, 7)), v, atol=2e-4)
    rule.eval()
    n = rule(v, IntegerGrid(-7, 7))
    assert torch.equal(n, n.round())
    assert bool(((n - v).abs() < 1).all())


@pytest.mark.parametrize(
    ("spec", "shape", "units"),
    [
        (WEIGHT, (6, 4, 3, 3), 6),
        (dataclasses.replace(WEIGHT, granularity="group", group=12), (6, 4, 3, 3), 18),
        (dataclasses.replace(WEIGHT, granularity="tensor"), (6, 4), 1),
        (QuantSpec(granularity="token", affine=True, schedule="live"), (2, 5, 8), 10),
    ],
)
def test_granularities_have_their_own_scales(spec: QuantSpec, shape: tuple[int, ...], units: int) -> None:
    q, x = Quantizer(spec, shape), values(1, *shape)
    y = q(x)
    assert y.shape == x.shape
    assert q.scale.numel() == units
    step = q.scale.max()
    assert bool(((y - x).abs() <= step * 0.51).all())


def test_moving_average_follows_and_eval_holds_still() -> None:
    q = Quantizer(QuantSpec(bits=8, momentum=0.5))
    q(torch.tensor([0.0, 255.0]))
    q(torch.tensor([0.0, 127.5]))
    assert float(q.high) == pytest.approx(191.25)
    q.eval()
    q(torch.tensor([0.0, 1000.0]))
    assert float(q.high) == pytest.approx(191.25)


def test_a_collapsed_scale_can_come_back() -> None:
    q = Quantizer(LSQ)
    q.calibrate(values(0, 4, 100).abs())
    with torch.no_grad():
        q.scale.fill_(-1.0)
    assert float(q.steps()[0].detach()) > 0
    q(values(1, 4, 100)).sum().backward()
    assert q.scale.grad is not None
    assert bool(torch.isfinite(q.scale.grad).all())


def test_everything_wrong_is_listed_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        QuantSpec(bits=9, affine=True, signed=True, granularity="group", statistic="minmx", schedule="learned")
    assert len(caught.value.problems) == 5
    with pytest.raises(UsageError, match="no range yet"):
        Quantizer(LSQ).eval()(torch.ones(2, 2))
    with pytest.raises(UsageError, match="NaN or infinite"):
        Quantizer(LSQ).calibrate(torch.tensor([1.0, math.nan]))
    with pytest.raises(UsageError, match="does not divide"):
        Quantizer(dataclasses.replace(WEIGHT, granularity="group", group=5), (6, 4))
    with pytest.raises(UsageError, match="needs the tensor's shape"):
        Quantizer(WEIGHT)


def test_a_quantizer_round_trips_through_its_state() -> None:
    q = Quantizer(LSQ)
    q.calibrate(values(0, 4, 100).abs())
    other = Quantizer(LSQ)
    other.load_state_dict(q.state_dict())
    x = values(2, 3, 7)
    assert torch.equal(q.eval()(x), other.eval()(x))


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_the_fast_way_equals_the_rule(granularity: str) -> None:
    spec = dataclasses.replace(WEIGHT, granularity=granularity, statistic="mse", schedule="learned", gradient="lsq")
    found = []
    for fast in (True, False):
        x = (values(5, 6, 3, 3, 3) * 2).requires_grad_()
        q = Quantizer(spec, x.shape)
        q.calibrate(x.detach() * 0.5)
        q._plain_lsq = fast
        y = q(x)
        (y * values(6, *x.shape)).sum().backward()
        found.append((y.detach(), x.grad, q.scale.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-6)
    assert torch.allclose(found[0][2], found[1][2], rtol=1e-5)
