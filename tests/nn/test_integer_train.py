"""Integer layers: products against int64 sums, simulation against kernels, rounding without bias, refusals."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from netsuke.core.errors import UnsupportedError, UsageError
from netsuke.nn import stochastic
from netsuke.nn.fused_norm import known_range, norm_activation
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_products import Kernels, Simulation, Window, products
from netsuke.nn.integer_swap import integer_, integer_layers
from netsuke.nn.integer_train import IntegerConv2d, make_integer, weight_codes
from netsuke.nn.l1_norm import L1Norm2d, use_l1_norm_
from netsuke.nn.qtensor import QTensor, affine, shift_exponents

KERNELS = {isa: Kernels(1, isa) for isa in ("", "portable")}


def codes(rng: np.random.Generator, shape: tuple[int, ...], lo: int, hi: int, dtype: type) -> Tensor:
    return torch.from_numpy(rng.integers(lo, hi + 1, shape).astype(dtype))


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, 2, 1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, 1, 1, groups=24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


def step(net: nn.Module, batch: int = 6) -> tuple[Tensor, list[Tensor]]:
    rng = torch.Generator().manual_seed(5)
    x, y = torch.randn(batch, 3, 12, 12, generator=rng), torch.randint(0, 10, (batch,), generator=rng)
    loss = functional.cross_entropy(net(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), [p.grad.clone() for p in net.parameters() if p.grad is not None]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    bits=st.sampled_from([(8, 8, 8), (8, 8, 6), (7, 7, 7), (6, 6, 6), (5, 5, 5), (4, 4, 4)]),
    window=st.sampled_from([(1, 0, 1, 1), (1, 1, 1, 3), (2, 1, 1, 3), (1, 2, 2, 3), (3, 1, 1, 2), (2, 0, 1, 1)]),
    groups=st.sampled_from([1, 1, 2, 4]),
    isa=st.sampled_from(["", "portable"]),
)
def test_products_equal_integer_sums(
    seed: int, bits: tuple[int, int, int], window: tuple[int, int, int, int], groups: int, isa: str
) -> None:
    """Forward, input gradient with channel shifts, weight gradient: one f32 rounding away from the exact integers."""
    rng = np.random.default_rng(seed)
    (stride, pad, dilation, k), (xb, wb, gb) = window, bits
    n, h, w = (int(v) for v in rng.integers((1, 5, 5), (20, 9, 9)))
    c, o = (groups * int(v) for v in rng.integers(1, 14, 2))
    win = Window((stride, stride), (pad, pad), (dilation, dilation), groups)
    zero, wtop, gtop = int(rng.integers(0, 2**xb)), 2 ** (wb - 1) - 1, 2 ** (gb - 1) - 1
    x = QTensor(codes(rng, (n, h, w, c), 0, 2**xb - 1, np.uint8), torch.ones(1), zero, 0, 2**xb - 1)
    q = QTensor(codes(rng, (o, k, k, c // groups), -wtop, wtop, np.int8), torch.ones(o), 0, -wtop, wtop)
    out = win.output(tuple(x.codes.shape), tuple(q.codes.shape))
    exponents = codes(rng, (o,), 0, 3, np.uint8)
    g = QTensor(codes(rng, out, 0, 2 * gtop, np.uint8), torch.ones(o), gtop, 0, 2 * gtop, exponents)
    mult, bias = torch.from_numpy(rng.random((2, o), np.float32) + 0.1)
    kernels, simulation = KERNELS[isa], Simulation()
    for kit_name, arguments in (
        ("forward", (win, x, q, mult, bias)),
        ("input_gradient", (win, tuple(x.codes.shape), g, q, 0.37)),
        ("weight_gradient", (win, tuple(q.codes.shape), x, g, mult)),
    ):
        ours, exact = getattr(kernels, kit_name)(*arguments), getattr(simulation, kit_name)(*arguments)
        assert torch.equal(ours, exact), kit_name


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    bits=st.sampled_from([(8, 8, 8), (8, 6, 8), (6, 6, 6), (4, 4, 4)]),
    window=st.sampled_from([(1, 0), (1, 1), (1, 2), (2, 1), (2, 1), (2, 0)]),
    octaves=st.sampled_from([0, 3, 7]),
    ends=st.booleans(),
    isa=st.sampled_from(["", "portable"]),
)
def test_products_of_three_by_three_windows(
    seed: int, bits: tuple[int, int, int], window: tuple[int, int], octaves: int, ends: bool, isa: str
) -> None:
    """The Winograd ways (3x3, stride 1, or 2 with padding 1, channels in sixteens) give the same integers; `ends`:
    every code at an end of its range, so that sums and 16-bit operands are as large as they get."""
    rng = np.random.default_rng(seed)
    (xb, wb, gb), (stride, pad) = bits, window
    n, h, w = (int(v) for v in rng.integers((1, 4, 4), (8, 14, 14)))
    c, o = (16 * int(v) for v in rng.integers(2, 6, 2))
    win, zero, wtop, gtop = (
        Window((stride, stride), (pad, pad)),
        int(rng.integers(0, 2**xb)),
        2 ** (wb - 1) - 1,
        2 ** (gb - 1) - 1,
    )

    def some(shape: tuple[int, ...], lo: int, hi: int, dtype: type) -> Tensor:
        values = codes(rng, shape, lo, hi, dtype)
        return torch.where(values > (lo + hi) / 2, hi, lo).to(values.dtype) if ends else values

    x = QTensor(some((n, h, w, c), 0, 2**xb - 1, np.uint8), torch.ones(1), zero, 0, 2**xb - 1)
    q = QTensor(some((o, 3, 3, c), -wtop, wtop, np.int8), torch.ones(o), 0, -wtop, wtop)
    exponents = codes(rng, (o,), 0, octaves, np.uint8)
    out = win.output(tuple(x.codes.shape), tuple(q.codes.shape))
    g = QTensor(some(out, 0, 2 * gtop, np.uint8), torch.ones(o), gtop, 0, 2 * gtop, exponents)
    mult, bias = torch.from_numpy(rng.random((2, o), np.float32) + 0.1)
    for kit_name, arguments in (
        ("forward", (win, x, q, mult, bias)),
        ("input_gradient", (win, tuple(x.codes.shape), g, q, 0.37)),
        ("weight_gradient", (win, tuple(q.codes.shape), x, g, mult)),
    ):
        ours, exact = getattr(KERNELS[isa], kit_name)(*arguments), getattr(Simulation(), kit_name)(*arguments)
        assert torch.equal(ours, exact), kit_name


def test_simulation_is_the_sum_it_says() -> None:
    """The oracle itself, on one layer, by loops over Python integers."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 64, (1, 4, 4, 2)), rng.integers(-31, 32, (3, 3, 3, 2))
    win = Window((1, 1), (1, 1))
    ours = Simulation().forward(
        win,
        QTensor(torch.from_numpy(x.astype(np.uint8)), torch.ones(1), 7, 0, 63),
        QTensor(torch.from_numpy(w.astype(np.int8)), torch.ones(3), 0, -31, 31),
        torch.ones(3),
        None,
    )
    for y, col, o in np.ndindex(4, 4, 3):
        total = 0
        for i, j, c in np.ndindex(3, 3, 2):
            if 0 <= y + i - 1 < 4 and 0 <= col + j - 1 < 4:
                total += (int(x[0, y + i - 1, col + j - 1, c]) - 7) * int(w[o, i, j, c])
        assert float(ours[0, y, col, o]) == total


