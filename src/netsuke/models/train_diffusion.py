"""Trains the diffusion networks: `python -m netsuke.models.train_diffusion digits_unet --out F.safetensors`.

A plain loop on the 1,437 training digits of scikit-learn: AdamW, one-cycle rate, mean squared error on v, float32,
fixed seed. On one core a network takes two to three minutes; the package ships the results, rounded to float16 (they
run as float32). `netsuke.measure.samples` judges what they generate.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from netsuke import models
from netsuke.models.train import tensors
from netsuke.nn.diffusion import noisy

STEPS = {"digits_unet": 2000, "digits_prompt_unet": 2000, "digits_dit": 3000}


def train(name: str, *, steps: int = 0, rate: float = 2e-3, batch: int = 64, seed: int = 0) -> nn.Module:
    """The trained network in eval mode. steps 0: the number the shipped weights were trained for."""
    rng, started = torch.Generator().manual_seed(seed), time.monotonic()
    x, y = tensors("digits:train", None)
    x, steps = 2 * x - 1, steps or STEPS[name]
    network = models.build(name, weights="random", seed=seed).train()
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


def main() -> None:
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=sorted(STEPS))
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    network = train(options.network, steps=options.steps, seed=options.seed)
    state = {k: v.contiguous() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, str(options.out))
    print(f"{sum(v.numel() for v in state.values())} values, written to {options.out}")


if __name__ == "__main__":
    main()
