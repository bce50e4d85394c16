"""Integer convolutions and normalizations as one step: the bits of the single layers, and when it is not taken."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from netsuke.core.errors import UnsupportedError, UsageError
from netsuke.nn import conv_norm, integer_products
from netsuke.nn.conv_norm import conv_norms
from netsuke.nn.fused_norm import known_range
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_products import Kernels
from netsuke.nn.integer_swap import integer_
from netsuke.nn.integer_train import probed
from netsuke.nn.l1_norm import L1Norm2d
from netsuke.nn.norm_fusion import fuse_norms

Row = tuple[nn.Module, nn.Module, bool]


def row(
    cin: int, cout: int, *, stride: int = 1, kernel: int = 3, relu: bool = True, l1: bool = False, **config: Any
) -> Row:
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False)
    norm = L1Norm2d(cout, IntegerConfig(**config)) if l1 else nn.BatchNorm2d(cout)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    made = nn.Sequential(conv)
    integer_(made, IntegerConfig(**config))
    made[0].where, made[0].index = f"conv{cin}to{cout}", cin + cout
    return made[0].train(), norm.train(), relu


def images(*shape: int, seed: int = 1) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


@contextmanager
def one_by_one(on: bool) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if on:
            patch.setattr(conv_norm, "_takes", lambda *_: False)
        yield


def step(rows: list[Row], x: Tensor, residual: str, *, single: bool) -> list[Tensor]:
    """Everything two steps make: outputs, gradients, state."""
    out: list[Tensor] = []
    with one_by_one(single):
        for turn in range(2):
            given = x.clone(memory_format=torch.preserve_format).requires_grad_()
            add: Any = None
            if residual == "own":
                add = given
            elif residual == "pixels":
                add = (2, 3, len(rows[-1][1].weight) - given.shape[1] - 3)
            elif residual:
                with torch.no_grad():
                    like = conv_norms(x, None, *copy.deepcopy(rows))
                add = images(*like.shape, seed=5).requires_grad_()
            y = conv_norms(given, add, *rows)
            parameters = [p for r in rows for m in r[:2] for p in m.parameters()]
            leaves = [given, *parameters, *([add] if isinstance(add, Tensor) and add is not given else [])]
            found = torch.autograd.grad((y * images(*y.shape, seed=7 + turn)).sum(), leaves)
            ends = known_range(y)
            known = not (single and residual and isinstance(rows[-1][1], L1Norm2d))  # torch adds there
            assert ends == ((float(y.detach().min()), float(y.detach().max())) if known else None)
            out += [y.detach(), *found]
        out += [v.clone() for r in rows for m in r[:2] for v in m.state_dict().values()]
    return out


CASES: list[tuple[list[dict[str, Any]], str]] = [
    ([{"cin": 16, "cout": 16}, {"cin": 16, "cout": 16}], "own"),
    ([{"cin": 16, "cout": 32, "stride": 2}, {"cin": 32, "cout": 32}], "other"),
    ([{"cin": 8, "cout": 24, "kernel": 1, "stride": 2, "relu": False}], ""),
    ([{"cin": 3, "cout": 4, "relu": False}, {"cin": 4, "cout": 5}, {"cin": 5, "cout": 3, "relu": False}], "own"),
    ([{"cin": 16, "cout": 32, "stride": 2}, {"cin": 32, "cout": 32}], "pixels"),
    ([{"cin": 4, "cout": 9, "stride": 2, "relu": False}], "pixels"),
    ([{"cin": 4, "cout": 48}, {"cin": 48, "cout": 128}, {"cin": 128, "cout": 4}], "own"),
    ([{"cin": 16, "cout": 16, "scale": "free"}, {"cin": 16, "cout": 16, "scale": "free"}], "other"),
    ([{"cin": 16, "cout": 16, "gradient": "tensor", "stochastic": False}, {"cin": 16, "cout": 64, "kernel": 1}], ""),
]


def made(case: int, bits: int, l1: bool = False) -> list[Row]:
    torch.manual_seed(case)
    widths = {"weight_bits": bits, "activation_bits": bits, "gradient_bits": bits}
    return [row(**widths, l1=l1, **{"groups": 4, **c}) for c in CASES[case][0]]


@pytest.mark.parametrize("l1", [False, True])
@pytest.mark.parametrize("bits", [8, 6])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_bits_are_those_of_single_layers(case: int, bits: int, l1: bool) -> None:
    rows = made(case, bits, l1)
    x = images(5, CASES[case][0][0]["cin"], 9, 7)
    expected = step(copy.deepcopy(rows), x, CASES[case][1], single=True)
    found = step(rows, x, CASES[case][1], single=False)
    assert len(expected) == len(found)
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("l1", [False, True])
@pytest.mark.parametrize("case", [0, 3])
def test_bits_do_not_depend_on_threads_or_instruction_set(case: int, l1: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x, results = images(23, CASES[case][0][0]["cin"], 17, 19), []  # several tasks, and rows left over
    for threads, isa in ((1, ""), (3, ""), (2, "portable")):
        kit = Kernels(threads, isa)
        for module in (conv_norm, integer_products):
            monkeypatch.setattr(module, "products", lambda _kind, kit=kit: kit)
        monkeypatch.setattr("netsuke.nn.integer_train.products", lambda _kind, kit=kit: kit)
        results.append(step(made(case, 8, l1), x, CASES[case][1], single=False))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_layers_of_another_kind_are_computed_one_by_one() -> None:
    x = images(4, 8, 6, 6)

    def taken(rows: list[Row]) -> bool:
        return conv_norm._takes(x, None, [conv_norm.Unit(*r) for r in rows])  # type: ignore[arg-type]

    assert taken([row(8, 8), row(8, 8)])
    for config in (
        {"activation_bits": 4},
        {"gradient_bits": 4},
        {"gradient": "float"},
        {"master_bits": 12},
        {"fraction": 4},
    ):
        rows = [row(8, 8), row(8, 8, **config)]
        assert not taken(rows), config
        conv_norms(x.clone().requires_grad_(), None, *rows).sum().backward()  # type: ignore[no-untyped-call]
    biased = integer_(nn.Sequential(nn.Conv2d(8, 8, 3)))[0]  # type: ignore[index]
    assert not taken([(biased.train(), nn.BatchNorm2d(8).train(), True)])
    frozen = row(8, 8)
    assert not taken([(frozen[0], frozen[1].eval(), True)])
    heard = row(8, 8)
    heard[0].register_forward_hook(lambda *_: None)
    assert not taken([heard])
    watched = row(8, 8)
    with probed(watched[0]):
        assert not taken([watched])
    assert not taken([row(4, 8)])  # torch's own error then


def test_a_gradient_of_zeros_and_frozen_parameters() -> None:
    rows = made(0, 8)
    x = images(2, 16, 6, 6).requires_grad_()
    rows[0][0].weight.requires_grad_(False)
    conv_norms(x, x, *rows).backward(torch.zeros(2, 16, 6, 6))  # type: ignore[no-untyped-call]
    first, second = (cast(Any, r[0]) for r in rows)
    assert x.grad is not None
    assert not x.grad.any()
    assert first.weight.grad is None
    assert not second.weight.grad.any()
    assert int(second.draws) == 0


def test_what_is_not_a_number_is_named() -> None:
    rows = made(1, 8)
    x = images(2, 16, 6, 6)
    with pytest.raises(UsageError, match="conv16to32"):
        conv_norms(x * float("nan"), None, *rows)
    given = x.requires_grad_()
    y = conv_norms(given, None, *rows)
    with pytest.raises(UsageError, match="conv32to32"):
        y.backward(torch.full_like(y, float("inf")))  # type: ignore[no-untyped-call]
    nn.init.constant_(cast(Tensor, rows[0][1].weight), float("nan"))
    with pytest.raises(UsageError, match="conv32to32"):
        conv_norms(x, None, *rows)
    y = conv_norms(given, None, *made(1, 8))
    with pytest.raises(UnsupportedError, match="gradients of gradients"):
        torch.autograd.grad(y.sum(), given, create_graph=True)


class Shortcut(nn.Module):
    """A block whose residual is every n-th pixel with channels of zeros, as networks write it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.conv, self.norm, self.way = nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), way

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        pixels = x[:, :, ::2, ::2] if self.way != "other pixels" else x[:, :, 1::2, ::2]
        if self.way == "written":
            x = x.mul_(2)
        value = 1.0 if self.way == "ones" else 0.0
        padded = functional.pad(pixels, (0, 0, 0, 0, 3, 5), value=value)
        y = functional.relu(self.norm(self.conv(x)) + padded)
        return y + pixels.mean() if self.way == "read twice" else y


