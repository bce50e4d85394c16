"""One quantizer, many rules: `QuantSpec` says what, `Quantizer` is the module.

    weight = Quantizer(QuantSpec(role="weight", bits=4, signed=True, granularity="channel", statistic="mse",
                                 schedule="learned", gradient="lsq"), shape=conv.weight.shape)
    w = weight(conv.weight)                 # grid values scale * n, differentiable
    codes = weight.codes(conv.weight)       # the integers that are served

A value is `scale * n` with a point n of the grid (`netsuke.nn.grids`); for integer grids the code is n + zero
(docs/numerics.md sections 1, 2 and 7), so `forward` and `codes` agree with `netsuke.formats` bit for bit. Range,
rounding and gradient rules are small objects of their own files and do not know each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError
from netsuke.nn import quantizer_ranges as ranges
from netsuke.nn.gradients import damping, gradient_rule, lsq_value, scale_gradient, straight, window
from netsuke.nn.grids import grid
from netsuke.nn.quantizer_spec import QuantSpec
from netsuke.nn.rounding import Learned, Nearest, Stochastic

__all__ = ["QuantSpec", "Quantizer"]

FLOOR = 1 / 1024  # a trained scale stays above this share of its first value; below, the gradient can bring it back


@dataclass(frozen=True)
class Layout:
    """How one scale covers a tensor: `view` of the tensor, `stretch` of the scales against it."""

    view: tuple[int, ...]
    stretch: tuple[int, ...]
    axis: int | None

    def rows(self, x: Tensor) -> Tensor:
        """[units, elements]"""
        x = x.reshape(self.view)
        if self.axis is None:
            return x.reshape(1, -1)
        x = x.movedim(self.axis, 0)
        return x.reshape(x.shape[0], -1)


def layout(spec: QuantSpec, shape: Sequence[int]) -> Layout:
    """The layout for tensors of that shape; UsageError when the spec does not fit it."""
    size = tuple(int(s) for s in shape)
    if spec.granularity == "tensor":
        return Layout(size, (1,) * len(size), None)
    if spec.granularity == "channel":
        if not -len(size) <= spec.axis < len(size):
            raise UsageError(Problem("axis", got=str(spec.axis), allowed=f"an axis of shape {size}"))
        axis = spec.axis % len(size)
        return Layout(size, tuple(s if i == axis else 1 for i, s in enumerate(size)), axis)
    if spec.granularity == "token":
        lead = torch.Size(size[:-1]).numel()
        return Layout((lead, size[-1]), (lead, 1), 0)
    rest = torch.Size(size[1:]).numel()
    if rest % spec.group:
        raise UsageError(Problem("group does not divide a slice", got=f"{spec.group} of {rest}", where=f"shape {size}"))
    units = size[0] * (rest // spec.group)
    return Layout((units, spec.group), (units, 1), 0)


class Quantizer(nn.Module):
    """Quantizes tensors as its spec says.

    spec       what it does
    shape      of the tensors, needed where there is more than one scale (channel, group)
    generator  of stochastic rounding

    scale, zero  f32 [units], `scale` a Parameter when it is learned; for "token" those of the last call
    ready        False until a range is known: by `calibrate`, or by the first forward in training mode
    enabled      False: forward returns its input (used while a float network is observed)
    """

    scale: Tensor
    zero: Tensor
    floor: Tensor
    low: Tensor
    high: Tensor
    ready: Tensor

    def __init__(
        self, spec: QuantSpec, shape: Sequence[int] | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.grid = grid(spec.grid, bits=spec.bits, signed=spec.signed, wide=spec.wide, entries=spec.entries)
        self.gradient = gradient_rule(spec.gradient)
        if shape is None and spec.granularity in ("channel", "group"):
            raise UsageError(Problem(f"granularity {spec.granularity} needs the tensor's shape", got="shape=None"))
        first = layout(spec, shape) if shape is not None and spec.granularity != "token" else None
        units = torch.Size(first.stretch).numel() if first is not None else 1
        self.rounding: nn.Module = Nearest()
        if spec.rounding == "stochastic":
            self.rounding = Stochastic(generator or torch.Generator().manual_seed(0))
        self.enabled = True
        self._plain_lsq = (
            spec.gradient == "lsq"
            and self.grid.moves
            and not spec.affine
            and spec.rounding == "nearest"
            and spec.granularity in ("tensor", "channel")
        )
        trained = spec.schedule == "learned"
        self._hold("scale", torch.ones(units), trained)
        self._hold("zero", torch.zeros(units), trained and spec.affine)
        for name in ("floor", "low", "high"):
            self.register_buffer(name, torch.zeros(units))
        self.register_buffer("ready", torch.tensor(spec.schedule == "live"))
        if spec.statistic == "unit" and spec.schedule == "fixed":  # nothing to learn from data
            self.set_range(-torch.ones(units), torch.ones(units))

    def _hold(self, name: str, value: Tensor, trained: bool) -> None:
        if trained:
            setattr(self, name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def extra_repr(self) -> str:
        s = self.spec
        return f"{s.role}, {s.grid} {s.bits} bits, {s.granularity}, {s.statistic} {s.schedule}, {s.gradient}"

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Take the range from x by the spec's statistic. For learned rounding, x is the tensor to be rounded."""
        low, high = ranges.measure(layout(self.spec, x.shape).rows(x), self.spec, self.grid)
        self.set_range(low, high)
        if self.spec.rounding == "learned":
            at = layout(self.spec, x.shape)
            lo, hi = window(self.grid, self.zero.reshape(at.stretch))
            v = (x.reshape(at.view) / self.scale.reshape(at.stretch)).clamp(lo, hi)
            self.rounding = Learned(v, self.grid)

    @torch.no_grad()
    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Cover [low, high] (f32 [units] each, low <= 0 <= high)."""
        scale, zero = ranges.to_scale(low, high, self.spec, self.grid)
        if scale.shape != self.scale.shape:  # tokens: as many as the data at hand
            self.scale, self.zero = scale, zero
            return
        self.scale.copy_(scale)
        self.zero.copy_(zero)
        self.low.copy_(low)
        self.high.copy_(high)
        self.floor.copy_(scale * FLOOR)
        self.ready.fill_(True)

    def _update(self, x: Tensor, at: Layout) -> None:
        """Bring the range up to date as the schedule says."""
        schedule = self.spec.schedule
        if schedule == "live":
            self.calibrate(x)
        elif schedule == "moving" and self.training:
            low, high = ranges.measure(at.rows(x), self.spec, self.grid)
            if bool(self.ready):
                keep = self.spec.momentum
                low, high = keep * self.low + (1 - keep) * low, keep * self.high + (1 - keep) * high
            self.set_range(low, high)
        elif schedule == "learned" and self.training and not bool(self.ready):
            self.calibrate(x)
        if not bool(self.ready):
            what = "a quantizer has no range yet"
            raise UsageError(
                Problem(what, got=f"schedule {schedule}", hint="calibrate(x), or a batch in training mode")
            )

    @property
    def factor(self) -> float:
        """What a step of the codes is worth in units of `scale`: 1, more in a view with fewer bits."""
        return 1.0

    def steps(self) -> tuple[Tensor, Tensor]:
        """Scale (above its floor) and zero (an integer inside the grid), f32 [units], differentiable.

        A scale that is NaN stays one, so that a training that lost it is refused where it is served.
        """
        scale = torch.where(self.scale <= self.floor, straight(self.floor, self.scale), self.scale)
        if not self.spec.affine:
            return scale, self.zero
        return scale, straight(self.zero.round().clamp(0, self.grid.levels - 1), self.zero)

    def points(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, s): grid points in units of the scale and the scale, both shaped so that `n * s` is the value."""
        at = layout(self.spec, x.shape)
        self._update(x, at)
        scale, zero = (t.reshape(at.stretch) for t in self.steps())
        if self.gradient.damped:
            g = damping(self._elements(x, scale), self.grid)
            scale, zero = scale_gradient(scale, g), scale_gradient(zero, g)
        return self.gradient(x.reshape(at.view), scale, zero, self.grid, self.rounding)

    def _elements(self, x: Tensor, scale: Tensor) -> int:
        """How many values share one scale: of the tensor for weights, of one sample for activations."""
        count = x.numel() if self.spec.role == "weight" or x.ndim < 2 else x.numel() // max(1, x.shape[0])
        return max(1, count // scale.numel()) if self.spec.granularity != "token" else x.shape[-1]

    def forward(self, x: Tensor) -> Tensor:
        """f32 of any shape -> the values on the grid, same shape."""
        if not self.enabled:
            return x
        if self.training and self._plain_lsq:
            return self._fast(x)
        n, s = self.points(x)
        return (n * s).reshape(x.shape)

    def _fast(self, x: Tensor) -> Tensor:
        at = layout(self.spec, x.shape)
        self._update(x, at)
        scale = self.steps()[0].reshape(at.stretch)
        scale = scale_gradient(scale, damping(self._elements(x, scale), self.grid))
        return lsq_value(x, scale, self.grid)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Integer codes, int32, same shape: n + zero for integer grids, indices or bit patterns for tables."""
        n, _ = self.points(x)
        if not self.grid.moves:
            return self.grid.codes(n).reshape(x.shape)
        at = layout(self.spec, x.shape)
        return self.grid.codes(n + self.steps()[1].reshape(at.stretch)).reshape(x.shape)

    @torch.no_grad()
    def values(self, codes: Tensor) -> Tensor:
        """The f32 values of codes: `f32(q - zero) * scale`."""
        at = layout(self.spec, codes.shape)
        scale, zero = (t.reshape(at.stretch) for t in self.steps())
        n = self.grid.points(codes.reshape(at.view))
        return ((n - zero) * scale).reshape(codes.shape)
