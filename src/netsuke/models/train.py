"""Trains the two small networks of the demo and the benchmarks: `python -m netsuke.models.train digits --out
digits_cnn.safetensors`.

A plain loop: AdamW, one-cycle learning rate, random one-pixel shifts, float32, fixed seed. On two cores digits takes
about ten seconds (the package ships the result), Fashion-MNIST about a minute an epoch.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsuke import models
from netsuke.data import load_data


@dataclass(frozen=True)
class Recipe:
    """What is trained on what, and for how long."""

    network: str
    data: str
    epochs: int
    batch: int
    rate: float


RECIPES = {
    "digits": Recipe("digits_cnn", "digits", 60, 64, 4e-3),
    "fashion": Recipe("fashion_cnn", "fashion-mnist", 6, 128, 3e-3),
}


def tensors(spec: str, root: str | None) -> tuple[Tensor, Tensor]:
    """All samples and labels of a data set in memory."""
    parts = list(load_data(spec, root).batches(256))
    y = np.concatenate([np.asarray(part[1], np.int64) for part in parts])
    return torch.from_numpy(np.concatenate([part[0] for part in parts])), torch.from_numpy(y)


def shifted(x: Tensor, rng: torch.Generator) -> Tensor:
    """The batch moved by up to one pixel in each direction, zeros coming in."""
    dy, dx = (int(v) for v in torch.randint(-1, 2, (2,), generator=rng))
    height, width = x.shape[-2:]
    return F.pad(x, (1, 1, 1, 1))[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of samples whose largest logit is the label."""
    with torch.no_grad():
        right = [(network(x[i : i + 512]).argmax(1) == y[i : i + 512]).sum() for i in range(0, len(x), 512)]
    return float(torch.stack(right).sum()) / len(x)


def train(
    recipe: Recipe, root: str | None = None, *, seed: int = 0, epochs: int | None = None
) -> tuple[nn.Module, float]:
    """A trained network in eval mode and its accuracy on the test split."""
    rng = torch.Generator().manual_seed(seed)
    network = models.build(recipe.network, weights="random", seed=seed)
    x, y = tensors(f"{recipe.data}:train", root)
    count = epochs or recipe.epochs
    steps = count * (len(x) // recipe.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps)
    network.train()
    for epoch in range(count):
        losses = []
        for rows in torch.randperm(len(x), generator=rng).split(recipe.batch):
            if len(rows) < recipe.batch:
                continue
            loss = F.cross_entropy(network(shifted(x[rows], rng)), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch + 1}/{count}  loss {np.mean(losses):.4f}", flush=True)
    network.eval()
    return network, accuracy(network, *tensors(f"{recipe.data}:test", root))


def main() -> None:
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=sorted(RECIPES))
    parser.add_argument("--data-root")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)  # dropout
    network, top1 = train(RECIPES[options.what], options.data_root, epochs=options.epochs)
    state = {k: v.contiguous() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, str(options.out))
    print(f"test accuracy {top1:.4f}, {sum(v.numel() for v in state.values())} values, written to {options.out}")


if __name__ == "__main__":
    main()