def test_long_weight_gradient_is_chunked() -> None:
    """255 * 127 * 80 * 30 * 30 passes 2^31: spans are added in int64."""
    n, size = 80, 30
    x = QTensor(torch.full((n, size, size, 4), 255, dtype=torch.uint8), torch.ones(1), 0, 0, 255)
    g = QTensor(torch.full((n, size, size, 4), 254, dtype=torch.uint8), torch.ones(4), 127, 0, 254)
    dw = products("kernels").weight_gradient(Window(), (4, 1, 1, 4), x, g, torch.ones(4))
    exact = 255 * 127 * n * size * size
    assert exact > 2**31
    assert torch.equal(dw, torch.full((4, 1, 1, 4), float(np.float32(exact))))


def test_sums_that_can_overflow_are_refused() -> None:
    x = QTensor(torch.zeros((1, 1, 1, 70000), dtype=torch.uint8), torch.ones(1), 0, 0, 255)
    w = QTensor(torch.zeros((1, 1, 1, 70000), dtype=torch.int8), torch.ones(1), 0, -127, 127)
    with pytest.raises(UnsupportedError, match="70000 products of 255"):
        products("kernels").forward(Window(), x, w, torch.ones(1), None)


@pytest.mark.parametrize("gradient", ["shift", "tensor", "channel", "float"])
@pytest.mark.parametrize("bits", [8, 4])
def test_simulation_is_bit_identical(gradient: str, bits: int) -> None:
    results = [
        step(integer_(network(), IntegerConfig(bits, bits, bits, gradient, products=kind)))
        for kind in ("kernels", "simulation")
    ]
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_same_bits_for_any_thread_count_and_instruction_set() -> None:
    x = torch.randn(3, 7, 5, 10, generator=torch.Generator().manual_seed(0))
    scale = torch.linspace(0.01, 0.1, 10)
    expected = stochastic.quantize(x.numpy(), scale.numpy(), -31, 31, (9, 77)) + 31
    for threads, isa in ((1, ""), (2, ""), (3, "portable")):
        ours = Kernels(threads, isa).quantize(x, scale, 31, -31, 31, (9, 77))
        assert np.array_equal(ours.numpy(), expected)
    nearest = Kernels(2).quantize(x, scale, 31, -31, 31, None).numpy()
    assert np.array_equal(nearest, stochastic.quantize(x.numpy(), scale.numpy(), -31, 31, None) + 31)


