"""What single methods of the room promise beyond the contract."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from netsuke.core.errors import UsageError
from netsuke.methods.binarize import biper, bitnet158, elastic, recu, reste
from netsuke.nn.binarizer_rotation import Clamped, Rotated, update_rotation
from netsuke.nn.binary_layers import layers


def perceptron(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 2))


def loss(model: nn.Module, seed: int = 0) -> torch.Tensor:
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(seed))
    return nn.functional.cross_entropy(model(x), (x.sum(1) > 0).long())


def test_biper_error_falls_with_the_frequency() -> None:
    w = 0.1 * torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    errors = [biper.quantization_error(w, frequency) for frequency in (0.1, 1, 5, 10, 100)]
    assert errors[:4] == sorted(errors[:4], reverse=True)
    assert errors[0] > 0.98
    assert errors[-1] == pytest.approx(1 - 2 / math.pi, abs=0.01)  # the phase is uniform


def test_biper_gradient_follows_the_sine() -> None:
    model = biper.apply(perceptron(), biper.Config(frequency=3.0))
    ((_, layer),) = layers(model)
    w = layer.weight
    levels = layer.weights.terms(w)[0][0]
    assert bool((levels == torch.where(torch.sin(3 * w) >= 0, 1.0, -1.0)).all())
    levels.sum().backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad, 3 * torch.cos(3 * w.detach()))


def test_biper_stages_share_weights() -> None:
    model = biper.apply(perceptron(), biper.Config(stage=1, frequency=3.0))
    ((_, layer),) = layers(model)
    real = layer.weights.terms(layer.weight)[0][0]
    torch.testing.assert_close(real, torch.sin(3 * layer.weight))
    biper.second_stage(model)
    assert bool((layer.weights.terms(layer.weight)[0][0] == torch.where(real >= 0, 1.0, -1.0)).all())
    penalty = biper.regularizer(model)
    assert float(penalty.detach()) == pytest.approx(float((real.detach() ** 2).mean()))
    with pytest.raises(UsageError, match="no layer of binarize/biper"):
        biper.regularizer(perceptron())
    with pytest.raises(UsageError, match="stage"):
        biper.apply(perceptron(), biper.Config(stage=3))


def test_reste_indicators_show_the_trade() -> None:
    errors, instabilities = [], []
    for end in (1.0, 3.0, 10.0):
        model = reste.apply(perceptron(), reste.Config(end=end))
        from netsuke.nn.binary_layers import set_progress

        set_progress(model, 1.0)
        with pytest.raises(UsageError, match="no gradient yet"):
            reste.indicators(model)
        loss(model).backward()
        seen = reste.indicators(model)
        errors.append(seen.estimating_error)
        instabilities.append(seen.instability)
    assert errors == sorted(errors, reverse=True)
    assert instabilities == sorted(instabilities)


def test_ternary_methods_refuse_what_they_do_not_know() -> None:
    with pytest.raises(UsageError) as caught:
        bitnet158.apply(perceptron(), bitnet158.Config(scale="mode", inputs="int4"))
    assert len(caught.value.problems) == 2
    with pytest.raises(UsageError) as caught:
        elastic.apply(perceptron(), elastic.Config(weight_levels=4, input_levels=1))
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("signed", [True, False])
def test_elastic_levels_are_as_many_as_asked(levels: int, signed: bool) -> None:
    model = elastic.apply(perceptron(), elastic.Config(levels, levels, signed))
    ((_, layer),) = layers(model)
    x = torch.randn(2000, 16, generator=torch.Generator().manual_seed(1))
    assert layer.inputs is not None
    codes = layer.inputs.codes(x if signed else x.abs() * 3)
    assert len(codes.unique()) == levels
    assert len(layer.weights.codes(layer.weight).unique()) == levels


def test_recu_clamps_at_a_quantile_that_grows_and_keeps_signs() -> None:
    clamped = Clamped()
    w = torch.distributions.Laplace(0.0, 1.0).sample(torch.Size([4, 20_000]))
    u = clamped.standardized(w)
    for progress, tau in ((0.0, 0.85), (1.0, 0.99)):
        clamped.at(progress)
        inside = (u.abs() < clamped.quantile(u)).float().mean()
        assert float(inside) == pytest.approx(2 * tau - 1, abs=0.01)  # both tails of a Laplace law
        assert bool((torch.sign(clamped(w)) == torch.sign(u)).all())
    latent = w.clone().requires_grad_()
    clamped(latent).sum().backward()
    assert latent.grad is not None
    with pytest.raises(UsageError, match="quantiles"):
        recu.apply(perceptron(), recu.Config(first=0.4))


def test_rbnn_rotation_closes_the_angle_to_the_signs() -> None:
    x = torch.randn(16, 6, 8, generator=torch.Generator().manual_seed(0))
    first, second = torch.eye(6), torch.eye(8)
    before = float(x.abs().sum())  # sum_n tr(B^T X) without a rotation
    sums = [before]
    for _ in range(4):
        first, second = update_rotation(x, first, second, 1)
        sums.append(float((first.T @ x @ second).abs().sum()))
    assert sums == sorted(sums)
    assert sums[-1] > 1.02 * before
    torch.testing.assert_close(first @ first.T, torch.eye(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(second @ second.T, torch.eye(8), atol=1e-5, rtol=0)


def test_rbnn_turns_only_while_it_trains() -> None:
    turned = Rotated(8, 48)
    assert turned.rows == 6
    w = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    u = turned.standardized(w)
    torch.testing.assert_close(turned.eval()(w), u)
    moved = turned.train()(w)
    assert not torch.allclose(moved, u)
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), u.flatten(1).norm(dim=1))
    again = turned(2 * w + 1)  # standardized alike; no new rotation before the next epoch
    torch.testing.assert_close(again, moved, atol=1e-3, rtol=1e-3)
