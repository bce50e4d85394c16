"""MixDQ: a constant first token taken out exactly, two metrics, an integer program within its bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from netsuke import engine
from netsuke.core.errors import UsageError
from netsuke.methods.diffusion import mixdq
from netsuke.methods.diffusion._first_token import split_first_token
from netsuke.methods.diffusion._sampling import Sampling
from netsuke.models.diffusion_unet import DiffusionUNet
from netsuke.passes import compile_program

SAMPLING = Sampling(steps=2, shape=(1, 4, 4), count=16)


def prompted(first: float = 40.0) -> nn.Module:
    torch.manual_seed(0)
    return DiffusionUNet(width=4, first=first).eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    noise, labels = SAMPLING.start(6, 5)
    return noise, torch.full((6,), 500.0), labels


def test_the_first_token_leaves_without_changing_the_network() -> None:
    model = prompted()
    split, names = split_first_token(model)
    assert names == ["middle.attn2.to_k", "middle.attn2.to_v"]
    with torch.no_grad():
        np.testing.assert_allclose(split(*inputs()).numpy(), model(*inputs()).numpy(), atol=1e-4)
    unprompted, none = split_first_token(DiffusionUNet(width=4).eval())
    assert none == []
    assert isinstance(unprompted, nn.Module)


def test_without_it_the_prompt_is_read_far_better_at_8_bits() -> None:
    model = prompted()
    errors = {}
    for kept in (True, False):
        made = mixdq.apply(model, SAMPLING, mixdq.MixDq(first_token=kept))
        layer = made.layers()["middle.attn2.to_k"]
        errors[kept] = float(layer.source.scale.detach())
        assert made.facts["first_token_layers"] == (2 if kept else 0)
    assert errors[True] < 0.1 * errors[False]


def test_the_program_keeps_its_bits_and_the_engine_computes_it() -> None:
    made = mixdq.apply(prompted(), SAMPLING, mixdq.MixDq(bits=4.0, count=8, ratios=4))
    assert made.facts["bits_per_weight"] <= 4.0 + 1e-9
    assert made.facts["candidates"] >= 2
    widths = {row.weight_bits for row in made.networks[0].plan.rows}
    assert len(widths) > 1
    run = engine.load(compile_program(next(made.exports())))
    noise, t, labels = inputs()
    with torch.no_grad():
        wanted = made.at(0)(noise, t, labels).numpy()
    found = next(iter(run.run({"image": noise.numpy(), "time": t.numpy(), "label": labels.numpy()}).values()))
    np.testing.assert_allclose(found, wanted, atol=0.05)


def test_metrics_are_what_they_say() -> None:
    x = torch.rand(3, 1, 8, 8) * 2 - 1
    assert mixdq.ssim(x, x) == pytest.approx(1.0, abs=1e-5)
    assert mixdq.ssim(torch.rand(3, 1, 8, 8) * 2 - 1, x) < 0.4
    assert mixdq.sqnr(x, x) == 100.0
    assert mixdq.sqnr(1.1 * x, x) == pytest.approx(20.0, abs=1e-3)


def test_options_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="widths"):
        mixdq.MixDq(widths="4+9")
    with pytest.raises(UsageError, match="bits"):
        mixdq.MixDq(bits=1.0)
