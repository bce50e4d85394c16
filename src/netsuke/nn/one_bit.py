"""Layers whose three products are XNOR and popcount: signs of weights and activations, code bits of the gradient.

    forward   y[o] = alpha[o] (sign(x) * sign(w))[o],  alpha[o] = mean|w[o]|,  zeros in the padding
    backward  dY of a group is symmetric b-bit codes: g = (R / (2^b - 1)) sum_k 2^k s_k, s_k in {-1, +1}, R = max|g|,
              rounded stochastically; every plane s_k is one more one-bit product. Groups are samples for the input
              gradient and channels for the weight gradient, so no scale stays inside a sum.
    pruning   group i is kept with probability p_i (`keep_probability`) and divided by it: N / b groups of b planes are
              as many one-bit rows as N. Straight-through gradients pass where |x| < 1 and |w| < 1.

Kernels and simulation give the same bits: sums are integers below 2^24, scaled once.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from netsuke.core.errors import Problem, UnsupportedError, UsageError, near
from netsuke.nn import stochastic
from netsuke.nn.integer_products import Kernels, Window, products
from netsuke.nn.qtensor import check_finite

GRADIENTS = ("pruned", "per-sample", "float")
PRUNING = ("random", "largest")
_GRAD: Any = importlib.import_module("torch.nn.grad")  # untyped
_COUNTERS = 65535  # products of the fast kernels' 16-bit counters
_BELOW_ONE = 1 - 2.0**-24  # the largest f32 below 1


@dataclass(frozen=True)
class OneBitConfig:
    """gradient  "pruned": b-bit groups, one in b kept; "per-sample": one bit a value, a scale a sample (baseline);
                 "float": exact gradients of the same forward (reference)
    bits         b of "pruned", 1 to 8
    pruning      "random": unbiased; "largest": the N / b groups of the largest range, not divided (released code)
    products     "kernels", or "simulation": float64 products of the same signs
    """

    gradient: str = "pruned"
    bits: int = 4
    pruning: str = "random"
    products: str = "kernels"
    seed: int = 0

    def __post_init__(self) -> None:
        problems = [
            Problem(name, "OneBitConfig", str(getattr(self, name)), near(getattr(self, name), allowed))
            for name, allowed in (
                ("gradient", GRADIENTS),
                ("pruning", PRUNING),
                ("products", ("kernels", "simulation")),
            )
            if getattr(self, name) not in allowed
        ]
        if not 1 <= self.bits <= 8:
            problems.append(Problem("bits", "OneBitConfig", str(self.bits), "1 to 8"))
        if problems:
            raise UsageError(problems)


def keep_probability(ranges: Tensor, bits: int) -> Tensor:
    """p proportional to the groups' ranges, at most 1, summing to N / bits (fewer where fewer groups are not zero)."""
    p = torch.zeros_like(ranges)
    free, budget = ranges > 0, len(ranges) / bits
    while bool(free.any()) and budget > 0:
        share = budget * ranges / ranges[free].sum()
        over = free & (share >= 1)
        if not bool(over.any()):
            p[free] = share[free]
            break
        p[over] = 1.0
        budget -= int(over.sum())
        free = free & ~over
    return p


class Bits(Protocol):
    """Products of signs; what a "packed" operand is belongs to the implementation."""

    def signs(self, x: Tensor) -> Any: ...
    def planes(self, codes: Tensor, bits: int) -> list[Any]: ...
    def turned(self, w: Any) -> Any: ...
    def convolve(self, window: Window, x: Any, w: Any, mult: Tensor) -> Tensor: ...
    def add_planes(self, window: Window, planes: list[Any], w: Any, outputs: int) -> Tensor: ...
    def weight_gradient(self, window: Window, x: Any, planes: list[Any], w: tuple[int, ...]) -> Tensor: ...


@dataclass(frozen=True)
class _Packed:
    """words int64 [rows..., ceil(channels / 64)] of a tensor of this shape."""

    words: Tensor
    shape: tuple[int, ...]


