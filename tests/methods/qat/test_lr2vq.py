"""LR2VQ: tables of low rank, their bytes, and the engine on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from methods.qat.tiny import SHAPE, images
from netsuke import engine
from netsuke.core.errors import UsageError
from netsuke.methods.qat import TrainConfig, make_loss, plain_step, prepare
from netsuke.methods.qat.lr2vq import Lr2vq, fits, predicted_bytes
from netsuke.nn.quantizer_vectors import LowRankVectors, stored_order
from netsuke.passes import compile_program
from netsuke.program.storage import stored_bytes

torch.set_num_threads(1)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 5),
    )  # fmt: skip


def network(**options: int):  # type: ignore[no-untyped-def]
    x, _ = images()
    return prepare(model(), shape=SHAPE, method="qat/lr2vq", options=options, weight_bits=4, activation_bits=8, calib=x)


@pytest.mark.parametrize("inner", [1, 3, 4])
def test_the_file_has_the_bytes_of_length_and_entries_whatever_the_rank(inner: int) -> None:
    made = network(length=4, entries=16, inner=inner)
    layer = made.layers()["2"]
    assert isinstance(layer.weight, LowRankVectors)
    program = compile_program(made.eval().export())
    name = next(n.inputs[1] for n in program.nodes if n.name == "2" or n.name.startswith("2"))
    predicted = predicted_bytes(16 * 8 * 9, Lr2vq(length=4, entries=16, inner=inner))
    assert predicted == 16 * 4 + 16 * 8 * 9 // 4 * 4 // 8
    assert predicted - 8 <= stored_bytes(program, [name]) <= predicted  # equal entries are stored once
    rows = stored_order(layer.serve().codes).reshape(-1, 4)
    assert len(np.unique(rows.numpy(), axis=0)) <= 16
    assert np.linalg.matrix_rank((layer.weight.centers @ layer.weight.basis).detach().numpy()) <= inner


def test_a_higher_rank_fits_the_weights_better_and_full_rank_is_plain_kmeans() -> None:
    errors = []
    for inner in (1, 2, 4):
        layer = network(length=4, entries=32, inner=inner).layers()["2"]
        w = layer.real_weight()
        errors.append(float((layer.weight(w) - w).square().sum()))
    assert errors[0] > 1.2 * errors[1] > 1.2 * errors[2]


def test_training_lowers_the_loss_and_the_engine_gives_its_outputs() -> None:
    x, y = images()
    made = network(length=4, entries=32, inner=2)
    before = made.layers()["2"].weight.centers.detach().clone()
    optimizer = torch.optim.SGD(made.groups(0.05, 1e-4, 0.01), lr=0.05, momentum=0.9)
    loss = make_loss(None, TrainConfig())
    losses = [plain_step(made.train(), x, y, loss, optimizer) for _ in range(10)]
    assert losses[-1] < losses[0]
    assert not torch.equal(before, made.layers()["2"].weight.centers)
    with torch.no_grad():
        expected = made.eval()(x[:5]).numpy()
    np.testing.assert_array_equal(np.asarray(engine.load(compile_program(made.export()))(x[:5].numpy())), expected)


def test_layers_that_make_too_few_vectors_keep_codes_and_impossible_options_are_refused() -> None:
    assert not fits(1152, Lr2vq(length=4, entries=128, inner=2))
    assert not fits(1155, Lr2vq(length=4, entries=16, inner=2))
    assert not isinstance(network(length=4, entries=128, inner=2).layers()["2"].weight, LowRankVectors)
    with pytest.raises(UsageError) as caught:
        Lr2vq(length=5, entries=300, inner=9)
    assert len(caught.value.problems) == 3
