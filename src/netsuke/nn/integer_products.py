"""The three products of an integer layer: forward, input gradient, weight gradient.

`Kernels` calls runtime/train on the tensors' own memory. `Simulation` computes the same integers with float64 tensors
on any device and is bit-identical (sums below 2^53 are exact in every order, then one rounding to f32 as in the
kernels); operands of 16 bits, whose chained sums have an order, exist in the kernels only.

Layouts: activations and gradients [N, H, W, C], weights [O, kh, kw, I], all contiguous.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from netsuke.core.errors import EnvironmentProblem, Problem, UnsupportedError, UsageError
from netsuke.nn import stochastic
from netsuke.nn.qtensor import QTensor

_GRAD: Any = importlib.import_module("torch.nn.grad")  # untyped
SMALL = 1 << 15  # elements: torch's own memory is as good


@dataclass(frozen=True)
class Window:
    """What a convolution needs besides its operands. A linear layer is the default on [T, 1, 1, I]."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def layer(self, x: tuple[int, ...], w: tuple[int, ...]) -> list[int]:
        """The 16 numbers of the kernels for input [N, H, W, C] and weights [O, kh, kw, I]."""
        (top, left), (n, h, wide, c), (o, kh, kw, _) = self.padding, x, w
        return [n, h, wide, c, o, kh, kw, *self.stride, top, left, top, left, *self.dilation, self.groups]

    def output(self, x: tuple[int, ...], w: tuple[int, ...]) -> tuple[int, int, int, int]:
        """[N, OH, OW, O]."""
        sizes = [
            (x[1 + i] + 2 * self.padding[i] - self.dilation[i] * (w[1 + i] - 1) - 1) // self.stride[i] + 1
            for i in (0, 1)
        ]
        return x[0], sizes[0], sizes[1], w[0]


class Products(Protocol):
    """f32 results from codes; see runtime/train/products.h for the equations."""

    def quantize(
        self, x: Tensor, scale: Tensor, zero: int, lo: int, hi: int, seed: tuple[int, int] | None, *, wide: bool = False
    ) -> Tensor: ...
    def absmax(self, x: Tensor, samples: int = 0) -> Tensor: ...
    def outside(self, x: Tensor, low: float, high: float) -> Tensor: ...
    def settle_gradient(self, dx: Tensor, outside: Tensor | None, factor: Tensor) -> None: ...
    def minmax(self, x: Tensor) -> tuple[float, float]: ...
    def forward(self, window: Window, x: QTensor, w: QTensor, mult: Tensor, bias: Tensor | None) -> Tensor: ...
    def input_gradient(self, window: Window, x: tuple[int, ...], g: QTensor, w: QTensor, mult: float) -> Tensor: ...
    def weight_gradient(self, window: Window, w: tuple[int, ...], x: QTensor, g: QTensor, mult: Tensor) -> Tensor: ...


