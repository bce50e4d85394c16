"""Batch normalization, addition and ReLU in one kernel: float64, threads, instruction sets, the range handed on."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from netsuke.core.errors import UnsupportedError
from netsuke.nn import fused_norm
from netsuke.nn.fused_norm import known_range, norm_activation
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_products import Kernels, products
from netsuke.nn.integer_train import IntegerConv2d, make_integer

CHANNELS = (1, 3, 8, 16, 32, 48, 64, 72, 130)


def tensors(seed: int, shape: tuple[int, ...], count: int, last: bool) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    layout = torch.channels_last if last else torch.contiguous_format
    return [torch.randn(shape, generator=rng).contiguous(memory_format=layout) for _ in range(count)]


def norm_of(channels: int, seed: int, **settings: Any) -> nn.BatchNorm2d:
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(channels, **settings)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


def passed(norm: nn.BatchNorm2d, x: Tensor, r: Tensor | None, g: Tensor, relu: bool) -> tuple[Tensor, list[Tensor]]:
    """y, and the gradients of x, the residual, weight and bias."""
    x, r = (None if v is None else v.clone().requires_grad_() for v in (x, r))  # type: ignore[assignment]
    norm.zero_grad()
    y = norm_activation(x, norm, r, relu)
    y.backward(g)  # type: ignore[no-untyped-call]
    leaves = [v for v in (x, r, norm.weight, norm.bias) if v is not None]
    return y.detach(), [v.grad for v in leaves if v.grad is not None]


def close(a: Tensor, b: Tensor, tolerance: float, terms: float = 1e-3) -> bool:
    """terms: size of what was added up to b."""
    return float((a.double() - b.double()).abs().max()) <= tolerance * max(float(b.abs().max()), terms)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 9), st.sampled_from(CHANNELS), st.integers(1, 9), st.integers(1, 7)),
    settings=st.tuples(st.sampled_from([0.1, 0.5, None]), st.booleans(), st.booleans()),
    residual=st.booleans(),
    relu=st.booleans(),
    last=st.booleans(),
    mean=st.sampled_from([0.0, 5.0, 100.0]),
)
def test_it_is_torchs_operators_in_float64(
    seed: int, size: tuple[int, ...], settings: tuple[float | None, bool, bool], residual: bool, relu: bool, last: bool,
    mean: float,
) -> None:  # fmt: skip
    """Two passes, so that a momentum of None is an average; no gradient where a rounding decides about the ReLU."""
    n, c, h, w = size
    if n * h * w < 2:
        n = 2
    momentum, affine, track = settings
    ours = norm_of(c, seed, momentum=momentum, affine=affine, track_running_stats=track)
    theirs = copy.deepcopy(ours).double()
    for turn in range(2):
        x, r, g = tensors(seed + turn, (n, c, h, w), 3, last)
        x = x + mean
        add = r if residual else None
        exact = None if add is None else add.double()
        wide = x.double()
        with torch.no_grad():
            z = copy.deepcopy(theirs)(wide) + (0 if exact is None else exact)
        # A sum near 0 may fall on either side of the ReLU.
        g = torch.where(z.abs() < 1e-4 * (1 + mean), 0.0, g.double()).float()
        y, gradients = passed(ours, x, add, g, relu)
        expected, others = passed(theirs, wide, exact, g.double(), relu)
        inverse = (wide.var((0, 2, 3), unbiased=False) + 1e-5).rsqrt()
        gain = inverse if ours.weight is None else inverse * ours.weight.detach().abs()
        away = (1 + mean) * float(inverse.max())  # x in standard deviations: f32 rounds it at that size
        assert close(y, expected, 1e-6, (1 + mean) * float(gain.max()) + 4)
        assert len(gradients) == len(others)
        for index, (a, b) in enumerate(zip(gradients, others, strict=True)):
            terms = float(g.abs().max()) * (away * float(gain.max()) if index == 0 else n * h * w * away)
            assert close(a, b, 1e-6, 8 * terms), (index, a, b)
    kept = dict(theirs.named_buffers())
    for name, a in ours.named_buffers():
        # A mean near 0 is what is left of values of this size: up to 64 of them are added up in f32.
        assert close(a, kept[name], 1e-6, mean + 1 if name == "running_mean" else 1e-3), name


def test_what_torch_refuses_or_computes_otherwise_is_torchs() -> None:
    norm = norm_of(4, 0)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm_activation(torch.ones(1, 4, 1, 1), norm)
    x, r = tensors(0, (3, 4, 5, 5), 2, True)
    cases: dict[str, tuple[nn.Module, Tensor, Tensor | None]] = {
        "eval": (copy.deepcopy(norm).eval(), x, r),
        "double": (copy.deepcopy(norm).double(), x.double(), r.double()),
        "broadcast": (norm, x, r[:1]),
        "another module": (nn.InstanceNorm2d(4), x, r),
        "rows": (nn.BatchNorm1d(4), x[:, :, 0, 0], None),
    }
    for name, (module, value, add) in cases.items():
        twin = copy.deepcopy(module)
        expected = twin(value)
        expected = torch.relu(expected if add is None else expected + add)
        assert torch.equal(norm_activation(value, module, add), expected), name
        assert known_range(norm_activation(value, module, add)) is None, name
    seen: list[str] = []
    norm.register_forward_hook(lambda *_: seen.append("hook"))
    norm_activation(x, norm)
    assert seen == ["hook"]
    with torch.autocast("cpu", torch.bfloat16):
        assert known_range(norm_activation(x, norm_of(4, 0))) is None


def test_an_empty_batch_and_a_frozen_layer() -> None:
    assert norm_activation(torch.ones(0, 4, 2, 2), norm_of(4, 0)).shape == (0, 4, 2, 2)
    norm = norm_of(4, 1).requires_grad_(False)
    x, r, g = tensors(1, (3, 4, 5, 5), 3, True)
    twin = copy.deepcopy(norm)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    norm_activation(a, norm, r).backward(g)  # type: ignore[no-untyped-call]
    torch.relu(twin(b) + r).backward(g)
    assert a.grad is not None
    assert b.grad is not None
    assert close(a.grad, b.grad, 1e-5)
    only = r.clone().requires_grad_()
    norm_activation(x, norm, only).backward(g)  # type: ignore[no-untyped-call]
    assert only.grad is not None
    assert torch.equal(only.grad, torch.where(torch.relu(twin(x) + r) > 0, g, 0.0))


def test_gradients_of_gradients_are_refused() -> None:
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    with pytest.raises(UnsupportedError, match="gradients of gradients"):
        torch.autograd.grad(norm_activation(x, norm_of(4, 0)).sum(), x, create_graph=True)


def test_nan_is_not_swallowed() -> None:
    x = torch.randn(2, 4, 3, 3)
    x[0, 1, 0, 0] = float("nan")
    y = norm_activation(x, norm_of(4, 0))
    assert bool(y[:, 1].isnan().all())
    assert not bool(y[:, [0, 2, 3]].isnan().any())
    low, high = known_range(y) or (0.0, 0.0)
    assert np.isnan(low) or np.isnan(high)


@pytest.mark.parametrize("channels", [16, 24, 64, 200])
def test_bits_do_not_depend_on_threads_or_instruction_set(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """y, gradients and running statistics; 37 x 17 x 19 rows are several tasks and blocks, and leave rows over."""
    x, r, g = tensors(3, (3 if channels > 24 else 37, channels, 17, 19), 3, True)
    results = []
    for kit in (Kernels(1), Kernels(2), Kernels(5), Kernels(1, "portable"), Kernels(3, "portable")):
        monkeypatch.setattr(fused_norm, "products", lambda _kind, kit=kit: kit)
        bits = b""
        for add, relu in ((None, False), (None, True), (r, False), (r, True)):
            norm = norm_of(channels, 5)
            y, gradients = passed(norm, x, add, g, relu)
            bits += b"".join(v.contiguous().numpy().tobytes() for v in (y, *gradients, *norm.buffers()))
        results.append(bits)
    assert len(set(results)) == 1


def integer_conv(seed: int) -> IntegerConv2d:
    torch.manual_seed(seed)
    layer = make_integer(nn.Conv2d(8, 8, 3, padding=1, bias=False), IntegerConfig(), "conv", 0)
    assert isinstance(layer, IntegerConv2d)
    return layer.train()


def test_the_range_goes_to_the_next_layer_and_is_not_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer behind gives the same codes without reading its input for a range; a tensor written to is read."""
    x = tensors(4, (4, 8, 6, 6), 1, True)[0]
    y = norm_activation(x, norm_of(8, 2))
    assert known_range(y) == (float(y.detach().min()), float(y.detach().max()))
    told, read = integer_conv(1), integer_conv(1)
    calls: list[int] = []
    kit = products("kernels")
    plain = kit.minmax
    monkeypatch.setattr(kit, "minmax", lambda t: calls.append(1) or plain(t))  # type: ignore[func-returns-value]
    first = told(y)
    assert not calls
    assert torch.equal(first, read(y.clone()))
    assert calls
    assert torch.equal(told.input_range, read.input_range)
    y.mul_(3)
    assert known_range(y) is None
    assert torch.equal(told(y), read(y.clone()))
    assert torch.equal(told.input_range, read.input_range)
