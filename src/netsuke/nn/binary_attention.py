"""Attention whose operands are one or two bits: binary projections, levels for q, k, v, and a rule for the scores.

    S = levels(q) levels(k)^T             whole numbers, |S| <= head size
    P = rule(S)                           levels in [0, 1] or {0, 1, 2}, and their scale
    y = (P levels(v)) / sqrt(keys)        the square root keeps the sum near 1, where gradients of signs pass

A rule says which keys a query reads and by how much; all take S, the factor that makes scores of it, and a mask.

    rule           P                                          source
    Boolean        1 where S >= 0                             BiBERT (arXiv 2203.06390)
    SoftmaxAware   1 where softmax(s) >= ratio * its maximum  BiViT (arXiv 2211.07091)
    DirectSign     sign(softmax(s)): always 1                 the baseline both papers improve on
    Softmax        softmax(s), in floats                      no binarization of the probabilities
    ElasticRule    round(clip(softmax(s) / a, 0, top))        TBT (arXiv 2306.01841), BiPFT (arXiv 2312.08937)

Boolean and SoftmaxAware compare S with a whole number or with the row's largest, no exponential: compiled, they are one
`bmatmul` each, bits in and bits out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError
from netsuke.nn.binarizer import Binarizer, Elastic, Learned
from netsuke.nn.gradients import straight
from netsuke.nn.surrogates import Clipped, sign

DROPPED = -100.0  # masks hold 0 for a key that is read and this or less for one that is not
Weights = tuple[Tensor, Tensor | None]


class Boolean(nn.Module):
    """A key is read where its score is not negative; about half of them, the most informative split."""

    def forward(self, scores: Tensor, factor: Tensor | float, mask: Tensor | None) -> Weights:
        s = scores * factor
        if mask is not None:
            s = s + mask
        return (sign(s, Clipped()) + 1) * 0.5, None


class SoftmaxAware(nn.Module):
    """A key is read where its probability is at least `ratio` of the row's largest; gradient of the softmax.

    Exact without exponentials: s >= max(s) + ln(ratio).
    """

    def __init__(self, ratio: float = 0.25) -> None:
        super().__init__()
        if not 0 < ratio <= 1:
            raise UsageError(Problem("ratio", "SoftmaxAware", str(ratio), "above 0, at most 1"))
        self.ratio = ratio

    def forward(self, scores: Tensor, factor: Tensor | float, mask: Tensor | None) -> Weights:
        s = scores if mask is None else scores + mask / factor
        below = s - s.amax(-1, keepdim=True)
        kept = torch.where(below >= math.log(self.ratio) / float(factor), 1.0, 0.0)
        if not scores.requires_grad:
            return kept, None
        return straight(kept, (s * factor).softmax(-1)), None


def probabilities(scores: Tensor, factor: Tensor | float, mask: Tensor | None) -> Tensor:
    s = scores * factor
    return (s if mask is None else s + mask).softmax(-1)


class DirectSign(nn.Module):
    """sign(softmax(s)): a probability is never negative, so every key is read."""

    def forward(self, scores: Tensor, factor: Tensor | float, mask: Tensor | None) -> Weights:
        return sign(probabilities(scores, factor, mask), Clipped()), None


class Softmax(nn.Module):
    """Probabilities as they are."""

    def forward(self, scores: Tensor, factor: Tensor | float, mask: Tensor | None) -> Weights:
        return probabilities(scores, factor, mask), None


class ElasticRule(nn.Module):
    """Levels 0 .. top of the probabilities, with one trained scale."""

    def __init__(self, top: int = 1) -> None:
        super().__init__()
        self.levels = Binarizer(Elastic(0, top), Learned(start=4 / top**0.5, damped=True))

    def forward(self, scores: Tensor, factor: Tensor | float, mask: Tensor | None) -> Weights:
        return self.levels.terms(probabilities(scores, factor, mask))[0]


class RoundedRule(nn.Module):
    """round(p * top) / top of the probabilities: to the nearest of the levels that [0, 1] has, nothing trained."""

    def __init__(self, top: int = 1) -> None:
        super().__init__()
        self.top = top

    def forward(self, scores: Tensor, factor: Tensor | float, mask: Tensor | None) -> Weights:
        p = probabilities(scores, factor, mask)
        return straight(torch.round(p * self.top) / self.top, p), None


class TokenMap(nn.Module):
    """One number a token: [N, T, C] -> [N, T, 1]; starts near 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, 1, bias=False)
        nn.init.normal_(self.map.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)


