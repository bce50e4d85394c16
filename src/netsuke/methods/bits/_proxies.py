"""Symbolic proxies: small trees over numbers per layer and format, and their evolution.

A proxy is (input, two unary operations) twice, joined by one binary operation; its value per layer and format is
summed over layers. Only its ranking matters, so its sign is chosen on the training table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.float64]  # [layers, formats]
Ints = npt.NDArray[np.int64]
TINY = 1e-12

UNARY: dict[str, Callable[[Table], Table]] = {
    "same": lambda x: x,
    "log": lambda x: np.log(np.abs(x) + TINY),
    "sqrt": lambda x: np.sqrt(np.abs(x)),
    "square": lambda x: x * x,
    "negative": lambda x: -x,
    "reciprocal": lambda x: 1 / (np.where(x < 0, -1, 1) * np.maximum(np.abs(x), TINY)),
    "halved": lambda x: np.exp2(-np.clip(x, -60, 60)),
    "tanh": np.tanh,
    "share": lambda x: x / max(float(np.abs(x).sum()), TINY),
    "rank": lambda x: np.argsort(np.argsort(x, axis=None), axis=None).reshape(x.shape) / x.size,
}
BINARY: dict[str, Callable[[Table, Table], Table]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / (np.where(b < 0, -1, 1) * np.maximum(np.abs(b), TINY)),
    "max": np.maximum,
    "min": np.minimum,
}


@dataclass(frozen=True)
class Tree:
    """left and right: (input, inner unary, outer unary); joined by a binary operation; sign: of the sum over layers."""

    left: tuple[str, str, str]
    right: tuple[str, str, str]
    join: str
    sign: float = 1.0

    def __str__(self) -> str:
        a, b = (f"{outer}({inner}({name}))" for name, inner, outer in (self.left, self.right))
        return f"{'' if self.sign > 0 else '-'}sum[{a} {self.join} {b}]"

    def values(self, inputs: Mapping[str, Table]) -> Table:
        """Its value per layer and format, with its sign."""
        with np.errstate(all="ignore"):
            sides = [UNARY[outer](UNARY[inner](inputs[name])) for name, inner, outer in (self.left, self.right)]
            return np.asarray(self.sign * BINARY[self.join](*sides), np.float64)


def scores(values: Table, configs: Ints) -> npt.NDArray[np.float64]:
    """Sums over layers; configs [n, layers] are indices of formats."""
    return np.asarray(values[np.arange(values.shape[0]), configs].sum(axis=1), np.float64)


def rank_correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Spearman's, ties at their mean rank; 0 where one of them is constant or not finite."""
    from scipy.stats import rankdata

    if not (np.isfinite(a).all() and np.isfinite(b).all()) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


@dataclass(frozen=True)
class Found:
    """A tree, and its rank correlation with the quality of the table it was evolved on."""

    tree: Tree
    fitness: float


def evolve(
    inputs: Mapping[str, Table], configs: Ints, quality: npt.NDArray[np.float64], rng: np.random.Generator,
    *, population: int = 40, rounds: int = 600, sample: int = 6, seeds: tuple[Tree, ...] = (),
) -> Found:  # fmt: skip
    """The best tree for these configurations: tournaments, crossover and mutation, the oldest leave.

    A tree whose scores are constant or not finite, or equal to those of a living one, is replaced before it counts (the
    paper's compatibility screening and diversity). seeds: trees to start from.
    """
    living: list[tuple[Found, bytes]] = []

    def add(tree: Tree) -> bool:
        found, key = _rated(tree, inputs, configs, quality)
        if found.fitness <= 0 or any(key == other for _, other in living):
            return False
        living.append((found, key))
        return True

    for tree in seeds:
        add(tree)
    tries = 0
    while len(living) < population and tries < 50 * population:
        tries += 1
        add(_random(list(inputs), rng))
    best = max((f for f, _ in living), key=lambda f: f.fitness)
    for _ in range(rounds):
        picked = [living[int(i)][0] for i in rng.choice(len(living), min(sample, len(living)), replace=False)]
        picked.sort(key=lambda f: -f.fitness)
        child = _crossed(picked[0].tree, picked[min(1, len(picked) - 1)].tree, rng)
        if rng.random() < 0.8:
            child = _mutated(child, list(inputs), rng)
        if add(child):
            best = max(best, living[-1][0], key=lambda f: f.fitness)
            if len(living) > population:
                living.pop(0)
    return best


def _rated(
    tree: Tree, inputs: Mapping[str, Table], configs: Ints, quality: npt.NDArray[np.float64]
) -> tuple[Found, bytes]:
    """The tree with the sign that makes higher scores better, its fitness, and a key of its ranking."""
    raw = scores(replace(tree, sign=1.0).values(inputs), configs)
    correlation = rank_correlation(raw, quality)
    sign = -1.0 if correlation < 0 else 1.0
    order = np.argsort(sign * raw, kind="stable") if np.isfinite(raw).all() else np.zeros(0, np.int64)
    return Found(replace(tree, sign=sign), abs(correlation)), order.tobytes()


def _branch(names: list[str], rng: np.random.Generator) -> tuple[str, str, str]:
    unary = list(UNARY)
    return (
        names[int(rng.integers(len(names)))], unary[int(rng.integers(len(unary)))],
        unary[int(rng.integers(len(unary)))],
    )  # fmt: skip


def _random(names: list[str], rng: np.random.Generator) -> Tree:
    return Tree(_branch(names, rng), _branch(names, rng), list(BINARY)[int(rng.integers(len(BINARY)))])


def _crossed(a: Tree, b: Tree, rng: np.random.Generator) -> Tree:
    """A branch of either, the operation of one of them."""
    return Tree(a.left, b.right if rng.random() < 0.5 else a.right, (a, b)[int(rng.integers(2))].join)


def _mutated(tree: Tree, names: list[str], rng: np.random.Generator) -> Tree:
    """One of its seven parts anew."""
    part = int(rng.integers(7))
    if part == 6:
        return replace(tree, join=list(BINARY)[int(rng.integers(len(BINARY)))])
    side = list(tree.left if part < 3 else tree.right)
    side[part % 3] = _branch(names, rng)[part % 3]
    made = (side[0], side[1], side[2])
    return replace(tree, left=made) if part < 3 else replace(tree, right=made)
