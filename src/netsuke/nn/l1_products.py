"""The quantized L1 normalization, forward and backward: the kernels of runtime/train/norm.cc, and the same numbers in
torch and NumPy on any device.

    v = code of x, u8        floor = floor(mean(v))
    xh = rne(f32(v - floor) slope + offset),  y = f32(xh) gain + beta, with a ReLU or without
    q = code of dY           dx = f32(q - zero) slope' - (below, at or above, as v stands to mu)

Sums run over integers: of v, of max(v - floor, 0), numbers of v above and at floor, of q - zero and of (q - zero) xh.
What stands between the passes are a few float64 numbers a channel, each rounded to f32 once. Both sides have the same
operations in the same order (docs/numerics.md section 13).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from netsuke.core.errors import Problem, UsageError
from netsuke.nn.integer_products import Kernels, products
from netsuke.nn.qtensor import affine, check_finite, on_host, rows_of, shift_exponents

_SMALLEST = 2.0**-126


class Layer(NamedTuple):
    """What forward needs besides x: the largest of its codes; gamma and beta f32 [C]; whether a ReLU follows."""

    top: int
    gamma: Tensor
    beta: Tensor
    eps: float
    relu: bool = False


class Kept(NamedTuple):
    """What backward needs: codes u8 [M, C], and f64 [10, C]: floor, slope, offset, 1 / (a + eps), mean of sign(x - mu),
    gamma, the scale of xh, whether mu is a code, first and last code that the ReLU lets through. The kernels' are
    arrays, the simulation's tensors."""

    codes: Any
    numbers: Any


class Made(NamedTuple):
    """y; mean and mean deviation [2, C]; what backward needs; smallest and largest of y."""

    y: Tensor
    statistics: Tensor
    kept: Kept
    ends: tuple[float, float]


class Rounding(NamedTuple):
    """dY's codes: -top to top, channel scales in `groups` octaves, seed None for the nearest."""

    top: int
    groups: int
    seed: tuple[int, int] | None


class NormProducts(Protocol):
    """x, y, g and dx are f32 [N, C, H, W], y and dx in the channels_last format."""

    def forward(self, x: Tensor, layer: Layer) -> Made:
        """UsageError where x is NaN or Inf."""

    def backward(self, g: Tensor, kept: Kept, rounding: Rounding) -> tuple[Tensor, Tensor, Tensor]:
        """dx, dgamma, dbeta; UsageError where g is NaN or Inf."""