class BitKernels:
    """runtime/train/one_bit.cc."""

    def __init__(self, kit: Kernels) -> None:
        self.kit = kit

    @staticmethod
    def _words(channels: int) -> int:
        return -(-channels // 64)

    def signs(self, x: Tensor) -> _Packed:
        """[..., C] f32, bit = x >= 0."""
        shape = tuple(x.shape)
        words = torch.empty((*shape[:-1], self._words(shape[-1])), dtype=torch.int64)
        self.kit.call("pack_signs", x, shape[-1], words)
        return _Packed(words, shape)

    def planes(self, codes: Tensor, bits: int) -> list[_Packed]:
        """Bit k of u8 codes [..., C], lowest first."""
        shape = tuple(codes.shape)
        words = torch.empty((bits, *shape[:-1], self._words(shape[-1])), dtype=torch.int64)
        self.kit.call("pack_planes", codes, shape[-1], bits, words)
        return [_Packed(plane, shape) for plane in words]

    def turned(self, w: _Packed) -> _Packed:
        """Signs of weights [O, kh, kw, C] as the input gradient reads them: [C, kh, kw, O], both axes flipped."""
        o, kh, kw, c = w.shape
        words = torch.empty((c, kh * kw, self._words(o)), dtype=torch.int64)
        self.kit.call("transpose_bits", w.words, o, kh * kw, c, words)
        return _Packed(words.flip(1).view(c, kh, kw, -1), (c, kh, kw, o))

    def _conv(self, window: Window, x: _Packed, w: _Packed, mult: Tensor, y: Tensor, *, add: bool) -> None:
        self.kit.call("bit_conv", window.layer(x.shape, w.shape), x.words, w.words, mult, add, y)

    def convolve(self, window: Window, x: _Packed, w: _Packed, mult: Tensor) -> Tensor:
        """[N, OH, OW, O] f32: integer sums times mult [O]."""
        y = torch.empty(window.output(x.shape, w.shape))
        self._conv(window, x, w, mult, y, add=False)
        return y

    def add_planes(self, window: Window, planes: list[_Packed], w: _Packed, outputs: int) -> Tensor:
        """sum_k 2^k (plane k * w) as f32."""
        y = torch.empty(window.output(planes[0].shape, w.shape))
        for k, plane in enumerate(planes):
            self._conv(window, plane, w, torch.full((outputs,), 2.0**k), y, add=k > 0)
        return y

    def _by_channel(self, x: _Packed, begin: int, end: int) -> _Packed:
        """[N, H, W, C] -> [C, H, W, n] of the samples from begin to end."""
        _, h, w, c = x.shape
        n = end - begin
        words = torch.empty((c, h, w, self._words(n)), dtype=torch.int64)
        self.kit.call("transpose_bits", x.words[begin:end], n, h * w, c, words)
        return _Packed(words, (c, h, w, n))

    def weight_gradient(self, window: Window, x: _Packed, planes: list[_Packed], w: tuple[int, ...]) -> Tensor:
        """sum_k 2^k (x correlated with plane k) [K, kh, kw, C]: a convolution whose window is dY."""
        n, oh, ow, channels = planes[0].shape
        turned = Window((window.dilation[0], window.dilation[1]), window.padding, window.stride)
        mult = torch.cat([torch.full((channels,), 2.0**k) for k in range(len(planes))])
        y = torch.empty((x.shape[3], w[1], w[2], channels * len(planes)))
        each = max(8, _COUNTERS // (oh * ow) // 64 * 64 or _COUNTERS // (oh * ow) // 8 * 8)
        for begin in range(0, n, each):
            end = min(n, begin + each)
            rows = [self._by_channel(plane, begin, end) for plane in planes]
            weights = _Packed(torch.cat([r.words for r in rows]), (channels * len(planes), oh, ow, end - begin))
            self._conv(turned, self._by_channel(x, begin, end), weights, mult, y, add=begin > 0)
        sums = y.view(*y.shape[:3], len(planes), channels).sum(3)
        return sums.permute(3, 1, 2, 0).contiguous()


class BitSimulation:
    """The same sums in float64 tensors."""

    def signs(self, x: Tensor) -> Tensor:
        """-1 and +1."""
        return torch.where(x >= 0, 1.0, -1.0).double()

    def planes(self, codes: Tensor, bits: int) -> list[Tensor]:
        """-1 and +1 for every bit."""
        return [((codes.to(torch.int32) >> k) & 1).double() * 2 - 1 for k in range(bits)]

    def turned(self, w: Tensor) -> Tensor:
        """As the kernels."""
        return w.flip(1, 2).permute(3, 1, 2, 0).contiguous()

    def convolve(self, window: Window, x: Tensor, w: Tensor, mult: Tensor) -> Tensor:
        """As the kernels."""
        acc = functional.conv2d(
            x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), None, window.stride, window.padding, window.dilation
        )
        return (acc.permute(0, 2, 3, 1).float() * mult).contiguous()

    def add_planes(self, window: Window, planes: list[Tensor], w: Tensor, outputs: int) -> Tensor:
        """As the kernels."""
        whole = torch.stack([p * 2.0**k for k, p in enumerate(planes)]).sum(0)
        return self.convolve(window, whole, w, torch.ones(outputs))

    def weight_gradient(self, window: Window, x: Tensor, planes: list[Tensor], w: tuple[int, ...]) -> Tensor:
        """As the kernels."""
        whole = torch.stack([p * 2.0**k for k, p in enumerate(planes)]).sum(0).permute(0, 3, 1, 2)
        shape = (whole.shape[1], w[3], w[1], w[2])
        acc = _GRAD.conv2d_weight(x.permute(0, 3, 1, 2), shape, whole, window.stride, window.padding, window.dilation)
        return acc.permute(0, 2, 3, 1).float().contiguous()


def bits_of(kind: str) -> Bits:
    """The products of a configuration."""
    return BitKernels(cast(Kernels, products("kernels"))) if kind == "kernels" else BitSimulation()


class _OneBit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: OneBitLayer) -> Tensor:
        kit = bits_of(layer.config.products)
        rows = weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight[:, None, None, :]
        rows = rows.contiguous()
        alpha = torch.linalg.vector_norm(rows.flatten(1), 1, dim=1) / rows[0].numel()
        signs, weights = kit.signs(x), kit.signs(rows)
        low, high = products(layer.config.products).minmax(rows)
        ctx.all_inside = low > -1 and high < 1  # so it mostly is: no mask for the weights' gradient then
        ctx.layer, ctx.signs, ctx.weights, ctx.rows, ctx.alpha = layer, signs, weights, rows, alpha
        ctx.outside = products(layer.config.products).outside(x, -_BELOW_ONE, _BELOW_ONE)
        return kit.convolve(layer.window, signs, weights, alpha)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        g, layer = gradients[0].contiguous(), ctx.layer
        if layer.config.gradient == "float":
            dx, dw = layer.float_gradients(g, ctx.signs, ctx.rows, ctx.alpha)
            dx = dx.contiguous()
        else:
            dx, dw = layer.gradients(g, ctx.signs, ctx.weights, ctx.rows, ctx.alpha)
        if not ctx.all_inside:
            dw = dw * (ctx.rows.abs() < 1)
        dw = dw.permute(0, 3, 1, 2) if layer.weight.ndim == 4 else dw.reshape(layer.weight.shape)
        products(layer.config.products).settle_gradient(dx, ctx.outside, torch.ones(len(dx)))
        return dx, dw, None


