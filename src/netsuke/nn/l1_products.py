"""Integer passes of the quantized L1 normalization, [M, C] rows: the kernels of runtime/train, and the same numbers in
torch on any device.

    codes     x -> u8 codes v; of every channel their sum, smallest and largest
    above     sum max(v - floor, 0), number of v above floor, number at floor
    apply     xh = rne(f32(v - floor) slope + offset),  y = f32(xh) gain + shift
    dot       dY -> u8 codes q; of every channel sum (q - zero) and sum (q - zero) xh
    gradient  dx = f32(q - zero) slope - (below, at or above, as v stands to floor)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from netsuke.nn.integer_products import Kernels, products


@dataclass(frozen=True)
class Form:
    """xh of a channel: rne(f32(v - floor) * slope + offset); floor u8, slope and offset f32 [C]."""

    floor: Tensor
    slope: Tensor
    offset: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """In the order of the kernels."""
        return self.floor, self.slope, self.offset


class NormProducts(Protocol):
    """One pass over the rows each; all results are exact or rounded as the module says."""

    def codes(self, x: Tensor, scale: Tensor, zero: int, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...
    def above(self, codes: Tensor, floor: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...
    def apply(self, codes: Tensor, form: Form, gain: Tensor, shift: Tensor) -> Tensor: ...
    def dot(
        self, g: Tensor, scale: Tensor, zero: int, seed: tuple[int, int] | None, codes: Tensor, form: Form
    ) -> tuple[Tensor, Tensor, Tensor]: ...
    def gradient(self, q: Tensor, zero: int, codes: Tensor, floor: Tensor, rows: Tensor) -> Tensor: ...


class NormKernels:
    """runtime/train/norm.cc."""

    def __init__(self, kit: Kernels) -> None:
        self.kit = kit

    def codes(self, x: Tensor, scale: Tensor, zero: int, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u8 [M, C], then i64, u8, u8 [C]."""
        channels = x.shape[1]
        codes, total = self.kit.empty(x.shape, torch.uint8), torch.empty(channels, dtype=torch.int64)
        least, most = torch.empty(channels, dtype=torch.uint8), torch.empty(channels, dtype=torch.uint8)
        self.kit._call("norm_codes", x, scale, zero, top, codes, total, least, most)
        return codes, total, least, most

    def above(self, codes: Tensor, floor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """i64 [C] each."""
        out = [torch.empty(len(floor), dtype=torch.int64) for _ in range(3)]
        self.kit._call("norm_above", codes, floor, *out)
        return out[0], out[1], out[2]

    def apply(self, codes: Tensor, form: Form, gain: Tensor, shift: Tensor) -> Tensor:
        """f32 [M, C]."""
        y = self.kit.empty(codes.shape)
        self.kit._call("norm_apply", codes, *form.parts, gain, shift, y)
        return y

    def dot(
        self, g: Tensor, scale: Tensor, zero: int, seed: tuple[int, int] | None, codes: Tensor, form: Form
    ) -> tuple[Tensor, Tensor, Tensor]:
        """u8 [M, C], then i64 [C] twice; codes of dY lie in [0, 2 zero]."""
        q = self.kit.empty(g.shape, torch.uint8)
        total, product = (torch.empty(g.shape[1], dtype=torch.int64) for _ in range(2))
        key = None if seed is None else list(seed)
        made = (q, codes, *form.parts, total, product)
        self.kit._call("norm_dot", g, scale, zero, 2 * zero, key, *made)
        return q, total, product

    def gradient(self, q: Tensor, zero: int, codes: Tensor, floor: Tensor, rows: Tensor) -> Tensor:
        """f32 [M, C]; rows f32 [4, C]: slope, below, at, above."""
        dx = self.kit.empty(q.shape)
        self.kit._call("norm_gradient", q, zero, codes, floor, *rows, dx)
        return dx


class NormSimulation:
    """The same in torch."""

    @staticmethod
    def _xh(codes: Tensor, form: Form) -> Tensor:
        return torch.round((codes.to(torch.int32) - form.floor).float() * form.slope + form.offset)

    def codes(self, x: Tensor, scale: Tensor, zero: int, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As the kernels."""
        codes = products("simulation").quantize(x, scale, zero, -zero, top - zero, None)
        return codes, codes.to(torch.int64).sum(0), codes.amin(0), codes.amax(0)

    def above(self, codes: Tensor, floor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As the kernels."""
        over = codes.to(torch.int64) - floor.to(torch.int64)
        return over.clamp_min(0).sum(0), (over > 0).sum(0), (over == 0).sum(0)

    def apply(self, codes: Tensor, form: Form, gain: Tensor, shift: Tensor) -> Tensor:
        """As the kernels."""
        return self._xh(codes, form) * gain + shift

    def dot(
        self, g: Tensor, scale: Tensor, zero: int, seed: tuple[int, int] | None, codes: Tensor, form: Form
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As the kernels."""
        q = products("simulation").quantize(g, scale, zero, -zero, zero, seed)
        unit = q.to(torch.int64) - zero
        return q, unit.sum(0), (unit * self._xh(codes, form).to(torch.int64)).sum(0)

    def gradient(self, q: Tensor, zero: int, codes: Tensor, floor: Tensor, rows: Tensor) -> Tensor:
        """As the kernels."""
        slope, below, at, above = rows
        over = codes.to(torch.int64) - floor.to(torch.int64)
        rest = torch.where(over > 0, above, torch.where(over < 0, below, at))
        return (q.to(torch.int32) - zero).float() * slope - rest


def norm_products(kind: str) -> NormProducts:
    """The passes of a configuration."""
    return NormKernels(cast(Kernels, products("kernels"))) if kind == "kernels" else NormSimulation()
