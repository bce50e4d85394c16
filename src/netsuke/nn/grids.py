"""Grids: the sets of numbers a quantizer may give, in units of its scale.

A grid point is written `n`; the value it stands for is `scale * n`. Every grid gives, for a real v, the points below
and above it (what rounding rules choose between), the nearest point, and the integer code of a point.

    grid("integer", bits=4, signed=True)     symmetric -7 .. 7 (docs/numerics.md section 1)
    grid("integer", bits=8)                  0 .. 255; with a zero point the window moves: -zero .. 255 - zero
    grid("E2M1"), grid("power2", bits=4), grid("sign"), grid("ternary"), TableGrid(entries)

Sources: minifloats as in Micikevicius et al. 2022 (arXiv 2209.05433, E4M3 and E5M2) and the microscaling formats
(E3M2, E2M1); here without codes for infinity and NaN, so E4M3 ends at 448 and E5M2 at 57344; what lies
beyond saturates.
Power of two: 0 and +-2^-k, largest 1, as in Zhou et al. 2017 (arXiv 1702.03044).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from netsuke.core.errors import Problem, UsageError, near
from netsuke.formats import minifloat as minifloats

MINIFLOATS = {name.upper(): form for name, form in minifloats.MINIFLOATS.items()}
NAMES = ("integer", "power2", *MINIFLOATS, "codebook", "sign", "ternary")
INTEGER_BITS = range(2, 9)


class Grid(Protocol):
    """lo, hi: smallest and largest point; levels: number of points; moves: True when a zero point may move it."""

    lo: float
    hi: float
    levels: int
    moves: bool

    def nearest(self, v: Tensor) -> Tensor:
        """The nearest point to each v that lies inside the grid's window; same shape and dtype, no gradient."""

    def below(self, v: Tensor) -> Tensor:
        """The largest point <= v, for v inside the window."""

    def above(self, v: Tensor) -> Tensor:
        """The smallest point > v, or the largest point, for v inside the window."""

    def codes(self, n: Tensor) -> Tensor:
        """Integer codes (int32) of points."""

    def points(self, codes: Tensor) -> Tensor:
        """The points (f32) of integer codes."""


class IntegerGrid:
    """The integers lo .. hi; a code is the integer itself. With a zero point z the window is lo - z .. hi - z."""

    moves = True

    def __init__(self, lo: int, hi: int) -> None:
        if lo >= hi:
            raise UsageError(Problem("an integer grid needs two points", got=f"{lo} .. {hi}"))
        self.lo, self.hi, self.levels = float(lo), float(hi), hi - lo + 1

    def nearest(self, v: Tensor) -> Tensor:
        """Halves to even."""
        return torch.round(v)

    def below(self, v: Tensor) -> Tensor:
        return torch.floor(v)

    def above(self, v: Tensor) -> Tensor:
        return torch.floor(v) + 1

    def codes(self, n: Tensor) -> Tensor:
        return n.to(torch.int32)

    def points(self, codes: Tensor) -> Tensor:
        return codes.to(torch.float32)


class TableGrid:
    """Any sorted table of points; a code is an index into `order`.

    entries  ascending, distinct, finite
    order    code of each entry; default its index
    ties     True: half-way goes to the entry with the even code, as IEEE formats do; False: to the upper entry
    """

    moves = False

    def __init__(self, entries: Sequence[float], order: Sequence[int] | None = None, *, ties: bool = False) -> None:
        table = torch.tensor(list(entries), dtype=torch.float64)
        if len(table) < 2 or not bool(torch.isfinite(table).all()) or not bool((table.diff() > 0).all()):
            got = str([float(e) for e in entries][:8])
            raise UsageError(Problem("a table of points", got=got, allowed="two or more, finite, ascending, distinct"))
        self.table = table.to(torch.float32)
        self.order = torch.arange(len(table)) if order is None else torch.tensor(list(order))
        self.ties = ties
        self.lo, self.hi, self.levels = float(table[0]), float(table[-1]), len(table)

    def _index(self, v: Tensor) -> Tensor:
        """Index of the largest entry <= v (0 for anything smaller)."""
        found = torch.searchsorted(self.table.to(v.device), v.detach().contiguous().float(), right=True) - 1
        return found.clamp_(0, self.levels - 1)

    def below(self, v: Tensor) -> Tensor:
        return self.table.to(v.device)[self._index(v)].to(v.dtype)

    def above(self, v: Tensor) -> Tensor:
        index = (self._index(v) + 1).clamp_(max=self.levels - 1)
        return self.table.to(v.device)[index].to(v.dtype)

    def nearest(self, v: Tensor) -> Tensor:
        index = self._index(v)
        upper = (index + 1).clamp(max=self.levels - 1)
        table, order = self.table.to(v.device), self.order.to(v.device)
        low, high = table[index].to(v.dtype), table[upper].to(v.dtype)
        # Distances in binary64: both differences are exact there for f32 values, so ties are seen as ties.
        down, up = v.double() - low.double(), high.double() - v.double()
        tie = (order[upper] % 2 == 0) if self.ties else torch.ones_like(down, dtype=torch.bool)
        return torch.where((up < down) | ((up == down) & tie), high, low)

    def codes(self, n: Tensor) -> Tensor:
        return self.order.to(n.device)[self._index(n)].to(torch.int32)

    def points(self, codes: Tensor) -> Tensor:
        position = torch.full((int(self.order.max()) + 1,), -1)
        position[self.order] = torch.arange(self.levels)
        return self.table.to(codes.device)[position.to(codes.device)[codes.long()]]


def minifloat(name: str) -> TableGrid:
    """All finite values of a minifloat; a code is its bit pattern (sign, exponent, mantissa). -0 is left out."""
    form = MINIFLOATS[name]
    codes = minifloats.finite_codes(form)
    values = minifloats.decode(codes, form)
    pairs = sorted((float(v), int(c)) for v, c in zip(values, codes, strict=True) if v or not c)
    return TableGrid([v for v, _ in pairs], [c for _, c in pairs], ties=True)


def power_of_two(bits: int, signed: bool) -> TableGrid:
    """0 and (+-)2^-k, k = 0, 1, ...; as many as the bits have codes (signed: one code for zero, the rest in pairs)."""
    count = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
    magnitudes = [0.0, *sorted(2.0**-k for k in range(count))]
    return TableGrid([-m for m in magnitudes[:0:-1]] + magnitudes if signed else magnitudes)


def grid(name: str, *, bits: int = 8, signed: bool = False, wide: bool = False, entries: Sequence[float] = ()) -> Grid:
    """The grid of that name.

    bits     of integer and power2 grids; the others know their own
    signed   integer: symmetric -(2^(b-1) - 1) .. 2^(b-1) - 1, else 0 .. 2^b - 1
    wide     signed integers from -2^(b-1): the range of two's complement
    entries  of a codebook

    Raises UsageError for an unknown name or impossible bits.
    """
    if name not in NAMES:
        raise UsageError(Problem("unknown grid", got=name, allowed=near(name, NAMES)))
    if name in ("integer", "power2") and bits not in INTEGER_BITS:
        hint = 'grid "sign" is one bit' if bits == 1 else ""
        raise UsageError(Problem("bits", f"grid {name}", str(bits), "2 to 8", hint))
    if name == "integer":
        top = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
        return IntegerGrid(-top - wide if signed else 0, top)
    if name == "power2":
        return power_of_two(bits, signed)
    if name == "sign":
        return TableGrid((-1.0, 1.0))
    if name == "ternary":
        return IntegerGrid(-1, 1)
    return TableGrid(entries) if name == "codebook" else minifloat(name)
