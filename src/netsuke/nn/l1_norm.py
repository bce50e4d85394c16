"""Batch normalization by the mean absolute deviation, fully quantized (ShiftQuant's second part).

    mu = mean(x)    a = mean|x - mu|    xh = (x - mu) / (a + eps)    y = gamma xh + beta
    dx = [g - mean(g) - (sg - mean(sg)) mean(g xh)] / (a + eps),  g = gamma dy,  sg = sign(x - mu)

No squares and no square root. With bits set, the input and the incoming dy are codes (x u8, dy stochastically rounded
with power-of-two related channel scales), xh is an integer made from x's code, and all sums run over integers; what
stands between the passes are a few float64 numbers a channel, each rounded to f32 once (docs/numerics.md section 13).
Running statistics are of mu and a; a trained L2 layer converts with gamma * a / std, not by its variance.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_products import products
from netsuke.nn.l1_products import Form, norm_products
from netsuke.nn.qtensor import affine, check_finite, on_host, shift_exponents

_SMALLEST = 2.0**-126

GAUSSIAN = math.sqrt(2 / math.pi)  # mean absolute over standard deviation of a Gaussian


class _Float(torch.autograd.Function):
    """Rows [M, C]; statistics of the batch, float64 inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, layer: L1Norm2d) -> tuple[Tensor, Tensor, Tensor]:
        layer.range_of(x)
        values = x.double()
        mu = values.mean(0)
        centred = values - mu
        a = centred.abs().mean(0)
        inverse = 1 / (a + layer.eps)
        xh = (centred * inverse).float()
        ctx.saved = xh, torch.sign(centred).to(torch.int8), inverse.float(), gamma.detach()
        mean, deviation = mu.float(), a.float()
        ctx.mark_non_differentiable(mean, deviation)
        return xh * gamma.detach() + beta.detach(), mean, deviation

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        xh, sign, inverse, gamma = ctx.saved
        dy = gradients[0].contiguous()
        dot, total = (dy * xh).double().sum(0), dy.double().sum(0)
        signs = sign.float()
        centred = signs - sign.double().mean(0).float()
        dx = dy * gamma - (gamma * total / len(dy)).float() - centred * (gamma * dot / len(dy)).float()
        return dx * inverse, dot.float(), total.float(), None


class _Quantized(torch.autograd.Function):
    """Rows [M, C] f32; mu, a and floor below count in steps of x's codes."""

    @staticmethod
    @np.errstate(over="ignore")  # an infinity, as torch has it
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, layer: L1Norm2d) -> tuple[Tensor, Tensor, Tensor]:
        config = cast(IntegerConfig, layer.config)
        kit, bits, count = norm_products(config.products), config.activation_bits, len(x)
        scale, zero = affine(*layer.range_of(x), bits, "free")
        codes, *ends = kit.codes(x.detach(), torch.tensor([scale]), zero, 2**bits - 1)
        total, least, most = map(on_host, ends)
        mu = total.astype(np.float64) / count
        floor = np.floor(mu)
        base = torch.from_numpy(floor.astype(np.uint8)).to(x.device)
        over, greater, equal = map(on_host, kit.above(codes, base))
        under = over - (total - count * floor.astype(np.int64))
        a = ((over + under).astype(np.float64) + (count - 2 * greater).astype(np.float64) * (mu - floor)) / count
        inverse = 1 / (a + layer.eps / scale)
        top, largest = 2 ** (bits - 1) - 1, float((np.maximum(most - mu, mu - least) * inverse).max())
        step = float(np.float32(largest / top)) if largest > 0 else 1.0
        slope = np.where(a > 0, inverse / step, 0.0)  # a constant channel is 0
        form = Form(base, _single(slope, x), _single((floor - mu) * slope, x))
        weight = on_host(gamma).astype(np.float64)
        y = kit.apply(codes, form, _single(weight * step, x), beta.detach())
        exact = mu == floor
        less = count - greater - np.where(exact, equal, 0)
        ctx.layer, ctx.form, ctx.step, ctx.exact = layer, form, step, exact
        ctx.saved = codes, inverse / scale, (greater - less).astype(np.float64) / count, weight
        mean, deviation = _single((mu - zero) * scale, x), _single(a * scale, x)
        ctx.mark_non_differentiable(mean, deviation)
        return y, mean, deviation

    @staticmethod
    @np.errstate(over="ignore")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        codes, inverse, mean_sign, weight = ctx.saved
        g, layer, count = gradients[0].contiguous(), ctx.layer, len(codes)
        kit = norm_products(layer.config.products)
        scale, zero, seed = layer.gradient_scale(g)
        q, *sums = kit.dot(g, scale, zero, seed, codes, ctx.form)
        total, dot = map(on_host, sums)
        real = on_host(scale).astype(np.float64)
        dbeta, dgamma = total * real, dot * real * ctx.step
        base, pull = weight * dbeta / count, weight * dgamma / count
        below, at, above = ((base + (sign - mean_sign) * pull) * inverse for sign in (-1.0, 0.0, 1.0))
        rows = _single(np.stack([weight * real * inverse, below, np.where(ctx.exact, at, below), above]), g)
        return kit.gradient(q, zero, codes, ctx.form.floor, rows), _single(dgamma, g), _single(dbeta, g), None


