"""The choice of bits as a multiple-choice knapsack: one option per group, least harm within every limit.

A group is a set of layers that share a tensor, and therefore an activation width; most groups are one layer. An option
gives each layer of the group a format. Options that another option of the group beats in harm and in every cost are
dropped: harms and costs are sums over groups, so no best choice needs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from netsuke.core.errors import Problem as Trouble
from netsuke.core.errors import UsageError
from netsuke.core.recipe import BITS

_FORMAT = re.compile(r"w(\d)a(\d)")


@dataclass(frozen=True, order=True)
class Format:
    """Bits of a layer's weights and of the activations it reads."""

    weight_bits: int
    activation_bits: int

    def __str__(self) -> str:
        return f"w{self.weight_bits}a{self.activation_bits}"

    @classmethod
    def parse_all(cls, text: str, where: str = "formats") -> tuple[Format, ...]:
        """ "w4a8+w8a8" as formats, sorted; UsageError lists every part that is none."""
        parts = [part.strip() for part in text.split("+")]
        found, problems = [], []
        for part in parts:
            match = _FORMAT.fullmatch(part)
            widths = [int(w) for w in match.groups()] if match else []
            if not widths or any(w not in BITS for w in widths):
                problems.append(
                    Trouble("not a format", where, repr(part), "wXaY with X and Y from 2 to 8, joined by +")
                )
            else:
                found.append(cls(*widths))
        if problems:
            raise UsageError(problems)
        return tuple(sorted(set(found)))


@dataclass(frozen=True)
class Option:
    """Formats by layer, their harm, and their cost of each kind."""

    formats: tuple[tuple[str, Format], ...]
    harm: float
    costs: tuple[float, ...]


@dataclass(frozen=True)
class Problem:
    """groups: options by decision; limits: the most that may be spent of each kind of cost, named by `kinds`."""

    groups: tuple[tuple[Option, ...], ...]
    limits: tuple[float, ...]
    kinds: tuple[str, ...]

    def cheapest(self, kind: int) -> float:
        """The least that can be spent of one kind."""
        return sum(min(o.costs[kind] for o in options) for options in self.groups)

    def dearest(self, kind: int) -> float:
        """What the harmless choice spends of one kind: the option of least harm in every group."""
        return sum(min(options, key=lambda o: (o.harm, o.costs)).costs[kind] for options in self.groups)

    def check(self) -> None:
        """UsageError when a limit is below what the cheapest formats cost."""
        short = [(k, self.cheapest(i), limit) for i, (k, limit) in enumerate(zip(self.kinds, self.limits, strict=True))]
        problems = [
            Trouble("the budget cannot be met", kind, f"{limit:,.6g}", f"at least {least:,.6g}", "narrower formats")
            for kind, least, limit in short
            if least > limit * (1 + 1e-12)
        ]
        if problems:
            raise UsageError(problems)

    def solution(self, picks: Sequence[int]) -> Solution:
        """Of one option index per group."""
        chosen = [options[i] for options, i in zip(self.groups, picks, strict=True)]
        costs = tuple(sum(o.costs[k] for o in chosen) for k in range(len(self.kinds)))
        formats = {name: fmt for o in chosen for name, fmt in o.formats}
        return Solution(formats, sum(o.harm for o in chosen), costs)

    def fits(self, costs: Sequence[float]) -> bool:
        """True when no limit is broken (to rounding)."""
        return all(c <= limit * (1 + 1e-9) for c, limit in zip(costs, self.limits, strict=True))


@dataclass(frozen=True)
class Solution:
    """Format by layer, and the sums of harm and costs. `complete` is False when the search ended early."""

    formats: Mapping[str, Format]
    harm: float
    costs: tuple[float, ...]
    complete: bool = True


def undominated(options: Iterable[Option]) -> tuple[Option, ...]:
    """Options that no other beats (or equals) in harm and every cost, cheapest first; the first of equals stays."""
    ordered = sorted(options, key=lambda o: (o.costs, o.harm))
    kept: list[Option] = []
    for option in ordered:
        if not any(_beats(other, option) for other in kept):
            kept.append(option)
    return tuple(kept)


