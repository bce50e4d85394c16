"""Integer convolutions with normalizations behind them, one after the other, as one operation of training.

    z = conv(x)    y = relu(norm(z) + residual)    the residual and y as floats behind the last one only

norm is nn.BatchNorm2d or the quantized L1Norm2d. What integer layers and `norm_activation` compute one by one, with the
same bits. One step of autograd and two calls of
the kernels a convolution instead of a dozen; codes of a y that only the next convolution reads are written by the
normalization, whose range is known before (it is monotone), and codes of the gradient by the normalization's backward
pass, so that neither tensor exists as floats. Where the residual is x, or every n-th pixel of x with zero channels
(`Subsampled`), both gradients of x are added where they are made. `netsuke.nn.norm_fusion` finds such rows of layers.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from netsuke.core.errors import Problem, UnsupportedError
from netsuke.nn.conv_steps import BatchStep, L1Step, Unit
from netsuke.nn.fused_norm import hooked, is_plain, known_range, norm_activation, note_range
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_products import Kernels, products
from netsuke.nn.integer_train import IntegerConv2d
from netsuke.nn.l1_norm import L1Norm2d
from netsuke.nn.qtensor import rows_of

Subsampled = tuple[int, int, int]  # a residual from x: every n-th pixel, zero channels before and after


def conv_norms(x: Tensor, residual: Tensor | Subsampled | None, *rows: tuple[nn.Module, nn.Module, bool]) -> Tensor:
    """(convolution, normalization, ReLU?) of `rows` one after the other; the residual, or that of x, is added to the
    last norm's output. Layers that are not the kernels' case are computed one by one."""
    units = [Unit(*cast(Any, row)) for row in rows]
    units[-1] = units[-1]._replace(adds=residual is not None)
    if not _takes(x, residual, units):
        add = _subsampled(x, residual) if isinstance(residual, tuple) else residual
        for unit in units:
            x = norm_activation(unit.conv(x), unit.norm, add if unit is units[-1] else None, unit.relu)
        return x
    found: list[float] = []
    parameters = [p for u in units for p in (u.conv.weight, u.norm.weight, u.norm.bias)]
    own: Any = residual if isinstance(residual, tuple) else residual is x and units[-1].relu
    y: Tensor = _ConvNorms.apply(x, None if own else residual, own, known_range(x), units, found, *parameters)  # type: ignore[no-untyped-call]
    note_range(y, *found)
    return y


def _subsampled(x: Tensor, how: Subsampled) -> Tensor:
    step, before, after = how
    return functional.pad(x[:, :, ::step, ::step], (0, 0, 0, 0, before, after))


def _computes(config: IntegerConfig) -> bool:
    """Are the operands codes of at most 8 bits whose scales follow the values, in kernels?"""
    kernels = config.products == "kernels" and config.gradient in ("shift", "tensor") and config.fraction is None
    return kernels and not (config.clips or config.scales_samples or config.master_bits)


def _normalizes(norm: nn.Module) -> bool:
    """Batch normalization, or the L1 normalization quantized in kernels?"""
    if type(norm) is L1Norm2d:
        return norm.config is not None and norm.config.products == "kernels"
    return type(norm) is nn.BatchNorm2d


def _takes(x: Tensor, residual: Tensor | Subsampled | None, units: list[Unit]) -> bool:
    if not is_plain(x) or x.ndim != 4 or torch.is_autocast_enabled("cpu"):
        return False
    shape = tuple(x.permute(0, 2, 3, 1).shape)
    for conv, norm, *_ in units:
        if type(conv) is not IntegerConv2d or not _normalizes(norm) or not (conv.training and norm.training):
            return False
        if conv.groups != 1 or conv.bias is not None or conv.probe is not None or conv.controller is not None:
            return False
        if not _computes(conv.config) or hooked(conv) or hooked(norm) or conv.in_channels != shape[3]:
            return False
        held = [conv.weight, norm.weight, norm.bias, *norm._buffers.values()]
        channels = len(norm.weight) if isinstance(norm, L1Norm2d) else norm.num_features
        if channels != conv.out_channels or not all(is_plain(v) for v in held if v is not None and v.ndim):
            return False
        shape = conv.window.output(shape, (conv.out_channels, *conv.kernel_size, shape[3]))
        if min(shape) < 1 or shape[0] * shape[1] * shape[2] < 2:
            return False
    if isinstance(residual, tuple):
        (n, c, h, w), (step, before, after) = x.shape, residual
        return shape == (n, -(-h // step), -(-w // step), before + c + after)
    return residual is None or (is_plain(residual) and residual.permute(0, 2, 3, 1).shape == shape)


class _ConvNorms(torch.autograd.Function):
    """`found` receives the ends of y; own: the residual is x, or how it is made of x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, own: bool | Subsampled, ends: tuple[float, float] | None,
        units: list[Unit], found: list[float], *parameters: Tensor | None,
    ) -> Tensor:  # fmt: skip
        kit, rows = cast(Kernels, products("kernels")), rows_of(x)
        q = units[0].conv.quantize_input(rows, ends)
        codes, grid = q.codes.numpy(), (float(q.scale), q.zero, q.hi)
        steps: list[BatchStep | L1Step] = []
        given: Any = [None if p is None else p.detach() for p in parameters]
        for i, unit in enumerate(units):
            kind = L1Step if isinstance(unit.norm, L1Norm2d) else BatchStep
            steps.append(kind(kit, unit, codes, grid, *given[3 * i : 3 * i + 3]))
            if i + 1 < len(units):
                grid = units[i + 1].conv.input_grid(*steps[i].ends)
                codes = steps[i].make_codes(grid)
        out = steps[-1].out
        y = kit.planes(out)
        add: Any = rows if own else None if residual is None else rows_of(residual)
        if isinstance(own, tuple):
            add = kit.array(out)
            kit.call("subsample", [*rows.shape, *own], rows, add)
        found += steps[-1].apply(add, rows_of(y))
        ctx.steps, ctx.own = steps, own
        gated = units[-1].relu and add is not None
        ctx.save_for_backward(y if gated else None, *parameters[1::3])
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph
            hint = "the model itself, not its fused pass"
            raise UnsupportedError(Problem("no gradients of gradients here", "fused normalization", hint=hint))
        y, *gammas = ctx.saved_tensors
        kit, need, steps = cast(Kernels, products("kernels")), ctx.needs_input_grad, ctx.steps
        dy: Any = rows_of(gradients[0])
        dz = None if y is None else kit.planes(dy.shape)
        dx: Tensor | None = None
        made: list[Tensor | None] = []
        for i in reversed(range(len(steps))):
            step: BatchStep | L1Step = steps[i]
            last, add = i + 1 == len(steps), i == 0 and ctx.own is True
            if i == 0:
                dx = dz if add else kit.planes(step.codes.shape) if need[0] else None
            into = kit.array(step.codes.shape) if i > 0 else None if dx is None else rows_of(dx)
            out, into_dz = (rows_of(y), rows_of(dz)) if last and y is not None and dz is not None else (None, None)
            dw = kit.empty(step.weights.shape) if need[6 + 3 * i] else None
            sums = step.gradient(gammas[i], dy, out, into_dz, into, add, dw)
            made = [None if dw is None else dw.permute(0, 3, 1, 2), *torch.from_numpy(sums), *made]
            dy = into
        through = gradients[0] if dz is None else dz
        if isinstance(ctx.own, tuple) and dx is not None:
            kit.call("add_subsampled", [*steps[0].codes.shape, *ctx.own], rows_of(through), rows_of(dx))
        first = (dx, through if need[1] else None, None, None, None, None)
        return *first, *(v if wanted else None for v, wanted in zip(made, need[6:], strict=True))