def openmp_library() -> str:
    """Path of the OpenMP runtime this process has loaded (torch's), "" when there is none or none can be found."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return ""
    found = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}
    named = [p for p in sorted(found) if Path(p).name.startswith(("libgomp", "libiomp5", "libomp"))]
    return min(named, key=lambda p: "torch" not in p, default="")


class Kernels:
    """The compiled kernels of this CPU.

    openmp: run on the threads that torch's OpenMP keeps for the calling thread (path of the library); "" starts threads
    of our own. Two pools cost: OpenMP's idle threads spin for milliseconds on the cores that ours would use.
    """

    def __init__(self, threads: int = 0, isa: str = "", openmp: str = "") -> None:
        try:
            from netsuke import _runtime
        except ImportError as error:
            raise EnvironmentProblem(
                Problem(
                    "the compiled runtime netsuke._runtime is missing",
                    got=str(error),
                    hint="pip install -e . --no-build-isolation, or products='simulation'",
                )
            ) from error
        self._error = _runtime.Error
        self.trainer = _runtime.Trainer.make(threads, isa, openmp)

    def call(self, name: str, *arguments: Any) -> Any:
        """What the kernel `name` returns; tensors are handed over as they are."""
        # NumPy hands its memory over in C, torch in Python: ten times as long.
        given = [a.numpy() if isinstance(a, Tensor) else a for a in arguments]
        try:
            return getattr(self.trainer, name)(*given)
        except self._error as error:
            code, message = (*error.args, "")[:2]
            kind = UnsupportedError if int(code) == 3 else UsageError
            raise kind(Problem(str(message), where=f"integer {name}")) from error

    def empty(self, shape: Iterable[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of f32 or u8 whose memory is kept for the next step when it is freed; small ones are torch's."""
        sizes = list(shape)
        if math.prod(sizes) < SMALL:
            return torch.empty(sizes, dtype=dtype)
        made: Tensor = (self.trainer.empty_u8 if dtype == torch.uint8 else self.trainer.empty_f32)(sizes)
        return made

    def array(self, shape: Iterable[int], dtype: Any = np.float32) -> npt.NDArray[Any]:
        """The same for f32 and u8 that no torch operator sees: handed over in a tenth of the time."""
        make = self.trainer.array_u8 if dtype == np.uint8 else self.trainer.array_f32
        made: npt.NDArray[Any] = make(list(shape))
        return made

    def planes(self, rows: Iterable[int]) -> Tensor:
        """Memory [N, H, W, C] for f32 [N, C, H, W] in the channels_last format. No view of a tensor in another order of
        axes: autograd lets users write to it, and adds to it in place where it is a gradient that nobody else holds."""
        n, h, w, c = rows
        if n * h * w * c < SMALL:
            return torch.empty((n, c, h, w), memory_format=torch.channels_last)
        made: Tensor = self.trainer.empty_f32([n, c, h, w], True)
        return made

    def quantize(
        self, x: Tensor, scale: Tensor, zero: int, lo: int, hi: int, seed: tuple[int, int] | None, *, wide: bool = False
    ) -> Tensor:
        """Codes of f32 x, u8 or s16, `lo` and `hi` relative to zero; scale [1] or [C] along the last axis."""
        out = torch.empty(x.shape, dtype=torch.int16) if wide else self.empty(x.shape, torch.uint8)
        self.call("quantize", x, scale, zero, float(lo), float(hi), None if seed is None else list(seed), out)
        return out

    def absmax(self, x: Tensor, samples: int = 0) -> Tensor:
        """max |x| of every channel of [..., C]; NaN and Inf show. samples: [samples, C], of each sample alone."""
        out = torch.empty(samples, x.shape[-1]) if samples else torch.empty(x.shape[-1])
        self.call("absmax", x, x.shape[-1], out)
        return out

    def outside(self, x: Tensor, low: float, high: float) -> Tensor:
        """bool like x: x > high or x < low."""
        out = self.empty(x.shape, torch.uint8)
        self.call("outside", x, low, high, out)
        return out.view(torch.bool)

    def settle_gradient(self, dx: Tensor, outside: Tensor | None, factor: Tensor) -> None:
        """dx [N, ...] in place: 0 where `outside`, the rest times factor f32 [N]."""
        self.call("settle_gradient", dx, None if outside is None else outside.view(torch.uint8), factor)

    def minmax(self, x: Tensor) -> tuple[float, float]:
        """Smallest and largest value; a NaN shows as one of them."""
        out = torch.empty(2)
        self.call("minmax", x, out)
        low, high = out.tolist()
        return low, high

    def weight_codes(self, rows: Tensor, top: int) -> tuple[Tensor, Tensor]:
        """s8 codes of f32 [O, ...], and scales [O]: section 7 of docs/numerics.md."""
        codes, scale = torch.empty(rows.shape, dtype=torch.int8), torch.empty(len(rows))
        self.call("weight_codes", rows, top, codes, scale)
        return codes, scale

    def forward(self, window: Window, x: QTensor, w: QTensor, mult: Tensor, bias: Tensor | None) -> Tensor:
        """[N, OH, OW, O] f32."""
        shapes = tuple(x.codes.shape), tuple(w.codes.shape)
        y = self.empty(window.output(*shapes))
        self.call("forward", window.layer(*shapes), x.codes, x.range, w.codes, w.range, mult, bias, y)
        return y

    def input_gradient(self, window: Window, x: tuple[int, ...], g: QTensor, w: QTensor, mult: float) -> Tensor:
        """[N, H, W, C] f32; the exponents of g act as shifts inside the sums."""
        dx = self.empty(x)
        layer = window.layer(x, tuple(w.codes.shape))
        self.call("input_gradient", layer, g.codes, g.range, g.exponents, w.codes, w.range, mult, dx)
        return dx

    def weight_gradient(self, window: Window, w: tuple[int, ...], x: QTensor, g: QTensor, mult: Tensor) -> Tensor:
        """[O, kh, kw, I] f32."""
        dw = self.empty(w)
        layer = window.layer(tuple(x.codes.shape), w)
        self.call("weight_gradient", layer, x.codes, x.range, g.codes, g.range, mult, dw)
        return dw


