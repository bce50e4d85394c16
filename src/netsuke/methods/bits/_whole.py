"""Whole choices of formats, compared by what they do to the network together.

Harms of single layers add up only while they are small: layers of 2 bits that each harm little can ruin a network
together, and no sum says so. So the allocator's choice, its choices without the narrowest weights, and the widest
uniform format within the limits are run as they are, and the one whose predictions diverge least is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from netsuke.core.errors import UsageError
from netsuke.core.method import Method
from netsuke.methods.bits._probe import Probe, divergence
from netsuke.methods.bits._problem import Format, Problem, Solution

Uniform = tuple[Format, float, tuple[float, ...]]


def choices(
    problem: Problem, allocate: Method, found: Solution, uniform: Sequence[Uniform], deadline: float | None
) -> dict[str, Solution]:
    """Solutions within the limits by a name to read; the allocator's own comes first.

    uniform: format, harm and costs of the formats that every searched layer may have.
    """
    made = {"the allocator's own": found}
    for least in sorted({f.weight_bits for f in found.formats.values()})[1:]:
        groups = tuple(tuple(o for o in group if _narrowest(o.formats) >= least) for group in problem.groups)
        if not all(groups):
            break
        try:
            trial = allocate.apply(replace(problem, groups=groups), allocate.config(), deadline=deadline)
        except UsageError:  # so many bits do not fit into the budget
            break
        made[f"no weights below {least} bits"] = trial
    within = [(costs[0], fmt, harm, costs) for fmt, harm, costs in uniform if problem.fits(costs)]
    if within:
        _, fmt, harm, costs = max(within)
        made[f"{fmt} everywhere"] = Solution(dict.fromkeys(found.formats, fmt), harm, costs)
    return made


def _narrowest(formats: Sequence[tuple[str, Format]]) -> int:
    return min(fmt.weight_bits for _, fmt in formats)


def least_harm(probe: Probe, solutions: Mapping[str, Solution]) -> tuple[str, dict[str, float]]:
    """The name of the solution whose predictions diverge least from the float network's, and all divergences.

    The first of equals wins. The probe's samples decide how long this takes: one run for each different solution.
    """
    known: dict[tuple[tuple[str, Format], ...], float] = {}
    found = {}
    for index, (name, solution) in enumerate(solutions.items()):
        probe.context.progress("bit search: whole choices", index, len(solutions))
        key = tuple(sorted(solution.formats.items()))
        if key not in known:
            known[key] = divergence(probe.exact(), probe.together(solution.formats))
        found[name] = known[key]
    return min(found, key=found.__getitem__), found
