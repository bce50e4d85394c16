"""Master weights of few bits: what the optimizer leaves behind is rounded stochastically to a grid of b-bit codes.

    w = step * code,  |code| <= 2^(b-1) - 1,  step = 2^e, one a layer
    after an update   code = floor(w / step) + floor(frac(w / step) + noise),  noise of element i a function of (seed,
                      layer, update, i) alone; apart, because w / step + noise would round away the noise's low bits

The expectation of a rounded weight is the weight the optimizer computed, so updates far below a step are not lost, they
happen rarely (Gupta et al. 2015, "Deep Learning with Limited Numerical Precision", arXiv 1502.02551). e follows the
largest weight: up as soon as it would saturate, so nothing clips, down when two bits are unused. A step is a power of
two: every master weight is an exact f32, and weights that lie on the grid already are left alone, so saving, loading
and evaluating change nothing and a resumed run draws what an uninterrupted one does.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_products import products

_UNSET = -1000
_LOWEST, _HIGHEST = -126, 120


def channels_last(weight: Tensor) -> Tensor:
    """[O, I, kh, kw] (or [O, I]) -> [O, kh, kw, I], contiguous, detached."""
    w = weight.detach()
    return (w.permute(0, 2, 3, 1) if w.ndim == 4 else w[:, None, None, :]).contiguous()


def set_up_master(layer: nn.Module) -> None:
    """Buffers of a layer's master grid: exponent of the step, and how many updates were rounded."""
    layer.register_buffer("master_exponent", torch.tensor(_UNSET))
    layer.register_buffer("master_draws", torch.zeros((), dtype=torch.int64))


def exponent_for(largest: float, top: int, before: int) -> int:
    """The step's exponent: `before` where |code| <= top holds and more than a quarter of the codes are in use."""
    if largest == 0:
        return before if before != _UNSET else -math.ceil(math.log2(top))
    need = math.frexp(largest / top)
    least = max(_LOWEST, need[1] - (1 if need[0] == 0.5 else 0))  # smallest e with largest <= top * 2^e
    if before == _UNSET:
        return least + 1  # weights grow a little while they train
    return before if least <= before <= least + 2 else least + (0 if least > before else 1)


def settle(layer: Any, rows: Tensor) -> Tensor:
    """Bring the layer's weights back to their grid, in place, and return them as [O, kh, kw, I] f32.

    rows: the weights in that layout, as the optimizer left them. Raises UsageError when they are NaN or Inf.
    """
    config: IntegerConfig = layer.config
    kit, top = products(config.products), 2 ** (config.master_bits - 1) - 1
    low, high = kit.minmax(rows)
    hint, largest = "a smaller learning rate", max(abs(low), abs(high))
    if not (low > -math.inf and high < math.inf):
        raise UsageError(Problem("the master weights are NaN or Inf", where=layer.where, hint=hint))
    exponent = exponent_for(largest, top, int(layer.master_exponent))
    if exponent > _HIGHEST:
        raise UsageError(Problem("the master weights explode", where=layer.where, got=f"{largest:.3g}", hint=hint))
    layer.master_exponent.fill_(exponent)
    step = torch.tensor([2.0**exponent])
    seed = (config.seed, (1 << 60) + (layer.index << 40) + int(layer.master_draws))
    units = rows / step  # exact
    whole = torch.floor(units)
    fraction = units - whole
    if not bool(fraction.any()):
        return rows
    values = (whole + kit.quantize(fraction, torch.ones(1), 0, 0, 1, seed)) * step
    layer.master_draws += 1
    shape = values.permute(0, 3, 1, 2) if layer.weight.ndim == 4 else values.reshape(layer.weight.shape)
    layer.weight.data.copy_(shape)
    return values


def settle_all(model: nn.Module) -> None:
    """Round what the last update left off the grid; the next forward pass would do it otherwise."""
    layers: list[Any] = [m for m in model.modules() if "master_draws" in m._buffers]
    for layer in layers:
        if layer.config.master_bits:
            settle(layer, channels_last(layer.weight))


def master_codes(layer: Any) -> tuple[Tensor, float]:
    """The master weights as they are kept: int16 codes in the shape of the weights, and their step."""
    step = 2.0 ** int(layer.master_exponent)
    return torch.round(layer.weight.detach() / torch.tensor([step])).to(torch.int16), step
