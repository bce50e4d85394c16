"""A weight quantizer whose values are vectors of a small table: w = s rne(127 C B)[index].

Source: "Learning Low-Rank Representations for Model Compression", 2022 (LR2VQ). Vectors of `length` weights, along the
input channels as the file stores them, share k entries; an entry is a point of `inner` dimensions (a row of C) times a
matrix B [inner, length] of the layer. C and B are trained by the task; the index of a vector is that of its first fit.
One scale per output channel, max|W| / 127, is fixed, so codes lie on the 8-bit grid and every kernel runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError
from netsuke.nn.gradients import straight
from netsuke.nn.quantizer import Quantizer, layout
from netsuke.nn.quantizer_spec import QuantSpec

TOP = 127.0
# vectors f64 [n, inner], k -> entries [k, inner], index of each vector [n]
Cluster = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def stored_order(w: Tensor) -> Tensor:
    """Weights [O, I, ...] with the input channels last, as files hold them."""
    return w.movedim(1, -1) if w.ndim > 2 else w


class LowRankVectors(Quantizer):
    """A Quantizer of 8-bit symmetric codes per channel, made of `entries` vectors of `length` codes of rank `inner`."""

    index: Tensor

    def __init__(
        self, spec: QuantSpec, shape: Sequence[int], *, length: int, entries: int, inner: int, cluster: Cluster
    ) -> None:
        count, problems = int(np.prod(shape)), []
        if (spec.grid, spec.bits, spec.signed, spec.granularity, spec.schedule) != (
            "integer", 8, True, "channel", "fixed",
        ):  # fmt: skip
            problems.append(
                Problem("vectors need 8-bit symmetric codes per channel of fixed range", got=str(spec)[:80])
            )
        if count % length or count // length < entries:
            problems.append(Problem("weights do not make enough whole vectors", got=f"{count} for {length}, {entries}"))
        if not 1 <= inner <= length:
            problems.append(Problem("inner dimension", got=str(inner), allowed=f"1 to {length}"))
        if problems:
            raise UsageError(problems)
        super().__init__(spec, shape)
        self._plain_lsq = False
        self.length, self.entries, self.inner, self._cluster = length, entries, inner, cluster
        self.centers = nn.Parameter(torch.zeros(entries, inner))
        self.basis = nn.Parameter(torch.eye(inner, length))
        self.register_buffer("index", torch.zeros(count // length, dtype=torch.long))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Scales, the best matrix of this rank for the vectors (their first right singular vectors), clusters."""
        super().calibrate(x)
        at = layout(self.spec, x.shape)
        exact = (x.reshape(at.view) / self.scale.reshape(at.stretch)).reshape(x.shape) / TOP
        rows = stored_order(exact).reshape(-1, self.length).double()
        basis = torch.linalg.svd(rows.T @ rows).U[:, : self.inner].T
        entries, index = self._cluster((rows @ basis.T).numpy(), self.entries)
        self.basis.copy_(basis)
        self.centers.copy_(torch.from_numpy(np.asarray(entries)))
        self.index.copy_(torch.from_numpy(np.asarray(index, np.int64)))

    def table(self) -> Tensor:
        """The entries as whole codes, f32 [entries, length]; the gradient passes the rounding."""
        soft = TOP * (self.centers @ self.basis)
        inside = soft.clamp(-TOP, TOP)
        return straight(torch.round(inside.detach()), inside)

    def points(self, x: Tensor) -> tuple[Tensor, Tensor]:
        at = layout(self.spec, x.shape)
        shape = stored_order(x).shape
        n = self.table()[self.index].reshape(shape)
        n = n.movedim(-1, 1) if x.ndim > 2 else n
        return n.reshape(at.view), self.scale.reshape(at.stretch)
