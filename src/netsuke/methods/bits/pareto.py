"""Pareto sweep: the whole frontier of harm against cost, of which a budget picks one point.

Paper: Cai et al., "ZeroQ: A Novel Zero Shot Quantization Framework", 2020 (arXiv 2001.00281), section 3.2.
Idea: sensitivities of layers are independent, so the frontier of k + 1 layers follows from that of k layers: a point
that another one beats can be dropped at once.
Equations: F_0 = {(0, 0)}; F_g = undominated({(c + c_gi, h + h_gi) : (c, h) in F_(g-1), option i of group g}); the
answer is the point of least harm with c <= limit.
Differences: the frontier is thinned to `points` cells of equal cost when it grows beyond that (each cell keeps its
least harm), which bounds time and memory; the paper does not say what it does.
Cost: groups x options x points. Limits: one kind of cost; a thinned frontier can miss the optimum by the cost of a
cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.core.errors import Problem as Trouble
from netsuke.core.errors import UsageError
from netsuke.core.method import Method, register
from netsuke.methods.bits._problem import Problem, Solution


@dataclass(frozen=True)
class Pareto:
    """points  most points kept of the frontier."""

    points: int = 20000

    def __post_init__(self) -> None:
        if not 100 <= self.points <= 10**6:
            raise UsageError(Trouble("points", "bits/pareto", str(self.points), "100 to 1,000,000"))


def apply(problem: Problem, config: Pareto = Pareto(), deadline: float | None = None) -> Solution:  # noqa: ARG001
    """The frontier's point of least harm within the limit; UsageError when there is more than one kind of cost."""
    if len(problem.limits) != 1:
        got, hint = ", ".join(problem.kinds), "allocator=integer_program"
        raise UsageError(Trouble("the Pareto sweep takes one budget", "bits/pareto", got, hint=hint))
    problem.check()
    rest = np.array([min(o.costs[0] for o in group) for group in problem.groups][::-1]).cumsum()[::-1]
    costs, harms = np.zeros(1), np.zeros(1)
    parents, picks = [], []
    for g, group in enumerate(problem.groups):
        after = float(rest[g + 1]) if g + 1 < len(rest) else 0.0
        all_costs = np.concatenate([costs + o.costs[0] for o in group])
        all_harms = np.concatenate([harms + o.harm for o in group])
        keep = _frontier(all_costs, all_harms, problem.limits[0] - after, config.points)
        parents.append(keep % costs.size)
        picks.append(keep // costs.size)
        costs, harms = all_costs[keep], all_harms[keep]
    at, chosen = int(np.argmin(harms)), []
    for back, pick in zip(reversed(parents), reversed(picks), strict=True):
        chosen.append(int(pick[at]))
        at = int(back[at])
    return problem.solution(chosen[::-1])


def _frontier(costs: np.ndarray, harms: np.ndarray, limit: float, points: int) -> np.ndarray:
    """Indices of the undominated points within the limit, cheapest first, at most `points` of them."""
    order = np.lexsort((harms, costs))
    order = order[costs[order] <= limit * (1 + 1e-12)]
    lowest = np.minimum.accumulate(harms[order])
    first = np.concatenate(([True], lowest[1:] < lowest[:-1]))
    order = order[first & (harms[order] == lowest)]
    if order.size <= points:
        return np.asarray(order)
    low, high = costs[order[0]], costs[order[-1]]
    cells = np.floor((costs[order] - low) / (high - low) * (points - 1)).astype(np.int64)
    last = np.append(cells[1:] != cells[:-1], True)  # harm falls along the frontier: the last of a cell has the least
    last[0] = True  # the cheapest point stays, or a limit near it could not be met
    return np.asarray(order[last])


METHOD = register(
    Method(
        name="bits/pareto",
        purpose="choose formats from the frontier of total harm against one cost",
        paper="zeroq",
        config=Pareto,
        apply=apply,
        cost="groups x options x 20,000 additions",
        tags=("allocator",),
    )
)
