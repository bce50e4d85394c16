"""Weights of one bit but for a few salient ones that stay what they were, at 8 bits (PB-LLM)."""

from __future__ import annotations

import torch
from torch import Tensor

from netsuke.nn.binarizer import TINY, Binarizer, Elastic, One, per_row
from netsuke.nn.gradients import straight

TOP = 127


class Salient(Binarizer):
    """scale_o * level: for salient weights the 8-bit code they started with, elsewhere +-a_o, the sign the weight's.

    weight  the trained weight at the start: its `share` largest magnitudes are salient, frozen; scale_o = max|w| / 127
    a_o     E|w| of the row's other weights in steps of the scale, rounded to 1 .. 127, from the weights at every step

    The gradient passes the sign unchanged; salient weights get none.
    """

    salient: Tensor
    kept: Tensor
    step: Tensor

    def __init__(self, weight: Tensor, share: float) -> None:
        super().__init__(Elastic(-TOP, TOP), One())
        w = weight.detach()
        size = w.abs().flatten()
        mask = torch.zeros(size.numel(), dtype=torch.bool)
        mask[size.argsort(descending=True, stable=True)[: round(share * size.numel())]] = True
        top = w.abs().flatten(1).amax(1)
        step = torch.where(top > 0, (top / TOP).clamp(min=TINY), torch.ones_like(top))
        self.register_buffer("salient", mask.reshape(w.shape))
        self.register_buffer("step", per_row(step, w))
        self.register_buffer("kept", torch.round(w / self.step).clamp(-TOP, TOP))

    def terms(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        free = (~self.salient).float()
        mean = ((x.detach().abs() * free).flatten(1).sum(1)) / free.flatten(1).sum(1).clamp(min=1)
        level = torch.round(per_row(mean, x) / self.step).clamp(1, TOP)
        signs = straight(torch.where(x >= 0, level, -level), x / self.step)
        return [(torch.where(self.salient, self.kept, signs), self.step)]
