"""BiViT: keys are read where their probability is a fair share of the row's largest; attention first, then the MLP.

Paper: BiViT: Extremely Compressed Binary Vision Transformer, He et al. 2022 (arXiv 2211.07091); ledger row bivit.
Idea: softmax rows have long tails, so a constant threshold keeps far too many keys or too few; a threshold relative
to the row's maximum follows the row. Attention and MLP are not made binary at once.
Equations: B = 1 where softmax(s) >= 0.25 max(softmax(s)), the same as s >= max(s) - ln 4, with the gradient of the
softmax; weights s_o sign(w - mean), s_o trained, started at E|w|; q, k, v and inputs -> sign. Stage "attention": MLPs
stay float; stage "mlp": MLPs become binary too and all is trained on.
Differences: order and length of the stages are not published; a trained shift a channel and no GELU in front of the
second MLP layer, as in the other binary transformers here; the sum over keys is divided by sqrt(keys).
Cost: two trainings. Limits: W1A1 costs several points on small data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.binarize.bibert import shifted_inputs, sign_inputs, signs

if TYPE_CHECKING:
    from torch import nn

    from netsuke.nn.binarizer import Binarizer
    from netsuke.nn.binary_layers import Layer

_STAGES, _RULES = ("attention", "mlp", "both"), ("softmax_aware", "boolean", "direct")


@dataclass(frozen=True)
class Config:
    """stage: "attention", then "mlp" on the same network, or "both"; ratio: of the row's maximum; rule: "softmax_aware"
    (the paper), "boolean" (score >= 0) or "direct" (sign of the softmax)."""

    stage: str = "both"
    ratio: float = 0.25
    rule: str = "softmax_aware"


def scaled_weights(layer: Layer) -> Binarizer:
    """s sign(w - mean), s trained for each output."""
    from netsuke.nn.binarizer import Binarizer, Centred, Learned, Sign
    from netsuke.nn.surrogates import Clipped

    return Binarizer(Sign(Clipped()), Learned(layer.weight.shape[0]), Centred(), scale_of="raw")


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the attentions, the MLPs or both of a transformer binary, in place; `keep`: patterns that stay float."""
    from netsuke.methods.binarize._attention import Parts, swap
    from netsuke.nn.binary_attention import Boolean, DirectSign, SoftmaxAware

    problems = [
        Problem(key, "binarize/bivit", got, ", ".join(allowed))
        for key, got, allowed in (("stage", config.stage, _STAGES), ("rule", config.rule, _RULES))
        if got not in allowed
    ]
    if problems:
        raise UsageError(problems)
    rules: dict[str, Callable[[], nn.Module]] = {
        "softmax_aware": lambda: SoftmaxAware(config.ratio),
        "boolean": Boolean,
        "direct": DirectSign,
    }
    parts = Parts(
        scaled_weights,
        sign_inputs,
        rules[config.rule],
        levels=signs,
        hidden=shifted_inputs,
        attention=config.stage != "mlp",
        mlp=config.stage != "attention",
    )
    return swap(model, parts, keep=keep)


METHOD = register(
    Method(
        name="binarize/bivit",
        purpose="one-bit vision transformers: keys near the row's maximum, attention before MLP",
        paper="bivit",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights", "activations"),
        exports=("blinear", "bmatmul"),
        status="trial",
        cost="two trainings, each about as long as the float network's",
        tags=("attention",),
    )
)
