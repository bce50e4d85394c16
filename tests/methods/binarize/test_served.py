"""A frozen binary network compiles to one-bit layers and the engine gives what the trained network gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from netsuke import engine
from netsuke.capture import capture
from netsuke.core.method import find
from netsuke.models.binary_digits import BinaryDigitsCNN
from netsuke.nn.binarizer_salient import Salient
from netsuke.nn.binary_layers import freeze
from netsuke.passes import compile_program
from netsuke.program import from_bytes, interpreter, stored_bytes, to_bytes

ONE_BIT = [
    "bi_real", "biper", "bnn", "dorefa", "fda", "ir_net", "rbnn", "reactnet", "recu", "reste", "xnor_net",
    "xnor_net_pp",
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


def perceptron(width: int = 48) -> torch.nn.Sequential:
    torch.manual_seed(0)
    linear = torch.nn.Linear
    return torch.nn.Sequential(linear(width, 40), torch.nn.ReLU(), linear(40, 36), torch.nn.ReLU(), linear(36, 20))


@pytest.mark.parametrize(
    ("name", "options", "compute", "bits"),
    [
        ("bitnet158", {"scale": "median"}, "s8", 1.7),
        ("bitnet158", {"scale": "mean", "inputs": "float"}, "f32", 1.7),
        ("pb_llm", {"salient": 0.05, "inputs": "int8"}, "s8", 3.1),
        ("pb_llm", {"salient": 0.0}, "f32", 1.7),
    ],
)
def test_frozen_linear_layers_keep_their_codes(name: str, options: dict[str, Any], compute: str, bits: float) -> None:
    method = find(f"binarize/{name}")
    model = freeze(method.apply(perceptron(), method.config(**options), keep=("0",)))
    layer = model[2]
    program = compile_program(capture(layer, shape=(1, 40)))
    (node,) = program.nodes
    assert (node.op, node.attrs.get("compute", "f32")) == ("wlinear", compute)
    assert np.array_equal(program.constants[node.inputs[1]], layer.bases[0].levels.numpy())
    stored = stored_bytes(program, [node.inputs[1]])
    assert 8 * stored / program.constants[node.inputs[1]].size < bits  # 16 bits a row of 40 are 0.4 of them
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(50, 40, generator=rng)
    x[3], x[4, 5] = 0, 1e30
    top = torch.rand(500, 1, generator=rng) + 0.1  # beside it values halfway between codes: one ulp decides
    near = torch.cat([top, (torch.randint(-126, 126, (500, 39), generator=rng) + 0.5) * (top / 127)], 1)
    x = torch.cat([x, near])
    with torch.no_grad():
        want = layer(x).numpy()
    got = engine.load(from_bytes(to_bytes(program)))(x.numpy())
    if compute == "s8":
        assert np.array_equal(got, want)  # integers inside, the same two roundings behind
    else:
        assert bool((np.abs(got - want) <= 1e-5 * (1 + np.abs(want).max(1, keepdims=True))).all())


def test_salient_weights_stay_as_they_were() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(50, 8)
    before = layer.weight.detach().clone()
    salient = Salient(layer.weight, 0.1)
    assert int(salient.salient.sum()) == 40
    assert bool(before.abs()[salient.salient].min() >= before.abs()[~salient.salient].max())
    ((levels, scale),) = salient.terms(layer.weight)
    torch.testing.assert_close((levels * scale)[salient.salient], before[salient.salient], rtol=0.02, atol=1e-3)
    (levels * scale).sum().backward()
    assert bool((layer.weight.grad[salient.salient] == 0).all())
    assert bool((layer.weight.grad[~salient.salient] != 0).all())
    for row, free in zip(levels, ~salient.salient, strict=True):
        assert len(row[free].abs().unique()) == 1
