"""The shipped digits network, trained further with a method of the room `qat`: shared by claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from netsuke import engine
from netsuke.data import load_data
from netsuke.methods.qat import QatNetwork, Samples, Step, TrainConfig, plain_step, prepare, train
from netsuke.models import build
from netsuke.papers.claim import Context
from netsuke.passes import compile_program

SHAPE = (1, 1, 8, 8)
CONFIG = TrainConfig(epochs=15, batch=64, rate=0.02, scale_rate=0.005)


def tensors(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """All digits of a split and their labels."""
    parts = list(load_data(f"digits:{split}").batches(256))
    labels = np.concatenate([np.asarray(part[1], np.int64) for part in parts])
    return torch.from_numpy(np.concatenate([part[0] for part in parts])), torch.from_numpy(labels)


def top1(network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of right answers."""
    with torch.no_grad():
        return float((network(x).argmax(1) == y).float().mean())


def trained(
    context: Context,
    seed: int,
    *,
    model: torch.nn.Module | None = None,
    data: tuple[torch.Tensor, torch.Tensor] | None = None,
    config: TrainConfig = CONFIG,
    step: Callable[[QatNetwork], Step] = lambda _: plain_step,
    teach: bool = True,
    **options: Any,
) -> QatNetwork:
    """The network trained with quantizers, the float one its teacher. options go to `prepare`."""
    torch.set_num_threads(1)
    model = build("digits_cnn") if model is None else model
    x, y = tensors("train") if data is None else data
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:256]
    network = prepare(model, shape=(1, *x.shape[1:]), calib=x[rows], **options)
    made = step(network)
    train(network, Samples(x, y), teacher=model if teach else None, config=replace(config, seed=seed), step=made)
    context.progress(f"seed {seed}: trained {options.get('method', '')}")
    return network


def served(network: QatNetwork, x: torch.Tensor) -> tuple[Any, torch.Tensor, bool]:
    """The program, the engine's outputs, and whether they are those of the trained network, bit for bit."""
    program = compile_program(network.export(), name="digits")
    found = torch.from_numpy(np.asarray(engine.load(program)(x.numpy())))
    with torch.no_grad():
        return program, found, torch.equal(found, network.eval()(x))
