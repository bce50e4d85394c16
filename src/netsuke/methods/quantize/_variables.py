"""What is trained when a unit is fitted: weights on their grid, and ranges of activations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from netsuke.methods.quantize._graph import Array, along

Codes = npt.NDArray[np.int8]
STRETCH = 1.2  # the sigmoid of soft rounding reaches from -0.1 to 1.1 and is clipped to [0, 1]


def through(x: Tensor) -> Tensor:
    """Round to nearest even; the gradient passes unchanged."""
    return x + (torch.round(x) - x).detach()


class SoftRounding:
    """AdaRound's variable: every weight goes to the code below or above, w = s * clip(floor(W / s) + h(V)).

    h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1); V starts where h is the fraction of W / s, so the soft weights start as the
    float ones.
    """

    def __init__(self, weight: Array, scales: Array, axis: int | None, bits: int, _codes: Codes | None = None) -> None:
        self.steps = _steps(scales, axis, weight.ndim)
        self.top = 2 ** (bits - 1) - 1
        exact = torch.from_numpy(np.array(weight)) / self.steps
        self.floor = torch.floor(exact)
        share = ((exact - self.floor + (STRETCH - 1) / 2) / STRETCH).clamp(1e-6, 1 - 1e-6)
        self.values = torch.log(share / (1 - share)).requires_grad_()

    def up(self) -> Tensor:
        """h(V): how much of each weight goes to the code above."""
        return torch.clamp(STRETCH * torch.sigmoid(self.values) - (STRETCH - 1) / 2, 0, 1)

    def weight(self) -> Tensor:
        """The soft weights."""
        return self.steps * torch.clamp(self.floor + self.up(), -self.top, self.top)

    def penalty(self, beta: float) -> Tensor:
        """sum(1 - |2h - 1|^beta): zero when every h is 0 or 1."""
        return (1 - (2 * self.up() - 1).abs() ** beta).sum()

    def codes(self) -> Codes:
        """Codes with V decided: up where V >= 0."""
        hard = torch.clamp(self.floor + (self.values.detach() >= 0), -self.top, self.top)
        return hard.numpy().astype(np.int8)


class FreeWeight:
    """AdaQuant's variable: the weight itself, in units of its step, rounded on the way in (straight-through)."""

    def __init__(self, weight: Array, scales: Array, axis: int | None, bits: int, _codes: Codes | None = None) -> None:
        self.steps = _steps(scales, axis, weight.ndim)
        self.top = 2 ** (bits - 1) - 1
        self.values = (torch.from_numpy(np.array(weight)) / self.steps).requires_grad_()

    def weight(self) -> Tensor:
        """The weights on their grid."""
        return self.steps * through(torch.clamp(self.values, -self.top, self.top))

    def penalty(self, _beta: float) -> Tensor:
        """Nothing has to be decided."""
        return torch.zeros(())

    def codes(self) -> Codes:
        """The rounded weights."""
        return torch.round(self.values.detach().clamp(-self.top, self.top)).numpy().astype(np.int8)


class CodebookIndex:
    """JLCM's variable: a position between the sorted entries of a table, w = s C[round(p)], and the table itself.

    dw/dp = s (C[i+1] - C[i-1]) / 2, so a weight moves to a neighbouring entry first; an entry's gradient is the sum of
    its members'. Entries are integers on the 8-bit grid (straight-through).
    """

    def __init__(self, weight: Array, scales: Array, axis: int | None, _bits: int, codes: Codes) -> None:
        self.steps = _steps(scales, axis, weight.ndim)
        entries, indices = np.unique(codes, return_inverse=True)
        self.entries = torch.from_numpy(entries.astype(np.float32)).requires_grad_()
        self.values = torch.from_numpy(indices.reshape(weight.shape).astype(np.float32)).requires_grad_()

    def weight(self) -> Tensor:
        """The weights as the table has them."""
        table = through(self.entries)
        last = len(table) - 1
        index = torch.round(self.values.detach()).long().clamp(0, last)
        fixed = table.detach()
        slope = (fixed[(index + 1).clamp(max=last)] - fixed[(index - 1).clamp(min=0)]) / 2
        return self.steps * (table[index] + slope * (self.values - self.values.detach()))

    def project(self) -> None:
        """Keep the table sorted and inside the grid, and positions on it."""
        with torch.no_grad():
            self.entries.copy_(torch.sort(self.entries.clamp(-127, 127)).values)
            self.values.clamp_(-0.49, len(self.entries) - 0.51)

    def penalty(self, _beta: float) -> Tensor:
        """Nothing has to be decided."""
        return torch.zeros(())

    def codes(self) -> Codes:
        """The entries the positions stand at."""
        table = torch.round(self.entries.detach())
        index = torch.round(self.values.detach()).long().clamp(0, len(table) - 1)
        return table[index].numpy().astype(np.int8)


class ActivationRange:
    """An activation quantizer whose scale is s0 exp(t) with t trained, and whose zero may be trained too."""

    def __init__(self, scale: float, zero: int, bits: int, *, train_zero: bool = False) -> None:
        self.start, self.top = scale, 2**bits - 1
        self.log = torch.zeros((), requires_grad=True)
        self.zero = torch.tensor(float(zero), requires_grad=train_zero and zero > 0)

    def __call__(self, x: Tensor) -> Tensor:
        """The quantized tensor; the scale's gradient is LSQ's: round(x/s) - x/s inside, the code limits outside."""
        scale = self.start * torch.exp(self.log)
        zero = through(torch.clamp(self.zero, 0, self.top))
        return scale * through(torch.maximum(torch.minimum(x / scale, self.top - zero), -zero))

    def bounds(self) -> tuple[float, float]:
        """(lo, hi) that `_codes.affine` turns into this scale and zero."""
        scale = self.start * float(torch.exp(self.log.detach()))
        zero = float(torch.round(torch.clamp(self.zero.detach(), 0, self.top)))
        return -zero * scale, (self.top - zero) * scale


def _steps(scales: Array, axis: int | None, rank: int) -> Tensor:
    shaped = scales.reshape(()) if axis is None else along(scales, axis, rank)
    return torch.from_numpy(np.array(shaped, np.float32))


VARIABLES = {"rounding": SoftRounding, "weight": FreeWeight, "codebook": CodebookIndex}
