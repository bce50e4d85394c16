"""Elastic binarization and ternarization: statistics for weights, learned levels for activations.

Paper: Binary and Ternary Natural Language Generation, Liu et al. 2023 (arXiv 2306.01841); ledger row
ternary-binary-nlg.
Idea: weights keep the most information when their levels are equally likely; activations learn one scale a tensor.
Equations: weights per output row: binary E|w| sign(w); ternary a round(clip(w/a, -1, 1)), a = 4/3 E|w| (equal shares
for uniform w), gradient 1. Activations: signed a sign(x) (binary) or a round(clip(x/a, -1, 1)) (ternary); after a ReLU
or a softmax (`signed` = false) a round(clip(x/a, 0, hi)), hi = 1 or 2; a trained with gradient damped by 1/sqrt(n),
started at 2 E|x| (signed) or 4 E|x| / sqrt(hi).
Distillation: soft cross-entropy with the float network's logits + MSE of hidden states.
Differences: the tensor minimum is not subtracted from unsigned activations; it is 0 after a ReLU or softmax. Attention
maps are not distilled; embeddings stay float.
Cost: one mean a row; one parameter a tensor. Limits: distillation from the float network does much of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netsuke.nn.binarizer import Binarizer


_RULES = ("elastic", "rounded")


@dataclass(frozen=True)
class Config:
    """weight_levels, input_levels: 2 or 3; signed: whether activations have both signs; rule: "elastic" (the paper), or
    "rounded": to the nearest of as many levels between the extremes, the baseline."""

    weight_levels: int = 3
    input_levels: int = 3
    signed: bool = True
    rule: str = "elastic"


def _check(config: Config) -> None:
    problems = [
        Problem(key, "binarize/elastic", str(got), "2, 3")
        for key, got in (("weight_levels", config.weight_levels), ("input_levels", config.input_levels))
        if got not in (2, 3)
    ]
    if config.rule not in _RULES:
        problems.append(Problem("rule", "binarize/elastic", config.rule, ", ".join(_RULES)))
    if problems:
        raise UsageError(problems)


def _weights(config: Config) -> Binarizer:
    from netsuke.nn.binarizer import Binarizer, Elastic, MaxAbs, MeanAbs, Sign, Ternary
    from netsuke.nn.surrogates import Identity

    if config.rule == "rounded":
        return Binarizer(Sign(Identity()) if config.weight_levels == 2 else Elastic(-1, 1), MaxAbs("channel"))
    if config.weight_levels == 2:
        return Binarizer(Sign(Identity()), MeanAbs("channel"))
    return Binarizer(Ternary(), MeanAbs("channel", 4 / 3))


def _activations(config: Config, *, signed: bool) -> Binarizer:
    from netsuke.nn.binarizer import Binarizer, Elastic, Learned, MaxAbs, Sign
    from netsuke.nn.surrogates import Clipped

    top = 1 if signed else config.input_levels - 1
    scale = Learned(start=2.0 if signed else 4 / top**0.5, damped=True) if config.rule == "elastic" else None
    one_bit = signed and config.input_levels == 2
    levels = Sign(Clipped()) if one_bit else Elastic(-1 if signed else 0, top)
    return Binarizer(levels, scale or MaxAbs("tensor", top))


def _transformer(model: nn.Module, config: Config, keep: Sequence[str] | None) -> nn.Module:
    """Attentions and MLPs; behind a ReLU and a softmax activations have no sign."""
    from torch import nn as layers

    from netsuke.methods.binarize._attention import Parts, swap
    from netsuke.nn.binary_attention import ElasticRule, RoundedRule

    top = config.input_levels - 1
    relu = any(isinstance(m, layers.ReLU) for m in model.modules())
    parts = Parts(
        lambda _: _weights(config),
        lambda _: _activations(config, signed=True),
        lambda: ElasticRule(top) if config.rule == "elastic" else RoundedRule(top),
        levels=lambda: _activations(config, signed=True),
        hidden=lambda _: _activations(config, signed=not relu),
        activation=True,
    )
    return swap(model, parts, keep=keep)


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of the network binary or ternary, in place; see the room's contract.

    A network with attentions: its attentions and MLPs, cross-attention included, with `keep` naming those; embeddings
    and the output layer stay float.
    """
    from netsuke.methods.binarize._attention import attentions
    from netsuke.nn.binary_layers import binarize

    _check(config)
    if attentions(model):
        return _transformer(model, config, keep)
    return binarize(
        model,
        weights=lambda _: _weights(config),
        inputs=lambda _: _activations(config, signed=config.signed),
        keep=keep,
    )


def distillation(teacher: nn.Module) -> Callable[[nn.Module, tuple[Tensor, Tensor], Tensor], Tensor]:
    """`loss(model, (source, target), wanted)`: soft cross-entropy with the teacher's logits + MSE of all hidden states.

    wanted [N, T]: the next words; places below 0 (padding) count in neither.
    """
    import torch

    from netsuke.methods.binarize._attention import recorded
    from netsuke.methods.binarize._fit import soft_cross_entropy

    teacher.eval()

    def loss(model: nn.Module, x: tuple[Tensor, Tensor], wanted: Tensor) -> Tensor:
        with torch.no_grad(), recorded(teacher) as theirs:
            target = teacher(*x)
        with recorded(model) as ours:
            logits = model(*x)
        counts = wanted >= 0
        total = soft_cross_entropy(logits[counts], target[counts])
        for a, b in zip(ours.hidden, theirs.hidden, strict=True):
            total = total + torch.nn.functional.mse_loss(a, b)
        return total

    return loss


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
