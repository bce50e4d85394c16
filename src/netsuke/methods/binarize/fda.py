"""FDA: the slope of a truncated Fourier series.

Paper: Frequency Domain Approximation, Xu et al., NeurIPS 2021; an operator of BiBench (ledger row bibench).
Idea: a square wave is a sum of sines; the derivative of the first terms is a smooth slope that sharpens with more
terms.
Equations: slope(z) = (0.4 / pi) sum_{i=0..n} cos((2i + 1) 0.1 z) for |z| <= 1, n from 9 to 18 during training; scales
E|w| per channel.
Differences: without the noise-adaptation network, which fades out during training.
Cost: n cosines a value and step. Limits: twice as slow in training as a clipped slope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import nn

    from netsuke.nn.binary_layers import Layer


@dataclass(frozen=True)
class Config:
    """No options."""


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of the network binary, in place; see the room's contract."""
    from netsuke.nn.binarizer import Binarizer, MeanAbs, One, Sign
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Fourier

    del config

    def weights(_: Layer) -> Binarizer:
        return Binarizer(Sign(Fourier()), MeanAbs("channel"))

    def inputs(_: Layer) -> Binarizer:
        return Binarizer(Sign(Fourier()), One())

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


METHOD = register(
    Method(
        name="binarize/fda",
        purpose="the slope of a truncated Fourier series of the square wave",
        paper="bibench",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights", "activations"),
        exports=("bconv", "blinear"),
        status="trial",
        cost="one pass over the weights a step; training as long as the float network's or longer",
    )
)
