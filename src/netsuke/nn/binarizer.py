"""One binarizer: transform, level rule and scale rule, with a backward surrogate. It gives `scale * level`.

    Binarizer(Sign(Clipped()), MeanAbs("channel"))        alpha_o sign(w), alpha_o = E|w_o|
    Binarizer(Ternary(), MedianAbs(), Centred())          and so on

A binarizer keeps the protocol of `netsuke.nn.quantizer.Quantizer`: `forward(x)` gives the values, `codes(x)` the
integers that are served. `terms(x)` gives levels and scales apart, so that layers multiply integers first and scale
afterwards, as the kernels do: sums of +-1 are exact in f32 in every order, so training and engine agree.

Sources of the rules: see the files of `netsuke.methods.binarize`.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError
from netsuke.nn.gradients import scale_gradient, straight
from netsuke.nn.integer import quantize_activations
from netsuke.nn.surrogates import Surrogate, sign

TINY = torch.finfo(torch.float32).tiny


def per_row(statistic: Tensor, like: Tensor) -> Tensor:
    """[O] -> [O, 1, ...] with the rank of `like`."""
    return statistic.reshape(-1, *[1] * (like.ndim - 1))


class Levels(Protocol):
    """lo, hi: smallest and largest level; needs_scale: False when levels do not depend on the scale."""

    lo: int
    hi: int

    def __call__(self, u: Tensor, scale: Tensor) -> Tensor:
        """Integer-valued levels of u, differentiable, same shape."""


class Sign:
    """-1 and +1."""

    lo, hi = -1, 1

    def __init__(self, surrogate: Surrogate) -> None:
        self.surrogate = surrogate

    def __call__(self, u: Tensor, scale: Tensor) -> Tensor:
        del scale
        return sign(u, self.surrogate)


class Ternary:
    """-1, 0 and +1: round(clip(u / scale, -1, 1)), halves to even; the gradient passes everywhere."""

    lo, hi = -1, 1

    def __call__(self, u: Tensor, scale: Tensor) -> Tensor:
        v = u / scale.detach()
        return straight(torch.round(v.clamp(-1, 1)), v)


class Elastic:
    """Levels lo .. hi of u / scale, the gradient clipped to their range, the scale's as in LSQ.

    (-1, 1) three levels, (0, 1) one bit of what is never negative; for one signed bit use Sign with a Learned scale.
    """

    def __init__(self, lo: int, hi: int) -> None:
        self.lo, self.hi = lo, hi

    def __call__(self, u: Tensor, scale: Tensor) -> Tensor:
        v = (u / scale).clamp(self.lo, self.hi)
        return straight(torch.round(v), v)


class One(nn.Module):
    """No scale."""

    def forward(self, u: Tensor) -> Tensor:
        return torch.ones((), dtype=u.dtype, device=u.device)


class MeanAbs(nn.Module):
    """factor * E|u|: of the whole tensor ("tensor"), each output channel ("channel") or each sample ("sample").

    trained      the gradient flows through the mean too
    power_of_two rounded to the nearest power of two, so that it is a shift
    """

    def __init__(
        self, over: str = "channel", factor: float = 1.0, *, trained: bool = False, power_of_two: bool = False
    ) -> None:
        super().__init__()
        self.over, self.factor, self.trained, self.power_of_two = over, factor, trained, power_of_two

    def forward(self, u: Tensor) -> Tensor:
        size = u.abs() if self.trained else u.detach().abs()
        mean = size.mean() if self.over == "tensor" else per_row(size.flatten(1).mean(1), u)
        mean = torch.where(mean > 0, (mean * self.factor).clamp(min=TINY), torch.ones_like(mean))
        return torch.exp2(torch.round(torch.log2(mean))) if self.power_of_two else mean


class MedianAbs(nn.Module):
    """The median of |u| over the tensor (the lower of two middle ones)."""

    def forward(self, u: Tensor) -> Tensor:
        median = u.detach().abs().flatten().median()
        return torch.where(median > 0, median, torch.ones_like(median))


class Learned(nn.Module):
    """A trained scale per tensor (channels = 1) or output channel, started from the first tensor seen.

    start   first scale = start * E|u|; None: uniform in (0, 1), from `generator`
    damped  its gradient is divided by the square root of the number of values that share it
    """

    def __init__(
        self,
        channels: int = 1,
        start: float | None = 1.0,
        *,
        damped: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.start, self.damped = start, damped
        first = torch.ones(channels) if start is not None else torch.rand(channels, generator=generator)
        self.value = nn.Parameter(first)
        self.ready: Tensor
        self.register_buffer("ready", torch.tensor(start is None))

    def forward(self, u: Tensor) -> Tensor:
        if not bool(self.ready) and self.start is not None:
            with torch.no_grad():
                size = u.abs()
                mean = size.mean().reshape(1) if self.value.numel() == 1 else size.flatten(1).mean(1)
                self.value.copy_((self.start * mean).clamp(min=TINY))
                self.ready.fill_(True)
        value: Tensor = self.value
        if self.damped:
            value = scale_gradient(value, math.sqrt(value.numel() / max(1, u.numel())))
        return value.reshape(()) if value.numel() == 1 else per_row(value, u)


class MaxAbs(nn.Module):
    """max|u| / top of each output channel ("channel") or the tensor: what rounding to the nearest level takes."""

    def __init__(self, over: str = "tensor", top: int = 1) -> None:
        super().__init__()
        self.over, self.top = over, top

    def forward(self, u: Tensor) -> Tensor:
        size = u.detach().abs()
        most = size.amax() if self.over == "tensor" else per_row(size.flatten(1).amax(1), u)
        return torch.where(most > 0, (most / self.top).clamp(min=TINY), torch.ones_like(most))


class Fixed(nn.Module):
    """A scale that training has found: a scalar, or one per output channel."""

    value: Tensor

    def __init__(self, trained: Learned) -> None:
        super().__init__()
        self.register_buffer("value", trained.value.detach().clone())

    def forward(self, u: Tensor) -> Tensor:
        return self.value.reshape(()) if self.value.numel() == 1 else per_row(self.value, u)


class Centred(nn.Module):
    """u = w - mean of the output channel; with `standardized` divided by its standard deviation."""

    def __init__(self, *, standardized: bool = False) -> None:
        super().__init__()
        self.standardized = standardized

    def forward(self, w: Tensor) -> Tensor:
        rows = w.flatten(1)
        u = w - per_row(rows.mean(1), w)
        return u / per_row(rows.std(1) + 1e-5, w) if self.standardized else u


class Shift(nn.Module):
    """x + a trained offset per channel of axis 1 (convolution) or the last axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.offset.reshape(1, -1, 1, 1) if x.ndim == 4 else self.offset)


