"""Convolution and linear layers that train in integers: forward, input gradient and weight gradient are integer
products.

    weights      s_w[o] = max|W[o]| / (2^(b-1) - 1), codes rne(W / s_w): section 7 of docs/numerics.md
    activations  u8 codes, one scale and zero point; the range follows the largest value seen, or loses the least where
                 bits are few (integer_range.py). The straight-through gradient is the identity inside the range
    forward      y = f32(acc) * f32(f64(s_x) * f64(s_w[o])) (+ bias): section 4 with f32 output, what the engine
                 computes
    gradients    channel o of dY is weighted with s_w[o] before it is grouped: the sum over o in the input gradient then
                 needs no scale of its own, and the weight gradient takes the factor back out per column

Layers keep their parameters (float master weights, any torch optimizer), names and state dict keys; buffers are added:
`input_range` (low, high) and `draws` (how many gradients were rounded), so a resumed run continues bit for bit.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError
from netsuke.nn.fused_norm import known_range
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_master import channels_last, set_up_master, settle
from netsuke.nn.integer_probe import Probe
from netsuke.nn.integer_products import Kernels, Window, products
from netsuke.nn.integer_range import Range, clipping, following, least_error
from netsuke.nn.integer_samples import factors, octaves, scaled, weight_gradient
from netsuke.nn.qtensor import QTensor, affine, check_finite, on_host, shift_exponents

_SMALLEST = 2.0**-126
_INT32 = 2**31 - 1
_GRAD: Any = importlib.import_module("torch.nn.grad")  # untyped


def weight_codes(weight: Tensor, bits: int, chain: int = 1, fraction: int | None = None) -> QTensor:
    """Master weights [O, I, kh, kw] (or [O, I]) f32 -> codes [O, kh, kw, I], s8 (s16 above 8 bits), scale [O].

    More than 8 bits: one power-of-two scale for the tensor (dynamic fixed point), with head-room for `chain`. fraction:
    scale 2^-fraction, saturating.
    """
    rows = channels_last(weight)
    top = 2 ** (bits - 1) - 1
    if fraction is not None:
        scale = torch.full((len(rows),), 2.0**-fraction)
    elif bits > 8:
        shared, top = shared_exponent(float(rows.abs().max()), bits, chain)
        scale = shared.expand(len(rows)).contiguous()
    else:
        largest = rows.abs().amax((1, 2, 3)) / top
        scale = torch.where(largest > 0, largest.clamp_min(_SMALLEST), torch.ones_like(largest))
    codes = torch.clamp(torch.round(rows / scale.view(-1, 1, 1, 1)), -top, top)
    if fraction is not None and bits > 8:
        top = int(codes.abs().max())  # sums of pairs convert to f32 no sooner than these codes need
    return QTensor(codes.to(torch.int8 if bits <= 8 else torch.int16), scale, 0, -top, top)


def shared_exponent(largest: float, bits: int, chain: int = 1) -> tuple[Tensor, int]:
    """Dynamic fixed point of a tensor: its scale 2^E as f32 [1], and the largest mantissa that it makes.

    E is the smallest exponent with largest * 2^-E <= 2^(bits - 1) - 1 after rounding up; where `chain` pairs of
    products of that mantissa could leave int32, it is raised (every mantissa shifted right) until they cannot.
    """
    if not largest > 0:
        return torch.ones(1), 0
    exponent = max(-126, math.frexp(largest)[1] - (bits - 1))
    limit = min(2 ** (bits - 1) - 1, math.isqrt(_INT32 // (2 * chain)))
    top = round(math.ldexp(largest, -exponent))
    while top > limit and chain > 1:
        exponent += 1
        top = round(math.ldexp(largest, -exponent))
    return torch.ldexp(torch.ones(1), torch.tensor(exponent)), min(top, limit)


def _zero_where(dx: Tensor | None, clipped: Tensor | None) -> Tensor | None:
    return dx if dx is None or clipped is None else dx.masked_fill_(clipped, 0)


class _Product(torch.autograd.Function):
    """y from x and the master weights; backward in integers. `layer` carries configuration and buffers."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: IntegerLayer,
        ends: tuple[float, float] | None = None,
    ) -> Tensor:  # fmt: skip
        if x.dtype != torch.float32:
            hint = "x.float(); integer layers stay outside of torch.autocast"
            raise UsageError(Problem("the input is not float32", layer.where, str(x.dtype), hint=hint))
        kit, w = products(layer.config.products), layer.quantize_weight(weight)
        q = layer.quantize_input(x, ends)
        if layer.probe is not None:
            layer.probe.inputs(layer.where, q)
        mult = (q.scale.double() * w.scale.double()).float()
        y = kit.forward(layer.window, q, w, mult, None if bias is None else bias.detach())
        ctx.layer, ctx.q, ctx.w, ctx.has_bias = layer, q, w, bias is not None
        ctx.clipped = layer.clipped(x, q) if ctx.needs_input_grad[0] else None
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        g = gradients[0].contiguous()
        need_x, need_w, need_bias = ctx.needs_input_grad[:3]
        dx, dw = ctx.layer.gradients(g, ctx.q, ctx.w, need_x, need_w, ctx.clipped)
        if ctx.layer.controller is not None and dw is not None:
            dw = ctx.layer.controller(ctx.layer, g.numel() // g.shape[-1], dw)
        db = g.reshape(-1, g.shape[-1]).sum(0) if ctx.has_bias and need_bias else None
        return dx, dw, db, None, None


class IntegerLayer(nn.Module):
    """What integer convolutions and linear layers share. `where` is the layer's name in its network."""

    config: IntegerConfig
    window: Window
    where: str
    index: int
    weight: Any
    bias: Any
    input_range: Tensor
    draws: Tensor
    probe: Probe | None = None
    controller: Callable[[IntegerLayer, int, Tensor], Tensor] | None = None  # sees every weight gradient, may change it

    def set_up(self, config: IntegerConfig, window: Window, where: str, index: int) -> None:
        self.config, self.window, self.where, self.index = config, window, where, index
        self.register_buffer("input_range", torch.zeros(2))
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        if config.master_bits:
            set_up_master(self)

    def quantize_weight(self, weight: Tensor) -> QTensor:
        """Codes of the master weights."""
        config, kit, rows = self.config, products(self.config.products), channels_last(weight)
        if config.master_bits and weight is self.weight:
            rows = settle(self, rows)
        if isinstance(kit, Kernels) and config.weight_bits <= 8 and config.fraction is None:
            top = 2 ** (config.weight_bits - 1) - 1
            return QTensor(*kit.weight_codes(rows, top), 0, -top, top)
        return weight_codes(rows.permute(0, 3, 1, 2), config.weight_bits, config.chain, config.fraction)

    def _fixed_fraction(self, x: Tensor, bits: int, fraction: int) -> QTensor:
        """Codes of fixed point <bits, fraction>, nearest, saturating; a byte holds code + 2^(bits - 1)."""
        kit, top, wide = products(self.config.products), 2 ** (bits - 1) - 1, bits > 8
        ranges = kit.absmax(x.detach())
        check_finite(ranges, self.where, "input")
        scale, zero = torch.tensor([2.0**-fraction]), 0 if wide else top
        codes = kit.quantize(x.detach(), scale, zero, -top, top, None, wide=wide)
        if wide:
            top = min(top, math.ceil(math.ldexp(float(ranges.max()), fraction)))
        return QTensor(codes, scale, zero, zero - top, zero + top)

    def quantize_input(self, x: Tensor, ends: tuple[float, float] | None = None) -> QTensor:
        """f32 [N, H, W, C] -> codes with this layer's range, which training moves and evaluation does not. ends:
        smallest and largest of x where they are known."""
        config, kit = self.config, products(self.config.products)
        if config.fraction is not None:
            return self._fixed_fraction(x, config.activation_bits, config.fraction)
        if config.gradient == "dfp":
            return self._fixed_point(x, config.activation_bits)
        if self.training:
            low, high = kit.minmax(x.detach()) if ends is None else ends
            scale, zero, top = self.input_grid(low, high, x)
        else:
            low, high = self.input_range.tolist()
            if low == high == 0:
                hint = "train a step, or load a checkpoint"
                raise UsageError(Problem("the layer has seen no input", where=self.where, hint=hint))
            (scale, zero), top = affine(low, high, config.activation_bits, config.scale), 2**config.activation_bits - 1
        step = torch.tensor([scale])
        return QTensor(kit.quantize(x.detach(), step, zero, -zero, top - zero, None), step, zero, 0, top)

    def input_grid(self, low: float, high: float, x: Tensor | None = None) -> tuple[float, int, int]:
        """Scale, zero point and largest of the codes for an input between low and high, towards which training moves
        the range. x: the input, needed where its codes may clip."""
        config = self.config
        if not (low > -float("inf") and high < float("inf")):  # NaN fails both
            raise UsageError(Problem("the input is NaN or Inf", where=self.where, allowed="finite numbers"))
        before = cast(Range, tuple(self.input_range.tolist()))
        if config.clips:
            moved = least_error(cast(Tensor, x), low, high, before, config.activation_bits, config.scale)
        else:
            moved = following(low, high, before, config.forget)
        self.input_range.copy_(torch.tensor(moved))
        low, high = self.input_range.tolist()
        return *affine(low, high, config.activation_bits, config.scale), 2**config.activation_bits - 1

    def clipped(self, x: Tensor, q: QTensor) -> Tensor | None:
        """bool like x, where its codes clip it; None where they do not by design."""
        if not self.config.clips:
            return None
        return products(self.config.products).outside(x.detach(), *clipping(float(q.scale), q.zero, q.hi))

    def _fixed_point(self, x: Tensor, bits: int) -> QTensor:
        kit = products("kernels")
        ranges = kit.absmax(x.detach())
        check_finite(ranges, self.where)
        scale, top = shared_exponent(float(ranges.max()), bits, self.config.chain)
        return QTensor(kit.quantize(x.detach(), scale, 0, -top, top, None, wide=True), scale, 0, -top, top)

    @np.errstate(over="ignore")  # an infinity, as torch has it
    def quantize_gradient(self, g: Tensor, w: QTensor, ranges: Tensor | None = None) -> QTensor | None:
        """dY f32 [N, OH, OW, O] -> codes; None when all of it is zero. ranges: its channels' largest, where known.

        `scale` is per channel and holds everything: the value of a code is `scale[o] * (code - zero)`; `exponents` say
        how scale[o] * s_w[o] relates to the largest one.
        """
        config, kit = self.config, products(self.config.products)
        ranges = kit.absmax(g) if ranges is None else ranges
        check_finite(ranges, self.where)
        found = on_host(ranges)
        if not found.any():
            return None
        if config.gradient == "dfp":
            return self._fixed_point(g, config.gradient_bits)
        top, weights, exponents = 2 ** (config.gradient_bits - 1) - 1, on_host(w.scale), None
        if config.gradient == "channel":
            steps = np.where(found > 0, found / np.float32(top), np.float32(1))
        else:
            groups = config.groups if config.gradient == "shift" else 1
            exponents, largest = shift_exponents(torch.from_numpy(found * weights), groups)
            base = max(np.float32(largest / top), np.float32(_SMALLEST))
            steps = np.ldexp(base, -on_host(exponents).astype(np.int32)) / weights
            exponents = exponents.to(g.device)
        scale = torch.from_numpy(np.maximum(steps, np.float32(_SMALLEST))).to(g.device)
        seed = self.seed()
        if seed is not None:
            self.draws.add_(1)
        return QTensor(kit.quantize(g, scale, top, -top, top, seed), scale, top, 0, 2 * top, exponents)

    def seed(self) -> tuple[int, int] | None:
        """Of the next gradient's noise."""
        config = self.config
        return (config.seed, (self.index << 40) + int(self.draws)) if config.stochastic else None

    def gradients(
        self, g: Tensor, q: QTensor, w: QTensor, need_x: bool, need_w: bool, clipped: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """dX [N, H, W, C], 0 where `clipped`, and dW in the shape of the weights."""
        config, kit, window = self.config, products(self.config.products), self.window
        x_shape, w_shape = tuple(q.codes.shape), tuple(w.codes.shape)
        if config.gradient == "float":
            dx, dw = self._float_gradients(g, q, w, need_x, need_w)
            return _zero_where(dx, clipped), dw
        e = ranges = None
        if config.scales_samples:
            ranges = kit.absmax(g, len(g))
            e = octaves(ranges, self.where)
            g, ranges = scaled(g, e), scaled(ranges, e).amax(0)
        gq = self.quantize_gradient(g, w, ranges)
        if gq is None:
            return torch.zeros(x_shape) if need_x else None, torch.zeros_like(self.weight) if need_w else None
        if self.probe is not None:
            self.probe.gradient(self.where, g, gq, e)
        dx = dw = None
        if need_x and config.gradient == "channel":
            dx = self._float_gradients((gq.codes.float() - gq.zero) * gq.scale, q, w, True, False)[0]
            dx = _zero_where(dx, clipped)
        elif need_x:
            dx = kit.input_gradient(window, x_shape, gq, w, self._base(gq, w))
            if e is not None:
                kit.settle_gradient(dx, clipped, factors(e, -1))
            else:
                _zero_where(dx, clipped)
        if need_w:
            mult = (q.scale.double() * gq.scale.double()).float().expand(w_shape[0]).contiguous()
            if e is None:
                dw = kit.weight_gradient(window, w_shape, q, gq, mult)
            else:
                dw = weight_gradient(kit, window, w_shape, q, gq, mult, e)
            dw = self._as_weight(dw)
        return dx, dw

    @staticmethod
    def _base(g: QTensor, w: QTensor) -> float:
        """The scale of the integer input gradient: that of the channels with the largest exponent present."""
        at = 0 if g.exponents is None else int(g.exponents.argmax())
        return float(g.scale[at].double() * w.scale[at].double())

    def _as_weight(self, dw: Tensor) -> Tensor:
        return dw.permute(0, 3, 1, 2) if self.weight.ndim == 4 else dw.reshape(self.weight.shape)

    def _float_gradients(
        self, g: Tensor, q: QTensor, w: QTensor, need_x: bool, need_w: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Both products in float on the dequantized operands: the baseline, and the input gradient of "channel"."""
        weights = (w.codes.float() * w.scale.view(-1, 1, 1, 1)).permute(0, 3, 1, 2)
        x, planes, s = q.dequantize().permute(0, 3, 1, 2), g.permute(0, 3, 1, 2), self.window
        settings = (s.stride, s.padding, s.dilation, s.groups)
        dx = _GRAD.conv2d_input(x.shape, weights, planes, *settings) if need_x else None
        dw = _GRAD.conv2d_weight(x, weights.shape, planes, *settings) if need_w else None
        return (
            None if dx is None else dx.permute(0, 2, 3, 1).contiguous(),
            None if dw is None else dw if self.weight.ndim == 4 else dw.reshape(self.weight.shape),
        )


class IntegerConv2d(nn.Conv2d, IntegerLayer):
    """A convolution that takes and gives f32 [N, C, H, W] and computes in integers."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).contiguous()
        y: Tensor = _Product.apply(rows, self.weight, self.bias, self, known_range(x))  # type: ignore[no-untyped-call]
        return y.permute(0, 3, 1, 2)


class IntegerLinear(nn.Linear, IntegerLayer):
    """A linear layer that takes and gives f32 [..., K] and computes in integers."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, 1, 1, x.shape[-1]).contiguous()
        y: Tensor = _Product.apply(rows, self.weight, self.bias, self)  # type: ignore[no-untyped-call]
        return y.reshape(*x.shape[:-1], self.out_features)


def make_integer(module: nn.Module, config: IntegerConfig, where: str, index: int) -> IntegerConv2d | IntegerLinear:
    """The integer layer of a convolution or linear layer, sharing its parameters."""
    new: IntegerConv2d | IntegerLinear
    if isinstance(module, nn.Conv2d):
        window = Window(
            cast(tuple[int, int], module.stride),
            cast(tuple[int, int], module.padding),
            cast(tuple[int, int], module.dilation),
            module.groups,
        )
        new = IntegerConv2d.__new__(IntegerConv2d)
    else:
        window = Window()
        new = IntegerLinear.__new__(IntegerLinear)
    new.__dict__.update(module.__dict__)
    new.__dict__["_buffers"] = dict(module._buffers)
    new.set_up(config, window, where, index)
    return new


@contextmanager
def probed(model: nn.Module) -> Iterator[Probe]:
    """Attach one probe to every integer layer while the block runs."""
    probe = Probe()
    layers = [m for m in model.modules() if isinstance(m, IntegerLayer)]
    for layer in layers:
        layer.probe = probe
    try:
        yield probe
    finally:
        for layer in layers:
            layer.probe = None
