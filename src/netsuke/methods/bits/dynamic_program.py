"""Dynamic program: the least harm for every amount spent, group by group.

Paper: Hubara et al., 2020 (arXiv 2006.10518), section 4 states the problem; the method is the textbook one for the
multiple-choice knapsack (Dudzinski and Walukiewicz, "Exact methods for the knapsack problem and its generalizations",
European Journal of Operational Research 28, 1987).
Idea: the best choice for the first g groups that spends at most s extends a best choice for the first g - 1.
Equations: H_g(s) = min_i H_(g-1)(s - c_gi) + h_gi, with costs above the group's cheapest option counted in cells of
(limit - sum of cheapest) / cells, rounded up, so that a limit is never broken.
Differences: costs are cut into cells, which makes the cost of the program independent of their size.
Cost: groups x options x cells additions. Limits: one kind of cost; rounding up can leave groups / cells of the room
unused, which single steps of least harm per byte fill.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.core.errors import Problem as Trouble
from netsuke.core.errors import UsageError
from netsuke.core.method import Method, register
from netsuke.methods.bits._problem import Problem, Solution, climb


@dataclass(frozen=True)
class DynamicProgram:
    """cells  resolution of the budget."""

    cells: int = 20000

    def __post_init__(self) -> None:
        if not 100 <= self.cells <= 10**6:
            raise UsageError(Trouble("cells", "bits/dynamic_program", str(self.cells), "100 to 1,000,000"))


def apply(problem: Problem, config: DynamicProgram = DynamicProgram(), deadline: float | None = None) -> Solution:  # noqa: ARG001
    """The best solution at the resolution of the cells; UsageError when there is more than one kind of cost."""
    if len(problem.limits) != 1:
        got, hint = ", ".join(problem.kinds), "allocator=integer_program"
        raise UsageError(Trouble("the dynamic program takes one budget", "bits/dynamic_program", got, hint=hint))
    problem.check()
    floor = [min(o.costs[0] for o in group) for group in problem.groups]
    room = max(problem.limits[0] - sum(floor), 0.0)
    cell = room / config.cells
    best = np.zeros(config.cells + 1)
    choices = []
    for group, least in zip(problem.groups, floor, strict=True):
        table = np.full((len(group), config.cells + 1), np.inf)
        for i, option in enumerate(group):
            extra = option.costs[0] - least
            steps = 0 if extra <= 0 else int(np.ceil(extra / cell - 1e-9)) if cell > 0 else config.cells + 1
            if steps <= config.cells:
                table[i, steps:] = best[: config.cells + 1 - steps] + option.harm
        choices.append((table.argmin(axis=0), group, least))
        best = table.min(axis=0)
    picks, left = [], config.cells
    for table_choice, group, least in reversed(choices):
        i = int(table_choice[left])
        picks.append(i)
        extra = group[i].costs[0] - least
        left -= 0 if extra <= 0 else int(np.ceil(extra / cell - 1e-9))
    return problem.solution(climb(problem, picks[::-1]))  # room that rounding up left unused


METHOD = register(
    Method(
        name="bits/dynamic_program",
        purpose="choose formats of least total harm within one limit, by a table over the budget",
        paper="adaquant-ip",
        config=DynamicProgram,
        apply=apply,
        cost="groups x options x 20,000 additions",
        tags=("allocator",),
    )
)
