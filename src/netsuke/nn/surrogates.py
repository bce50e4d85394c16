"""Backward surrogates of sign: what stands for the derivative of a step while a binary network is trained.

A surrogate multiplies the incoming gradient with `slope(z)`; the forward value is sign(z), with sign(0) = +1, whatever
the surrogate is. Some sharpen while training goes on: `at(progress)` sets them, progress running from 0 to 1.

    surrogate    slope(z)                                                    source
    Identity     1                                                           BinaryConnect (arXiv 1511.00363)
    Clipped      1 for |z| <= limit                                          BNN (arXiv 1602.02830)
    Polynomial   max(0, 2 - 2|z|)                                            Bi-Real Net (arXiv 1808.00278)
    Tanh         k t (1 - tanh(t z)^2), t from 0.1 to 10, k = max(1/t, 1)    IR-Net (arXiv 1909.10788)
    Power        (1/o) |z|^((1-o)/o), o from 1 to `end`, rectified           ReSTE (arXiv 2308.06689)
    Fourier      (0.4/pi) sum_i cos((2i+1) 0.1 z) for |z| <= 1               FDA (NeurIPS 2021)
    Ramp         k max(0, sqrt(2) t - t^2 |z|), k = max(1/t, 1)              RBNN (arXiv 2009.13055)
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor


class Surrogate(Protocol):
    def slope(self, z: Tensor) -> Tensor:
        """What the gradient is multiplied with, shape of z."""

    def at(self, progress: float) -> None:
        """Take the form of this share of training, 0 to 1."""


class _Constant:
    """A surrogate that stays as it is."""

    def at(self, progress: float) -> None:
        del progress


class Identity(_Constant):
    def slope(self, z: Tensor) -> Tensor:
        return torch.ones_like(z)


class Clipped(_Constant):
    def __init__(self, limit: float = 1.0) -> None:
        self.limit = limit

    def slope(self, z: Tensor) -> Tensor:
        return (z.abs() <= self.limit).to(z.dtype)


class Polynomial(_Constant):
    def slope(self, z: Tensor) -> Tensor:
        return (2 - 2 * z.abs()).clamp(min=0)


class Tanh:
    """From nearly linear (t = first) to nearly a step (t = last), t growing geometrically."""

    def __init__(self, first: float = 0.1, last: float = 10.0) -> None:
        self.first, self.last = first, last
        self.at(0.0)

    def at(self, progress: float) -> None:
        self.t = self.first * (self.last / self.first) ** progress
        self.k = max(1 / self.t, 1.0)

    def slope(self, z: Tensor) -> Tensor:
        return self.k * self.t * (1 - torch.tanh(self.t * z) ** 2)


class Power:
    """The derivative of sign(z) |z|^(1/o): identity at o = 1, sign as o grows.

    end    o after training; o = 1 + (1 - cos(pi progress / 2)) (end - 1)
    limit  zero where |z| > limit
    near   for |z| <= near the slope of the chord, near^(1/o) / near, instead of the diverging derivative
    """

    def __init__(self, end: float = 3.0, limit: float = 1.5, near: float = 0.1) -> None:
        self.end, self.limit, self.near = end, limit, near
        self.at(0.0)

    def at(self, progress: float) -> None:
        self.o = 1 + (1 - math.cos(math.pi * progress / 2)) * (self.end - 1)

    def value(self, z: Tensor) -> Tensor:
        """The function the slope belongs to, at o = end."""
        return torch.sign(z) * z.abs() ** (1 / self.end)

    def slope(self, z: Tensor) -> Tensor:
        size = z.abs()
        far = size.clamp(min=self.near) ** ((1 - self.o) / self.o) / self.o
        chord = self.near ** (1 / self.o) / self.near
        return torch.where(size <= self.near, torch.full_like(z, chord), far) * (size <= self.limit)


class Fourier:
    """The truncated Fourier series of a square wave of period 20 pi, `first` to `last` terms."""

    def __init__(self, first: int = 9, last: int = 18) -> None:
        self.first, self.last = first, last
        self.at(0.0)

    def at(self, progress: float) -> None:
        self.terms = round(self.first + (self.last - self.first) * progress)

    def slope(self, z: Tensor) -> Tensor:
        total = sum((torch.cos((2 * i + 1) * 0.1 * z) for i in range(self.terms + 1)), torch.zeros_like(z))
        return 0.4 / math.pi * total * (z.abs() <= 1)


class Ramp:
    """A tent that grows taller and narrower: t from `first` to `last`, geometrically."""

    def __init__(self, first: float = 1.0, last: float = 10.0) -> None:
        self.first, self.last = first, last
        self.at(0.0)

    def at(self, progress: float) -> None:
        self.t = self.first * (self.last / self.first) ** progress
        self.k = max(1 / self.t, 1.0)

    def slope(self, z: Tensor) -> Tensor:
        return self.k * (math.sqrt(2) * self.t - self.t**2 * z.abs()).clamp(min=0)


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        z, ctx.surrogate = arguments
        ctx.save_for_backward(z)
        return torch.where(z >= 0, 1.0, -1.0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        return gradients[0] * ctx.surrogate.slope(z), None


def sign(z: Tensor, surrogate: Surrogate) -> Tensor:
    """+1 where z >= 0, else -1 (a NaN becomes -1); the gradient is multiplied with the surrogate's slope."""
    if not z.requires_grad:  # served, frozen or exported: exporters know comparisons, not our backward
        return torch.where(z >= 0, 1.0, -1.0).to(z.dtype)
    return _Sign.apply(z, surrogate)  # type: ignore[no-untyped-call]
