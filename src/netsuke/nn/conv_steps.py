"""A convolution and the normalization behind it in one training step: what the kernels of runtime/train make of both
and keep for backward. `netsuke.nn.conv_norm` puts them in a row.

`BatchStep` keeps z = conv(x) and makes y from it; `L1Step` keeps codes of z, which is all the quantized L1
normalization needs, so that z can go.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError
from netsuke.nn.fused_norm import follow
from netsuke.nn.integer_master import channels_last
from netsuke.nn.integer_products import Kernels
from netsuke.nn.integer_train import IntegerConv2d
from netsuke.nn.l1_norm import L1Norm2d
from netsuke.nn.l1_products import check_input
from netsuke.nn.qtensor import check_finite

Array = npt.NDArray[Any]
Grid = tuple[float, int, int]  # scale, zero point and largest of an input's codes
_GRADIENT, _NOT_FINITE = 1, 2  # of runtime/train's Found


class Unit(NamedTuple):
    """A convolution, the normalization behind it, whether a ReLU follows, and whether something is added before."""

    conv: IntegerConv2d
    norm: nn.BatchNorm2d | L1Norm2d
    relu: bool
    adds: bool = False


class Step:
    """What both kinds share: `ends` are those of y where nothing is added to it, `out` is y's [N, H, W, C]."""

    ends: tuple[float, float]

    def __init__(self, kit: Kernels, unit: Unit, codes: Array, grid: Grid, weight: Tensor) -> None:
        self.kit, self.unit, self.codes, self.grid = kit, unit, codes, grid
        self.rows = channels_last(weight)
        shapes = tuple(codes.shape), tuple(self.rows.shape)
        self.layer, self.out = unit.conv.window.layer(*shapes), unit.conv.window.output(*shapes)
        self.weights, self.scales = np.empty(self.rows.shape, np.int8), np.empty(len(weight), np.float32)

    def operands(self) -> tuple[Any, ...]:
        """The convolution's input and the largest code of its weights."""
        scale, zero, top = self.grid
        return self.layer, self.codes, [zero, 0, top], scale

    @property
    def top(self) -> int:
        """Largest code of the weights."""
        return 2 ** (self.unit.conv.config.weight_bits - 1) - 1

    def rounding(self) -> tuple[Any, ...]:
        """How the gradient of the convolution's output becomes codes: largest code, groups, seed."""
        conv, config = self.unit.conv, self.unit.conv.config
        return 2 ** (config.gradient_bits - 1) - 1, config.groups if config.gradient == "shift" else 1, conv.seed()

    def settle(self, found: int, ranges: Array) -> None:
        """UsageError where the gradient was not finite; counts what was drawn."""
        conv = self.unit.conv
        if found == _NOT_FINITE:
            check_finite(torch.from_numpy(ranges), conv.where)
            raise UsageError(Problem("the gradient times its weights' scales leaves float32", where=conv.where))
        if found == _GRADIENT and conv.config.stochastic:
            conv.draws.add_(1)


