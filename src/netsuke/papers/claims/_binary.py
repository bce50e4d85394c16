"""A small residual CNN on the shipped digits, made binary or ternary, trained, frozen, compiled: shared by claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SHAPE = (1, 1, 8, 8)
EPOCHS, BATCH, RATE = 30, 64, 4e-3


def network(seed: int) -> Any:
    """The float network, before any method."""
    import torch

    from netsuke.models.binary_digits import BinaryDigitsCNN

    torch.manual_seed(seed)
    return BinaryDigitsCNN()


def _tensors(split: str) -> tuple[Any, Any]:
    import torch

    from netsuke.data import load_data

    parts = list(load_data(f"digits:{split}").batches(512))
    y = np.concatenate([np.asarray(labels, np.int64) for _, labels, *_ in parts])
    return torch.from_numpy(np.concatenate([part[0] for part in parts])), torch.from_numpy(y)


def train(
    model: Any,
    seed: int,
    *,
    epochs: int = EPOCHS,
    rate: float = RATE,
    penalty: Callable[[], Any] | None = None,
    after_step: Callable[[], None] | None = None,
) -> Any:
    """AdamW with a one-cycle rate; surrogates sharpen with the epochs; returns the model in eval mode."""
    import torch
    from torch.nn import functional

    from netsuke.models.train import shifted
    from netsuke.nn.binary_layers import set_progress

    x, y = _tensors("train")
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * (len(x) // BATCH))
    model.train()
    for epoch in range(epochs):
        set_progress(model, epoch / epochs)
        for rows in torch.randperm(len(x), generator=rng)[: len(x) // BATCH * BATCH].split(BATCH):
            loss = functional.cross_entropy(model(shifted(x[rows], rng)), y[rows])
            if penalty is not None:
                loss = loss + penalty()
            optimizer.zero_grad()
            loss.backward()
            if after_step is not None:
                after_step()
            optimizer.step()
            schedule.step()
    return model.eval()


def answers(model: Any) -> tuple[Any, Any]:
    """(labels the network gives, true labels) of the 359 test images."""
    import torch

    x, y = _tensors("test")
    with torch.no_grad():
        return model(x).argmax(1).numpy(), y.numpy()


def top1(model: Any) -> float:
    """Accuracy on the test images."""
    given, true = answers(model)
    return float((given == true).mean())


def compiled(model: Any) -> Any:
    """The frozen network as a program; layers that stay float are float there too."""
    from netsuke.capture import capture
    from netsuke.passes import compile_program

    return compile_program(capture(model, shape=SHAPE), name="binary_digits")


def engine_answers(program: Any) -> Any:
    """Labels the engine gives for the test images."""
    from netsuke import engine

    x, _ = _tensors("test")
    return next(iter(engine.load(program).run(x.numpy()).values())).argmax(1)
