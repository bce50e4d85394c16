"""MST-compression: output channels along a minimum spanning tree of the Hamming distances of binary filters.

Paper: MST-compression: Compressing and Accelerating Binary Neural Networks with Minimum Spanning Tree, Vo et al. 2023
(ledger row mst-compression).
Idea: two binary filters that differ in d of K positions give sums that differ by a function of those d alone, so a
channel is computed from a neighbour; a spanning tree of least total distance needs the fewest operations, and a loss on
its length makes training shrink it.
Equations: filters w_1 .. w_N in {0, 1}^K, P_i the number of positions where patch and filter agree, D the positions
where i and its parent j differ, d = |D|: P_i = P_j - d + 2 * (agreements on D). Operations K + sum of d against N * K.
Loss weight * sum over layers of (K + sum over edges of d) / (N * K), d = (K - sum_k s_i s_j) / 2 with signs s
straight through, the tree rebuilt every `every` calls.
Differences: the paper's hardware is wired; here the kernel works on words of 64 positions and looks at those in which
two filters differ, so the runtime takes it only where it was measured faster (`netsuke.measure.tuning`, way "tree").
The paper's weight, update period and control of depth are not known here; the root is the tree's centre.
Cost: N^2 K / 64 operations for a tree, one gather of the latent weights for the loss. Limits: unrelated filters
differ in half of their positions, so any binary layer seems to save half: compare with 0.46 to 0.48, not with 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Config:
    """weight of the tree length in the loss; every: calls of the penalty between two trees."""

    weight: float = 1.0
    every: int = 20


@dataclass(frozen=True)
class Tree:
    """Parents by channel (-1: the root), distances to them, channels in an order that has parents first, and depth."""

    parents: Array
    distances: Array
    order: Array
    depth: int
    positions: int

    @property
    def share(self) -> float:
        """Operations of the tree over those of every filter alone."""
        return float(self.positions + self.distances.sum()) / (len(self.parents) * self.positions)

    @property
    def storage_bits(self) -> int:
        """Bits of the root and of the lists of differing positions, each with the number of bits that counts K."""
        index = max(1, int(self.positions - 1).bit_length())
        return int(self.positions + self.distances.sum() * index)


def distances(signs: Array) -> Array:
    """Hamming distances of N filters, bool [N, K] -> int64 [N, N]."""
    s = np.where(np.asarray(signs, bool), 1.0, -1.0).astype(np.float32)
    if s.ndim != 2 or s.shape[1] >= 2**24:
        raise UsageError(Problem("signs of filters", got=str(s.shape), allowed="[N, K], K below 2^24"))
    return np.asarray((s.shape[1] - np.rint(s @ s.T).astype(np.int64)) // 2)


def spanning_tree(signs: Array) -> Tree:
    """The minimum spanning tree of the filters, bool [N, K], rooted at its centre (Prim; ties: lower channel)."""
    d = distances(signs)
    count = len(d)
    best, link = d[0].copy(), np.zeros(count, np.int64)
    inside = np.zeros(count, bool)
    inside[0] = True
    near: list[list[int]] = [[] for _ in range(count)]
    for _ in range(count - 1):
        at = int(np.argmin(np.where(inside, np.iinfo(np.int64).max, best)))
        near[at].append(int(link[at]))
        near[int(link[at])].append(at)
        inside[at] = True
        closer = ~inside & (d[at] < best)
        best[closer], link[closer] = d[at][closer], at
    order, parents, depth = _rooted(near, _centre(near))
    steps = np.array([0 if p < 0 else int(d[c, p]) for c, p in enumerate(parents)], np.int64)
    return Tree(parents, steps, order, depth, int(np.asarray(signs).shape[1]))


def _rooted(near: list[list[int]], root: int) -> tuple[Array, Array, int]:
    """Channels breadth first from the root, their parents, and the depth."""
    parents, levels, order = np.full(len(near), -1, np.int64), np.zeros(len(near), np.int64), [root]
    for channel in order:
        for other in near[channel]:
            if other != parents[channel]:
                parents[other], levels[other] = channel, levels[channel] + 1
                order.append(other)
    return np.array(order), parents, int(levels.max())


def _centre(near: list[list[int]]) -> int:
    """The middle of the longest path: the root with the fewest steps one after the other."""
    far = int(_rooted(near, 0)[0][-1])
    order, parents, depth = _rooted(near, far)
    at = int(order[-1])
    for _ in range(depth // 2):
        at = int(parents[at])
    return at


def counted(signs: Array, patches: Array) -> tuple[Array, int]:
    """Signed sums of patches, bool [M, K], with every filter along the tree: int64 [M, N], and XNORs of one patch.

    Each XNOR is executed one by one: the number is counted, not derived.
    """
    tree = spanning_tree(signs)
    agreements = np.zeros((len(patches), len(tree.parents)), np.int64)
    used = 0
    for channel in tree.order:
        parent = tree.parents[channel]
        where = np.arange(tree.positions) if parent < 0 else np.flatnonzero(signs[channel] != signs[parent])
        agree = (patches[:, where] == signs[channel][where]).sum(1)
        agreements[:, channel] = agree if parent < 0 else agreements[:, parent] - len(where) + 2 * agree
        used += len(where)
    return 2 * agreements - tree.positions, used


@dataclass(frozen=True)
class LayerTree:
    """One layer of a program: filters, positions of one, share of XNORs, depth, bits stored plainly and as a tree."""

    name: str
    filters: int
    positions: int
    share: float
    depth: int
    plain_bits: int
    tree_bits: int


def report(program: Any) -> list[LayerTree]:
    """The trees of every one-bit layer of one group of a compiled program."""
    from netsuke.formats import unpack_bits

    rows = []
    for node in program.nodes:
        if node.op not in ("bconv", "blinear") or int(node.attrs.get("groups", 1)) != 1:
            continue
        packed = program.constants[node.inputs[1]]
        signs = unpack_bits(packed, int(node.attrs["channels"])).reshape(len(packed), -1)
        tree = spanning_tree(signs)
        rows.append(LayerTree(node.name, *signs.shape, tree.share, tree.depth, signs.size, tree.storage_bits))
    return rows


def apply(model: nn.Module, config: Config, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Make the layers of the network binary, signs with a scale per channel, in place; train with `penalty`."""
    from netsuke.methods.binarize import bi_real

    del config
    return bi_real.apply(model, bi_real.Config(), keep=keep)


