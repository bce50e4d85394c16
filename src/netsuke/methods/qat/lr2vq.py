"""LR2VQ: vector quantization whose entries have a learned low rank, trained end to end.

Paper: "Learning Low-Rank Representations for Model Compression", 2022 (arXiv 2211.11397).
Idea: the length m of the vectors and the number k of entries decide how small a layer gets; a third number, the
dimension d of the space in which vectors are clustered, decides how accurate it stays, and costs nothing.
Equations: W as vectors of m weights, [n, m]; w_i ~ c_a(i) B with C [k, d], B [d, m], d <= m. First B from the singular
vectors of the weights, a(i) by k-means on the projected vectors; then C and B are trained by the task loss.
Stored: n log2(k) bits of indices and k m bytes of entries (C B as whole codes), whatever d is.
Differences: known from its abstract; mechanics are a reconstruction. Entries are rounded to the 8-bit grid with one
fixed scale per output channel, so that the integer kernels run them; C B is stored multiplied out. Indices are those of
the first fit. The first and the last layer, and layers that make no whole or too few vectors, keep 8-bit weights.
Cost: a training run. Limits: k <= 256; a batch norm whose gain turns negative mirrors its channel's vectors, which may
double the entries stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.core.seeds import generator
from netsuke.formats.codebook import LENGTHS, book_bytes
from netsuke.methods.codebook._codebook import kmeans
from netsuke.methods.qat._rules import Rules
from netsuke.nn.quantizer_spec import QuantSpec

MEMBERS = 4  # vectors an entry stands for, at least; below, a layer keeps plain codes


@dataclass(frozen=True)
class Lr2vq:
    """length: weights in a vector (m); entries: of a layer's table (k); inner: dimension of the clustered space (d)."""

    length: int = 4
    entries: int = 64
    inner: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        if self.length not in LENGTHS:
            problems.append(Problem("length", "qat/lr2vq", str(self.length), ", ".join(map(str, LENGTHS))))
        if not 2 <= self.entries <= 256:
            problems.append(Problem("entries", "qat/lr2vq", str(self.entries), "2 to 256"))
        if not 1 <= self.inner <= self.length:
            problems.append(Problem("inner", "qat/lr2vq", str(self.inner), f"1 to length, {self.length}"))
        if problems:
            raise UsageError(problems)


def fits(count: int, config: Lr2vq) -> bool:
    """True for a layer of `count` weights that becomes a table; others keep 8-bit codes."""
    return count % config.length == 0 and count // config.length >= MEMBERS * config.entries


def predicted_bytes(count: int, config: Lr2vq) -> int:
    """Bytes of a layer's weights in the file: k m bytes of entries and log2(k) bits for every m weights."""
    return book_bytes(count, config.entries, config.length, 1) if fits(count, config) else count


def apply(config: Lr2vq = Lr2vq()) -> Rules:
    """Weights as vectors where `weight_bits` is below 8, learned steps for activations."""
    from netsuke.nn.quantizer import Quantizer
    from netsuke.nn.quantizer_vectors import LowRankVectors

    def weight(bits: int) -> QuantSpec:
        return QuantSpec(
            role="weight", bits=bits, signed=True, granularity="channel", statistic="maxabs", schedule="fixed"
        )

    def activation(bits: int, nonnegative: bool) -> QuantSpec:
        return QuantSpec(bits=bits, affine=not nonnegative, statistic="mse", schedule="learned", gradient="lsq")

    def cluster(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        book = kmeans(vectors, k, generator(config.seed, "lr2vq", str(vectors.shape)))
        return book.entries, book.indices

    def quantizer(spec: QuantSpec, shape: Sequence[int]) -> Any:
        whole = replace(spec, bits=8)
        if spec.bits == 8 or not fits(int(np.prod(shape)), config):
            return Quantizer(whole, shape)
        return LowRankVectors(
            whole, shape, length=config.length, entries=config.entries, inner=config.inner, cluster=cluster
        )

    return Rules(weight, activation, quantizer=quantizer)


METHOD = register(
    Method(
        name="qat/lr2vq",
        purpose="train weights that are indices into a table of vectors of low rank",
        paper="lr2vq",
        config=Lr2vq,
        apply=apply,
        needs=("data", "gradients", "training"),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear", "qadd", "qmul", "qavgpool", "qmean", "lut"),
        cost="a training run of the network",
        tags=("rules",),
    )
)
