"""Trains the character model: `python -m netsuke.models.train_lm tinyshakespeare.txt --out char_lm.safetensors`.

AdamW, one-cycle rate, windows drawn at random, float32, fixed seed. On two cores the default 2,400 steps of 32
windows take under twenty minutes. The last tenth of the text is never trained on; its perplexity per character is
printed at the end.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsuke import models
from netsuke.data.text import characters, windows


def batch(codes: Tensor, length: int, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Windows that start anywhere, and the characters that follow."""
    first = torch.randint(len(codes) - length, (count,), generator=rng)
    rows = codes[first[:, None] + torch.arange(length + 1)]
    return rows[:, :-1], rows[:, 1:]


def perplexity(network: nn.Module, path: Path, length: int, limit: int = 512) -> float:
    """exp of the mean negative log likelihood per character on the test split."""
    total = count = 0.0
    with torch.no_grad():
        for x, _ in windows(path, length, "test").take(limit).batches(32):
            tokens = torch.from_numpy(x)
            logits, wanted = network(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
            total += float(F.cross_entropy(logits, wanted, reduction="sum"))
            count += len(wanted)
    return math.exp(total / count)


def train(
    path: Path,
    *,
    network: str = "char_lm",
    steps: int = 2400,
    rate: float = 3e-3,
    count: int = 32,
    seed: int = 0,
    seconds: float = math.inf,
) -> nn.Module:
    """The trained network in eval mode. Stops early, with the schedule as it stands, after `seconds`."""
    rng, started = torch.Generator().manual_seed(seed), time.monotonic()
    net = models.build(network, weights="random", seed=seed)
    length = models.entry(network).shape[1]
    codes = torch.from_numpy(characters(path))
    codes = codes[: int(len(codes) * 0.9)]
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    net.train()
    for step in range(steps):
        x, y = batch(codes, length, count, rng)
        loss = F.cross_entropy(net(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}/{steps}  loss {float(loss):.3f}  {time.monotonic() - started:.0f} s", flush=True)
        if time.monotonic() - started > seconds:
            break
    return net.eval()


def main() -> None:
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--network", default="char_lm", choices=["char_lm", "char_lm_tiny"])
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    network = train(options.text, network=options.network, steps=options.steps, seed=options.seed)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, str(options.out))
    found = perplexity(network, options.text, models.entry(options.network).shape[1])
    print(f"test perplexity per character {found:.3f}, written to {options.out}")


if __name__ == "__main__":
    main()
