"""Gradient rules: what flows back through a quantizer.

A rule computes the grid point n of x for a scale s and a zero point, differentiably, and the scale the point is
multiplied with; `s * n` is the quantized value. Values never depend on the rule, only gradients do.

    rule       d/dx                d/ds                                     source
    ste        1                   none                                     Bengio et al. 2013 (arXiv 1308.3432)
    clipped    1 inside, else 0    none                                     DoReFa, Zhou et al. 2016 (arXiv 1606.06160)
    lsq        1 inside, else 0    n - x/s inside, else n; times g          Esser et al. 2020 (arXiv 1902.08153)
    pact       1 inside, else 0    hi above, else 0 (that is 1 for alpha)   Choi et al. 2018 (arXiv 1805.06085)

g = 1 / sqrt(elements * hi) where elements share one scale (for activations: features of one sample). In an affine
grid the lsq rule trains the zero point too, as in LSQ+ (Bhalgat et al. 2020, arXiv 2004.09576): d/dz = -s outside.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError, near
from netsuke.nn.grids import Grid
from netsuke.nn.rounding import Learned


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        value, ctx.factor = arguments
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


class _Straight(torch.autograd.Function):
    """The value of the first argument, the gradient to the second."""

    @staticmethod
    def forward(_: Any, *arguments: Tensor) -> Tensor:
        return arguments[0]

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def scale_gradient(value: Tensor, factor: float) -> Tensor:
    """The value itself, bit for bit; its gradient is multiplied by `factor`."""
    return _ScaleGradient.apply(value, factor)  # type: ignore[no-untyped-call]


def straight(value: Tensor, like: Tensor) -> Tensor:
    """`value`, with the gradient passed to `like` unchanged."""
    return _Straight.apply(value.detach(), like)  # type: ignore[no-untyped-call]


def clip(v: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """`t = v > lo ? v : lo; t < hi ? t : hi`: a NaN becomes lo; gradient to v inside, to the bounds outside."""
    t = torch.where(v > lo, v, lo)
    return torch.where(t < hi, t, hi)


def window(grid: Grid, zero: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and largest point when the grid is moved by `zero`."""
    return grid.lo - zero, grid.hi - zero


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum of products in the order in which `a` lies in memory: a copy of channels_last images takes longer than it."""
    if a.ndim == 4 and a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return torch.dot(a.reshape(-1), b.reshape(-1))


class _LsqValue(torch.autograd.Function):
    """`s * round(clip(x / s, lo, hi))` and its LSQ gradients in few passes over memory: training spends its time there.

    Same values and gradients as the rule `Lsq` with nearest rounding; a NaN stays one, for the loop to find.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, scale, ctx.lo, ctx.hi = arguments
        v = x / scale
        n = v.clamp(ctx.lo, ctx.hi).round_()
        ctx.save_for_backward(v, n, scale)
        return n * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        v, n, scale = ctx.saved_tensors
        inner = torch.ops.aten.hardtanh_backward(gradients[0], v, ctx.lo, ctx.hi)
        if scale.numel() == 1:
            total = _dot(gradients[0], n) - _dot(inner, v)
            return inner, total.reshape(scale.shape), None, None
        parts = gradients[0] * n - inner * v
        return inner, parts.sum_to_size(scale.shape), None, None


def lsq_value(x: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """The quantized value of x on an integer grid without a zero point; see `_LsqValue`."""
    return _LsqValue.apply(x, scale, grid.lo, grid.hi)  # type: ignore[no-untyped-call]


class GradientRule(Protocol):
    """learns: True when the scale is trained through the rule; damped: True when its gradient is multiplied by g."""

    learns: bool
    damped: bool

    def __call__(
        self, x: Tensor, scale: Tensor, zero: Tensor, grid: Grid, rounding: nn.Module
    ) -> tuple[Tensor, Tensor]: ...


def _round(v: Tensor, grid: Grid, rounding: nn.Module) -> Tensor:
    """Straight-through, except for learned rounding, whose gradient goes to its own variables."""
    point = rounding(v, grid)
    return point if isinstance(rounding, Learned) else straight(point, v)


class Ste:
    """The gradient passes everywhere, also where the value was clipped."""

    learns, damped = False, False

    def __call__(
        self, x: Tensor, scale: Tensor, zero: Tensor, grid: Grid, rounding: nn.Module
    ) -> tuple[Tensor, Tensor]:
        s, z = scale.detach(), zero.detach()
        v = x / s
        if isinstance(rounding, Learned):
            return clip(_round(v, grid, rounding), *window(grid, z)), s
        return straight(rounding(clip(v, *window(grid, z)), grid), v), s


class Clipped:
    """The gradient passes inside the range."""

    learns, damped = False, False

    def __call__(
        self, x: Tensor, scale: Tensor, zero: Tensor, grid: Grid, rounding: nn.Module
    ) -> tuple[Tensor, Tensor]:
        s, z = scale.detach(), zero.detach()
        return clip(_round(clip(x / s, *window(grid, z)), grid, rounding), *window(grid, z)), s


class Lsq:
    """The scale (and the zero point, where there is one) is trained with the task, its gradient damped by g."""

    learns, damped = True, True

    def __call__(
        self, x: Tensor, scale: Tensor, zero: Tensor, grid: Grid, rounding: nn.Module
    ) -> tuple[Tensor, Tensor]:
        return _round(clip(x / scale, *window(grid, zero)), grid, rounding), scale


class Pact:
    """The clipping level alpha = s * hi is trained, by what lies above it."""

    learns, damped = True, False

    def __call__(
        self, x: Tensor, scale: Tensor, zero: Tensor, grid: Grid, rounding: nn.Module
    ) -> tuple[Tensor, Tensor]:
        fixed, z = scale.detach(), zero.detach()
        low, high = window(grid, z)
        v = x / fixed
        n = _round(clip(v, low, high), grid, rounding)
        return n, torch.where(v.detach() >= high, scale, fixed)


GRADIENTS: dict[str, type[Ste] | type[Clipped] | type[Lsq] | type[Pact]] = {
    "ste": Ste,
    "clipped": Clipped,
    "lsq": Lsq,
    "pact": Pact,
}


def damping(elements: int, grid: Grid) -> float:
    """g: the factor on the gradient of a scale that `elements` values share."""
    return 1.0 / math.sqrt(elements * grid.hi)


def gradient_rule(name: str) -> GradientRule:
    """The rule of that name; UsageError with near names."""
    if name not in GRADIENTS:
        raise UsageError(Problem("unknown gradient rule", got=name, allowed=near(name, GRADIENTS)))
    return GRADIENTS[name]()
