"""Quantized tensors of integer training: an integer payload and the scales it stands for.

    value = scale[c] * (code - zero)

Payloads are channels last ([N, H, W, C] or [..., C]); u8 for activations and gradients, s8 for weights, s16 for
dynamic fixed point. `scale` is one number or one a channel; `exponents` are the small integers of channel groups whose
scales, each times the layer's weight scale of that channel, are related by powers of two: the shifts of the input
gradient's sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from netsuke.core.errors import Problem, UsageError


@dataclass(frozen=True)
class QTensor:
    """codes, and what they mean. scale f32 [1] or [C]; exponents u8 [C] or None; lo and hi are stored codes."""

    codes: Tensor
    scale: Tensor
    zero: int
    lo: int
    hi: int
    exponents: Tensor | None = None

    @property
    def range(self) -> list[int]:
        """[zero, lo, hi], as the kernels take it."""
        return [self.zero, self.lo, self.hi]

    def dequantize(self) -> Tensor:
        """The real numbers, f32, in the layout of the payload."""
        return (self.codes.to(torch.float32) - self.zero) * self.scale


def on_host(numbers: Tensor) -> npt.NDArray[Any]:
    """A few numbers a channel as an array: NumPy takes a microsecond for an operation where torch takes ten, and a
    normalization needs seventy of them a step. The same IEEE arithmetic."""
    array: npt.NDArray[Any] = numbers.detach().cpu().numpy()
    return array


def rows_of(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, H, W, C], contiguous; no copy in the channels_last format."""
    return x.detach().permute(0, 2, 3, 1).contiguous()


def power_of_two_above(v: float) -> float:
    """The smallest power of two that is at least v (v > 0), inside f32's normal numbers."""
    mantissa, exponent = math.frexp(v)
    power = exponent - (1 if mantissa == 0.5 else 0)
    return float(2.0 ** max(-126, min(127, power)))


def affine(lo: float, hi: float, bits: int, scale: str) -> tuple[float, int]:
    """(scale, zero) of u8 codes [0, 2^bits - 1] that cover [min(lo, 0), max(hi, 0)]; 0 has a code of its own.

    scale "power-of-two" rounds up and lets nothing clip; "free" may clip half a step at either end.
    """
    low, high, top = min(0.0, lo), max(0.0, hi), 2**bits - 1
    if not (high - low) > 0:
        return 1.0, 0
    step = max((high - low) / top, 2.0**-126)
    if scale != "power-of-two":
        used = float(np.float32(step))
        return used, max(0, min(top, round(-low / used)))
    while True:
        used = power_of_two_above(step)
        zero = math.ceil(-low / used)
        if (zero <= top and (top - zero) * used >= high) or used >= 2.0**127:
            return used, min(zero, top)
        step = used * 1.5  # the zero point took a code that a bound needs: one octave more


def shift_exponents(ranges: Tensor, groups: int) -> tuple[Tensor, float]:
    """ShiftQuant's groups: e[c] = min(floor(log2(R / r[c])), groups - 1) as u8, and R = max(r).

    By exponents and mantissas, not logarithms: r = R is in group 0 and r = R / 2 in group 1, exactly. r = 0 takes the
    last group. ranges: f32 [C], finite, not negative.
    """
    values = on_host(ranges).astype(np.float64)
    mantissa, exponent = np.frexp(values)
    top_mantissa, top_exponent = math.frexp(values.max())
    e = top_exponent - exponent - (mantissa > top_mantissa)
    e = np.where(values > 0, e, groups - 1).clip(0, groups - 1).astype(np.uint8)
    return torch.from_numpy(e).to(ranges.device), float(values.max())


def check_finite(ranges: Tensor, where: str, what: str = "gradient") -> None:
    """UsageError naming the channels whose values are NaN or Inf."""
    finite = np.isfinite(on_host(ranges))
    if not finite.all():
        bad = np.flatnonzero(~finite).tolist()
        shown = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
        raise UsageError(
            Problem(
                f"the {what} is NaN or Inf",
                where=where,
                got=f"channels {shown}",
                allowed="finite numbers",
                hint="a smaller learning rate, gradient clipping, or skip this batch: nothing has been updated",
            )
        )
