"""Whole choices of formats, judged by what they do to the network together.

Harms of single layers add up only while they are small: layers of 2 bits that each harm little can ruin a network
together, and no sum says so. So the allocator's choice, its choices without the narrowest weights, and the widest
uniform format within the limits are run as they are, and `_refine` goes on from the one whose predictions diverge
least. A choice is run with every layer quantized and after the weight steps that learn nothing (corrected biases).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from netsuke.core.errors import UsageError
from netsuke.core.method import Method
from netsuke.methods.bits._probe import divergence
from netsuke.methods.bits._problem import Format, Problem, Solution
from netsuke.methods.quantize import _alone, sensitivity
from netsuke.methods.quantize._context import Context, Finish

Uniform = tuple[Format, float, tuple[float, ...]]
Formats = Mapping[str, Format]
WORK = 2e13  # MACs of all runs that judge choices: about two minutes on two cores
FEWEST = 32  # samples that still tell one choice from another


class OverError(Exception):
    """No time or no runs are left."""


class Judge:
    """Divergence of the whole quantized network's predictions; each choice is run once.

    finish    writes the network as its plan says
    samples   calibration samples of a run; fewer where `tries` runs over them exceed `WORK`
    tries     choices that are run at most; deadline: a time.monotonic() after which nothing more is run
    """

    def __init__(self, context: Context, finish: Finish, samples: int, tries: int, deadline: float | None) -> None:
        assert context.calib is not None
        self.context, self.finish, self.tries, self.deadline = context, finish, tries, deadline
        macs = sum(row.macs or 0 for row in context.plan.rows)
        most = int(WORK / (macs * tries)) if macs else samples
        self.samples = min(samples, context.calib.count, max(most, FEWEST))
        self.taps = _alone.outputs(context.model)
        self.exact = _alone.run(context, context.model, self.taps, self.samples)
        self.known: dict[tuple[tuple[str, Format], ...], float] = {}

    def __call__(self, formats: Formats) -> float:
        """The divergence of that choice; OverError when it would be one run too many."""
        key = tuple(sorted(formats.items()))
        if key not in self.known:
            if len(self.known) >= self.tries or (self.deadline is not None and time.monotonic() > self.deadline):
                raise OverError
            self.context.progress("bit search: whole choices", len(self.known), self.tries)
            found = _alone.run(self.context, self._network(formats), self.taps, self.samples)
            self.known[key] = divergence(self.exact, found)
        return self.known[key]

    def warm(self, choices: Iterable[Formats]) -> None:
        """Correct the biases of these choices: what it finds serves every choice with a layer of the same format."""
        for formats in choices:
            if self.deadline is None or time.monotonic() < self.deadline:
                self._network(formats)

    def least(self, solutions: Mapping[str, Solution]) -> tuple[str, dict[str, float]]:
        """The name of the solution that diverges least (the first of equals), and the divergences that were found."""
        found: dict[str, float] = {}
        try:
            for name, solution in solutions.items():
                found[name] = self(solution.formats)
        except OverError:
            pass
        return min(found, key=found.__getitem__, default=next(iter(solutions))), found

    def _network(self, formats: Formats) -> ir.Model:
        plan = copy.deepcopy(self.context.plan)
        for name, fmt in formats.items():
            plan[name].weight_bits, plan[name].activation_bits = fmt.weight_bits, fmt.activation_bits
        return sensitivity.with_plan(self.context, plan, self.finish)


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
