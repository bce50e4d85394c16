"""Attention over binary hash codes, in time linear in the tokens: q and k share a projection and become b signs.

    t      q = k of one head, divided by its length
    f(t)   exp(-|t - a_j|^2 / (2 sigma)) - mean_j for m anchors a_j: kernel features
    y      sign(f(t) A^T), A [b, m] learned so that close tokens share signs
    o_i    (sum_j (y_i . y_j + b + 1) v_j) / (sum_j (y_i . y_j + b + 1))

Since y_i . y_j is a product of signs, sum_j y_j v_j^T is computed once for all i: additions and subtractions of v, 2
n b c of them in place of n^2 c products. v has 8-bit levels; a column of ones beside them gives the denominator in
the same pass. All sums are whole numbers below 2^24 for up to 4,000 tokens, so every order of adding them gives the
same; the engine adds by the packed bits of y (`bmatmul`).

Source: EcoFormer, Liu et al. 2022 (arXiv 2209.09004).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from netsuke.core.errors import Problem, UsageError
from netsuke.nn.binarizer import Binarizer, Elastic, Learned
from netsuke.nn.surrogates import Clipped, sign


class HashSums(nn.Module):
    """Numerator and denominator of o over codes sign(z): z [N, H, T, b], v [N, H, T, c] to [N, H, T, c + 1]."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, z: Tensor, v: Tensor) -> Tensor:
        wide = functional.pad(v, (0, 1), value=1.0)
        state = sign(z.transpose(-2, -1), Clipped()) @ wide
        return sign(z, Clipped()) @ state + (self.bits + 1) * wide.sum(-2, keepdim=True)


class HashAttention(nn.Module):
    """Input [N, T, C], output [N, T, C]; UsageError for a mask.

    shared, value, proj  layers C -> C: of q and k together, of v, and behind the heads
    bits                 b, signs of a code; 1 to 64
    anchors              m, kernel features of a code
    """

    anchor: Tensor
    sigma: Tensor
    centre: Tensor
    ready: Tensor

    def __init__(
        self, shared: nn.Module, value: nn.Module, proj: nn.Module, heads: int, width: int, bits: int, anchors: int
    ) -> None:
        super().__init__()
        problems = [
            Problem(key, "HashAttention", str(got), f"1 to {most}")
            for key, got, most in (("bits", bits, 64), ("anchors", anchors, 4096))
            if not 1 <= got <= most
        ]
        if problems:
            raise UsageError(problems)
        self.shared, self.v, self.proj, self.heads, self.bits = shared, value, proj, heads, bits
        self.sums = HashSums(bits)
        self.levels = Binarizer(Elastic(-127, 127), Learned(start=4 / 127, damped=True))
        self.planes = nn.Parameter(torch.zeros(heads, bits, anchors))  # A
        self.register_buffer("anchor", torch.zeros(heads, anchors, width // heads))
        self.register_buffer("sigma", torch.ones(heads, 1, 1))
        self.register_buffer("centre", torch.zeros(heads, 1, anchors))
        self.register_buffer("ready", torch.tensor(False))

    def split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, x.shape[2] // self.heads).transpose(1, 2)

    def tokens(self, x: Tensor) -> Tensor:
        """t [N, heads, T, C / heads], of length 1."""
        return functional.normalize(self.split(self.shared(x)), dim=-1)

    def distances(self, t: Tensor) -> Tensor:
        """|t - a|^2 [N, heads, T, m], for t of length 1."""
        return (t * t).sum(-1, keepdim=True) - 2 * t @ self.anchor.transpose(-2, -1) + (self.anchor**2).sum(-1)[:, None]

    def features(self, t: Tensor) -> Tensor:
        return torch.exp(self.distances(t) * (-0.5 / self.sigma)) - self.centre

    def projected(self, x: Tensor) -> Tensor:
        """What the signs are taken of, [N, heads, T, b]."""
        return self.features(self.tokens(x)) @ self.planes.transpose(-2, -1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            hint = "sums over keys are made once for all queries"
            raise UsageError(Problem("a mask for hash attention", got=str(tuple(mask.shape)), hint=hint))
        z = self.projected(x)
        v, scale = self.levels.terms(self.split(self.v(x)))[0]
        total = self.sums(z, v)
        y = total[..., :-1] / total[..., -1:] * scale
        return self.proj(y.transpose(1, 2).reshape(x.shape))


def _neighbours(t: Tensor, near: int) -> Tensor:
    """+1 for the `near` tokens with the largest products, -1 for those with the smallest, else 0: [n, n], symmetric."""
    order = (t @ t.T).argsort(dim=-1)
    count = min(near, len(t) // 2)
    target = torch.zeros(len(t), len(t))
    target.scatter_(1, order[:, -count:], 1.0)
    target.scatter_(1, order[:, :count], -1.0)
    return (target + target.T) / 2


def _plane(features: Tensor, target: Tensor, first: Tensor, steps: int, rate: float) -> Tensor:
    """One row of A: gradient steps on - y^T S y / n with y = tanh(f a), kept only where the true signs gain."""
    a = first.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([a], lr=rate, momentum=0.9, nesterov=True)

    def gain(y: Tensor) -> Tensor:
        return y @ target @ y / len(y)

    for _ in range(steps):
        optimizer.zero_grad()
        (-gain(torch.tanh(features @ a))).backward()
        optimizer.step()
    found = a.detach()
    with torch.no_grad():
        signs = [torch.where(features @ plane >= 0, 1.0, -1.0) for plane in (found, first)]
        return found if gain(signs[0]) > gain(signs[1]) else first


def learn_hash(
    attention: HashAttention, x: Tensor, *, near: int = 10, steps: int = 100, rate: float = 0.5, seed: int = 0
) -> None:
    """Choose anchors among the tokens of x [N, T, C] and learn A, bit by bit, from which tokens are close.

    Each bit is fitted to what the bits before it left over: S <- S - y y^T. At most 256 tokens are used.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        flat = attention.tokens(x).transpose(0, 1).flatten(1, 2)
        rows = torch.randperm(flat.shape[1], generator=generator)
        count = attention.planes.shape[2]
        attention.anchor.copy_(flat[:, rows[torch.arange(count) % len(rows)]])
        t = flat[:, rows[:256]]
        attention.sigma.copy_(attention.distances(t[None])[0].mean((1, 2), keepdim=True).clamp(min=1e-6))
        attention.centre.zero_()
        attention.centre.copy_(attention.features(t[None])[0].mean(1, keepdim=True))
        features = attention.features(t[None])[0]
    for head in range(attention.heads):
        left = _neighbours(t[head], near) * attention.bits
        for bit in range(attention.bits):
            first = torch.randn(count, generator=generator)
            plane = _plane(features[head], left, first, steps, rate)
            y = torch.where(features[head] @ plane >= 0, 1.0, -1.0)
            left = left - y[:, None] * y
            with torch.no_grad():  # scaled so that the clipped gradient of the sign reaches most tokens
                spread = (features[head] @ plane).std().clamp(min=1e-6)
                attention.planes[head, bit] = plane / spread
    attention.ready.fill_(True)
