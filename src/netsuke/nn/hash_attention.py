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
    """+1 for the `near` tokens with the largest products in the same image, -1 for those with the smallest, else 0.

    t [..., T, c] to [..., T, T], symmetric.
    """
    order = (t @ t.transpose(-2, -1)).argsort(dim=-1)
    count = max(1, min(near, t.shape[-2] // 4))  # a quarter at most: halves would not tell close from closest
    target = torch.zeros(*t.shape[:-1], t.shape[-2])
    target.scatter_(-1, order[..., -count:], 1.0)
    target.scatter_(-1, order[..., :count], -1.0)
    return (target + target.transpose(-2, -1)) / 2


def _gain(y: Tensor, target: Tensor) -> Tensor:
    """y^T S y over tokens, of each head: y [H, N, T], target [H, N, T, T]."""
    return ((y[..., None, :] @ target).squeeze(-2) * y).mean((1, 2))


def _planes(features: Tensor, target: Tensor, first: Tensor, steps: int, rate: float) -> Tensor:
    """A row of A for each head: gradient steps on -y^T S y with y = 2 sigmoid(f a) - 1, kept only where the true signs
    gain.

    features [H, N, T, m], target [H, N, T, T] in units of 1, first [H, m].
    """
    a = first.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([a], lr=rate, momentum=0.9, nesterov=True)
    for _ in range(steps):
        optimizer.zero_grad()
        (-_gain(torch.tanh(_along(features, a) / 2), target).sum()).backward()
        optimizer.step()
    found = a.detach()
    with torch.no_grad():
        better = _gain(_signs(features, found), target) > _gain(_signs(features, first), target)
    return torch.where(better[:, None], found, first)


def _along(features: Tensor, planes: Tensor) -> Tensor:
    """[H, N, T, m] times [H, m]: [H, N, T]."""
    return (features * planes[:, None, None]).sum(-1)


def _signs(features: Tensor, planes: Tensor) -> Tensor:
    return torch.where(_along(features, planes) >= 0, 1.0, -1.0)


def learn_hash(
    attention: HashAttention, x: Tensor, *, near: int = 10, steps: int = 300, rate: float = 0.5, seed: int = 0
) -> None:
    """Choose anchors among the tokens of x [N, T, C] and learn A, bit by bit, from which tokens are close.

    Close are tokens of one image: attention never looks into another one. Each bit is fitted to what the bits before it
    left over: S <- S - y y^T / b. As many images as hold 256 tokens are used, at least one.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        tokens = attention.tokens(x)
        images = torch.randperm(len(tokens), generator=generator)[: max(1, 256 // tokens.shape[2])]
        t = tokens[images].transpose(0, 1)  # [H, N, T, c]
        flat = t.flatten(1, 2)
        count = attention.planes.shape[2]
        rows = torch.randperm(flat.shape[1], generator=generator)
        attention.anchor.copy_(flat[:, rows[torch.arange(count) % len(rows)]])
        attention.sigma.copy_(attention.distances(flat[None])[0].mean((1, 2), keepdim=True).clamp(min=1e-6))
        attention.centre.zero_()
        attention.centre.copy_(attention.features(flat[None])[0].mean(1, keepdim=True))
        features = attention.features(tokens[images]).transpose(0, 1)  # [H, N, T, m]
    left = _neighbours(t, near)
    for bit in range(attention.bits):
        first = torch.randn(attention.heads, count, generator=generator)
        planes = _planes(features, left, first, steps, rate)
        y = _signs(features, planes)
        left = left - y[..., :, None] * y[..., None, :] / attention.bits
        with torch.no_grad():  # scaled so that the clipped gradient of the sign reaches most tokens
            spread = _along(features, planes).flatten(1).std(1).clamp(min=1e-6)
            attention.planes[:, bit] = planes / spread[:, None]
    attention.ready.fill_(True)
