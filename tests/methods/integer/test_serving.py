"""What was trained is what is served: training-time forward and engine, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from netsuke import engine
from netsuke.core.errors import UnsupportedError
from netsuke.methods.integer._graph import quantized_graph
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_swap import integer_
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


@pytest.mark.parametrize("bits", [8, 6])
def test_trained_network_compiles_to_its_own_forward(bits: int) -> None:
    net = integer_(network(), IntegerConfig(bits, bits, bits))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    rng = torch.Generator().manual_seed(1)
    for _ in range(5):
        x, y = torch.rand(16, 1, 8, 8, generator=rng), torch.randint(0, 10, (16,), generator=rng)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
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


def test_layers_that_capture_folds_are_refused_by_name() -> None:
    net = integer_(nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)), IntegerConfig())
    net[1].weight.data.uniform_(0.5, 2)  # type: ignore[index]
    net(torch.rand(2, 1, 8, 8))
    with pytest.raises(UnsupportedError, match="changed this layer's weights"):
        quantized_graph(net.eval(), (1, 1, 8, 8))