class Penalty:
    """weight * sum over binary layers of the tree's share of operations, differentiable in the latent weights.

    penalty = Penalty(model, config); loss = loss + penalty()
    """

    def __init__(self, model: nn.Module, config: Config) -> None:
        from netsuke.nn.binary_layers import layers

        if config.every < 1 or config.weight < 0:
            raise UsageError(Problem("options of the tree loss", got=str(config), allowed="every >= 1, weight >= 0"))
        self.layers = [layer for _, layer in layers(model)]
        self.config, self.calls = config, 0
        self.trees: list[Tree] = []

    def signs(self) -> list[Tensor]:
        """Signs of each layer's filters, f32 [N, K], gradients straight through inside [-1, 1]."""
        return [layer.weight_terms()[0][0].flatten(1) for layer in self.layers]

    def __call__(self) -> Tensor:
        import torch

        found = self.signs()
        if self.calls % self.config.every == 0:
            self.trees = [spanning_tree((s.detach() > 0).numpy()) for s in found]
        self.calls += 1
        total = found[0].new_zeros(())
        for s, tree in zip(found, self.trees, strict=True):
            child = torch.from_numpy(np.flatnonzero(tree.parents >= 0))
            parent = torch.from_numpy(tree.parents[tree.parents >= 0])
            length = (tree.positions - (s[child] * s[parent]).sum(1)) / 2
            total = total + (tree.positions + length.sum()) / s.numel()
        return total * self.config.weight


METHOD = register(
    Method(
        name="binarize/mst_compression",
        purpose="filters close to each other: a loss on the spanning tree along which channels are computed",
        paper="mst-compression",
        config=Config,
        apply=apply,
        needs=("training",),
        touches=("weights", "activations"),
        exports=("bconv", "blinear"),
        status="trial",
        cost="one spanning tree a layer every 20 steps",
    )
)