class Simulation:
    """The same integers in float64 tensors."""

    @staticmethod
    def _values(q: QTensor) -> Tensor:
        if q.codes.dtype == torch.int16:
            raise UnsupportedError(Problem("16-bit operands sum in the kernels' order", hint="products='kernels'"))
        return (q.codes.to(torch.float64) - q.zero).permute(0, 3, 1, 2)

    @staticmethod
    def _settings(window: Window) -> tuple[Any, ...]:
        return window.stride, window.padding, window.dilation, window.groups

    def quantize(
        self, x: Tensor, scale: Tensor, zero: int, lo: int, hi: int, seed: tuple[int, int] | None, *, wide: bool = False
    ) -> Tensor:
        """As `Kernels.quantize`; the noise is drawn with NumPy."""
        codes = stochastic.quantize(x.detach().cpu().numpy(), scale.cpu().numpy(), lo, hi, seed) + zero
        return torch.from_numpy(codes.astype(np.int16 if wide else np.uint8)).to(x.device)

    def absmax(self, x: Tensor, samples: int = 0) -> Tensor:
        """max |x| of every channel, of each sample alone where `samples`."""
        found = x.abs().reshape(samples or 1, -1, x.shape[-1]).amax(1)
        return found if samples else found[0]

    def outside(self, x: Tensor, low: float, high: float) -> Tensor:
        """bool like x: x > high or x < low."""
        return (x > high) | (x < low)

    def settle_gradient(self, dx: Tensor, outside: Tensor | None, factor: Tensor) -> None:
        """dx [N, ...] in place: 0 where `outside`, the rest times factor f32 [N]."""
        dx.mul_(factor.to(dx.device).view(-1, *(1,) * (dx.ndim - 1)))
        if outside is not None:
            dx.masked_fill_(outside, 0)

    def minmax(self, x: Tensor) -> tuple[float, float]:
        """Smallest and largest value; NaN for both where there is one."""
        low, high = (float(v) for v in torch.aminmax(x))
        return low, high

    def forward(self, window: Window, x: QTensor, w: QTensor, mult: Tensor, bias: Tensor | None) -> Tensor:
        """[N, OH, OW, O] f32."""
        acc = functional.conv2d(self._values(x), self._values(w), None, *self._settings(window))
        y = acc.permute(0, 2, 3, 1).to(torch.float32) * mult
        return (y if bias is None else y + bias).contiguous()

    def input_gradient(self, window: Window, x: tuple[int, ...], g: QTensor, w: QTensor, mult: float) -> Tensor:
        """[N, H, W, C] f32."""
        values, top = self._values(g), 0
        if g.exponents is not None:
            top = int(g.exponents.max())
            shifts = top - g.exponents.to(torch.int32)
            values = values * torch.ldexp(torch.ones(len(shifts), dtype=torch.float64), shifts).view(1, -1, 1, 1)
        shape = (x[0], x[3], x[1], x[2])
        acc = _GRAD.conv2d_input(shape, self._values(w), values, *self._settings(window))
        return (acc.permute(0, 2, 3, 1).to(torch.float32) * mult).contiguous()

    def weight_gradient(self, window: Window, w: tuple[int, ...], x: QTensor, g: QTensor, mult: Tensor) -> Tensor:
        """[O, kh, kw, I] f32."""
        shape = (w[0], w[3], w[1], w[2])
        acc = _GRAD.conv2d_weight(self._values(x), shape, self._values(g), *self._settings(window))
        return (acc.permute(0, 2, 3, 1).to(torch.float32) * mult.view(-1, 1, 1, 1)).contiguous()


@functools.cache
def products(kind: str) -> Products:
    """The one instance of each kind; kernels run on torch's threads, as many as torch had at the first call."""
    if kind != "kernels":
        return Simulation()
    library = openmp_library()
    return Kernels(torch.get_num_threads() if library else 0, "", library)


atexit.register(products.cache_clear)  # threads end before the interpreter does
