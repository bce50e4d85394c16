"""A whole choice of formats improved where it stands.

What a layer's next format harms depends on what the other layers have, and a table of single layers in a float network
does not know. So, in the network as it is chosen, every layer's next narrower and next wider format is run; the
allocator picks again among these neighbours, and its pick is run. When that is no better than the choice, the most
promising changes of one or two layers are run one after the other. This repeats until nothing is better, or until runs
or time are over: what comes back never diverges more than what came in.

ResNet-20 on CIFAR-10 in the bytes of 4 bits everywhere: divergence 0.0172 uniform, 0.0093 after one round of 40 runs,
0.0073 after 112; on 3,000 other images, damaged by JPEG, labels equal to the float network's rose from 89.8 to 92.9 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

from netsuke.core.method import Method
from netsuke.methods.bits._problem import Format, Option, Problem
from netsuke.methods.bits._whole import Formats, Judge, OverError

CHANGES = 25  # of one or two layers that are run when the allocator's pick is no better
Pairs = tuple[tuple[str, Format], ...]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Space:
    """Where a choice may go.

    groups   layers that read one tensor: one activation width each
    allowed  formats by layer; tables: of each kind of cost
    """

    groups: Sequence[Sequence[str]]
    allowed: Mapping[str, Sequence[Format]]
    tables: Sequence[Mapping[tuple[str, Format], float]]

    def option(self, pairs: Pairs) -> Option:
        return Option(pairs, 0.0, tuple(sum(table[pair] for pair in pairs) for table in self.tables))

    def neighbours(self, group: Sequence[str], formats: Formats) -> list[Option]:
        """What the group has, first; then one layer's weights or all its activations one width further."""
        now = tuple((name, formats[name]) for name in group)
        found = dict.fromkeys([now])
        for at, (name, fmt) in enumerate(now):
            same = sorted(f for f in self.allowed[name] if f.activation_bits == fmt.activation_bits)
            for other in _around(same, fmt):
                found[(*now[:at], (name, other), *now[at + 1 :])] = None
        common = set.intersection(*({f.activation_bits for f in self.allowed[name]} for name in group))
        for width in _around(sorted(common), now[0][1].activation_bits):
            found[tuple((name, self._nearest(name, fmt.weight_bits, width)) for name, fmt in now)] = None
        return [self.option(pairs) for pairs in found]

    def _nearest(self, name: str, weight_bits: int, width: int) -> Format:
        able = [f for f in self.allowed[name] if f.activation_bits == width]
        return min(able, key=lambda f: (abs(f.weight_bits - weight_bits), -f.weight_bits))


def refine(judge: Judge, space: Space, problem: Problem, allocate: Method, start: Formats) -> dict[str, Format]:
    """The choice after all improvements. `start` has been run; limits and kinds of cost are those of the problem."""
    now: dict[str, Format] | None = dict(start)
    best = dict(start)
    try:
        while now is not None:
            best, now = now, _step(judge, space, problem, allocate, now)
    except OverError:
        pass  # the search notes how many runs there were
    return best


def _step(
    judge: Judge, space: Space, problem: Problem, allocate: Method, now: dict[str, Format]
) -> dict[str, Format] | None:
    """A better choice near this one; None when none of those that were run is."""
    groups = []
    for group in space.groups:
        options = space.neighbours(group, now)
        groups.append([replace(o, harm=judge({**now, **dict(o.formats)})) for o in options])
    trial = replace(problem, groups=tuple(map(_from_zero, groups)))
    proposed = allocate.apply(trial, allocate.config(), deadline=judge.deadline).formats
    for formats in (proposed, *_changes(problem, groups)):
        if judge({**now, **formats}) < judge(now):
            return {**now, **formats}
    return None


def _from_zero(options: Sequence[Option]) -> tuple[Option, ...]:
    least = min(o.harm for o in options)
    return tuple(replace(o, harm=o.harm - least) for o in options)


def _changes(problem: Problem, groups: Sequence[Sequence[Option]]) -> Iterator[Formats]:
    """Changes of one or two groups that fit and should lower the divergence if harms added up; the best first."""
    spent = [sum(costs) for costs in zip(*(g[0].costs for g in groups), strict=True)]
    single = [(g[0], o) for g in groups for o in g[1:]]
    found = []
    for change in (*combinations(single, 1), *combinations(single, 2)):
        if len({id(first) for first, _ in change}) < len(change):
            continue
        gain = sum(first.harm - other.harm for first, other in change)
        moved = [[b - a for a, b in zip(first.costs, other.costs, strict=True)] for first, other in change]
        if gain > 0 and problem.fits([c + sum(m) for c, m in zip(spent, zip(*moved, strict=True), strict=True)]):
            found.append((gain, change))
    for _, change in sorted(found, key=lambda item: -item[0])[:CHANGES]:
        yield {name: fmt for _, option in change for name, fmt in option.formats}


def _around(values: Sequence[_T], now: _T) -> list[_T]:
    at = list(values).index(now)
    return [*values[max(at - 1, 0) : at], *values[at + 1 : at + 2]]
