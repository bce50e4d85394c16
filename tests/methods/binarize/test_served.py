"""A frozen binary network compiles to one-bit layers and the engine gives what the trained network gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from netsuke import engine
from netsuke.capture import capture
from netsuke.core.method import find
from netsuke.models.binary_digits import BinaryDigitsCNN
from netsuke.nn.binary_layers import freeze
from netsuke.passes import compile_program
from netsuke.program import interpreter

ONE_BIT = [
    "bi_real", "biper", "bnn", "fda", "ir_net", "rbnn", "reactnet", "recu", "reste", "xnor_net", "xnor_net_pp",
]  # fmt: skip


def trained(name: str) -> torch.nn.Module:
    """Two steps of the method on random images."""
    torch.manual_seed(0)
    method = find(f"binarize/{name}")
    model = method.apply(BinaryDigitsCNN(8, 2), method.config())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for seed in range(2):
        x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), torch.arange(16) % 10).backward()
        optimizer.step()
    return freeze(model)


@pytest.mark.parametrize("name", ONE_BIT)
def test_frozen_networks_run_at_one_bit(name: str) -> None:
    model = trained(name)
    program = compile_program(capture(model, shape=(1, 1, 8, 8)))
    layers = [node for node in program.nodes if node.op == "bconv"]
    assert len(layers) == 2
    for node in layers:
        assert program.constants[node.inputs[1]].nbytes == 8 * 9 * 8  # 8 filters, 9 taps, 8 channels in one word of 64
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        want = model(x).numpy()
    got = engine.load(program)(x.numpy())
    # Float layers may round differently: a value within a last bit of a threshold would flip a sign. None does here.
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    reference = interpreter.run(program, {program.inputs[0].name: x.numpy()[:2]})
    np.testing.assert_allclose(next(iter(reference.values())), want[:2], rtol=1e-4, atol=1e-4)
