"""BiPFT: pre-train the binary network, and estimate what binarization takes from attention by rank-one terms.

Paper: BiPFT: Binary Pre-trained Foundation Transformer with Low-rank Estimation of Binarization Residual Polynomials,
Xing et al. 2023 (arXiv 2312.08937); ledger row bipft.
Idea: a binary encoder pre-trained on plain text needs few labels afterwards. With q = bq + eq and k = bk + ek, the
product q k^T is bq bk^T and three residual terms, which maps of the layer's input to one number estimate.
Equations: weights E|w| sign(w - mean), one scale a layer, gradient 1; activations a sign(x + shift), a trained;
scores bq bk^T + qm kp^T + qp km^T + qp kp^T, one matrix for all heads, qp, kp, qm, km: C -> 1; probabilities a
round(clip(softmax / a, 0, 1)); values bv + vp(x), vp: C -> 1.
Differences: the mean of w is that of its row; a trained shift and no GELU in front of the second MLP layer; no
teacher while pre-training and no next-sentence task.
Cost: five maps C -> 1 an attention, kept in floats; pre-training is a training of its own. Limits: the softmax stays,
so scores are floats when compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netsuke.nn.binarizer import Binarizer
    from netsuke.nn.binary_layers import Layer


@dataclass(frozen=True)
class Config:
    """residual: whether attention has the rank-one estimates."""

    residual: bool = True


def _weights(_: Layer) -> Binarizer:
    from netsuke.nn.binarizer import Binarizer, Centred, MeanAbs, Sign
    from netsuke.nn.surrogates import Identity

    return Binarizer(Sign(Identity()), MeanAbs("tensor"), Centred(), scale_of="raw")


def _inputs(layer: Layer) -> Binarizer:
    from netsuke.nn.binarizer import Binarizer, Learned, Shift, Sign
    from netsuke.nn.surrogates import Clipped

    return Binarizer(Sign(Clipped()), Learned(start=2.0, damped=True), Shift(int(layer.weight.shape[1])))


def _levels() -> Binarizer:
    from netsuke.nn.binarizer import Binarizer, Learned, Sign
    from netsuke.nn.surrogates import Clipped

    return Binarizer(Sign(Clipped()), Learned(start=2.0, damped=True))


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make attentions and MLPs of a transformer binary, in place; `keep`: patterns of names that stay float."""
    from netsuke.methods.binarize._attention import Parts, swap
    from netsuke.nn.binary_attention import ElasticRule, RankOneScores, TokenMap

    parts = Parts(_weights, _inputs, ElasticRule, levels=_levels)
    if config.residual:
        parts.extra, parts.value = RankOneScores, TokenMap
    return swap(model, parts, keep=keep)


def pretraining_loss(model: nn.Module, head: nn.Module, ids: Tensor, words: Tensor) -> Tensor:
    """Masked language modelling: cross-entropy of head(model.tokens(ids)) with `words`; -100 does not count."""
    from torch.nn import functional

    logits = head(model.tokens(ids))  # type: ignore[operator]
    return functional.cross_entropy(logits.flatten(0, 1), words.flatten(), ignore_index=-100)


METHOD = register(
    Method(
        name="binarize/bipft",
        purpose="pre-trained one-bit encoders with rank-one estimates of what signs take from attention",
        paper="bipft",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights", "activations"),
        exports=("blinear",),
        status="trial",
        cost="a pre-training on plain text, then short fine-tuning for each task",
        tags=("attention",),
    )
)