class BatchStep(Step):
    """Batch normalization behind the convolution."""

    def __init__(
        self, kit: Kernels, unit: Unit, codes: Array, grid: Grid, weight: Tensor, gamma: Tensor | None,
        beta: Tensor | None,
    ) -> None:  # fmt: skip
        super().__init__(kit, unit, codes, grid, weight)
        assert isinstance(unit.norm, nn.BatchNorm2d)
        self.z, self.affine = kit.array(self.out), np.empty(2 * self.out[3], np.float32)
        self.moments, range_ = np.empty(2 * self.out[3]), np.empty(2, np.float32)
        kit.call(
            "conv_norm", *self.operands(), self.rows, self.top, gamma, beta, unit.norm.eps, unit.relu,
            *follow(unit.norm), self.weights, self.scales, self.z, self.affine, self.moments, range_,
        )  # fmt: skip
        self.ends = (float(range_[0]), float(range_[1]))

    def make_codes(self, grid: Grid) -> Array:
        """y as the next convolution's codes."""
        made = self.kit.array(self.out, np.uint8)
        self.kit.call("norm_codes", self.z, self.affine, self.unit.relu, *grid, made)
        return made

    def apply(self, add: Any, y: Tensor) -> tuple[float, float]:
        """Write y; its ends."""
        range_ = np.empty(2, np.float32)
        self.kit.call("norm_apply", self.z, add, self.affine, self.unit.relu, y, range_)
        return float(range_[0]), float(range_[1])

    def gradient(self, gamma: Tensor | None, dy: Any, y: Any, dz: Any, dx: Any, add: bool, dw: Tensor | None) -> Array:
        """Backward through both: gradients [2, C] of gamma and beta."""
        sums, norm = np.empty((3, self.out[3]), np.float32), self.unit.norm
        found = self.kit.call(
            "conv_norm_gradient", *self.operands(), self.weights, self.top, self.scales, self.z, self.affine,
            self.moments, None if gamma is None else gamma.detach(), norm.eps, self.unit.relu, dy, y, *self.rounding(),
            dz, sums, dx, add, dw,
        )  # fmt: skip
        self.settle(found, sums[0])
        return sums[1:]


class L1Step(Step):
    """The quantized L1 normalization behind the convolution."""

    def __init__(
        self, kit: Kernels, unit: Unit, codes: Array, grid: Grid, weight: Tensor, gamma: Tensor, beta: Tensor
    ) -> None:
        super().__init__(kit, unit, codes, grid, weight)
        norm, o = unit.norm, self.out[3]
        assert isinstance(norm, L1Norm2d)
        assert norm.config is not None
        self.z_codes, self.numbers, self.beta = kit.array(self.out, np.uint8), np.empty((10, o)), beta
        statistics, range_ = torch.empty(2, o), np.empty(2, np.float32)
        finite = kit.call(
            "conv_l1", *self.operands(), self.rows, self.top, gamma, beta, norm.eps, 2**norm.config.activation_bits - 1,
            unit.relu and not unit.adds, self.weights, self.scales, kit.array(self.out), self.z_codes, self.numbers,
            statistics, range_,
        )  # fmt: skip
        if not finite:
            check_input(float("nan"), float("nan"))
        norm.follow(*statistics)
        self.ends = (float(range_[0]), float(range_[1]))

    def make_codes(self, grid: Grid) -> Array:
        """y as the next convolution's codes."""
        made = self.kit.array(self.out, np.uint8)
        self.kit.call("l1_codes", self.z_codes, self.numbers, self.beta, self.unit.relu, *grid, made)
        return made

    def apply(self, add: Any, y: Tensor) -> tuple[float, float]:
        """Write y; its ends."""
        range_ = np.array(self.ends, np.float32)
        self.kit.call("l1_apply", self.z_codes, self.numbers, self.beta, add, self.unit.relu, y, range_)
        return float(range_[0]), float(range_[1])

    def gradient(self, _gamma: Tensor | None, dy: Any, y: Any, dz: Any, dx: Any, add: bool, dw: Tensor | None) -> Array:
        """Backward through both: gradients [2, C] of gamma and beta."""
        sums, norm = np.empty((4, self.out[3]), np.float32), self.unit.norm
        assert isinstance(norm, L1Norm2d)
        how = norm.rounding()
        found = self.kit.call(
            "conv_l1_gradient", *self.operands(), self.weights, self.top, self.scales, self.z_codes, self.numbers, dy,
            y, *how, *self.rounding(), dz, self.kit.array(self.out, np.uint8), sums, dx, add, dw,
        )  # fmt: skip
        if found == _NOT_FINITE:
            check_finite(torch.from_numpy(sums[0]), "normalization")
        self.settle(found, sums[3])
        if how.seed is not None:
            norm.draws.add_(1)
        return sums[1:3]
