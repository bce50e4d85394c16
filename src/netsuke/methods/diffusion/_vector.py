"""Linear layers whose weights are vectors of a codebook, in training and as they are stored."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsuke.formats.codebook import book_bytes
from netsuke.methods.codebook._codebook import kmeans
from netsuke.methods.qat._export import _op

TOP = 127.0


class VectorLinear(nn.Module):
    """y = x (s C[index])^T + b: vectors of weights along the input, in units of their channel's s = max|W| / 127.

    entries   [k, length] f32, rounded to integers when they are stored
    near      [n, 2] the two nearest entries of each vector, the nearest first; its share is softmax(z, 0)
    hard      [n] vectors that have decided; choice [n]: for which of the two
    """

    scale: Tensor
    near: Tensor
    hard: Tensor
    choice: Tensor

    def __init__(self, layer: nn.Linear, k: int, length: int, rng: np.random.Generator) -> None:
        super().__init__()
        with torch.no_grad():
            weight = layer.weight.detach()
            top = weight.abs().amax(1)
            scale = torch.where(top > 0, top / TOP, torch.ones_like(top))
            vectors = (weight / scale[:, None]).reshape(-1, length)
            book = kmeans(vectors.double().numpy(), min(k, len(vectors)), rng)
            entries = torch.from_numpy(book.entries)
            distances = torch.cdist(vectors, entries)
            two = distances.topk(2, dim=1, largest=False)
        self.shape, self.length = tuple(weight.shape), length
        self.entries = nn.Parameter(entries)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
        self.z = nn.Parameter(torch.log(two.values[:, 1] / (two.values[:, 0] + 1e-5)).clamp(1e-3, 8.0))
        self.register_buffer("scale", scale)
        self.register_buffer("near", two.indices)
        self.register_buffer("hard", torch.zeros(len(vectors), dtype=torch.bool))
        self.register_buffer("choice", torch.zeros(len(vectors), dtype=torch.int64))
        self.lowest = float("inf")

    def share(self) -> Tensor:
        """How much of each vector is its nearest entry, 0 to 1."""
        soft = torch.sigmoid(self.z)
        return torch.where(self.hard, 1.0 - self.choice.to(soft.dtype), soft)

    def weight(self) -> Tensor:
        """The weights as they are now, differentiable in entries and z."""
        share = self.share()[:, None]
        vectors = share * self.entries[self.near[:, 0]] + (1 - share) * self.entries[self.near[:, 1]]
        return vectors.reshape(self.shape) * self.scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight(), self.bias)

    def undecided(self) -> Tensor:
        """2 mean(r (1 - r)) where it is above its lowest value so far: vectors may not go back to being mixed."""
        soft = torch.sigmoid(self.z)
        value = 2 * torch.where(self.hard, torch.zeros_like(soft), soft * (1 - soft)).mean()
        found = float(value.detach())
        if found <= self.lowest:
            self.lowest = found
            return value * 0.0
        return value

    @torch.no_grad()
    def decide(self, limit: float) -> float:
        """Fix vectors whose share of one entry is above the limit; returns how many are fixed, as a share of all."""
        soft = torch.sigmoid(self.z)
        sure = torch.maximum(soft, 1 - soft) > limit
        self.choice = torch.where(sure & ~self.hard, (soft < 0.5).long(), self.choice)
        self.hard |= sure
        return float(self.hard.float().mean())

    @torch.no_grad()
    def codes(self) -> Tensor:
        """The stored weights, int8 [N, K]: of C rounded to integers."""
        picked = torch.where(self.hard, self.choice, (torch.sigmoid(self.z) < 0.5).long())
        index = self.near.gather(1, picked[:, None]).squeeze(1)
        return self.entries.round().clamp(-TOP, TOP)[index].reshape(self.shape).to(torch.int8)

    def stored_bits(self) -> float:
        """Bits per weight of indices, entries (a byte each number) and channel scales."""
        count = self.shape[0] * self.shape[1]
        return 8 * (book_bytes(count, len(self.entries), self.length, 1) + 4 * self.shape[0]) / count

    def moved(self) -> float:
        """Share of vectors that left their nearest entry."""
        picked = torch.where(self.hard, self.choice, (torch.sigmoid(self.z) < 0.5).long())
        return float(picked.float().mean())


class CodedLinear(nn.Module):
    """A linear layer with int8 codes and one scale per channel; exports as DequantizeLinear in front of the product."""

    codes: Tensor
    scale: Tensor
    zero: Tensor
    bias: Tensor | None

    def __init__(self, layer: VectorLinear) -> None:
        super().__init__()
        self.register_buffer("codes", layer.codes())
        self.register_buffer("scale", layer.scale.detach().clone())
        self.register_buffer("zero", torch.zeros(len(layer.scale), dtype=torch.int8))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            w = _op("DequantizeLinear", self.codes, self.scale, self.zero, axis=0)
        else:
            w = self.codes.float() * self.scale[:, None]
        return F.linear(x, w, self.bias)


def vector_layers(network: nn.Module) -> Iterator[tuple[str, VectorLinear]]:
    """Vector-quantized layers by name."""
    for name, module in network.named_modules():
        if isinstance(module, VectorLinear):
            yield name, module


def coded(network: nn.Module) -> nn.Module:
    """A copy of the network with its stored weights."""
    made = copy.deepcopy(network).eval()
    for name, layer in list(vector_layers(made)):
        parent, _, leaf = name.rpartition(".")
        setattr(made.get_submodule(parent), leaf, CodedLinear(layer))
    return made