def test_rounding_is_unbiased() -> None:
    """Mean of 2000 draws of each value against a 5-sigma bound: a right rounder fails with probability below 1e-4."""
    draws, values = 2000, torch.linspace(-2.9, 2.9, 59)
    total = np.zeros(59)
    for stream in range(draws):
        total += products("kernels").quantize(values, torch.ones(1), 3, -3, 3, (1, stream)).numpy() - 3.0
    fraction = values.numpy() - np.floor(values.numpy())
    sigma = np.sqrt(fraction * (1 - fraction) / draws) + 1e-4
    assert np.all(np.abs(total / draws - values.numpy()) < 5 * sigma)
    other = np.array([products("kernels").quantize(values, torch.ones(1), 3, -3, 3, (2, 0)).numpy()])
    assert not np.array_equal(other[0], products("kernels").quantize(values, torch.ones(1), 3, -3, 3, (1, 0)).numpy())


def test_thresholds_at_exact_powers_of_two() -> None:
    ranges = torch.tensor([1.0, 0.5, 0.50001, 0.25, 0.1, 1e-9, 0.0])
    exponents, top = shift_exponents(ranges, 4)
    assert (exponents.tolist(), top) == ([0, 1, 0, 2, 3, 3, 3], 1.0)
    assert shift_exponents(ranges, 1)[0].tolist() == [0] * 7


def test_error_of_groups_lies_between_channel_and_tensor() -> None:
    """Channel spreads of 2^-u, u in [0, 6]: per-channel <= ShiftQuant <= 4 x per-channel while groups cover it."""
    rng = torch.Generator().manual_seed(0)
    g = torch.randn(512, 64, generator=rng) * 2.0 ** -torch.linspace(0, 6, 64)
    kit, ranges = products("kernels"), g.abs().amax(0)
    errors = {}
    for name, exponents in (("shift", shift_exponents(ranges, 8)[0]), ("tensor", torch.zeros(64))):
        errors[name] = torch.ldexp(torch.full((64,), float(ranges.max()) / 7), -exponents.to(torch.int32))
    errors["channel"] = ranges / 7
    mse = {}
    for name, scale in errors.items():
        q = (kit.quantize(g, scale, 7, -7, 7, (0, 1)).float() - 7) * scale
        mse[name] = ((q - g) ** 2).mean(0)
    ratio = (mse["shift"] / mse["channel"]).mean()
    assert 1.3 < float(ratio) < 4
    assert float((mse["tensor"] / mse["channel"]).mean()) > 30


@pytest.mark.parametrize("scale", ["power-of-two", "free"])
@given(low=st.floats(-1e6, 0, width=32), high=st.floats(0, 1e6, width=32), bits=st.integers(2, 8))
def test_ranges_cover_their_values(scale: str, low: float, high: float, bits: int) -> None:
    step_size, zero = affine(low, high, bits, scale)
    top = 2**bits - 1
    assert 0 <= zero <= top
    slack = 1e-6 if scale == "power-of-two" else 1.0
    if high > low:
        assert (top - zero) * step_size >= high - slack * step_size
        assert zero * step_size >= -low - slack * step_size


def test_fixed_point_gradients_are_close_to_float() -> None:
    _, plain = step(network())
    for bits, bound in ((16, 1e-2), (10, 0.3)):
        _, ours = step(integer_(network(), IntegerConfig(bits, bits, bits, "dfp")))
        # Biases before a BatchNorm have no gradient: what is there is rounding.
        errors = [float((a - b).norm() / b.norm()) for a, b in zip(ours, plain, strict=True) if float(b.norm()) > 1e-6]
        assert max(errors) < bound, bits


