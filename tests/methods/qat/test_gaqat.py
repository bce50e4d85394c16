"""The mechanism: perturbed weights come back, steady steps freeze, frozen ones follow the smooth gradient alone."""

from __future__ import annotations

import torch
from torch import nn

from methods.qat.tiny import SHAPE, images
from netsuke.methods.qat import QatNetwork, TrainConfig, make_loss, prepare
from netsuke.methods.qat.gaqat import Disorder, Gaqat, apply


def network() -> QatNetwork:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))
    return prepare(model, shape=SHAPE, weight_bits=3, activation_bits=3, calib=images()[0])


def test_disorder_is_the_share_of_sign_flips() -> None:
    assert Disorder([1, 1, 1, 1]).value == 0
    assert Disorder([1, -1, 1, -1]).value == 1
    assert Disorder([1, 1, -1]).value == 0.5


def test_without_a_rate_only_the_log_changes() -> None:
    x, y = images()
    made = network()
    step = apply(made, Gaqat(window=3))
    before = {n: p.detach().clone() for n, p in made.named_parameters()}
    optimizer = torch.optim.SGD(made.groups(0.0, 0.0, 0.0), lr=0.0)
    for _ in range(3):
        step(made, x, y, make_loss(None, TrainConfig()), optimizer)
    assert all(torch.allclose(p, before[n], atol=1e-6) for n, p in made.named_parameters())
    assert len(step.log) == len(step.steps) > 4
    assert all(row["disorder"] == 0 and row["frozen"] for row in step.log)  # the same batch pulls the same way


def test_a_frozen_step_gets_the_smooth_gradient_alone() -> None:
    x, y = images()
    found = []
    for frozen in (False, True):
        made = network()
        step = apply(made, Gaqat())
        for state in step.steps.values():
            state.frozen = frozen
        optimizer = torch.optim.SGD(made.groups(0.0, 0.0, 0.0), lr=0.0)
        step(made, x, y, make_loss(None, TrainConfig()), optimizer)
        layer = made.layers()["2"]
        found.append((layer.weight.scale.grad, layer.layer.weight.grad))  # type: ignore[union-attr]
    made = network()
    make_loss(None, TrainConfig())(made(x), x, y).backward()
    task = made.layers()["2"].weight.scale.grad
    assert task is not None
    assert torch.allclose(found[0][0] - found[1][0], task / 2, atol=1e-6)  # type: ignore[operator]
    assert torch.equal(found[0][1], found[1][1])  # type: ignore[arg-type]