class RankOneScores(nn.Module):
    """qm kp^T + qp km^T + qp kp^T, [N, 1, T, S]: estimates of the residual products of signs (BiPFT)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qp, self.qm, self.kp, self.km = (TokenMap(width) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        qp, qm = self.qp(x), self.qm(x)
        kp, km = self.kp(memory).transpose(1, 2), self.km(memory).transpose(1, 2)
        return (qm * kp + qp * km + qp * kp).unsqueeze(1)


class BinaryAttention(nn.Module):
    """Multi-head attention on [N, T, C]; `memory` [N, S, C] gives keys and values when it is not x itself.

    q, k, v, proj  layers C -> C, binary or not
    levels         makes the binarizer of q, k and v (called once for each), or None: they stay numbers
    rule           one of this file's, or any module of the same signature
    extra          (x, memory) -> what is added to the scores q k^T before they are divided by sqrt(head); None
    value          adds to the values: (memory) -> [N, S, 1]; None
    """

    def __init__(
        self,
        projections: tuple[nn.Module, nn.Module, nn.Module, nn.Module],
        heads: int,
        levels: Callable[[], Binarizer] | None,
        rule: nn.Module,
        *,
        extra: nn.Module | None = None,
        value: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.q, self.k, self.v, self.proj = projections
        self.heads, self.rule, self.extra, self.value = heads, rule, extra, value
        self.levels = nn.ModuleList() if levels is None else nn.ModuleList(levels() for _ in range(3))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, x.shape[2] // self.heads).transpose(1, 2)

    def _terms(self, index: int, x: Tensor) -> tuple[Tensor, Tensor | float]:
        if not self.levels:
            return x, 1.0
        binarizer = self.levels[index]
        assert isinstance(binarizer, Binarizer)
        levels, scale = binarizer.terms(x)[0]
        return levels, 1.0 if binarizer.unscaled else scale

    def forward(self, x: Tensor, mask: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        """y [N, T, C]. mask broadcasts to [N, heads, T, S], 0 or at most DROPPED."""
        source = x if memory is None else memory
        head, keys = x.shape[2] // self.heads, source.shape[1]
        q, q_scale = self._terms(0, self._split(self.q(x)))
        k, k_scale = self._terms(1, self._split(self.k(source)).transpose(-2, -1))
        v, v_scale = self._terms(2, self._split(self.v(source)))
        scores, factor = q @ k, q_scale * k_scale / math.sqrt(head)
        if self.extra is not None:  # scores in their own unit, so that the rule sees the corrected ones
            scores, factor = scores * (q_scale * k_scale) + self.extra(x, source), 1 / math.sqrt(head)
        p, p_scale = self.rule(scores, factor, mask)
        y = (p @ v) * v_scale
        if self.value is not None:
            y = y + p @ self.value(source).unsqueeze(1)
        y = y * (keys**-0.5) if p_scale is None else y * p_scale
        return self.proj(y.transpose(1, 2).reshape(x.shape))


def score_entropy(attention: BinaryAttention, x: Tensor, mask: Tensor | None = None) -> float:
    """Entropy in bits of the share of keys read, P(level > 0): 1 at most, 0 when all or none are."""
    seen: list[Tensor] = []
    handle = attention.rule.register_forward_hook(lambda _m, _i, out: seen.append(out[0]))
    with torch.no_grad():
        attention(x, mask)
    handle.remove()
    share = float((seen[0] > 0).double().mean())
    return 0.0 if share in (0.0, 1.0) else -share * math.log2(share) - (1 - share) * math.log2(1 - share)