@pytest.mark.parametrize("way", ["plain", "other pixels", "ones", "written", "read twice"])
def test_a_shortcut_of_every_second_pixel_is_part_of_the_step(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = integer_(Shortcut(way), IntegerConfig()).train()
    x, twin, seen = images(4, 8, 6, 6), copy.deepcopy(net), []
    takes = conv_norm._takes
    monkeypatch.setattr(conv_norm, "_takes", lambda *a: seen.append(a[1]) or takes(*a))  # type: ignore[func-returns-value]
    y = fuse_norms(net, x[:2])(x)
    assert isinstance(seen[-1], tuple) == (way == "plain")
    with one_by_one(True):
        assert torch.equal(y, fuse_norms(twin, x[:2])(x))


class Writer(nn.Module):
    """Writes into the first convolution's input after that convolution has read it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        y = self.conv1(x)
        x.mul_(2)
        y = functional.relu(self.norm1(y))
        return functional.relu(self.norm2(self.conv2(y)) + x)


def test_what_is_written_in_between_is_respected() -> None:
    net = integer_(Writer(), IntegerConfig()).train()
    x, twin = images(4, 8, 6, 6), copy.deepcopy(net)
    forward = fuse_norms(net, x[:2])
    y = forward(x)
    with one_by_one(True):
        expected = fuse_norms(twin, x[:2])(x)
    assert torch.equal(y, expected)
