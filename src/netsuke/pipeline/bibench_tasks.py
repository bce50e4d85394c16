"""Small tasks that need no files, and one small network of each architecture, for BiBench's tracks.

images     the shipped 8x8 digits: a convolutional network, a transformer over their rows, a perceptron
points     64 points on a sphere, a cube, a cone or a cylinder: a perceptron on each point, maximum over points
sequences  24 symbols of one of four Markov chains: a transformer
signals    64 samples of one of four waveforms in noise: a perceptron
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from netsuke.core.seeds import generator
from netsuke.models.vit import EncoderBlock

TRAIN, TEST = 1024, 512

Data = tuple[Tensor, Tensor, Tensor, Tensor]  # training inputs and labels, test inputs and labels


class Block(nn.Module):
    """PReLU(x + BN(conv(BN(x)))): the convolution is what a binarizer replaces."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.after, self.act = nn.BatchNorm2d(width), nn.BatchNorm2d(width), nn.PReLU(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(x + self.after(self.conv(self.before(x))))
        return out


class Cnn(nn.Module):
    """Stem, `depth` blocks, mean over positions, head. Input [N, 1, H, W]."""

    def __init__(self, width: int = 24, depth: int = 2, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        out: Tensor = self.head(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))
        return out


class Tokens(nn.Module):
    """A transformer encoder block over tokens, mean over them, head. Input [N, T, features] or [N, 1, T, features]."""

    def __init__(self, features: int, tokens: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.embed, self.position = nn.Linear(features, width), nn.Parameter(0.1 * torch.randn(1, tokens, width))
        self.block, self.norm, self.head = EncoderBlock(width, 2, 2), nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.squeeze(1) if x.ndim == 4 else x
        out: Tensor = self.head(self.norm(self.block(self.embed(x) + self.position)).mean(1))
        return out


class Perceptron(nn.Module):
    """Two hidden layers with batch norm between; the layer between them is what a binarizer replaces."""

    def __init__(self, features: int, classes: int, width: int = 96) -> None:
        super().__init__()
        self.first, self.before = nn.Linear(features, width), nn.BatchNorm1d(width)
        self.middle, self.after, self.act = nn.Linear(width, width), nn.BatchNorm1d(width), nn.PReLU(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(self.first(torch.flatten(x, 1)))
        out: Tensor = self.head(self.act(x + self.after(self.middle(x))))
        return out


class Points(nn.Module):
    """The same perceptron for every point, maximum over points, head. Input [N, 64, 3]."""

    def __init__(self, classes: int = 4, width: int = 48) -> None:
        super().__init__()
        self.first, self.before = nn.Linear(3, width), nn.LayerNorm(width)
        self.middle, self.after, self.act = nn.Linear(width, width), nn.LayerNorm(width), nn.PReLU()
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(self.first(x))
        out: Tensor = self.head(self.act(x + self.after(self.middle(x))).amax(1))
        return out


def images(seed: int) -> Data:
    """The shipped digits; the same for every seed."""
    from netsuke.data import load_data

    del seed
    parts = []
    for split in ("train", "test"):
        batches = list(load_data(f"digits:{split}").batches(512))
        parts += [
            np.concatenate([b[0] for b in batches]),
            np.concatenate([np.asarray(b[1], np.int64) for b in batches]),
        ]
    x, y, xt, yt = (torch.from_numpy(p) for p in parts)
    return x, y, xt, yt


def _split(x: np.ndarray, y: np.ndarray) -> Data:
    xs, ys = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64))
    return xs[:TRAIN], ys[:TRAIN], xs[TRAIN:], ys[TRAIN:]


