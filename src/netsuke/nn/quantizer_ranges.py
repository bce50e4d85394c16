"""Range rules: from values to the range (low, high) a quantizer covers, and from a range to scale and zero point.

Values come as rows [units, elements]; one range a row. Scales follow docs/numerics.md sections 1 and 7: at least the
smallest normal f32, and 1 for a row of zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

from netsuke.core.errors import Problem, UsageError
from netsuke.nn.grids import Grid
from netsuke.nn.quantizer_spec import QuantSpec

TINY = torch.finfo(torch.float32).tiny
STEPS = 80


def measure(rows: Tensor, spec: QuantSpec, grid: Grid) -> tuple[Tensor, Tensor]:
    """(low, high) [units] with low <= 0 <= high, by the spec's statistic. UsageError when a value is not finite."""
    rows = rows.detach().float()
    if not bool(torch.isfinite(rows).all()):
        bad = int((~torch.isfinite(rows)).sum())
        raise UsageError(Problem("values to quantize are NaN or infinite", got=f"{bad} of {rows.numel()}"))
    if rows.shape[1] == 0:
        raise UsageError(Problem("no values to take a range from", got=f"shape {tuple(rows.shape)}"))
    if spec.statistic == "unit":
        return -torch.ones(len(rows)), torch.ones(len(rows))
    if spec.statistic == "lsq":
        high = 2 * rows.abs().mean(1) * grid.hi**0.5
        return -high, high
    if spec.statistic in ("meanabs", "medianabs"):
        size = rows.abs()
        high = (size.mean(1) if spec.statistic == "meanabs" else size.median(1).values) * grid.hi
        return -high, high
    if spec.statistic == "percentile":
        low, high = _percentile(rows, spec.percent)
    else:
        low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
    if spec.statistic == "maxabs":
        high = torch.maximum(-low, high)
        low = -high
    return _least_error(rows, low, high, spec, grid) if spec.statistic == "mse" else (low, high)


def _percentile(rows: Tensor, percent: float) -> tuple[Tensor, Tensor]:
    """The range that holds `percent` of the values, the rest split between both ends; order statistics, no blending."""
    ordered = rows.sort(1).values
    cut = int(rows.shape[1] * (100 - percent) / 200)
    return ordered[:, cut].clamp(max=0), ordered[:, rows.shape[1] - 1 - cut].clamp(min=0)


def _least_error(rows: Tensor, low: Tensor, high: Tensor, spec: QuantSpec, grid: Grid) -> tuple[Tensor, Tensor]:
    """Of the ranges (1 - 0.01 i) (low, high), i = 0 .. 79, the one with the least mean |x - Q(x)|^norm, per row."""
    best = torch.full_like(high, torch.inf)
    found = torch.ones_like(high)
    sample = rows[:, :: max(1, rows.shape[1] // 65536)]
    for i in range(STEPS):
        shrink = 1 - 0.01 * i
        scale, zero = to_scale(low * shrink, high * shrink, spec, grid)
        s, z = scale[:, None], zero[:, None]
        v = (sample / s).clamp(grid.lo - z, grid.hi - z)
        error = ((sample - grid.nearest(v) * s).abs() ** spec.norm).mean(1)
        better = error < best
        best, found = torch.where(better, error, best), torch.where(better, torch.full_like(found, shrink), found)
    return low * found, high * found


def to_scale(low: Tensor, high: Tensor, spec: QuantSpec, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and zero point, f32 [units], of ranges with low <= 0 <= high.

    affine     s = (high - low) / (levels - 1), zero = rne(-low / s)
    two-sided  s = max(-low, high) / hi, zero = 0
    else       s = high / hi, zero = 0: what is negative saturates at 0
    """
    if spec.affine:
        scale = _positive((high - low) / (grid.levels - 1))
        return scale, torch.round(-low / scale).clamp(0, grid.levels - 1)
    reach = torch.maximum(-low, high) if spec.two_sided else high
    scale = _positive(reach / grid.hi)
    return scale, torch.zeros_like(scale)


def _positive(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale.clamp(min=TINY), torch.ones_like(scale))
