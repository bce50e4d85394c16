"""What was trained is what is served: training-time forward and engine, bit for bit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import netsuke
from netsuke import engine
from netsuke.core.errors import UnsupportedError
from netsuke.methods.integer import one_bit_fqt
from netsuke.methods.integer._graph import quantized_graph, served_graph
from netsuke.methods.integer.shiftquant import ShiftQuant, apply
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_fold import fold_norms_
from netsuke.nn.integer_swap import float_network, integer_, integer_layers
from netsuke.nn.l1_norm import L1Norm2d
from netsuke.nn.one_bit import OneBitLayer
from netsuke.passes import compile_program


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 1, 1, groups=16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_trained_network_compiles_to_its_own_forward(bits: int) -> None:
    net = integer_(network(), IntegerConfig(bits, bits, bits))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    rng = torch.Generator().manual_seed(1)
    for _ in range(5):
        x, y = torch.rand(16, 1, 8, 8, generator=rng), torch.randint(0, 10, (16,), generator=rng)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    net.eval()
    program = compile_program(quantized_graph(net, (1, 1, 8, 8)))
    kinds = [n.op for n in program.nodes]
    assert kinds.count("qconv") == 3, kinds
    assert kinds.count("qlinear") == 1, kinds
    x = torch.rand(64, 1, 8, 8, generator=rng)
    ours = engine.load(program).run({program.inputs[0].name: x.numpy()})[program.outputs[0].name]
    with torch.no_grad():
        trained = net(x).numpy()
    assert np.array_equal(ours, trained)


class Residual(nn.Module):
    """Two convolutions with normalizations around a shortcut; a negative and a zero factor of normalization."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(512, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        return self.head(torch.flatten(x, 1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("l1", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
def test_normalizations_fold_into_what_is_served(bits: int, l1: bool) -> None:
    net = apply(Residual(), ShiftQuant(bits, bits, bits, l1_norm=l1))
    with torch.no_grad():
        gamma = net.get_parameter("bn1.weight")
        gamma[2], gamma[3] = -0.7, 0.0
    optimizer, rng = torch.optim.SGD(net.parameters(), lr=0.05), torch.Generator().manual_seed(1)
    for _ in range(5):
        x, y = torch.rand(16, 1, 8, 8, generator=rng), torch.randint(0, 4, (16,), generator=rng)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    net.eval()
    x = torch.rand(32, 1, 8, 8, generator=rng)
    program = compile_program(quantized_graph(net, (1, 1, 8, 8)))
    assert [n.op for n in program.nodes].count("qconv") == 2
    feeds = {program.inputs[0].name: x.numpy()}
    served = engine.load(program).run(feeds)[program.outputs[0].name]
    folded = fold_norms_(copy.deepcopy(net), x[:1])
    with torch.no_grad():
        trained, before = folded(x), net(x)
    assert np.array_equal(served, trained.numpy())
    assert not any(isinstance(m, nn.BatchNorm2d | L1Norm2d) for m in folded.modules())
    # Before folding an f32 product rounded twice: at 4 bits that may move a code here and there.
    assert float((trained - before).abs().mean()) < (1e-4 if bits == 8 else 0.05) * float(before.abs().mean())


def test_what_no_engine_layer_has_is_refused_by_name() -> None:
    net = integer_(network(), IntegerConfig(12, 12, 12, "dfp"))
    with pytest.raises(UnsupportedError, match="no engine layer"):
        quantized_graph(net.eval(), (1, 1, 8, 8))


def test_a_layer_that_something_else_reads_is_not_folded() -> None:
    class Twice(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv1(x)
            return self.head(torch.flatten(self.bn1(y) + y, 1))  # type: ignore[no-any-return]

    net = integer_(Twice(), IntegerConfig())
    with torch.no_grad():
        net.get_parameter("bn1.weight").fill_(0.3)
    net(torch.rand(4, 1, 8, 8))
    with pytest.raises(UnsupportedError, match="another layer reads"):
        fold_norms_(net, torch.rand(1, 1, 8, 8))
    assert isinstance(net.bn1, nn.BatchNorm2d), "the network is as it was"


def test_wide_words_are_served_as_the_float_network() -> None:
    net = integer_(Residual(), IntegerConfig(12, 12, 12, "dfp"))
    net(torch.rand(4, 1, 8, 8))
    graph, twin = served_graph(net, (1, 1, 8, 8))
    assert not integer_layers(twin)
    x = torch.rand(8, 1, 8, 8)
    program = compile_program(graph)
    ours = engine.load(program).run({program.inputs[0].name: x.numpy()})[program.outputs[0].name]
    with torch.no_grad():
        assert np.allclose(ours, twin(x).numpy(), atol=1e-4)
        assert torch.allclose(twin(x), net.eval()(x), atol=1e-2)


def test_compress_takes_the_trained_network_itself() -> None:
    net = integer_(Residual(), IntegerConfig())
    x = torch.rand(16, 1, 8, 8)
    net(x)
    small = netsuke.compress(net.eval(), shape=(1, 1, 8, 8), measure=False)
    _, twin = served_graph(net, (1, 1, 8, 8))
    with torch.no_grad():
        assert np.array_equal(np.asarray(engine.load(small.program)(x.numpy())), twin(x).numpy())


def test_compress_refuses_wide_words_instead_of_serving_other_arithmetic() -> None:
    net = integer_(Residual(), IntegerConfig(12, 12, 12, "dfp"))
    net(torch.rand(4, 1, 8, 8))
    with pytest.raises(UnsupportedError, match="no engine layer") as told:
        netsuke.compress(net.eval(), shape=(1, 1, 8, 8), measure=False)
    assert "float_network(model)" in str(told.value)
    assert float_network(net)(torch.rand(2, 1, 8, 8)).shape == (2, 4)


def test_compress_names_one_bit_layers() -> None:
    net = one_bit_fqt.apply(Residual())
    named = [n for n, m in net.named_modules() if isinstance(m, OneBitLayer)]
    with pytest.raises(UnsupportedError, match="no served form") as told:
        netsuke.compress(net.eval(), shape=(1, 1, 8, 8), measure=False)
    assert named
    assert all(name in str(told.value) for name in named)
