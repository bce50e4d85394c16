"""The loss against SciPy's divergence, its two ablations, and that the teacher is the float network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import kl_div, softmax
from torch import nn

from methods.qat.tiny import SHAPE, images
from netsuke.core.errors import UsageError
from netsuke.methods.qat import TrainConfig, make_loss, prepare
from netsuke.methods.qat.topkld import TopKld, apply, topkld


def logits(seed: int) -> torch.Tensor:
    return torch.randn(6, 4, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


@pytest.mark.parametrize("k", [0, 1, 5, 12, 99])
def test_it_is_scipys_divergence_part_by_part(k: int) -> None:
    a, b = logits(0), logits(1)
    q, p = softmax(a.numpy(), -1), softmax(b.numpy(), -1)
    top = np.argsort(np.argsort(-p, -1), -1) < k
    want = np.where(top, kl_div(q, p), kl_div(p, q)).sum(-1).mean()
    assert float(topkld(a, b, k)) == pytest.approx(want, rel=1e-9)
    assert float(topkld(b, b, k)) == pytest.approx(0, abs=1e-12)


def test_its_ends_are_the_two_plain_divergences() -> None:
    a, b = logits(2), logits(3)
    forward = nn.functional.kl_div(a.log_softmax(-1), b.log_softmax(-1), log_target=True, reduction="none")
    reverse = nn.functional.kl_div(b.log_softmax(-1), a.log_softmax(-1), log_target=True, reduction="none")
    assert float(topkld(a, b, 0)) == pytest.approx(float(forward.sum(-1).mean()))
    assert float(topkld(a, b, 12)) == pytest.approx(float(reverse.sum(-1).mean()))


def test_descending_it_brings_the_student_to_the_teacher() -> None:
    a, b = logits(4).requires_grad_(), logits(5)
    optimizer = torch.optim.Adam([a], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        topkld(a, b, 3).backward()
        optimizer.step()
    assert float((a.detach().softmax(-1) - b.softmax(-1)).abs().max()) < 0.02


def test_the_step_trains_towards_the_float_network() -> None:
    torch.manual_seed(0)
    x, y = images()
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)).eval()
    network = prepare(model, shape=SHAPE, weight_bits=2, activation_bits=3, calib=x)
    step = apply(network, TopKld(k=2, weight=5.0))
    with torch.no_grad():
        assert torch.allclose(step.teacher(x), model(x), atol=1e-5)  # quantizers are off
        before = float(topkld(network.train()(x), model(x), 2))
    optimizer = torch.optim.SGD(network.groups(0.02, 0.0, 0.001), lr=0.02)
    for _ in range(15):
        step(network.train(), x, y, lambda out, _x, _y: 0.0 * out.sum(), optimizer)
    with torch.no_grad():
        assert float(topkld(network(x), model(x), 2)) < 0.9 * before
        assert torch.allclose(step.teacher(x), model(x), atol=1e-5)  # and it stays what it was
    assert step(network, x, y, make_loss(None, TrainConfig()), optimizer) > 0


def test_bad_options_are_listed() -> None:
    with pytest.raises(UsageError) as raised:
        TopKld(k=-1, weight=0, temperature=float("nan"))
    assert all(word in str(raised.value) for word in ("k", "weight", "temperature"))
