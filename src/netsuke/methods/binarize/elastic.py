"""Elastic binarization and ternarization: statistics for weights, learned levels for activations.

Paper: Binary and Ternary Natural Language Generation, Liu et al. 2023 (arXiv 2306.01841); ledger row
ternary-binary-nlg.
Idea: weights keep the most information when their levels are equally likely; activations learn one scale a tensor.
Equations: weights per output row: binary E|w| sign(w); ternary a round(clip(w/a, -1, 1)), a = 4/3 E|w| (equal shares
for uniform w), gradient 1. Activations: signed a sign(x) (binary) or a round(clip(x/a, -1, 1)) (ternary); after a ReLU
or a softmax (`signed` = false) a round(clip(x/a, 0, hi)), hi = 1 or 2; a trained with gradient damped by 1/sqrt(n),
started at 2 E|x| (signed) or 4 E|x| / sqrt(hi).
Differences: the tensor minimum is not subtracted from unsigned activations; it is 0 after a ReLU or softmax.
Cost: one mean a row; one parameter a tensor. Limits: distillation from the float network does much of the work.
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
    """weight_levels, input_levels: 2 or 3; signed: whether activations have both signs."""

    weight_levels: int = 3
    input_levels: int = 3
    signed: bool = True


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of the network binary, in place; see the room's contract."""
    from netsuke.nn.binarizer import Binarizer, Elastic, Learned, MeanAbs, Sign, Ternary
    from netsuke.nn.binary_layers import binarize
    from netsuke.nn.surrogates import Clipped, Identity

    problems = [
        Problem(key, "binarize/elastic", str(got), "2, 3")
        for key, got in (("weight_levels", config.weight_levels), ("input_levels", config.input_levels))
        if got not in (2, 3)
    ]
    if problems:
        raise UsageError(problems)

    def weights(_: Layer) -> Binarizer:
        if config.weight_levels == 2:
            return Binarizer(Sign(Identity()), MeanAbs("channel"))
        return Binarizer(Ternary(), MeanAbs("channel", 4 / 3))

    def inputs(_: Layer) -> Binarizer:
        if not config.signed:
            top = config.input_levels - 1
            return Binarizer(Elastic(0, top), Learned(start=4 / top**0.5, damped=True))
        scale = Learned(start=2.0, damped=True)
        return Binarizer(Sign(Clipped()) if config.input_levels == 2 else Elastic(-1, 1), scale)

    return binarize(model, weights=weights, inputs=inputs, keep=keep)


METHOD = register(
    Method(
        name="binarize/elastic",
        purpose="statistics for binary or ternary weights, learned scales for activations",
        paper="ternary-binary-nlg",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights", "activations"),
        exports=(),
        status="trial",
        cost="one pass over the weights a step; training as long as the float network's or longer",
    )
)
