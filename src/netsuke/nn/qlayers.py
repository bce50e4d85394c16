"""Quantized layers for training whose eval mode computes what the engine computes, bit for bit.

A layer reads values that lie on the grids of its source quantizers and, where it has a target quantizer, gives values
on the target's grid. In training mode it is ordinary differentiable float arithmetic on quantized tensors. In eval
mode it goes through integer codes with the multipliers of docs/numerics.md section 4: the same codes as the program
compiled from `netsuke.nn.fake_quant_export`.

BatchNorm is merged into the requantization, not into the weights: with one weight scale per output channel the codes
stay what they are (a negative gamma flips their sign, which a symmetric grid allows), so folding changes no value.
`FoldedNorm` is the other way, for weights with one scale per tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsuke.core.errors import Problem, UsageError
from netsuke.nn import integer
from netsuke.nn.fused_norm import norm_activation
from netsuke.nn.quantizer import Quantizer

INF = math.inf
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Grid8:
    """A quantizer as constants: `scale`, `zero` and the code window `lo .. hi` of docs/numerics.md section 1."""

    scale: float
    zero: int
    lo: int
    hi: int

    def window(self, low: float, high: float) -> dict[str, Any]:
        """zero, lo and hi with the bounds of a fused activation applied (numerics.md section 4)."""

        def code(bound: float) -> int:
            steps = torch.round(torch.tensor([bound]) / torch.tensor([self.scale]))
            return int(min(max(float(steps) + self.zero, self.lo), self.hi))

        return {"zero": self.zero, "lo": code(low), "hi": code(high)}

    def points(self, x: Tensor) -> Tensor:
        """Values on the grid -> integers `q - zero` (exact: f32(n s) / s rounds to n for |n| <= 255)."""
        return torch.round(x / integer.alone(x, self.scale))

    def values(self, codes: Tensor) -> Tensor:
        return integer.dequantize(codes, integer.alone(codes, self.scale), self.zero)


def served(quantizer: Quantizer) -> Grid8:
    """The constants a per-tensor integer activation quantizer is served with; UsageError when it cannot be served."""
    spec = quantizer.spec
    if spec.grid != "integer" or spec.granularity != "tensor":
        got = f"grid {spec.grid}, granularity {spec.granularity}"
        raise UsageError(Problem("activations have no kernel for this grid", got=got, allowed="integer, per tensor"))
    scale, zero = (float(t.detach()) for t in quantizer.steps())
    if not (math.isfinite(scale) and scale > 0 and math.isfinite(zero)):
        got = f"scale {scale}, zero point {zero}"
        raise UsageError(Problem("a scale is not a positive number", got=got, hint="a lower learning rate"))
    if spec.signed:  # signed codes are served as unsigned ones around the middle
        middle = 1 << (spec.bits - 1)
        return Grid8(scale, middle, int(quantizer.grid.lo) + middle, int(quantizer.grid.hi) + middle)
    return Grid8(scale, int(zero), int(quantizer.grid.lo), int(quantizer.grid.hi))


@dataclass
class ServedLayer:
    """Weights of a layer as they are served: codes int8 in the weight's shape, scale and bias f32 [O]."""

    codes: Tensor
    scale: Tensor
    bias: Tensor | None


class FoldedNorm(nn.Module):
    """BatchNorm folded into the weights before they are quantized (Krishnamoorthi 2018, section 3.2.2).

    While the statistics move, weights are scaled with the moving deviation, so that their codes do not jitter, and the
    output is corrected by moving / batch deviation; the shift uses the batch mean. After `freeze()` moving statistics
    only.
    """

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm
        self.frozen = False

    def gain(self) -> Tensor:
        """gamma / moving deviation, [O]."""
        assert self.norm.running_var is not None
        return _gamma(self.norm) / torch.sqrt(self.norm.running_var + self.norm.eps)


def _gamma(norm: Any) -> Tensor:
    return norm.weight if norm.weight is not None else torch.ones_like(norm.running_var)


def _beta(norm: Any) -> Tensor:
    return norm.bias if norm.bias is not None else torch.zeros_like(norm.running_var)


