"""Batch normalization, the addition behind it and ReLU as one operation of training, forward and backward.

    y = max(x f + s + residual, 0)        f = gamma / sqrt(var + eps), s = beta - mean f
    dz = dy where y > 0, the residual's gradient;  dx = dz f + (x a + b)

Four passes over memory instead of the nine that three operators of torch make, kept for backward: x, per-channel
numbers, and y only where there is a residual. The numbers are those of nn.BatchNorm2d up to f32 rounding (sums in
binary64 above 64 rows, docs/numerics.md section 13), the same for every number of threads and on every CPU.
`netsuke.nn.norm_fusion` finds the places in a network; the integer layer behind takes the range of y from here instead
of reading y again (`known_range`).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from netsuke.core.errors import EnvironmentProblem, Problem, UnsupportedError
from netsuke.nn.integer_products import Kernels, products
from netsuke.nn.l1_norm import L1Norm2d
from netsuke.nn.qtensor import rows_of

_RANGE = "_netsuke_range"  # of a tensor: (its version, smallest, largest)


def norm_activation(x: Tensor, norm: nn.Module, residual: Tensor | None = None, relu: bool = True) -> Tensor:
    """relu(norm(x) + residual) of f32 [N, C, H, W]; residual like x or None; without the ReLU when `relu` is False.

    In training mode, nn.BatchNorm2d itself without hooks, f32 on the CPU and outside of autocast: one kernel, running
    statistics as torch moves them; a quantized L1Norm2d takes a ReLU too where there is no residual. Anything else is
    computed by `norm` and torch's operators. Gradients of gradients are refused.
    """
    if type(norm) is L1Norm2d and norm.config is not None and norm.training and residual is None and not hooked(norm):
        y, ends = norm.activated(x, relu=relu)
        note_range(y, *ends)
        return y
    if not _takes(x, norm, residual):
        y = norm(x)
        y = y if residual is None else y + residual
        return functional.relu(y) if relu else y
    assert isinstance(norm, nn.BatchNorm2d)
    found: list[float] = []
    y = _Fused.apply(x, residual, norm.weight, norm.bias, norm, relu, found)  # type: ignore[no-untyped-call]
    note_range(y, *found)
    return y


def note_range(y: Tensor, low: float, high: float) -> None:
    """Keep the smallest and largest value of y for `known_range`."""
    setattr(y, _RANGE, (y._version, low, high))


def available() -> bool:
    """Can the kernels be loaded? A package without the compiled runtime has none."""
    try:
        products("kernels")
    except EnvironmentProblem:
        return False
    return True


def known_range(x: Tensor) -> tuple[float, float] | None:
    """Smallest and largest value of what `norm_activation` made; None for other tensors and where x was written to
    since, as far as autograd's own versions tell."""
    noted = getattr(x, _RANGE, None)
    return noted[1:] if noted is not None and noted[0] == x._version else None


def _takes(x: Tensor, norm: nn.Module, residual: Tensor | None) -> bool:
    """Is this the kernel's case? What torch would refuse (one value a channel) is torch's."""
    if type(norm) is not nn.BatchNorm2d or not norm.training or not is_plain(x) or x.ndim != 4:
        return False
    others = [v for v in (norm.weight, norm.bias, norm.running_mean, norm.running_var) if v is not None]
    return (
        all(is_plain(v) for v in others)
        and x.shape[1] == norm.num_features
        and x.numel() > x.shape[1]
        and (residual is None or (is_plain(residual) and residual.shape == x.shape))
        and not hooked(norm)
        and not torch.is_autocast_enabled("cpu")
    )


def hooked(module: nn.Module) -> bool:
    """Has this module hooks of its own?"""
    m = module
    return bool(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks)


def is_plain(x: Any) -> bool:
    """Is this an f32 tensor in this machine's memory?"""
    return isinstance(x, Tensor) and x.dtype == torch.float32 and x.device.type == "cpu" and x.layout == torch.strided


def follow(norm: nn.BatchNorm2d) -> tuple[Tensor | None, Tensor | None, float]:
    """Count a batch; the running statistics and their share of it, as nn.BatchNorm2d moves them: the kernels do."""
    if not norm.track_running_stats:
        return None, None, 0.0
    share = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            share = 1.0 / float(norm.num_batches_tracked)
    return norm.running_mean, norm.running_var, share


class _Fused(torch.autograd.Function):
    """`found` receives the ends of y."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, norm: nn.BatchNorm2d,
        relu: bool, found: list[float],
    ) -> Tensor:  # fmt: skip
        kit, rows = cast(Kernels, products("kernels")), rows_of(x)
        y, affine = kit.planes(rows.shape), torch.empty(2, rows.shape[-1])
        moments, ends = torch.empty(2, rows.shape[-1], dtype=torch.float64), torch.empty(2)
        gamma, beta = (None if v is None else v.detach().contiguous() for v in (weight, bias))
        add = None if residual is None else rows_of(residual)
        kit.call("batch_norm", rows, add, gamma, beta, norm.eps, relu, *follow(norm), rows_of(y), affine, moments, ends)
        ctx.gated = residual is not None and relu
        ctx.eps, ctx.relu, ctx.numbers = norm.eps, relu, (affine, moments)
        ctx.save_for_backward(x, weight, y if ctx.gated else None)
        found += ends.tolist()
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph
            hint = "the model itself, not its fused pass"
            raise UnsupportedError(Problem("no gradients of gradients here", "fused normalization", hint=hint))
        x, weight, y = ctx.saved_tensors
        kit, rows, dy = cast(Kernels, products("kernels")), rows_of(x), rows_of(gradients[0])
        affine, moments = ctx.numbers
        dz = kit.planes(rows.shape) if ctx.gated else None
        dx = kit.planes(rows.shape) if ctx.needs_input_grad[0] else None
        sums = torch.empty(2, rows.shape[-1])
        gamma = None if weight is None else weight.detach().contiguous()
        out, to, into = (None if v is None else rows_of(v) for v in (y, dz, dx))
        kit.call("batch_norm_gradient", rows, dy, out, gamma, ctx.eps, ctx.relu, affine, moments, to, into, *sums)
        through = gradients[0] if dz is None else dz  # without a ReLU the residual's gradient is dy
        wanted = (dx, through, sums[0], sums[1])
        needed = [v if need else None for v, need in zip(wanted, ctx.needs_input_grad[:4], strict=True)]
        return *needed, None, None, None
