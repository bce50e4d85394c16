"""Batch normalization by the mean absolute deviation, fully quantized (ShiftQuant's second part).

    mu = mean(x)    a = mean|x - mu|    xh = (x - mu) / (a + eps)    y = gamma xh + beta
    dx = [g - mean(g) - (sg - mean(sg)) mean(g xh)] / (a + eps),  g = gamma dy,  sg = sign(x - mu)

No squares and no square root. With bits set, the input, the saved xh and the incoming dy are codes: x u8, xh s8 with
one scale, dy stochastically rounded with power-of-two related channel scales. Sums run over integers (exact in
float64 tensors). Running statistics are of mu and a; a trained L2 layer converts with gamma * a / std, not by its
variance.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_products import products
from netsuke.nn.qtensor import QTensor, affine, check_finite, shift_exponents


class _L1(torch.autograd.Function):
    """Rows [M, C]; statistics of the batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, layer: L1Norm2d) -> tuple[Tensor, Tensor, Tensor]:
        values, scale = layer.input_values(x)
        mu = values.mean(0)
        centred = values - mu
        a = centred.abs().mean(0)
        inverse = 1 / (a + layer.eps / scale)
        xh = layer.saved_values((centred * inverse).float())
        ctx.layer, ctx.saved = (
            layer,
            (xh, torch.sign(centred).to(torch.int8), (inverse / scale).float(), gamma.detach()),
        )
        y = xh.dequantize() * gamma.detach() + beta.detach()
        mean, deviation = (mu * scale).float(), (a * scale).float()
        ctx.mark_non_differentiable(mean, deviation)
        return y, mean, deviation

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        xh, sign, inverse, gamma = ctx.saved
        q = ctx.layer.gradient_values(gradients[0].contiguous())
        normal = xh.codes.double() - xh.zero
        unit = q.codes.double() - q.zero
        by_channel = (q.scale.double() * xh.scale.double()).float()
        dot = (unit * normal).sum(0).float() * by_channel
        total = unit.sum(0).float() * q.scale
        count = len(unit)
        g = unit.float() * (q.scale * gamma)
        signs = sign.float()
        centred = signs - sign.double().mean(0).float()
        dx = (g - gamma * total / count - centred * (gamma * dot / count)) * inverse
        return dx, dot, total, None


class L1Norm2d(nn.Module):
    """[N, C, H, W] -> the same; parameters and momentum as nn.BatchNorm2d, `running_dev` instead of a variance.

    config None: float arithmetic (the L1 norm alone). Otherwise its bits apply to x, xh and dy.
    """

    def __init__(
        self, channels: int, config: IntegerConfig | None = None, *, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.config, self.eps, self.momentum, self.index = config, eps, momentum, 0
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_dev", torch.ones(channels))
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        self.running_mean: Tensor
        self.running_dev: Tensor
        self.draws: Tensor

    def input_values(self, x: Tensor) -> tuple[Tensor, float]:
        """The input as integers in f64 and their scale; x itself and 1 without a config."""
        low, high = (float(v) for v in torch.aminmax(x))
        if not (low > -float("inf") and high < float("inf")):
            raise UsageError(Problem("the input of a normalization is NaN or Inf", allowed="finite numbers"))
        if self.config is None:
            return x.double(), 1.0
        bits = self.config.activation_bits
        scale, zero = affine(low, high, bits, "free")
        kit = products(self.config.products)
        codes = kit.quantize(x.detach(), torch.tensor([scale]), zero, -zero, 2**bits - 1 - zero, None)
        return codes.double() - zero, scale

    def saved_values(self, xh: Tensor) -> QTensor:
        """xh as codes with one scale; 16 bits without a config (the float form keeps its error below 2^-15)."""
        bits = 16 if self.config is None else self.config.activation_bits
        top = 2 ** (bits - 1) - 1
        largest = float(xh.abs().max())
        scale = torch.tensor([largest / top if largest > 0 else 1.0])
        codes = torch.round(xh / scale).clamp(-top, top).to(torch.int16 if bits > 8 else torch.int8)
        return QTensor(codes, scale, 0, -top, top)

    def gradient_values(self, g: Tensor) -> QTensor:
        """dY [M, C] as codes; f32 as it is without a config."""
        if self.config is None:
            return QTensor(g, torch.ones(g.shape[1]), 0, 0, 0)
        kit, top = products(self.config.products), 2 ** (self.config.gradient_bits - 1) - 1
        ranges = kit.absmax(g)
        check_finite(ranges, "normalization")
        exponents, largest = shift_exponents(ranges, self.config.groups if self.config.gradient == "shift" else 1)
        base = torch.full((len(ranges),), max(largest / top, 2.0**-126))
        scale = torch.ldexp(base, -exponents.to(torch.int32))
        seed = None
        if self.config.stochastic:
            seed = (self.config.seed, (1 << 62) + (self.index << 40) + int(self.draws))
            self.draws += 1
        return QTensor(kit.quantize(g, scale, top, -top, top, seed), scale, top, 0, 2 * top, exponents)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            factor = self.weight / (self.running_dev + self.eps)
            offset = self.bias - self.running_mean * factor
            return x * factor[:, None, None] + offset[:, None, None]
        n, c, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(-1, c).contiguous()
        y, mean, deviation = cast(
            tuple[Tensor, Tensor, Tensor],
            _L1.apply(rows, self.weight, self.bias, self),  # type: ignore[no-untyped-call]
        )
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_dev.lerp_(deviation, self.momentum)
        return y.view(n, h, w, c).permute(0, 3, 1, 2)


def use_l1_norm_(model: nn.Module, config: IntegerConfig | None) -> nn.Module:
    """Replace every BatchNorm2d in place; affine parameters are shared, running statistics start anew."""
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    for index, (name, old) in enumerate(found):
        new = L1Norm2d(old.num_features, config, eps=old.eps, momentum=0.1 if old.momentum is None else old.momentum)
        new.index = index
        if old.affine:
            new.weight, new.bias = old.weight, old.bias
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent) if parent else model, leaf, new.train(old.training))
    return model