class QuantLayer(nn.Module):
    """A convolution or linear layer with what is fused behind it: batch norm, residual add, clipping activation.

    layer      nn.Conv2d, nn.Conv1d or nn.Linear (its weight stays the trained parameter)
    norm       BatchNorm behind it, or None; a `FoldedNorm` folds before quantizing
    weight     Quantizer of the weights, symmetric integer, one scale per output channel or one in all
    source     Quantizer that made the input; residual: the one that made the second input, or None
    target     Quantizer of the output, or None for a float output
    bounds     (low, high) of the fused activation
    transform  of the float weights before they are quantized (DoReFa's tanh), or None
    fused      train with batch norm, addition and ReLU in one pass over memory (`netsuke.nn.fused_norm`: no gradients
               of gradients)
    """

    def __init__(
        self,
        layer: nn.Module,
        norm: nn.Module | None,
        weight: Quantizer,
        source: Quantizer,
        target: Quantizer | None = None,
        residual: Quantizer | None = None,
        bounds: tuple[float, float] = (-INF, INF),
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.layer, self.norm, self.weight = layer, norm, weight
        # Quantizers of activations belong to the network: several layers share one.
        self._links = (source, target, residual)
        self.bounds, self.transform = bounds, transform
        self.adapter: nn.Module | None = None
        self.fused = False

    @property
    def source(self) -> Quantizer:
        return self._links[0]

    @property
    def target(self) -> Quantizer | None:
        return self._links[1]

    @property
    def residual(self) -> Quantizer | None:
        return self._links[2]

    def link(self, source: Quantizer, target: Quantizer | None, residual: Quantizer | None) -> None:
        """Set the quantizers around the layer (a copy of a network links its own)."""
        self._links = (source, target, residual)

    def real_weight(self) -> Tensor:
        """The float weight that is quantized: parameter, adapter, folded gain and transform applied."""
        w: Tensor = self.layer.weight  # type: ignore[assignment]
        if self.adapter is not None:
            w = w + self.adapter()
        if isinstance(self.norm, FoldedNorm):
            w = w * self.norm.gain().reshape(-1, *(1,) * (w.ndim - 1))
        return w if self.transform is None else self.transform(w)

    def apply_layer(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's own operator in float."""
        layer: Any = self.layer
        if isinstance(layer, nn.Linear):
            return F.linear(x, w, bias)
        convolve = F.conv1d if isinstance(layer, nn.Conv1d) else F.conv2d
        return convolve(x, w, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward(self, x: Tensor, r: Tensor | None = None) -> Tensor:
        if not self.training and self.weight.enabled and bool(self.source.ready):
            return self._exact(x, r)
        relu = self.bounds == (0.0, INF)
        if self.fused and isinstance(self.norm, nn.BatchNorm2d):
            y = norm_activation(self._product(x), self.norm, r, relu)
        else:
            y = self._float(x)
            y = y if r is None else y + r
            y = F.relu(y) if relu else y
        if not relu and self.bounds != (-INF, INF):
            y = y.clamp(*self.bounds)
        return y if self.target is None else self.target(y)

    def _product(self, x: Tensor) -> Tensor:
        return self.apply_layer(x, self.weight(self.real_weight()), self.layer.bias)  # type: ignore[arg-type]

    def _float(self, x: Tensor) -> Tensor:
        if not isinstance(self.norm, FoldedNorm):
            y = self._product(x)
            return y if self.norm is None else self.norm(y)
        w, bias = self.weight(self.real_weight()), self.layer.bias
        return self._folded(x, w, bias)  # type: ignore[arg-type]

    def _folded(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        assert isinstance(self.norm, FoldedNorm)
        norm, b = self.norm.norm, 0.0 if bias is None else bias
        assert norm.running_mean is not None
        assert norm.running_var is not None
        y = self.apply_layer(x, w, None)
        shape = (1, -1, *(1,) * (y.ndim - 2))
        if self.norm.frozen or not self.training:
            shift = _beta(norm) + (b - norm.running_mean) * self.norm.gain()
            return y + shift.reshape(shape)
        plain = self.apply_layer(x, self.layer.weight, None)  # type: ignore[arg-type]
        axes = [0, *range(2, y.ndim)]
        mean, var = plain.mean(axes), plain.var(axes, unbiased=False)
        deviation = torch.sqrt(var + norm.eps)
        # Of the statistics the weights were scaled with: taken before this batch moves them.
        correction = torch.sqrt(norm.running_var + norm.eps) / deviation
        with torch.no_grad():
            share = norm.momentum if norm.momentum is not None else 0.1
            count = plain.numel() / plain.shape[1]
            norm.running_mean.lerp_(mean + b, share)
            norm.running_var.lerp_(var * (count / max(count - 1, 1)), share)
        shift = _beta(norm) - mean * _gamma(norm) / deviation
        return y * correction.reshape(shape) + shift.reshape(shape)

    @torch.no_grad()
    def serve(self) -> ServedLayer:
        """Codes, scales and bias with the norm merged, computed in binary64 and rounded to f32 once."""
        w, spec = self.real_weight(), self.weight.spec
        layer: Any = self.layer
        if spec.grid not in ("integer", "ternary") or spec.granularity not in ("channel", "tensor"):
            got = f"grid {spec.grid}, granularity {spec.granularity}"
            raise UsageError(Problem("weights have no kernel for this grid", got=got, allowed="integer, per channel"))
        codes = self.weight.codes(w)
        scale = self.weight.steps()[0].double().expand(w.shape[0]) * self.weight.factor
        if not bool(torch.isfinite(scale).all()):
            raise UsageError(Problem("a weight scale is not finite", hint="a lower learning rate"))
        bias = None if layer.bias is None else layer.bias.double()
        norm: Any = self.norm.norm if isinstance(self.norm, FoldedNorm) else self.norm
        if norm is not None:
            gain = _gamma(norm).double() / torch.sqrt(norm.running_var.double() + norm.eps)
            bias = _beta(norm).double() + ((0.0 if bias is None else bias) - norm.running_mean.double()) * gain
            if not isinstance(self.norm, FoldedNorm):
                sign = torch.sign(gain).to(torch.int32).reshape(-1, *(1,) * (w.ndim - 1))
                codes, scale = codes * sign, scale * gain.abs()
        tiny = torch.finfo(torch.float32).tiny
        scale = torch.where(scale > 0, scale.clamp(min=tiny), torch.ones_like(scale)).float()
        return ServedLayer(codes.to(torch.int8), scale, None if bias is None else bias.float())

    @torch.no_grad()
    def _exact(self, x: Tensor, r: Tensor | None) -> Tensor:
        """numerics.md sections 3 and 4 on the codes of the inputs."""
        made, source = self.serve(), served(self.source)
        reach = max(source.hi - source.zero, source.zero - source.lo)
        bound = int(made.codes.abs().double().flatten(1).sum(1).max() * reach)
        acc = self._accumulate(source.points(x), made.codes.float(), bound)
        y_scale = 1.0 if self.target is None else served(self.target).scale
        mult = (source.scale * made.scale.double() / y_scale).float()
        bias = None if made.bias is None else (made.bias.double() / y_scale).float()
        if self.target is None:
            return self._restore(integer.requantize_f32(acc, mult, bias, flo=self.bounds[0], fhi=self.bounds[1]), x)
        target, rest, r_mult = served(self.target), None, 0.0
        if r is not None:
            assert self.residual is not None
            grid = served(self.residual)
            rest, r_mult = self._channels_last(grid.points(r)), float(torch.tensor(grid.scale / y_scale))
        codes = integer.requantize(acc, mult, bias, rest, r_mult, **target.window(*self.bounds))
        return self._restore(target.values(codes), x)

    def _accumulate(self, n: Tensor, w: Tensor, bound: int) -> Tensor:
        layer: Any = self.layer
        if isinstance(layer, nn.Linear):
            return integer.linear(n, w, bound)
        image = self._channels_last(n)
        stride: list[int]
        pads: list[int]
        if w.ndim == 3:
            w = w.unsqueeze(2)
            (s,), (p,), (d,) = layer.stride, layer.padding, layer.dilation
            stride, pads, dilation = [1, s], [0, p, 0, p], [1, d]
        else:
            stride, dilation = list(layer.stride), list(layer.dilation)
            pads = [*layer.padding, *layer.padding]
        return integer.convolve(image, w.permute(0, 2, 3, 1), stride, pads, dilation, layer.groups, bound)

    def _channels_last(self, n: Tensor) -> Tensor:
        """(N, C, spatial) -> (N, H, W, C); values of linear layers stay."""
        if isinstance(self.layer, nn.Linear):
            return n
        return (n.unsqueeze(2) if n.ndim == 3 else n).permute(0, 2, 3, 1)

    def _restore(self, y: Tensor, x: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return y
        y = y.permute(0, 3, 1, 2)
        return y.squeeze(2) if x.ndim == 3 else y
