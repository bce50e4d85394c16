"""Two binary bases of which the second may fade out, and activations of few bits beside them (BinaryDM)."""

from __future__ import annotations

import torch
from torch import Tensor

from netsuke.nn.binarizer import Binarizer, Elastic, Learned, TwoBases
from netsuke.nn.surrogates import Surrogate


class FadingBases(TwoBases):
    """s1 sign(w) + share s2 sign(w - s1 sign(w)); share falls from 1 to 0 until `gone` of training has passed.

    From then on there is one basis, in training and when the layer is frozen.
    """

    def __init__(self, channels: int, surrogate: Surrogate, gone: float) -> None:
        super().__init__(channels, surrogate)
        self.gone, self.share = gone, 1.0

    def at(self, progress: float) -> None:
        super().at(progress)
        self.share = max(0.0, 1.0 - progress / self.gone)

    def terms(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        first, *rest = super().terms(x)
        return [first, *((levels, self.share * scale) for levels, scale in rest)] if self.share > 0 else [first]


class FewBits(Binarizer):
    """Activations of `bits` bits with one trained scale: 0 .. 2^b - 1 where the first tensor has nothing below zero,
    else -(2^(b-1) - 1) .. 2^(b-1) - 1. The scale starts at 2 E|x| / sqrt(hi) and learns as in LSQ."""

    signed: Tensor

    def __init__(self, bits: int) -> None:
        half = 2 ** (bits - 1) - 1
        super().__init__(Elastic(-half, half), Learned(start=2 / half**0.5, damped=True))
        self.bits = bits
        self.register_buffer("signed", torch.tensor(True))
        self.decided = False

    def terms(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        if not self.decided and self.training:
            self._decide(bool((x.detach() < 0).any()))
        return super().terms(x)

    def _decide(self, signed: bool) -> None:
        self.decided = True
        self.signed.fill_(signed)
        if not signed:
            assert isinstance(self.scale, Learned)
            self.levels = Elastic(0, 2**self.bits - 1)
            self.scale.start = 2 / float(self.levels.hi) ** 0.5
