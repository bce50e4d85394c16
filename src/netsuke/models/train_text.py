"""Trains the text classifier: `python -m netsuke.models.train_text FOLDER --out text_classifier.safetensors`.

FOLDER holds train.tsv and dev.tsv with lines "sentence<TAB>label", as the sentence-level split of SST-2 comes. AdamW,
one-cycle rate, words dropped at random, float32, fixed seed. The default 1,300 steps take a few minutes on two cores.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsuke import models
from netsuke.data.sentences import UNKNOWN, Vocabulary, read_sentences
from netsuke.models.text_classifier import TextClassifier

LENGTH, WORDS = 32, 4000


@dataclass(frozen=True)
class Split:
    """ids [N, LENGTH], labels [N]."""

    ids: Tensor
    labels: Tensor


def load(folder: Path) -> tuple[Split, Split, Vocabulary]:
    """Training and development split under the vocabulary of the former."""
    rows, labels = read_sentences(folder / "train.tsv")
    vocabulary = Vocabulary.of(rows, WORDS)
    parts = [Split(torch.from_numpy(vocabulary.encode(rows, LENGTH)), torch.from_numpy(labels))]
    rows, labels = read_sentences(folder / "dev.tsv")
    parts.append(Split(torch.from_numpy(vocabulary.encode(rows, LENGTH)), torch.from_numpy(labels)))
    return parts[0], parts[1], vocabulary


def accuracy(network: nn.Module, split: Split) -> float:
    with torch.no_grad():
        right = [
            (network(split.ids[i : i + 256]).argmax(-1) == split.labels[i : i + 256]).sum()
            for i in range(0, len(split.ids), 256)
        ]
    return float(torch.stack(right).sum()) / len(split.ids)


def batch(split: Split, step: int, seed: int, *, drop: float = 0.1, size: int = 64) -> tuple[Tensor, Tensor]:
    """Random sentences, a share of their words made unknown: little text is learned by heart otherwise."""
    rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
    rows = torch.randint(len(split.ids), (size,), generator=rng)
    ids = split.ids[rows]
    hidden = (torch.rand(ids.shape, generator=rng) < drop) & (ids != 0)
    return torch.where(hidden, UNKNOWN, ids), split.labels[rows]


def train(data: Split, *, steps: int = 1300, rate: float = 1e-3, seed: int = 0) -> TextClassifier:
    """The trained classifier in eval mode."""
    network = models.build("text_classifier", weights="random", seed=seed)
    assert isinstance(network, TextClassifier)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    network.train()
    for step in range(steps):
        x, y = batch(data, step, seed)
        loss = F.cross_entropy(network(x), y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}/{steps}  loss {float(loss):.3f}", flush=True)
    network.eval()
    return network


def main() -> None:
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data, dev, _ = load(options.folder)
    network = train(data, steps=options.steps, seed=options.seed)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, str(options.out))
    print(f"accuracy on dev.tsv {accuracy(network, dev):.4f}, written to {options.out}")


if __name__ == "__main__":
    main()
