"""Transforms of a weight that move while it is trained: a clamp at a quantile (ReCU), a learned rotation (RBNN)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from netsuke.nn.binarizer import Centred, per_row

ROUNDS = 3  # alternations of one update of the rotation


class Clamped(nn.Module):
    """The standardized weight inside +-Q, Q the `tau` quantile of a Laplace law of the same E|u|; no gradient outside.

    Q = -E|u| ln(2 - 2 tau) per output channel; tau grows exponentially from `first` to `last` with progress.
    """

    def __init__(self, first: float = 0.85, last: float = 0.99) -> None:
        super().__init__()
        self.first, self.last = first, last
        self.standardized = Centred(standardized=True)
        self.at(0.0)

    def at(self, progress: float) -> None:
        self.tau = self.first + (self.last - self.first) * math.expm1(progress) / math.expm1(1.0)

    def quantile(self, u: Tensor) -> Tensor:
        """Q of each output channel, broadcastable against u."""
        return -per_row(u.detach().abs().flatten(1).mean(1), u) * math.log(2 - 2 * self.tau)

    def forward(self, w: Tensor) -> Tensor:
        u: Tensor = self.standardized(w)
        q = self.quantile(u)
        return torch.minimum(torch.maximum(u, -q), q)


def largest_divisor(count: int) -> int:
    """The largest divisor of `count` that is at most its square root."""
    return next(d for d in range(math.isqrt(count), 0, -1) if count % d == 0)


def update_rotation(x: Tensor, first: Tensor, second: Tensor, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """Orthogonal R1 [a, a], R2 [b, b] that raise sum_n tr(B_n^T R1^T X_n R2), B = sign(R1^T X R2), x [N, a, b].

    Every step is the best answer for the other two held fixed: B is the sign, each rotation the orthogonal Procrustes
    solution U V^T of sum_n X_n R2 B_n^T = U S V^T (for R1), of sum_n X_n^T R1 B_n (for R2). So the sum never falls.
    """
    for _ in range(rounds):
        b = torch.where(first.T @ x @ second >= 0, 1.0, -1.0)
        u, _, v = torch.linalg.svd((x @ second @ b.transpose(1, 2)).sum(0))
        first = u @ v
        u, _, v = torch.linalg.svd((x.transpose(1, 2) @ first @ b).sum(0))
        second = u @ v
    return first, second


class Rotated(nn.Module):
    """u + |sin theta_n| (R1^T u_n R2 - u_n) of the standardized weight u, rows u_n seen as a x b matrices.

    The rotations are brought up to date at the first training step after `at` (once an epoch); theta is trained, one an
    output channel, from pi / 2 (the rotated weight).
    """

    first: Tensor
    second: Tensor

    def __init__(self, channels: int, columns: int) -> None:
        super().__init__()
        self.rows = largest_divisor(columns)
        self.standardized = Centred(standardized=True)
        self.theta = nn.Parameter(torch.full((channels,), math.pi / 2))
        self.register_buffer("first", torch.eye(self.rows))
        self.register_buffer("second", torch.eye(columns // self.rows))
        self.stale = True

    def at(self, progress: float) -> None:
        del progress
        self.stale = True

    def forward(self, w: Tensor) -> Tensor:
        u: Tensor = self.standardized(w)
        x = u.reshape(len(u), self.rows, -1)
        if self.stale and self.training:
            with torch.no_grad():
                first, second = update_rotation(x.detach(), self.first, self.second)
                self.first.copy_(first)
                self.second.copy_(second)
            self.stale = False
        turned = (self.first.T @ x @ self.second).reshape(u.shape)
        return u + per_row(self.theta.sin().abs(), u) * (turned - u)