def test_bad_input_is_named() -> None:
    net = integer_(network(), IntegerConfig())
    with pytest.raises(UsageError, match="NaN or Inf"):
        net(torch.full((1, 3, 8, 8), float("nan")))
    layer = integer_layers(net)["0"]
    assert isinstance(layer, IntegerConv2d)
    g = torch.zeros(1, 4, 4, 16)
    assert layer.quantize_gradient(g, weight_codes(layer.weight, 8)) is None
    g[0, 1, 1, 5] = float("inf")
    with pytest.raises(UsageError, match="channels 5"):
        layer.quantize_gradient(g, weight_codes(layer.weight, 8))
    with pytest.raises(UsageError, match="seen no input"):
        integer_(network(), IntegerConfig()).eval()(torch.randn(1, 3, 8, 8))
    with pytest.raises(UsageError, match="0  the input is not float32"):
        net(torch.randn(1, 3, 8, 8, dtype=torch.float64))


def test_zero_gradients_and_dead_channels() -> None:
    net = integer_(network(), IntegerConfig(6, 6, 6))
    with torch.no_grad():
        net[0].weight[3] = 0  # type: ignore[index]
    _, gradients = step(net, batch=1)
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    x = torch.randn(2, 3, 8, 8)
    for p in net.parameters():
        p.grad = None
    (net(x) * 0).sum().backward()
    assert all(p.grad is not None and not bool(p.grad.any()) for p in net.parameters())


def test_every_unsupported_layer_is_listed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.Conv1d(3, 3, 1), nn.LSTM(3, 3))
    with pytest.raises(UnsupportedError) as caught:
        integer_(net)
    assert [p.where for p in caught.value.problems] == ["0", "1", "2"]
    with pytest.raises(UsageError, match="matches no layer"):
        integer_(network(), keep_float=["stem"])
    kept = integer_(network(), keep_float=["0", "9"])
    assert sorted(integer_layers(kept)) == ["2", "5"]


def test_parameters_and_names_stay() -> None:
    net = network()
    before = dict(net.named_parameters())
    integer_(net)
    assert {k: id(v) for k, v in net.named_parameters()} == {k: id(v) for k, v in before.items()}


