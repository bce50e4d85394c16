"""Weights and activations on minifloat grids with a bias of their own, and rounding learned on a layer's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsuke.formats import minifloat
from netsuke.formats.minifloat import MINIFLOATS, Minifloat
from netsuke.nn.grids import TableGrid
from netsuke.nn.rounding import Learned

# Every split of 4 and 8 bits that keeps a sign and an exponent. Without codes for infinity and NaN, but those that the
# packed kernels know have them as docs/numerics.md section 11 says.
_MORE = (
    Minifloat("e2m5", 2, 5, 1),
    Minifloat("e3m4", 3, 4, 3),
    Minifloat("e1m2", 1, 2, 1),
    Minifloat("e3m0", 3, 0, 3),
)
FORMS: dict[str, Minifloat] = {f.name: f for f in (*MINIFLOATS.values(), *_MORE)}
SEARCH = {4: ("e1m2", "e2m1", "e3m0"), 8: ("e2m5", "e3m4", "e4m3", "e5m2")}
PACKED = ("e2m1", "e4m3", "e5m2")
STEPS = 40


def points(form: Minifloat) -> TableGrid:
    """All finite values; a code is its bit pattern. -0 is left out."""
    codes = minifloat.finite_codes(form)
    values = minifloat.decode(codes, form)
    pairs = sorted((float(v), int(c)) for v, c in zip(values, codes, strict=True) if v or not c)
    return TableGrid([v for v, _ in pairs], [c for _, c in pairs], ties=True)


@dataclass(frozen=True)
class FloatGrid:
    """A format and its scale: 2^-bias with a real-valued bias."""

    form: Minifloat
    grid: TableGrid
    scale: float

    def __call__(self, x: Tensor) -> Tensor:
        """Nearest points; what is beyond the largest becomes the largest."""
        return self.grid.nearest((x / self.scale).clamp(self.grid.lo, self.grid.hi)) * self.scale


@torch.no_grad()
def best_grid(x: Tensor, names: tuple[str, ...], sample: int = 8192) -> FloatGrid:
    """Of these formats and 40 clipping values from max|x| downwards the pair of least squared error."""
    flat = x.detach().flatten()
    top = float(flat.abs().max()) or 1.0
    flat = flat[:: max(1, len(flat) // sample)]
    best, found = float("inf"), None
    for name in names:
        grid = points(FORMS[name])
        for i in range(STEPS):
            made = FloatGrid(FORMS[name], grid, top * (1 - 0.02 * i) / grid.hi)
            error = float(((made(flat) - flat) ** 2).mean())
            if error < best:
                best, found = error, made
    assert found is not None
    return found


class FloatLayer(nn.Module):
    """A convolution or linear layer with weights on a minifloat grid and, where `reads` is set, its input too."""

    def __init__(self, layer: nn.Module, grid: FloatGrid) -> None:
        super().__init__()
        self.layer, self.grid = layer, grid
        self.reads: FloatGrid | None = None
        weight = self._plain().detach()
        self.rounding = Learned((weight / grid.scale).clamp(grid.grid.lo, grid.grid.hi), grid.grid)
        self.learned = False

    def weight(self) -> Tensor:
        """The weights on the grid: learned or nearest rounding."""
        w = self._plain()
        return self.rounding(w, self.grid.grid) * self.grid.scale if self.learned else self.grid(w)

    def _plain(self) -> Tensor:
        w: Tensor = self.layer.weight  # type: ignore[assignment]
        return w

    def product(self, x: Tensor, w: Tensor) -> Tensor:
        """The layer's operator with these weights."""
        layer: Any = self.layer
        if isinstance(layer, nn.Linear):
            return F.linear(x, w, layer.bias)
        return F.conv2d(x, w, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x if self.reads is None else self.reads(x), self.weight())


def learn_rounding(
    layer: FloatLayer, x: Tensor, wanted: Tensor, *, iterations: int, batch: int, rate: float, regular: float, seed: int
) -> None:
    """Round each weight up or down so that the layer's output on x [N, ...] is `wanted`; leaves the layer decided."""
    layer.learned = True
    layer.rounding.train()
    alpha = layer.rounding.alpha
    optimizer = torch.optim.Adam([alpha], lr=rate)
    rng = torch.Generator().manual_seed(seed)
    inputs = x if layer.reads is None else layer.reads(x)
    channel = -1 if isinstance(layer.layer, nn.Linear) else 1
    for i in range(iterations):
        rows = torch.randint(len(x), (min(batch, len(x)),), generator=rng)
        error = (layer.product(inputs[rows], layer.weight()) - wanted[rows]) ** 2
        loss = error.sum(channel).mean()
        share = i / max(1, iterations)
        if share >= 0.2:  # from here on every variable is pushed to 0 or 1, ever harder
            loss = loss + regular * layer.rounding.regularizer(20 - 18 * (share - 0.2) / 0.8)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    layer.rounding.eval()
    alpha.requires_grad_(False)
