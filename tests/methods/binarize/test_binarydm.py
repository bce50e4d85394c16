"""BinaryDM: bases that fade, activations of few bits, low-rank mimicking, what is served."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from netsuke import engine
from netsuke.capture import capture
from netsuke.core.errors import UsageError
from netsuke.methods.binarize import binarydm
from netsuke.nn.binarizer_bases import FewBits
from netsuke.nn.binary_layers import freeze, layers, set_progress
from netsuke.passes import compile_program
from netsuke.program import stored_bytes


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 1, 3, padding=1),
    )  # fmt: skip


def test_the_second_basis_of_inner_layers_fades_out() -> None:
    model = binarydm.apply(network(), binarydm.Config(inner="3", gone=0.5, input_bits=0))
    table = dict(layers(model))
    errors = []
    for progress, count in ((0.0, 2), (0.25, 2), (0.5, 1), (1.0, 1)):
        set_progress(model, progress)
        assert len(table["3"].weight_terms()) == count
        assert len(table["2"].weight_terms()) == 2
        value = sum(w * s for w, s in table["3"].weight_terms())
        errors.append(float(((value - table["3"].weight) ** 2).mean().detach()))
    assert errors[0] < errors[1] < errors[2] == errors[3]
    assert [len(layer.weight_terms()) for _, layer in layers(freeze(model))] == [2, 1]


def test_activations_decide_their_sign_once() -> None:
    x = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
    for values, low, high in ((x, -7, 7), (x.abs(), 0, 15)):
        rule = FewBits(4)
        rule(values)
        assert (rule.levels.lo, rule.levels.hi) == (low, high)
        rule(x)
        assert (rule.levels.lo, rule.levels.hi) == (low, high)


def test_w1a4_layers_run_in_integers() -> None:
    model = binarydm.apply(network(), binarydm.Config(inner="3"))
    x = torch.rand(16, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    model.train()(x)
    set_progress(model, 1.0)
    freeze(model)
    program = compile_program(capture(model, shape=(1, 1, 6, 6)))
    nodes = [node for node in program.nodes if node.op == "qconv"]
    assert len(nodes) == 3  # two bases and one
    for node in nodes:
        assert set(np.unique(program.constants[node.inputs[1]])) == {-1, 1}
        assert stored_bytes(program, [node.inputs[1]]) == 8 * 9 * 8 // 8
    with torch.no_grad():
        want = model(x).numpy()
    np.testing.assert_allclose(engine.load(program)(x.numpy()), want, rtol=1e-4, atol=1e-4)


def test_mimicking_sees_principal_channels_only() -> None:
    teacher, student = network(0), network(0)
    mimic = binarydm.Mimic(teacher, student, ["2"])
    x = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    with pytest.raises(UsageError, match="has not run"):
        mimic.loss()
    teacher(x), student(x)
    assert float(mimic.loss().detach()) == 0
    with torch.no_grad():
        student[2].weight.mul_(0.5)
    student(x)
    mimic.loss().backward()
    assert student[2].weight.grad is not None
    assert teacher[2].weight.grad is None
    rows = torch.randn(500, 8, generator=torch.Generator().manual_seed(3)) * torch.tensor([9.0, 5, 1, 1, 1, 1, 1, 1])
    basis = binarydm.principal(rows, 0.25)
    assert basis.shape == (8, 2)
    assert float(basis[:2].abs().max(1).values.min()) > 0.98
    with pytest.raises(UsageError, match="no such block"):
        binarydm.Mimic(teacher, student, ["nowhere"])


def test_impossible_options_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        binarydm.apply(network(), binarydm.Config(gone=0, input_bits=1))
    assert len(caught.value.problems) == 2
    with pytest.raises(UsageError, match="no layer matches"):
        binarydm.apply(network(), binarydm.Config(inner="middle.*"))
