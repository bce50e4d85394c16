"""What integer layers lose while they train: error of the quantized gradient, and how many codes lie at their ends.

A probe is filled by the layers themselves on the passes it is attached for; without one nothing is measured and
nothing costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from netsuke.nn.integer_samples import scaled
from netsuke.nn.qtensor import QTensor


@dataclass
class Reading:
    """One layer, one pass. error: |Q(g) - g|^2 / |g|^2 of dY; ends: share of gradient codes at +-top; clipped: share
    of inputs at the ends of their code range that are not the zero of a ReLU; spread: octaves between the ranges of
    the widest and the narrowest live channel of dY."""

    error: float = 0.0
    ends: float = 0.0
    clipped: float = 0.0
    spread: float = 0.0


@dataclass
class Probe:
    """Readings by layer name; a layer that runs twice keeps its last reading."""

    readings: dict[str, Reading] = field(default_factory=dict)

    def _at(self, where: str) -> Reading:
        return self.readings.setdefault(where, Reading())

    def gradient(self, where: str, g: Tensor, q: QTensor, octaves: Tensor | None = None) -> None:
        """Compare dY with what its codes stand for; both times 2^octaves[n] for sample n where there are octaves."""
        real = (q.codes.float() - q.zero) * q.scale
        if octaves is not None:
            g, real = scaled(g, octaves, -1), scaled(real, octaves, -1)
        at, power = self._at(where), float(g.double().square().sum())
        at.error = float((real - g).double().square().sum()) / power if power > 0 else 0.0
        at.ends = float(((q.codes == q.lo) | (q.codes == q.hi)).float().mean())
        ranges = g.abs().reshape(-1, g.shape[-1]).amax(0)
        live = ranges[ranges > 0]
        at.spread = float(torch.log2(live.max() / live.min())) if len(live) else 0.0

    def inputs(self, where: str, q: QTensor) -> None:
        """Count input codes at the ends of their range; a lower end that stands for zero is no clipping."""
        at = q.codes == q.hi
        if q.zero != q.lo:
            at = at | (q.codes == q.lo)
        self._at(where).clipped = float(at.float().mean())

    def means(self) -> dict[str, float]:
        """Mean over layers: gradient_error, gradient_ends, input_ends, channel_octaves."""
        if not self.readings:
            return {}
        names = {
            "error": "gradient_error",
            "ends": "gradient_ends",
            "clipped": "input_ends",
            "spread": "channel_octaves",
        }
        count = len(self.readings)
        return {name: sum(getattr(r, key) for r in self.readings.values()) / count for key, name in names.items()}
