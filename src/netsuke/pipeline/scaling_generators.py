"""Toy generators of several sizes, language-style and diffusion, on the same digits: what `scaling` sweeps over.

A `Family` says how a generator of a width is built, trained, judged and, where it gives tokens, trained at few bits.
Both kinds are judged alike: Frechet distance of 500 samples to the 1,797 digits on features of the shipped classifier
(`netsuke.measure.samples`), and each by its own training loss on the 359 test digits, which is less noisy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SAMPLES, STEPS = 500, 8  # images judged; steps of a diffusion run
LOSSES = ("labels", "topkld", "forward", "reverse")


@dataclass(frozen=True)
class Family:
    """build   width -> untrained network, seeded by torch's generator
    train   (network, seed, steps): in place
    judge   (network, seed) -> {"loss", "distance"}
    tune    (network with quantizers, float network, loss of `LOSSES`, seed, steps): in place; None: no such training
    inputs  one batch of every input as the network's engine takes it
    """

    name: str
    build: Callable[[int], nn.Module]
    train: Callable[[nn.Module, int, int], None]
    judge: Callable[[nn.Module, int], dict[str, float]]
    inputs: Callable[[], dict[str, np.ndarray]]
    dtypes: dict[str, str]
    tune: Callable[[nn.Module, nn.Module, str, int, int], None] | None = None


def digits(split: str) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 8, 8] in [0, 1] and labels."""
    from netsuke.models.train import tensors

    return tensors(f"digits:{split}", None)


def _loop(parameters: Any, steps: int, rate: float, loss: Callable[[int], Tensor]) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=[g["lr"] for g in optimizer.param_groups],
                                                   total_steps=steps, pct_start=0.1)  # fmt: skip
    for step in range(steps):
        value = loss(step)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
        optimizer.step()
        schedule.step()


def _rows(x: Tensor, batch: int, rng: torch.Generator) -> Tensor:
    return torch.randint(len(x), (batch,), generator=rng)


def _pixels(width: int) -> nn.Module:
    from netsuke.models.pixel_lm import PixelLM

    return PixelLM(width, max(1, width // 16), 2)


def _train_pixels(network: nn.Module, seed: int, steps: int) -> None:
    from netsuke.models.pixel_lm import tokens_of

    (x, y), rng = digits("train"), torch.Generator().manual_seed(seed)

    def loss(_: int) -> Tensor:
        rows = _rows(x, 32, rng)
        tokens, wanted = tokens_of(x[rows], y[rows])
        return F.cross_entropy(network(tokens).flatten(0, 1), wanted.flatten())

    _loop(network.train().parameters(), steps, 5e-3, loss)
    network.eval()


def _tune_pixels(network: nn.Module, teacher: nn.Module, kind: str, seed: int, steps: int) -> None:
    """Quantization-aware training: cross-entropy with the digits, and the divergence that `kind` names on top."""
    from netsuke.methods.qat.topkld import TopKld, topkld
    from netsuke.models.pixel_lm import tokens_of

    (x, y), rng = digits("train"), torch.Generator().manual_seed(seed)
    k = {"labels": None, "forward": 0, "reverse": 10**6}.get(kind, TopKld().k)
    steps_of = [p for n, p in network.named_parameters() if "quantizer" in n]
    others = [p for n, p in network.named_parameters() if "quantizer" not in n]

    def loss(_: int) -> Tensor:
        rows = _rows(x, 32, rng)
        tokens, wanted = tokens_of(x[rows], y[rows])
        out = network(tokens)
        value = F.cross_entropy(out.flatten(0, 1), wanted.flatten())
        if k is None:
            return value
        with torch.no_grad():
            soft = teacher(tokens)
        return value + topkld(out, soft, k)

    network.train()
    _loop([{"params": others, "lr": 2e-3}, {"params": steps_of, "lr": 5e-4, "weight_decay": 0.0}], steps, 2e-3, loss)
    network.eval()


def _judge_pixels(network: nn.Module, seed: int) -> dict[str, float]:
    from netsuke.measure.samples import digit_quality
    from netsuke.models.pixel_lm import generate, tokens_of

    tokens, wanted = tokens_of(*digits("test"))
    labels = torch.arange(SAMPLES) % 10
    with torch.no_grad():
        loss = float(F.cross_entropy(network(tokens).flatten(0, 1), wanted.flatten()))
    images = generate(network, labels, torch.Generator().manual_seed(1_000_003 + seed))
    return {"loss": loss, "distance": digit_quality(images.numpy(), labels.numpy()).distance}


def _dit(width: int) -> nn.Module:
    from netsuke.models.dit import DiT

    return DiT(width, 3, max(1, width // 16))


def _train_dit(network: nn.Module, seed: int, steps: int) -> None:
    from netsuke.nn.diffusion import noisy

    (x, y), rng = digits("train"), torch.Generator().manual_seed(seed)

    def loss(_: int) -> Tensor:
        rows = _rows(x, 64, rng)
        at, t, v = noisy(2 * x[rows] - 1, rng)
        return F.mse_loss(network(at, t, y[rows]), v)

    _loop(network.train().parameters(), steps, 3e-3, loss)
    network.eval()


def _judge_dit(network: nn.Module, seed: int) -> dict[str, float]:
    from netsuke.measure.samples import digit_quality
    from netsuke.nn.diffusion import noisy, sample, starts

    x, y = digits("test")
    at, t, v = noisy(2 * x - 1, torch.Generator().manual_seed(7))
    noise, labels = starts(SAMPLES, (1, 8, 8), seed=1_000_003 + seed)
    with torch.no_grad():
        loss = float(F.mse_loss(network(at, t, y), v))
        images = sample(network, torch.from_numpy(noise), torch.from_numpy(labels), STEPS)
    return {"loss": loss, "distance": digit_quality(images.numpy(), labels).distance}


def _token_input() -> dict[str, np.ndarray]:
    from netsuke.models.pixel_lm import tokens_of

    x, y = digits("test")
    return {"tokens": tokens_of(x[:8], y[:8])[0].numpy()}


def _image_input() -> dict[str, np.ndarray]:
    from netsuke.nn.diffusion import starts

    noise, labels = starts(8, (1, 8, 8), seed=7)
    return {"image": noise, "time": np.full(8, 500, np.float32), "label": labels}


FAMILIES = {
    "autoregressive": Family(
        "autoregressive", _pixels, _train_pixels, _judge_pixels, _token_input, {"tokens": "i64"}, _tune_pixels
    ),
    "diffusion": Family(
        "diffusion", _dit, _train_dit, _judge_dit, _image_input, {"image": "f32", "time": "f32", "label": "i64"}
    ),
}
