"""A weight quantizer whose number format can be changed at any step: integers, and floats that are whole 8-bit codes.

Source: Dotzel et al., "FLIQS: One-Shot Mixed-Precision Floating-Point and Integer Quantization Search", 2024. Floats
with two exponent bits are integers times a power of two (E2M1: 0, 1, 2, 3, 4, 6, 8, 12 halves), so each of their
codes is one of -127 .. 127 and the integer kernels run them; a file holds them as indices into a table
(docs/format.md section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netsuke.formats.forms import FORMS
from netsuke.nn.gradients import straight
from netsuke.nn.quantizer import Quantizer, layout
from netsuke.nn.quantizer_spec import QuantSpec


class FormatWeights(Quantizer):
    """Symmetric codes per channel by the extremes of the weights at hand; `form` says which of `FORMS`."""

    def __init__(self, shape: Sequence[int], form: str = "int8") -> None:
        super().__init__(
            QuantSpec(role="weight", bits=8, signed=True, granularity="channel", statistic="maxabs", schedule="live"),
            shape,
        )
        self.form = form
        self._levels = {name: torch.tensor(levels, dtype=torch.float32) for name, (_, levels) in FORMS.items()}

    @property
    def bits(self) -> int:
        """Bits of a weight in the present format."""
        return FORMS[self.form][0]

    def steps(self) -> tuple[Tensor, Tensor]:
        scale, zero = super().steps()
        return scale * (127.0 / FORMS[self.form][1][-1]), zero

    def points(self, x: Tensor) -> tuple[Tensor, Tensor]:
        at = layout(self.spec, x.shape)
        self._update(x, at)
        scale = self.steps()[0].detach().reshape(at.stretch)
        levels = self._levels[self.form]
        top = float(levels[-1])
        v = (x.reshape(at.view) / scale).clamp(-top, top)
        size = v.detach().abs()
        if self.form.startswith("int"):
            n = torch.round(size)
        else:  # the nearer of the two levels around; halfway goes to the lower one
            above = torch.searchsorted(levels, size.contiguous()).clamp(max=len(levels) - 1)
            low, high = levels[(above - 1).clamp(min=0)], levels[above]
            n = torch.where(size - low <= high - size, low, high)
        return straight(n * torch.sign(v.detach()), v), scale

    def forward(self, x: Tensor) -> Tensor:
        if not self.enabled:
            return x
        n, scale = self.points(x)
        return (n * scale).reshape(x.shape)