class NormKernels:
    """runtime/train/norm.cc: one call each. What stands around it runs in cold caches, 10 us an operation."""

    def __init__(self, kit: Kernels) -> None:
        self.kit = kit

    def forward(self, x: Tensor, layer: Layer) -> Made:
        """Three passes over x and its codes, one over y."""
        x, y, channels = x.contiguous(memory_format=torch.channels_last), self.kit.planes(_rows(x)), x.shape[1]
        codes = self.kit.array((x.numel() // channels, channels), np.uint8)
        numbers, statistics, ends = (
            np.empty((10, channels)),
            np.empty((2, channels), np.float32),
            np.empty(2, np.float32),
        )
        if not self.kit.call("l1_norm", x, *_in_order(layer), codes, y, numbers, statistics, ends):
            check_input(float("nan"), float("nan"))
        return Made(y, torch.from_numpy(statistics), Kept(codes, numbers), (float(ends[0]), float(ends[1])))

    def backward(self, g: Tensor, kept: Kept, rounding: Rounding) -> tuple[Tensor, Tensor, Tensor]:
        """Two passes over g, one over its codes and dx."""
        g, dx = g.contiguous(memory_format=torch.channels_last), self.kit.planes(_rows(g))
        q, sums = self.kit.array(kept.codes.shape, np.uint8), np.empty((3, g.shape[1]), np.float32)
        if not self.kit.call("l1_norm_gradient", g, *kept, *rounding, q, dx, sums):
            check_finite(torch.from_numpy(sums[0]), "normalization")
        return dx, torch.from_numpy(sums[1]), torch.from_numpy(sums[2])


class NormSimulation:
    """The same in torch and NumPy."""

    @staticmethod
    def _xh(over: Tensor, numbers: Tensor) -> Tensor:
        _, slope, offset, *_ = numbers.float()
        return torch.round(over.float() * slope + offset)

    @np.errstate(over="ignore")  # an infinity, as torch has it
    def forward(self, x: Tensor, layer: Layer) -> Made:
        """As the kernels; mu, a and floor count in steps of x's codes."""
        rows, kit = rows_of(x).view(-1, x.shape[1]), products("simulation")
        count, (low, high) = len(rows), kit.minmax(rows)
        check_input(low, high)
        scale, zero = affine(low, high, layer.top.bit_length(), "free")
        codes = kit.quantize(rows, torch.tensor([scale]), zero, -zero, layer.top - zero, None)
        total, least, most = map(on_host, (codes.to(torch.int64).sum(0), codes.amin(0), codes.amax(0)))
        mu = total.astype(np.float64) / count
        floor = np.floor(mu)
        base = torch.from_numpy(floor.astype(np.uint8)).to(x.device)
        over = codes.to(torch.int64) - base.to(torch.int64)
        above, greater, equal = map(on_host, (over.clamp_min(0).sum(0), (over > 0).sum(0), (over == 0).sum(0)))
        under = above - (total - count * floor.astype(np.int64))
        a = ((above + under).astype(np.float64) + (count - 2 * greater).astype(np.float64) * (mu - floor)) / count
        inverse = 1 / (a + layer.eps / scale)
        largest = float((np.maximum(most - mu, mu - least) * inverse).max())
        step = (float(np.float32(largest / (layer.top // 2))) if largest > 0 else 1.0) or 1.0
        slope = np.where(a > 0, inverse / step, 0.0)  # a constant channel is 0
        exact, weight = mu == floor, on_host(layer.gamma).astype(np.float64)
        less = count - greater - np.where(exact, equal, 0)
        form = [floor, *(v.astype(np.float32) for v in (slope, (floor - mu) * slope))]
        signs = (greater - less).astype(np.float64) / count
        kept = np.stack([*form, inverse / scale, signs, weight, np.full_like(mu, step), exact])
        numbers, gain = torch.from_numpy(kept).to(x.device), _single(weight * step, x)
        every = torch.arange(256, device=x.device)[:, None] - base.to(torch.int64)
        open_ = ~(self._xh(every, numbers) * gain + layer.beta <= 0) if layer.relu else torch.ones_like(every) > 0
        some, first, last = open_.any(0), open_.int().argmax(0), 255 - open_.flip(0).int().argmax(0)
        numbers = torch.cat([numbers, torch.stack([torch.where(some, first, 1), torch.where(some, last, 0)]).double()])
        y = self._xh(over, numbers) * gain + layer.beta
        y = torch.where(y < 0, 0.0, y) if layer.relu else y
        statistics = _single(np.stack([(mu - zero) * scale, a * scale]), x)
        return Made(planes_of(y, x), statistics, Kept(codes, numbers), kit.minmax(y))

    @np.errstate(over="ignore")
    def backward(self, g: Tensor, kept: Kept, rounding: Rounding) -> tuple[Tensor, Tensor, Tensor]:
        """As the kernels."""
        rows, zero, kit = rows_of(g).view(-1, g.shape[1]), rounding.top, products("simulation")
        first, last = kept.numbers[8:]
        rows = torch.where((kept.codes >= first) & (kept.codes <= last), rows, 0.0)
        scale = shift_scales(kit.absmax(rows), rounding)
        q = kit.quantize(rows, scale, zero, -zero, zero, rounding.seed)
        unit, over = q.to(torch.int64) - zero, kept.codes.to(torch.int64) - kept.numbers[0].to(torch.int64)
        dot = (unit * self._xh(over, kept.numbers).to(torch.int64)).sum(0)
        real, count = on_host(scale).astype(np.float64), len(rows)
        inverse, mean_sign, weight, step, exact = on_host(kept.numbers)[3:8]
        dbeta, dgamma = on_host(unit.sum(0)) * real, on_host(dot) * real * step
        base, pull = weight * dbeta / count, weight * dgamma / count
        made = ((base + (sign - mean_sign) * pull) * inverse for sign in (-1.0, np.where(exact > 0, 0.0, -1.0), 1.0))
        slope, below, at, above = _single(np.stack([weight * real * inverse, *made]), g)
        dx = unit.float() * slope - torch.where(over > 0, above, torch.where(over < 0, below, at))
        return planes_of(dx, g), _single(dgamma, g), _single(dbeta, g)


def check_input(low: float, high: float) -> None:
    """UsageError for an x whose range is NaN or Inf."""
    if not (low > -float("inf") and high < float("inf")):
        raise UsageError(Problem("the input of a normalization is NaN or Inf", allowed="finite numbers"))


def shift_scales(ranges: Tensor, rounding: Rounding) -> Tensor:
    """Channel scales f32 [C] related by powers of two, from the largest |dY| of each channel."""
    check_finite(ranges, "normalization")
    exponents, largest = shift_exponents(ranges, rounding.groups)
    steps = np.ldexp(np.float32(max(largest / rounding.top, _SMALLEST)), -on_host(exponents).astype(np.int32))
    return torch.from_numpy(np.maximum(steps, np.float32(_SMALLEST))).to(ranges.device)


def _single(numbers: npt.NDArray[np.float64], like: Tensor) -> Tensor:
    """f32 on the device of `like`."""
    return torch.from_numpy(numbers.astype(np.float32)).to(like.device)


def _in_order(layer: Layer) -> tuple[Tensor, Tensor, float, int, bool]:
    return layer.gamma, layer.beta, layer.eps, layer.top, layer.relu


def _rows(x: Tensor) -> tuple[int, int, int, int]:
    n, c, h, w = x.shape
    return n, h, w, c


def planes_of(rows: Tensor, x: Tensor) -> Tensor:
    """[M, C] as [N, C, H, W] in the channels_last format: memory of its own, no view that autograd would guard."""
    n, c, h, w = x.shape
    made = torch.empty(x.shape, device=x.device, memory_format=torch.channels_last)
    return made.copy_(rows.view(n, h, w, c).permute(0, 3, 1, 2))


def norm_products(kind: str) -> NormProducts:
    """The passes of a configuration."""
    return NormKernels(cast(Kernels, products("kernels"))) if kind == "kernels" else NormSimulation()