def _single(numbers: npt.NDArray[np.float64], like: Tensor) -> Tensor:
    """f32 on the device of `like`."""
    return torch.from_numpy(numbers.astype(np.float32)).to(like.device)


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

    def range_of(self, x: Tensor) -> tuple[float, float]:
        """Smallest and largest value of x."""
        low, high = products("simulation" if self.config is None else self.config.products).minmax(x.detach())
        if not (low > -float("inf") and high < float("inf")):
            raise UsageError(Problem("the input of a normalization is NaN or Inf", allowed="finite numbers"))
        return low, high

    def gradient_scale(self, g: Tensor) -> tuple[Tensor, int, tuple[int, int] | None]:
        """Channel scales [C] of dY [M, C] related by powers of two, the codes' zero point, and the noise's seed."""
        config = cast(IntegerConfig, self.config)
        kit, top = products(config.products), 2 ** (config.gradient_bits - 1) - 1
        ranges = kit.absmax(g)
        check_finite(ranges, "normalization")
        exponents, largest = shift_exponents(ranges, config.groups if config.gradient == "shift" else 1)
        steps = np.ldexp(np.float32(max(largest / top, _SMALLEST)), -on_host(exponents).astype(np.int32))
        scale = torch.from_numpy(np.maximum(steps, np.float32(_SMALLEST))).to(g.device)
        seed = None
        if config.stochastic:
            seed = (config.seed, (1 << 62) + (self.index << 40) + int(self.draws))
            self.draws += 1
        return scale, top, seed

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            factor = self.weight / (self.running_dev + self.eps)
            offset = self.bias - self.running_mean * factor
            return x * factor[:, None, None] + offset[:, None, None]
        n, c, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(-1, c).contiguous()
        y, mean, deviation = cast(
            tuple[Tensor, Tensor, Tensor],
            (_Float if self.config is None else _Quantized).apply(rows, self.weight, self.bias, self),  # type: ignore[no-untyped-call]
        )
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_dev.lerp_(deviation, self.momentum)
        return y.view(n, h, w, c).permute(0, 3, 1, 2)


@torch.no_grad()
def _take_over(new: L1Norm2d, old: nn.BatchNorm2d) -> None:
    """Running statistics of a batch norm that has any; one that never saw data has zeros and ones."""
    mean, variance = old.running_mean, old.running_var
    if mean is None or variance is None or (bool((mean == 0).all()) and bool((variance == 1).all())):
        return
    new.running_mean.copy_(mean)
    new.running_dev.copy_(GAUSSIAN * torch.sqrt(variance + old.eps) - new.eps)
    new.weight.mul_(GAUSSIAN)


def use_l1_norm_(model: nn.Module, config: IntegerConfig | None) -> nn.Module:
    """Replace every BatchNorm2d in place; affine parameters are shared, running statistics are taken over.

    A layer that has seen data keeps its mean; its deviation becomes GAUSSIAN times the standard one and its weight
    GAUSSIAN times what it was, so that the network still computes what it did, exactly in eval mode and for Gaussian
    channels in training mode. Fresh statistics would need some fifty batches, and a network evaluated before is lost.
    """
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    for index, (name, old) in enumerate(found):
        new = L1Norm2d(old.num_features, config, eps=old.eps, momentum=0.1 if old.momentum is None else old.momentum)
        new.index = index
        if old.affine:
            new.weight, new.bias = old.weight, old.bias
        _take_over(new, old)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent) if parent else model, leaf, new.train(old.training))
    return model