class OneBitLayer(nn.Module):
    """What one-bit convolutions and linear layers share; a bias is added in float."""

    config: OneBitConfig
    window: Window
    where: str
    index: int
    weight: Any
    bias: Any
    draws: Tensor

    def set_up(self, config: OneBitConfig, window: Window, where: str, index: int) -> None:
        self.config, self.window, self.where, self.index = config, window, where, index
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    def _seed(self) -> tuple[int, int]:
        self.draws += 1
        return self.config.seed, (1 << 61) + (self.index << 40) + int(self.draws)

    def _kept(self, ranges: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the groups that stay, and what each is multiplied with."""
        config = self.config
        if config.gradient == "per-sample":
            kept = torch.nonzero(ranges > 0).flatten()
            return kept, torch.ones(len(kept))
        if config.pruning == "largest":
            kept = torch.sort(torch.topk(ranges, max(1, len(ranges) // config.bits)).indices).values
            kept = kept[ranges[kept] > 0]
            return kept, torch.ones(len(kept))
        p = keep_probability(ranges, config.bits)
        drawn = torch.from_numpy(np.asarray(stochastic.noise(*self._seed(), len(p))))
        kept = torch.nonzero(drawn < p).flatten()
        return kept, 1 / p[kept]

    def _codes(self, g: Tensor, factor: Tensor, bits: int) -> Tensor:
        """u8 codes of g * factor in [-1, 1], stochastic: 2^b levels, code c stands for (2 c - 2^b + 1) / (2^b - 1)."""
        top = 2**bits - 1
        shifted = (g * (factor * (top / 2))).add_(top / 2)
        return products(self.config.products).quantize(shifted, torch.ones(1), 0, 0, top, self._seed())

    def gradients(self, g: Tensor, signs: Any, weights: Any, rows: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """dX [N, H, W, C] and dW [O, kh, kw, C] from dY [N, OH, OW, O]; signs and weights are packed."""
        kit, bits = bits_of(self.config.products), 1 if self.config.gradient == "per-sample" else self.config.bits
        ranges = largest_by_sample(g)
        check_finite(ranges.amax(0), self.where)
        samples, channels = (ranges * alpha).amax(1), ranges.amax(0)
        dx = self._input_gradient(kit, g, weights, rows.shape, alpha, samples, bits)
        if self.config.gradient == "per-sample":
            return dx, self._per_sample_weights(g, signs, rows, alpha, ranges.amax(1))
        kept, factor = self._kept(channels)
        dw = torch.zeros(rows.shape)
        if len(kept):
            codes = self._codes(g.index_select(3, kept), 1 / channels[kept], bits)
            sums = kit.weight_gradient(self.window, signs, kit.planes(codes, bits), tuple(rows.shape))
            scale = channels[kept] * factor * alpha[kept] / (2**bits - 1)
            dw[kept] = sums * scale.view(-1, 1, 1, 1)
        return dx, dw

    def _input_gradient(
        self, kit: Bits, g: Tensor, weights: Any, shape: torch.Size, alpha: Tensor, samples: Tensor, bits: int
    ) -> Tensor:
        window, (_, kh, kw, c) = self.window, shape
        pads = tuple(d * (k - 1) - p for d, k, p in zip(window.dilation, (kh, kw), window.padding, strict=True))
        turned = Window((1, 1), (pads[0], pads[1]), window.dilation)
        sizes = [g.shape[1 + i] + 2 * pads[i] - window.dilation[i] * (shape[1 + i] - 1) for i in (0, 1)]
        dx = torch.zeros(len(g), sizes[0], sizes[1], c)
        kept, factor = self._kept(samples)
        if len(kept):
            ratio = alpha.view(1, 1, 1, -1) / samples[kept].view(-1, 1, 1, 1)
            codes = self._codes(g[kept], ratio, bits)
            sums = kit.add_planes(turned, kit.planes(codes, bits), kit.turned(weights), c)
            dx[kept] = sums.mul_((samples[kept] * factor / (2**bits - 1)).view(-1, 1, 1, 1))
        return dx

    def _per_sample_weights(self, g: Tensor, signs: Any, rows: Tensor, alpha: Tensor, largest: Tensor) -> Tensor:
        """The baseline's weight gradient: one bit a value, a scale a sample, which no integer sum can carry: float."""
        safe = torch.where(largest > 0, largest, torch.ones_like(largest)).view(-1, 1, 1, 1)
        real = (self._codes(g, 1 / safe, 1).float() * 2 - 1) * largest.view(-1, 1, 1, 1)
        return self._float_weights(real, signs, rows, alpha)

    def _float_weights(self, g: Tensor, signs: Any, rows: Tensor, alpha: Tensor) -> Tensor:
        x = self.unpack(signs).permute(0, 3, 1, 2)
        shape = (rows.shape[0], rows.shape[3], rows.shape[1], rows.shape[2])
        w = self.window
        dw: Tensor = _GRAD.conv2d_weight(x, shape, g.permute(0, 3, 1, 2), w.stride, w.padding, w.dilation)
        return dw.permute(0, 2, 3, 1) * alpha.view(-1, 1, 1, 1)

    def float_gradients(self, g: Tensor, signs: Any, rows: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Exact gradients of the one-bit forward pass, in float32."""
        weights = torch.where(rows >= 0, 1.0, -1.0).permute(0, 3, 1, 2)
        w, x = self.window, self.unpack(signs).permute(0, 3, 1, 2)
        planes = (g * alpha).permute(0, 3, 1, 2)
        dx = _GRAD.conv2d_input(x.shape, weights, planes, w.stride, w.padding, w.dilation)
        return dx.permute(0, 2, 3, 1), self._float_weights(g, signs, rows, alpha)

    @staticmethod
    def unpack(signs: Any) -> Tensor:
        """f32 -1 and +1 of a packed operand."""
        if isinstance(signs, Tensor):
            return signs.float()
        ones = (signs.words[..., None] >> torch.arange(64)) & 1
        return (ones.flatten(-2)[..., : signs.shape[-1]] * 2 - 1).float()


def largest_by_sample(g: Tensor) -> Tensor:
    """max|g| of [N, H, W, O] over H and W: [N, O]; NaN and Inf show."""
    top = torch.empty(len(g), g.shape[-1])
    cast(Kernels, products("kernels")).call("absmax", g, g.shape[-1], top)
    return top


class OneBitConv2d(nn.Conv2d, OneBitLayer):
    """A convolution that takes and gives f32 [N, C, H, W] and multiplies signs."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).contiguous()
        y: Tensor = _OneBit.apply(rows, self.weight, self)  # type: ignore[no-untyped-call]
        y = y if self.bias is None else y + self.bias
        return y.permute(0, 3, 1, 2)


class OneBitLinear(nn.Linear, OneBitLayer):
    """A linear layer that takes and gives f32 [..., K] and multiplies signs."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, 1, 1, x.shape[-1]).contiguous()
        y: Tensor = _OneBit.apply(rows, self.weight, self)  # type: ignore[no-untyped-call]
        y = y if self.bias is None else y + self.bias
        return y.reshape(*x.shape[:-1], self.out_features)


def fits(module: nn.Module) -> bool:
    """Whether a layer can be one-bit: stride 1, one group, zero padding no wider than the window."""
    if isinstance(module, nn.Linear):
        return True
    if not isinstance(module, nn.Conv2d) or module.groups != 1 or module.padding_mode != "zeros":
        return False
    if isinstance(module.padding, str) or module.stride != (1, 1):
        return False
    return all(p <= d * (k - 1) for p, d, k in zip(module.padding, module.dilation, module.kernel_size, strict=True))


def make_one_bit(module: nn.Module, config: OneBitConfig, where: str, index: int) -> OneBitConv2d | OneBitLinear:
    """The one-bit layer of a convolution or linear layer, sharing its parameters; UnsupportedError unless it `fits`."""
    if not fits(module):
        raise UnsupportedError(
            Problem("one-bit layers have stride 1 and one group", where, type(module).__name__, hint="leave it float")
        )
    window, new = Window(), cast("OneBitConv2d | OneBitLinear", OneBitLinear.__new__(OneBitLinear))
    if isinstance(module, nn.Conv2d):
        window = Window((1, 1), cast(tuple[int, int], module.padding), cast(tuple[int, int], module.dilation))
        new = OneBitConv2d.__new__(OneBitConv2d)
    new.__dict__.update(module.__dict__)
    new.__dict__["_buffers"] = dict(module._buffers)
    new.set_up(config, window, where, index)
    return new
