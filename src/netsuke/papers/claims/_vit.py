"""A small vision transformer on the shipped digits: training, answers, compiling; shared by claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from netsuke.papers.claims._binary import SHAPE, _tensors

BATCH = 64


def batches(seed: int) -> Callable[[int], tuple[Any, Any]]:
    """Random batches of training images, moved by up to one pixel, by step."""
    from netsuke.models.train import shifted

    x, y = _tensors("train")

    def draw(step: int) -> tuple[Any, Any]:
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = torch.randint(len(x), (BATCH,), generator=rng)
        return shifted(x[rows], rng), y[rows]

    return draw


class _KeysAreQueries(nn.Module):
    """Of a joint projection of q, k and v: the rows of k are those of q."""

    def forward(self, joint: Tensor) -> Tensor:
        q, _, v = joint.chunk(3)
        return torch.cat([q, q, v])


def test_images() -> Any:
    return _tensors("test")[0]


def pretrained(seed: int, steps: int = 400, *, shared: bool = False) -> Any:
    """The float network, trained; shared: keys are the queries, one projection for both."""
    from torch.nn.utils import parametrize

    from netsuke.methods.binarize._fit import Training, fit
    from netsuke.models.digits_vit import digits_vit

    torch.manual_seed(seed)
    model = digits_vit()
    joint = [m for name, m in model.named_modules() if shared and name.endswith(".qkv")]
    places = [(layer, name) for layer in joint for name, _ in list(layer.named_parameters())]
    for layer, name in places:
        parametrize.register_parametrization(layer, name, _KeysAreQueries())
    fit(model, batches(seed), Training(steps))
    for layer, name in places:
        parametrize.remove_parametrizations(layer, name)
    return model


def compiled(model: Any) -> Any:
    """The frozen network as a program."""
    from netsuke.capture import capture
    from netsuke.passes import compile_program

    return compile_program(capture(model, shape=SHAPE), name="digits_vit")
