"""BitNet b1.58: ternary weights with a median or mean scale, 8-bit activations.

Paper: BitNet b1.58 Reloaded, Nielsen and Schneider-Kamp 2024 (arXiv 2407.09527); ledger row bitnet158-reloaded.
Idea: weights -1, 0, +1 with one scale a layer; the median of |w| as scale suits small networks.
Equations: s = median|w| (or mean|w|), w -> s round(clip(w / s, -1, 1)), gradient 1 everywhere; activations 8-bit
symmetric per token (`inputs` = "int8"), or float.
Differences: activations round to -127 .. 127 by max|x| / 127 of the vector (the paper scales by 128 and clips);
the layer normalization before each layer belongs to the network; the bias is added after scaling.
Served: linear layers become `wlinear`, in the file five codes a byte, and give the trained layer's numbers.
Convolutions have no kernel that scales activations at run time and stay float there: train those with qat/bitnet158.
Cost: a median a layer and step. Limits: language models need about twice the width to match float.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import nn

    from netsuke.nn.binary_layers import Layer


@dataclass(frozen=True)
class Config:
    """scale: "median" or "mean"; inputs: "int8" or "float"."""

    scale: str = "median"
    inputs: str = "int8"


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of the network binary, in place; see the room's contract."""
    from torch import nn

    from netsuke.nn.binarizer import Binarizer, Live8, MeanAbs, MedianAbs, Ternary, Token8
    from netsuke.nn.binary_layers import binarize

    problems = [
        Problem(key, "binarize/bitnet158", got, ", ".join(allowed))
        for key, got, allowed in (
            ("scale", config.scale, ("median", "mean")),
            ("inputs", config.inputs, ("int8", "float")),
        )
        if got not in allowed
    ]
    if problems:
        raise UsageError(problems)

    def weights(_: Layer) -> Binarizer:
        return Binarizer(Ternary(), MedianAbs() if config.scale == "median" else MeanAbs("tensor"))

    def inputs(layer: Layer) -> Binarizer | None:
        if config.inputs == "float":
            return None
        return Token8() if isinstance(layer, nn.Linear) else Live8()

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


METHOD = register(
    Method(
        name="binarize/bitnet158",
        purpose="ternary weights with a median or mean scale, 8-bit activations",
        paper="bitnet158-reloaded",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights", "activations"),
        exports=("wlinear",),
        status="trial",
        cost="one pass over the weights a step; training as long as the float network's or longer",
    )
)
