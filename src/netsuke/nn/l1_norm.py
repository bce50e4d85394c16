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

import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UnsupportedError
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_products import products
from netsuke.nn.l1_products import Layer, Rounding, check_input, norm_products, planes_of
from netsuke.nn.qtensor import rows_of

GAUSSIAN = math.sqrt(2 / math.pi)  # mean absolute over standard deviation of a Gaussian


class _Float(torch.autograd.Function):
    """f32 [N, C, H, W] -> y; float64 inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, layer: L1Norm2d) -> Tensor:
        rows = rows_of(x)
        check_input(*products("simulation").minmax(rows))
        values = rows.view(-1, x.shape[1]).double()
        mu = values.mean(0)
        centred = values - mu
        a = centred.abs().mean(0)
        inverse = 1 / (a + layer.eps)
        xh = (centred * inverse).float()
        ctx.saved = xh, torch.sign(centred).to(torch.int8), inverse.float(), gamma.detach()
        layer.follow(mu.float(), a.float())
        return planes_of(xh * gamma.detach() + beta.detach(), x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        xh, sign, inverse, gamma = ctx.saved
        dy = rows_of(gradients[0]).view(xh.shape)
        dot, total = (dy * xh).double().sum(0), dy.double().sum(0)
        signs = sign.float()
        centred = signs - sign.double().mean(0).float()
        dx = dy * gamma - (gamma * total / len(dy)).float() - centred * (gamma * dot / len(dy)).float()
        return planes_of(dx * inverse, gradients[0]), dot.float(), total.float(), None


class _Quantized(torch.autograd.Function):
    """f32 [N, C, H, W] -> y, whose ends `found` receives."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, layer: L1Norm2d, relu: bool, found: list[float]
    ) -> Tensor:
        config = cast(IntegerConfig, layer.config)
        given = Layer(2**config.activation_bits - 1, gamma.detach(), beta.detach(), layer.eps, relu)
        y, statistics, ctx.kept, ends = norm_products(config.products).forward(x.detach(), given)
        ctx.layer = layer
        layer.follow(*statistics)
        found += ends
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        g, layer = gradients[0], ctx.layer
        if torch.is_grad_enabled():  # create_graph
            raise UnsupportedError(Problem("no gradients of gradients here", "quantized normalization"))
        rounding = layer.rounding()
        made = norm_products(layer.config.products).backward(g.detach(), ctx.kept, rounding)
        if rounding.seed is not None:
            layer.draws.add_(1)
        return *made, None, None, None


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

    def follow(self, mean: Tensor, deviation: Tensor) -> None:
        """Move the running statistics towards a batch's [C], without autograd."""
        self.running_mean.lerp_(mean, self.momentum)
        self.running_dev.lerp_(deviation, self.momentum)

    def rounding(self) -> Rounding:
        """How the next dY becomes codes."""
        config = cast(IntegerConfig, self.config)
        seed = (config.seed, (1 << 62) + (self.index << 40) + int(self.draws.item())) if config.stochastic else None
        return Rounding(2 ** (config.gradient_bits - 1) - 1, config.groups if config.gradient == "shift" else 1, seed)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            factor = self.weight / (self.running_dev + self.eps)
            offset = self.bias - self.running_mean * factor
            return x * factor[:, None, None] + offset[:, None, None]
        if self.config is not None:
            return self.activated(x, relu=False)[0]
        y: Tensor = _Float.apply(x, self.weight, self.bias, self)  # type: ignore[no-untyped-call]
        return y

    def activated(self, x: Tensor, *, relu: bool) -> tuple[Tensor, tuple[float, float]]:
        """A quantized training pass with the ReLU behind it, and the smallest and largest of what it gives."""
        found: list[float] = []
        y: Tensor = _Quantized.apply(x, self.weight, self.bias, self, relu, found)  # type: ignore[no-untyped-call]
        low, high = found
        return y, (low, high)


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