class Sine(nn.Module):
    """sin(frequency * w)."""

    def __init__(self, frequency: float) -> None:
        super().__init__()
        self.frequency = frequency

    def forward(self, w: Tensor) -> Tensor:
        return torch.sin(self.frequency * w)


class SampleDeviation(nn.Module):
    """x over the standard deviation of its sample while training, the mean stays; x itself in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x / per_row(torch.sqrt(x.flatten(1).var(1, unbiased=False) + 1e-5), x)


class Binarizer(nn.Module):
    """Transform, then levels and scale.

    levels     Sign, Ternary or Elastic
    scale      One, MeanAbs, MedianAbs or Learned; computed from the transformed tensor
    transform  a module, or None
    scale_of   "transformed" or "raw": the tensor the scale is computed from
    """

    def __init__(
        self, levels: Levels, scale: nn.Module, transform: nn.Module | None = None, *, scale_of: str = "transformed"
    ) -> None:
        super().__init__()
        if scale_of not in ("transformed", "raw"):
            raise UsageError(Problem("scale_of", got=scale_of, allowed="transformed, raw"))
        self.levels, self.scale, self.transform, self.scale_of = levels, scale, transform, scale_of

    @property
    def unscaled(self) -> bool:
        """True when levels are the values."""
        return isinstance(self.scale, One)

    def terms(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """[(levels, scale)]: integer-valued levels in the shape of x and a scale that broadcasts against it."""
        u = x if self.transform is None else self.transform(x)
        scale = self.scale(x if self.scale_of == "raw" else u)
        return [(self.levels(u, scale), scale)]

    def forward(self, x: Tensor) -> Tensor:
        """The values, in the shape of x."""
        parts = [levels * scale for levels, scale in self.terms(x)]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Levels as int32; UsageError when x holds a NaN or an infinity, or when there is more than one basis."""
        if not bool(torch.isfinite(x).all()):
            bad = int((~torch.isfinite(x)).sum())
            raise UsageError(Problem("values to binarize are NaN or infinite", got=f"{bad} of {x.numel()}"))
        terms = self.terms(x)
        if len(terms) > 1:
            raise UsageError(Problem("codes of several bases", got=f"{len(terms)} bases", hint="use terms(x)"))
        return terms[0][0].to(torch.int32)

    def at(self, progress: float) -> None:
        """Take the form of this share of training, 0 to 1."""
        for part in (getattr(self.levels, "surrogate", None), self.transform):
            move = getattr(part, "at", None)
            if move is not None:
                move(progress)


class TwoBases(Binarizer):
    """s1 sign(w) + s2 sign(w - s1 sign(w)), both scales trained per output channel, started from the means."""

    def __init__(self, channels: int, surrogate: Surrogate) -> None:
        super().__init__(Sign(surrogate), Learned(channels))
        self.second = Learned(channels)

    def terms(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        first, scale = super().terms(x)[0]
        rest = x - scale * first
        second = self.second(rest)
        return [(first, scale), (self.levels(rest, second), second)]


class Live8(Binarizer):
    """8-bit activations beside ternary weights: round(x / s), s = max|x| / 127 of the tensor at hand; gradient 1."""

    def __init__(self) -> None:
        super().__init__(Elastic(-127, 127), One())

    def terms(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        top = x.detach().abs().amax()
        scale = torch.where(top > 0, (top / 127).clamp(min=TINY), torch.ones_like(top))
        return [(self.levels(x, scale), scale)]


class Token8(Binarizer):
    """8-bit activations with a scale for each vector along the last axis; gradient 1. What `wlinear` computes.

    scale = max|x| / 127, levels = round(x * (127 / max|x|)); both 0 where max|x| < 2^-100 (numerics.md section 12).
    """

    def __init__(self) -> None:
        super().__init__(Elastic(-127, 127), One())

    def terms(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        codes, scale = quantize_activations(x, x.shape[-1])
        return [(codes.squeeze(-2), scale)]
