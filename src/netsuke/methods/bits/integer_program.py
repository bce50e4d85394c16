"""Integer program: the least total harm within the limits, solved exactly.

Paper: Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", 2021 (arXiv 2011.10680), section 3.4; Hubara et al.,
"Improving Post Training Neural Quantization: Layer-wise Calibration and Integer Programming", 2020 (arXiv 2006.10518),
section 4.
Idea: harms and costs of layers add up, so the best assignment is a small 0/1 program.
Equations: minimise sum_g sum_i h_gi x_gi with sum_i x_gi = 1 for every group g, sum_g sum_i c^k_gi x_gi <= limit_k for
every kind of cost k, x binary.
Differences: HAWQ-V3 chooses between 4 and 8 bits for weights and activations together and uses PuLP; here any formats,
several limits at once, groups that share a tensor, and HiGHS (scipy.optimize.milp). Harms are divided by the largest.
Cost: milliseconds for tens of layers. Limits: as good as the assumption that harms add up.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from netsuke.core.method import Method, register
from netsuke.methods.bits._problem import Problem, Solution, greedy


@dataclass(frozen=True)
class IntegerProgram:
    """gap  relative distance from the optimum at which the solver may stop."""

    gap: float = 1e-4


def apply(problem: Problem, config: IntegerProgram = IntegerProgram(), deadline: float | None = None) -> Solution:
    """The best solution, or at the deadline (time.monotonic()) the best found so far, marked incomplete."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    start = greedy(problem)
    options = [(g, o) for g, group in enumerate(problem.groups) for o in group]
    count, groups = len(options), len(problem.groups)
    scale = max((o.harm for _, o in options), default=0.0) or 1.0
    one = csr_array((np.ones(count), ([g for g, _ in options], range(count))), shape=(groups, count))
    limits = np.maximum(np.asarray(problem.limits), 1e-300)
    spend = np.array([o.costs for _, o in options]).T / limits[:, None]
    seconds = None if deadline is None else max(deadline - time.monotonic(), 0.01)
    result = milp(
        np.array([o.harm / scale for _, o in options]),
        integrality=np.ones(count),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one, 1, 1), LinearConstraint(spend, -np.inf, 1.0)],
        options={"mip_rel_gap": config.gap, **({} if seconds is None else {"time_limit": seconds})},
    )
    if result.x is None:
        return Solution(start.formats, start.harm, start.costs, complete=False)
    found = problem.solution(_picks(problem, result.x))
    if not problem.fits(found.costs) or found.harm > start.harm:
        found = start  # the solver's tolerance let a limit slip, or time ended before it was better
    return Solution(found.formats, found.harm, found.costs, complete=result.status == 0)


def _picks(problem: Problem, x: np.ndarray) -> list[int]:
    ends = np.cumsum([len(group) for group in problem.groups])
    return [int(np.argmax(part)) for part in np.split(x, ends[:-1])]


METHOD = register(
    Method(
        name="bits/integer_program",
        purpose="choose formats of least total harm within every limit, by an exact 0/1 program",
        paper="hawq-v3",
        config=IntegerProgram,
        apply=apply,
        cost="milliseconds for tens of layers",
        tags=("allocator",),
    )
)