def points(seed: int) -> Data:
    """Points on four surfaces of random size with a little noise."""
    rng, count = generator(seed, "bibench", "points"), TRAIN + TEST
    y = rng.integers(0, 4, count)
    direction = rng.standard_normal((count, 64, 3))
    sphere = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    cube = direction / np.abs(direction).max(-1, keepdims=True)
    angle, height = rng.uniform(0, 2 * np.pi, (count, 64)), rng.uniform(-1, 1, (count, 64))
    cylinder = np.stack([np.cos(angle), np.sin(angle), height], -1)
    cone = cylinder * np.stack([(1 - height) / 2, (1 - height) / 2, np.ones_like(height)], -1)
    x = np.choose(y[:, None, None], [sphere, cube, cylinder, cone]) * rng.uniform(0.7, 1.3, (count, 1, 1))
    return _split(x + 0.1 * rng.standard_normal(x.shape), y)


def sequences(seed: int) -> Data:
    """One-hot symbols of four Markov chains over eight symbols."""
    rng, count, symbols, length = generator(seed, "bibench", "sequences"), TRAIN + TEST, 8, 24
    chains = rng.dirichlet(np.full(symbols, 0.5), (4, symbols)).cumsum(-1)
    y, state = rng.integers(0, 4, count), rng.integers(0, symbols, count)
    found = np.zeros((count, length), np.int64)
    for t in range(length):
        found[:, t] = state
        state = (rng.random(count)[:, None] > chains[y, state]).sum(1).clip(max=symbols - 1)
    # Two symbols a token: what tells chains apart are pairs.
    one = np.eye(symbols)[found].reshape(count, length // 2, 2 * symbols)
    return _split(one, y)


def signals(seed: int) -> Data:
    """Sine, square, saw tooth and falling chirp of random phase and pitch, in noise."""
    rng, count = generator(seed, "bibench", "signals"), TRAIN + TEST
    y, t = rng.integers(0, 4, count), np.arange(64) / 64
    phase = rng.uniform(2, 5, (count, 1)) * t + rng.random((count, 1))
    sine = np.sin(2 * np.pi * phase)
    chirp = np.sin(2 * np.pi * (phase + 3 * t * (1 - t)))
    waves = [sine, np.sign(sine), 2 * (phase % 1) - 1, chirp]
    return _split(np.choose(y[:, None], waves) + 0.3 * rng.standard_normal((count, 64)), y)


@dataclass(frozen=True)
class Case:
    """One network on one task. keep: layers that stay float."""

    task: str
    architecture: str
    data: Callable[[int], Data]
    network: Callable[[], nn.Module]
    keep: tuple[str, ...]


CASES = (
    Case("images", "cnn", images, Cnn, ("stem", "head")),
    Case("images", "transformer", images, lambda: Tokens(8, 8, 10), ("embed", "head")),
    Case("images", "mlp", images, lambda: Perceptron(64, 10), ("first", "head")),
    Case("points", "mlp", points, Points, ("first", "head")),
    Case("sequences", "transformer", sequences, lambda: Tokens(16, 12, 4), ("embed", "head")),
    Case("signals", "mlp", signals, lambda: Perceptron(64, 4), ("first", "head")),
)


def corrupted(x: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Digits [N, 1, 8, 8] in [0, 1] under eight corruptions, one strength each."""
    rng = torch.Generator().manual_seed(seed)
    kernel = torch.full((1, 1, 3, 3), 1 / 9)
    speckled = torch.where(torch.rand(x.shape, generator=rng) < 0.1, torch.rand(x.shape, generator=rng).round(), x)
    hidden = x.clone()
    hidden[:, :, 2:5, 2:5] = 0
    coarse = functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2.0)
    return {
        "noise": (x + 0.25 * torch.randn(x.shape, generator=rng)).clamp(0, 1),
        "impulses": speckled,
        "blur": functional.conv2d(x, kernel, padding=1),
        "contrast": 0.5 + 0.4 * (x - 0.5),
        "brightness": (x + 0.3).clamp(0, 1),
        "shift": functional.pad(x, (1, 0, 1, 0))[..., :8, :8],
        "pixels": coarse,
        "hidden part": hidden,
    }
