"""Quantized operators without weights for training: add, multiply, means, tables. See `netsuke.nn.qlayers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsuke.nn import integer
from netsuke.nn.qlayers import INF, served
from netsuke.nn.quantizer import Quantizer


class _Linked(nn.Module):
    """sources and target are the network's quantizers, not children."""

    def __init__(self, sources: tuple[Quantizer, ...], target: Quantizer, bounds: tuple[float, float]) -> None:
        super().__init__()
        self._links = (sources, target)
        self.bounds = bounds

    @property
    def sources(self) -> tuple[Quantizer, ...]:
        return self._links[0]

    @property
    def target(self) -> Quantizer:
        return self._links[1]

    def link(self, sources: tuple[Quantizer, ...], target: Quantizer) -> None:
        self._links = (sources, target)

    @property
    def exact(self) -> bool:
        """True in eval mode with all ranges known."""
        return not self.training and self.target.enabled and all(bool(q.ready) for q in self.sources)

    def finish(self, y: Tensor) -> Tensor:
        """Activation and target quantizer in float."""
        if self.bounds != (-INF, INF):
            y = y.clamp(*self.bounds)
        out: Tensor = self.target(y)
        return out

    def real(self, *inputs: Tensor) -> Tensor:
        """The operator in float."""
        raise NotImplementedError

    def codes(self, *inputs: Tensor) -> Tensor:
        """The operator on codes: values on the sources' grids -> codes of the target."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.exact:
            with torch.no_grad():
                return served(self.target).values(self.codes(*inputs))
        return self.finish(self.real(*inputs))


def _f32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


class QuantAdd(_Linked):
    """a + b, each on its own grid (numerics.md section 6, qadd)."""

    def real(self, *inputs: Tensor) -> Tensor:
        return inputs[0] + inputs[1]

    def codes(self, *inputs: Tensor) -> Tensor:
        grid = served(self.target)
        parts = []
        for x, quantizer in zip(inputs, self.sources, strict=True):
            own = served(quantizer)
            parts.append(own.points(x) * integer.alone(x, _f32(own.scale / grid.scale)))
        total = parts[0] + parts[1]
        return integer.quantize(total, integer.alone(total, 1.0), **grid.window(*self.bounds))


class QuantMul(_Linked):
    """a * b, each on its own grid (qmul); b may have spatial size 1."""

    def real(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * inputs[1]

    def codes(self, *inputs: Tensor) -> Tensor:
        grid, a, b = served(self.target), *(served(q) for q in self.sources)
        product = a.points(inputs[0]) * b.points(inputs[1])
        mult = integer.alone(product, _f32(a.scale * b.scale / grid.scale))
        return integer.requantize(product, mult, **grid.window(*self.bounds))


class QuantMean(_Linked):
    """The mean over height and width (qmean); keep: dimensions of 1 stay."""

    def __init__(
        self, sources: tuple[Quantizer, ...], target: Quantizer, bounds: tuple[float, float], *, keep: bool
    ) -> None:
        super().__init__(sources, target, bounds)
        self.keep = keep

    def real(self, *inputs: Tensor) -> Tensor:
        return inputs[0].mean((2, 3), keepdim=self.keep)

    def codes(self, *inputs: Tensor) -> Tensor:
        x, own, grid = inputs[0], served(self.sources[0]), served(self.target)
        sums = own.points(x).double().sum((2, 3), keepdim=self.keep)
        mult = integer.alone(x, _f32(own.scale / grid.scale)) / integer.alone(x, x.shape[2] * x.shape[3])
        return integer.requantize(sums, mult.reshape((1,) * sums.ndim), **grid.window(*self.bounds))


class QuantAvgPool(_Linked):
    """Average pooling (qavgpool) with the options of nn.AvgPool2d."""

    def __init__(
        self, sources: tuple[Quantizer, ...], target: Quantizer, bounds: tuple[float, float], pool: nn.AvgPool2d
    ) -> None:
        super().__init__(sources, target, bounds)
        self.pool = pool

    def real(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.pool(inputs[0])
        return out

    def codes(self, *inputs: Tensor) -> Tensor:
        x, own, grid, p = inputs[0], served(self.sources[0]), served(self.target), self.pool
        window: dict[str, Any] = {"stride": p.stride, "padding": p.padding, "ceil_mode": p.ceil_mode}
        sums = F.avg_pool2d(own.points(x).double(), p.kernel_size, divisor_override=1, **window)
        ones = torch.ones((1, 1, *x.shape[2:]), dtype=torch.float64)
        shares = F.avg_pool2d(ones, p.kernel_size, count_include_pad=p.count_include_pad, **window)
        filled = F.avg_pool2d(ones, p.kernel_size, divisor_override=1, **window)
        counts = (filled / shares).round().float()
        mult = integer.alone(counts, _f32(own.scale / grid.scale)) / counts
        return integer.requantize(sums, mult, **grid.window(*self.bounds))


class QuantTable(_Linked):
    """An elementwise function between two grids (lut): evaluated in binary64, rounded to f32, then quantized."""

    def __init__(
        self,
        sources: tuple[Quantizer, ...],
        target: Quantizer,
        bounds: tuple[float, float],
        function: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(sources, target, bounds)
        self.function = function

    def real(self, *inputs: Tensor) -> Tensor:
        return self.function(inputs[0])

    def codes(self, *inputs: Tensor) -> Tensor:
        own, grid = served(self.sources[0]), served(self.target)
        points = own.points(inputs[0]).long() + own.zero
        table = self.function(own.values(torch.arange(256.0)).double()).float()
        codes = integer.quantize(table, integer.alone(table, grid.scale), **grid.window(*self.bounds))
        return codes[points]
