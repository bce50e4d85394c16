"""BiBERT: attention by the sign of the score, and distillation by directions.

Paper: BiBERT: Accurate Fully Binarized BERT, Qin et al. 2022 (arXiv 2203.06390); ledger row bibert.
Idea: sign(softmax) says nothing, every key is read; the sign of the score splits keys in half, as much information as
one bit holds. And what a binary network can match of its teacher is the direction of similarities, not their size.
Equations: w -> E|w| sign(w - mean) per row, gradient inside |w| <= 1; inputs, q, k, v -> sign; B = 1 where q k^T >= 0,
no softmax; y = B v. Loss = soft cross-entropy with the teacher + 0.5 cross-entropy + sum over layers and t in (q, k,
v) of || t t^T / ||t t^T|| - the teacher's ||, + the same distance for the blocks' outputs.
Differences: signs are +1 at 0 and a score of 0 reads its key; the sum over keys is divided by sqrt(keys); a trained
shift a channel and no GELU in front of the second MLP layer, whose sign makes the non-linearity; embeddings stay float.
Cost: three similarity matrices a layer and step beside the teacher's pass. Limits: W1A1 transformers lose several
points; distillation needs a float network trained on the task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netsuke.methods.binarize._attention import Seen
    from netsuke.nn.binarizer import Binarizer
    from netsuke.nn.binary_layers import Layer

_RULES = ("boolean", "direct")


@dataclass(frozen=True)
class Config:
    """attention: "boolean" (the paper) or "direct": sign(softmax), the baseline."""

    attention: str = "boolean"


def sign_inputs(_: Layer) -> Binarizer:
    from netsuke.nn.binarizer import Binarizer, One, Sign
    from netsuke.nn.surrogates import Clipped

    return Binarizer(Sign(Clipped()), One())


def shifted_inputs(layer: Layer) -> Binarizer:
    from torch import nn as layers

    from netsuke.nn.binarizer import Binarizer, One, Shift, Sign
    from netsuke.nn.surrogates import Clipped

    channels = layer.in_channels if isinstance(layer, layers.Conv2d) else layer.in_features
    return Binarizer(Sign(Clipped()), One(), Shift(channels))


def centred_weights(_: Layer) -> Binarizer:
    from netsuke.nn.binarizer import Binarizer, Centred, MeanAbs, Sign
    from netsuke.nn.surrogates import Clipped

    return Binarizer(Sign(Clipped()), MeanAbs("channel"), Centred(), scale_of="raw")


def signs() -> Binarizer:
    """The sign of q, k or v."""
    from netsuke.nn.binarizer import Binarizer, One, Sign
    from netsuke.nn.surrogates import Clipped

    return Binarizer(Sign(Clipped()), One())


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make attentions and MLPs of a transformer binary, in place; `keep`: patterns of names that stay float."""
    from netsuke.methods.binarize._attention import Parts, swap
    from netsuke.nn.binary_attention import Boolean, DirectSign

    if config.attention not in _RULES:
        raise UsageError(Problem("attention", "binarize/bibert", config.attention, ", ".join(_RULES)))
    rule = Boolean if config.attention == "boolean" else DirectSign
    parts = Parts(centred_weights, sign_inputs, rule, levels=signs, hidden=shifted_inputs)
    return swap(model, parts, keep=keep)


def _similarity(t: Tensor, heads: int) -> Tensor:
    """t t^T of each head, divided by the norm over the batch."""
    split = t.reshape(t.shape[0], t.shape[1], heads, -1).transpose(1, 2)
    matrix = split @ split.transpose(-2, -1)
    size: Tensor = matrix.norm() + 1e-12
    return matrix / size


def direction_distance(student: Seen, teacher: Seen, heads: int) -> Tensor:
    """Sum over layers of the distances between directions of q, k, v similarities and of hidden states."""
    total: Tensor | None = None
    for ours, theirs in zip(student.qkv, teacher.qkv, strict=True):
        for t, wanted in zip(ours, theirs, strict=True):
            part = (_similarity(t, heads) - _similarity(wanted, heads)).norm()
            total = part if total is None else total + part
    for h, wanted in zip(student.hidden, teacher.hidden, strict=True):
        part = (h / (h.norm() + 1e-12) - wanted / (wanted.norm() + 1e-12)).norm()
        total = part if total is None else total + part
    assert total is not None
    return total


def distillation(teacher: nn.Module, heads: int) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The paper's loss as `loss(model, x, y)` for a training loop; the teacher is not trained."""
    import torch

    from netsuke.methods.binarize._attention import recorded
    from netsuke.methods.binarize._fit import soft_cross_entropy

    teacher.eval()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad(), recorded(teacher) as wanted:
            target = teacher(x)
        with recorded(model) as seen:
            logits = model(x)
        hard = torch.nn.functional.cross_entropy(logits, y)
        return soft_cross_entropy(logits, target) + 0.5 * hard + direction_distance(seen, wanted, heads)

    return loss


METHOD = register(
    Method(
        name="binarize/bibert",
        purpose="one-bit text encoders: attention by the sign of scores, distillation by directions",
        paper="bibert",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights", "activations"),
        exports=("blinear", "bmatmul"),
        status="trial",
        cost="training beside a float teacher, about three times the float network's steps",
        tags=("attention",),
    )
)