def _beats(a: Option, b: Option) -> bool:
    return a.harm <= b.harm and all(x <= y for x, y in zip(a.costs, b.costs, strict=True))


def group_options(
    layers: Sequence[str], formats: Mapping[str, Sequence[Format]], harm: Mapping[tuple[str, Format], float],
    costs: Sequence[Mapping[tuple[str, Format], float]],
) -> tuple[Option, ...]:  # fmt: skip
    """All useful joint choices of layers that share an activation width."""
    found: list[Option] = []
    shared = set.intersection(*({f.activation_bits for f in formats[name]} for name in layers))
    for width in sorted(shared):
        partial: tuple[Option, ...] = (Option((), 0.0, (0.0,) * len(costs)),)
        for name in layers:
            single = [f for f in formats[name] if f.activation_bits == width]
            partial = undominated(
                Option(
                    (*o.formats, (name, f)),
                    o.harm + harm[name, f],
                    tuple(c + table[name, f] for c, table in zip(o.costs, costs, strict=True)),
                )
                for o in partial
                for f in single
            )
        found += partial
    if not found:
        raise UsageError(Trouble("layers read one tensor and have no activation width in common", ", ".join(layers)))
    return undominated(found)


def greedy(problem: Problem) -> Solution:
    """From the cheapest options upward, always the step with the most harm removed per share of the limits spent.

    A feasible start for the other allocators, and what remains when they are out of time.
    """
    problem.check()
    picks = [min(range(len(g)), key=lambda i, g=g: (g[i].costs, g[i].harm)) for g in problem.groups]  # type: ignore[misc]
    if not problem.fits(problem.solution(picks).costs):
        picks = _repair(problem, picks)
    return problem.solution(climb(problem, picks))


def climb(problem: Problem, start: Sequence[int]) -> list[int]:
    """From picks within the limits, steps that remove harm and keep within them, until there is none."""
    picks = list(start)
    limits = np.maximum(np.asarray(problem.limits), 1e-300)
    spent = np.array(problem.solution(picks).costs)
    while True:
        best, gain = None, 0.0
        for g, options in enumerate(problem.groups):
            now = options[picks[g]]
            for i, option in enumerate(options):
                extra = np.array(option.costs) - np.array(now.costs)
                if option.harm >= now.harm or not problem.fits((spent + extra).tolist()):
                    continue
                share = float(np.maximum(extra / limits, 0).sum())
                rate = (now.harm - option.harm) / max(share, 1e-12)
                if rate > gain:
                    best, gain = (g, i), rate
        if best is None:
            return picks
        g, i = best
        spent += np.array(problem.groups[g][i].costs) - np.array(problem.groups[g][picks[g]].costs)
        picks[g] = i


def _repair(problem: Problem, picks: list[int]) -> list[int]:
    """With several limits the cheapest options by the first need not fit: minimise the worst overspending."""
    limits = np.maximum(np.asarray(problem.limits), 1e-300)
    for _ in range(4 * len(picks)):
        spent = np.array(problem.solution(picks).costs)
        if problem.fits(spent.tolist()):
            return picks
        moves = []
        for g, options in enumerate(problem.groups):
            for i, option in enumerate(options):
                after = spent + np.array(option.costs) - np.array(options[picks[g]].costs)
                moves.append((float((after / limits).max()), g, i))
        _, g, i = min(moves)
        picks[g] = i
    raise UsageError(Trouble("no choice of formats meets all budgets together", ", ".join(problem.kinds)))


def spread(low: float, high: float, points: int) -> list[float]:
    """Limits from low to high, evenly; one when they coincide."""
    values = list(np.linspace(low, high, points)) if high > low else [high]
    return [b for a, b in pairwise([float("-inf"), *values]) if b > a]
