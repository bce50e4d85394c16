"""Trains the diffusion networks: `python -m netsuke.models.train_diffusion digits_unet --out F.safetensors`.

A plain loop: AdamW, one-cycle rate, mean squared error on v, float32, fixed seed. digits_*: the 1,437 training digits
of scikit-learn, two to three minutes on one core; the package ships the results, rounded to float16 (they run as
float32). fashion_*: 28x28 images of `--data` (fashion-mnist, or mnist) below `--data-root`, at most 20 minutes on two
cores.
`netsuke.measure.samples` judges what they generate.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsuke import models
from netsuke.core.errors import Problem, UsageError
from netsuke.data import load_data
from netsuke.data.preprocess import Preprocess
from netsuke.nn.diffusion import noisy


@dataclass(frozen=True)
class Recipe:
    """What a network is trained on, and for how long: `steps` batches of 64."""

    data: str
    steps: int
    rate: float = 2e-3


RECIPES = {
    "digits_unet": Recipe("digits", 2000),
    "digits_prompt_unet": Recipe("digits", 2000),
    "digits_dit": Recipe("digits", 3000),
    "fashion_unet": Recipe("fashion-mnist", 5000),
    "fashion_dit": Recipe("fashion-mnist", 4500),
}


def images(spec: str, root: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """All images of a data set, f32 [N, C, H, W] in [-1, 1], and labels i64 [N]; without the mean and deviation that
    classifiers take off. UsageError for what is no image or lies outside of [0, 1]."""
    data = load_data(spec, root)
    if isinstance(data.transform, Preprocess):
        data.transform = replace(data.transform, mean=(0.0,), std=(1.0,))
    parts = list(data.batches(512))
    x = np.concatenate([part[0] for part in parts])
    if x.ndim != 4 or not data.labels or float(x.min()) < 0 or float(x.max()) > 1:
        got = f"{list(x.shape)}, {x.min():.3g} to {x.max():.3g}, labels: {data.labels}"
        raise UsageError(Problem("no labelled images", spec, got, "[N, C, H, W] in [0, 1] with labels"))
    y = np.concatenate([np.asarray(part[1], np.int64) for part in parts])
    return torch.from_numpy(2 * x - 1), torch.from_numpy(y)


def train(
    name: str,
    *,
    steps: int = 0,
    rate: float = 0.0,
    batch: int = 64,
    seed: int = 0,
    data: str = "",
    root: str | Path | None = None,
) -> nn.Module:
    """The trained network in eval mode. steps, rate, data: 0 or "" take the recipe's (digits: the shipped weights').

    data  a built-in name, whose training split is taken, or an .npz file with x [N, C, H, W] in [0, 1] and y
    """
    recipe = RECIPES[name]
    data = data or recipe.data
    x, y = images(data if data.endswith(".npz") else f"{data}:train", root)
    size = models.entry(name).shape[1:]
    if x.shape[1:] != size:
        raise UsageError(Problem("images of another size", name, str(list(x.shape[1:])), str(list(size))))
    network = models.build(name, weights="random", seed=seed)
    return fit(network, x, y, steps=steps or recipe.steps, rate=rate or recipe.rate, batch=batch, seed=seed)


def fit(
    network: nn.Module, x: Tensor, y: Tensor, *, steps: int, rate: float = 2e-3, batch: int = 64, seed: int = 0
) -> nn.Module:
    """The loop, in place, on images [N, C, H, W] in [-1, 1] and their classes; returns the network in eval mode."""
    rng, started = torch.Generator().manual_seed(seed), time.monotonic()
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        rows = torch.randint(len(x), (batch,), generator=rng)
        at, t, v = noisy(x[rows], rng)
        loss = F.mse_loss(network(at, t, y[rows]), v)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 249:
            print(
                f"step {step + 1}/{steps}  loss {float(loss.detach()):.4f}  {time.monotonic() - started:.0f} s",
                flush=True,
            )
    return network.eval()


def save(network: nn.Module, path: Path, *, half: bool = True) -> int:
    """Write the weights, as float16 unless told otherwise; returns how many values there are."""
    from safetensors.torch import save_file

    state = {k: v.contiguous() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file({k: v.half() if half and v.is_floating_point() else v for k, v in state.items()}, str(path))
    return sum(v.numel() for v in state.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=sorted(RECIPES))
    parser.add_argument("--data", default="", help="another data set than the recipe's: mnist, an .npz file")
    parser.add_argument("--data-root", help="where fashion-mnist or mnist lie; else NETSUKE_DATA")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    network = train(options.network, steps=options.steps, seed=options.seed, data=options.data, root=options.data_root)
    print(f"{save(network, options.out)} values, written to {options.out}")


if __name__ == "__main__":
    main()
