"""A small vision transformer on the shipped digits: training, answers, compiling; shared by claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netsuke.papers.claims._binary import SHAPE, _tensors

BATCH = 64


def batches(seed: int) -> Callable[[int], tuple[Any, Any]]:
    """Random batches of training images, moved by up to one pixel, by step."""
    import torch

    from netsuke.models.train import shifted

    x, y = _tensors("train")

    def draw(step: int) -> tuple[Any, Any]:
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = torch.randint(len(x), (BATCH,), generator=rng)
        return shifted(x[rows], rng), y[rows]

    return draw


def test_images() -> Any:
    return _tensors("test")[0]


def pretrained(seed: int, steps: int = 400) -> Any:
    """The float network, trained."""
    import torch

    from netsuke.methods.binarize._fit import Training, fit
    from netsuke.models.digits_vit import digits_vit

    torch.manual_seed(seed)
    return fit(digits_vit(), batches(seed), Training(steps))


def compiled(model: Any) -> Any:
    """The frozen network as a program."""
    from netsuke.capture import capture
    from netsuke.passes import compile_program

    return compile_program(capture(model, shape=SHAPE), name="digits_vit")