def test_l1_norm_backward_is_the_derivative() -> None:
    x = (torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 + 1).requires_grad_()
    norm, weights = L1Norm2d(3), torch.randn(5, 3, 4, 4)
    norm.weight.data.copy_(torch.tensor([1.0, 0.5, -2.0]))
    (norm(x) * weights).sum().backward()
    assert x.grad is not None

    y = x.detach().double().requires_grad_()
    centred = y - y.mean((0, 2, 3), keepdim=True)
    xh = centred / (centred.abs().mean((0, 2, 3), keepdim=True) + norm.eps)
    (xh * norm.weight.detach().double().view(1, 3, 1, 1) * weights).sum().backward()
    assert y.grad is not None
    assert float((x.grad - y.grad).norm() / y.grad.norm()) < 1e-3


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    bits=st.sampled_from([8, 6, 4, 2]),
    shape=st.tuples(st.integers(1, 70), st.integers(1, 40), st.integers(1, 9)),
    offset=st.sampled_from([0.0, 3.0, -20.0]),
    gradient=st.sampled_from(["shift", "tensor"]),
    relu=st.booleans(),
)
def test_l1_norm_kernels_give_the_bits_of_the_simulation(
    seed: int, bits: int, shape: tuple[int, int, int], offset: float, gradient: str, relu: bool
) -> None:
    rng = torch.Generator().manual_seed(seed)
    n, c, size = shape
    x = torch.randn(n, c, size, size, generator=rng) * torch.rand(1, c, 1, 1, generator=rng) + offset
    x[:, 0] = 1.5  # a constant channel
    g, gamma, beta = torch.randn(x.shape, generator=rng), torch.randn(c, generator=rng), torch.randn(c, generator=rng)
    gamma[c // 2], beta[-1] = 0.0, -50.0  # a channel without its input, one that the ReLU closes
    found = []
    for kind in ("kernels", "simulation"):
        norm, at = L1Norm2d(c, IntegerConfig(bits, bits, bits, gradient, products=kind)), x.clone().requires_grad_()
        norm.weight.data.copy_(gamma)
        norm.bias.data.copy_(beta)
        y, ends = norm.activated(at, relu=relu)
        y.backward(g)  # type: ignore[no-untyped-call]
        state = [norm.running_mean, norm.running_dev, torch.tensor(ends)]
        assert ends == (float(y.detach().min()), float(y.detach().max()))
        found.append([y.detach(), at.grad, norm.weight.grad, norm.bias.grad, *state])
    assert all(a is not None and b is not None and torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_relu_in_the_quantized_l1_norm_is_the_one_behind_it() -> None:
    """The same y; the same gradients where the one behind has zeroed dY."""
    x, g = (torch.randn(9, 24, 5, 5, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    norm = L1Norm2d(24, IntegerConfig())
    for p in norm.parameters():
        nn.init.normal_(p)
    twin = copy.deepcopy(norm)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = norm_activation(a, norm), functional.relu(twin(b))
    assert torch.equal(y, z)
    assert known_range(y) == (float(y.detach().min()), float(y.detach().max()))
    y.backward(g)  # type: ignore[no-untyped-call]
    z.backward(g)
    pairs = [(a.grad, b.grad), *((p.grad, q.grad) for p, q in zip(norm.parameters(), twin.parameters(), strict=True))]
    assert all(p is not None and q is not None and torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_l1_norm_is_the_derivative_of_its_values(bits: int) -> None:
    """With dY on the grid (no rounding), gradients equal the formula on the codes' values."""
    rng = torch.Generator().manual_seed(1)
    top = 2 ** (bits - 1) - 1
    x = torch.randint(0, 2**bits, (200, 6), generator=rng).float()
    x[0], x[1] = 0, 2**bits - 1  # scale 1, zero 0: codes are the values
    g = torch.randint(-top, top + 1, x.shape, generator=rng).float()
    g[0] = top
    norm, at = L1Norm2d(6, IntegerConfig(bits, bits, bits, stochastic=False)), x.clone().requires_grad_()
    norm.weight.data.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0, 1.5, 3.0]))
    norm(at.view(200, 6, 1, 1)).backward(g.view(200, 6, 1, 1))
    gamma, v = norm.weight.detach().double(), x.double()
    mu = v.mean(0)
    a = (v - mu).abs().mean(0) + norm.eps
    step_size = float(((v - mu).abs().amax(0) / a).max()) / top
    xh = torch.round((v - mu) / a / step_size) * step_size
    sign, dy = torch.sign(v - mu), g.double()
    dgamma = (dy * xh).sum(0)
    dx = (gamma * dy - gamma * dy.mean(0) - (sign - sign.mean(0)) * gamma * dgamma / 200) / a
    assert at.grad is not None
    assert norm.weight.grad is not None
    assert torch.allclose(norm.weight.grad.double(), dgamma, rtol=2e-3, atol=1e-2)
    assert float((at.grad.double() - dx).norm() / dx.norm()) < 1e-3


def test_weight_codes_of_the_kernels_are_section_seven() -> None:
    rng = torch.Generator().manual_seed(0)
    for shape in ((5, 3, 3, 3), (1, 70), (40, 16, 1, 1)):
        w = torch.randn(shape, generator=rng)
        w[0] = 0
        for bits in (8, 6, 2):
            net = nn.Linear(shape[1], shape[0]) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], shape[2])
            layer = make_integer(net, IntegerConfig(bits, bits, bits), "it", 0)
            ours, expected = layer.quantize_weight(w), weight_codes(w, bits)
            assert torch.equal(ours.codes, expected.codes)
            assert torch.equal(ours.scale, expected.scale)
    low, high = products("kernels").minmax(torch.tensor([3.0, -7.5, 0.0] * 50))
    assert (low, high) == (-7.5, 3.0)
    assert any(v != v for v in products("kernels").minmax(torch.tensor([1.0, float("nan"), 2.0])))


def test_quantized_l1_norm_follows_the_float_one() -> None:
    x = torch.randn(16, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    plain, small = L1Norm2d(8), L1Norm2d(8, IntegerConfig(8, 8, 8))
    a, b = plain(x), small(x)
    assert float((a - b).norm().detach() / a.norm().detach()) < 0.02
    assert torch.allclose(plain.running_dev, small.running_dev, rtol=0.02)
    net = use_l1_norm_(network(), IntegerConfig(6, 6, 6))
    assert sum(isinstance(m, L1Norm2d) for m in net.modules()) == 1
    step(net)


def test_l1_norm_takes_over_what_a_trained_batch_norm_knows() -> None:
    """In eval mode the network computes what it did; in training mode too, as far as channels are Gaussian."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 8, 8, generator=rng) * torch.tensor([0.5, 2.0, 7.0]).reshape(3, 1, 1) + 1
    norm = nn.BatchNorm2d(3, momentum=1.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.3, -1.0, 2.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.0, -3.0]))
        training = norm.train()(x)
        served = norm.eval()(x)
        net = use_l1_norm_(nn.Sequential(norm), None)
        assert torch.allclose(net.eval()(x), served, atol=1e-5)
        assert torch.allclose(net.train()(x), training, atol=0.1)
