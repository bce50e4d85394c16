"""Bit search: measure what each format harms and costs per layer, then choose within the budget.

Paper: Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", 2021 (arXiv 2011.10680), section 3.4.
Idea: harms and costs of layers add up; so measure them once and let an allocator choose. The same tables give the
whole trade-off curve.
Equations: minimise sum_l harm(l, f_l) subject to sum_l cost_k(l, f_l) + fixed_k <= limit_k; layers that read one
tensor get one activation width.
Differences: the paper searches 4 or 8 bits with the Hessian; here sensitivity, costs, allocator and formats are
options. The first and the last layer keep the bits of the recipe. When time runs out, layers that were not measured
take their weights' relative rounding error, scaled by the median of the measured ones; the plan says how many.
Then a few whole choices are run (`_whole`), because harms of narrow layers do not add up, and the best of them is
improved where it stands (`_refine`).
Cost: layers x formats runs on a few samples, per budget the allocator's, and up to `refine` runs of the whole network
(ResNet-20: 112 of 0.6 seconds on a core). Limits: first harms are measured before any correction.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from netsuke.core.budget import Budget
from netsuke.core.errors import Problem as Trouble
from netsuke.core.errors import UsageError, near
from netsuke.core.method import Method, methods, register
from netsuke.core.plan import Plan
from netsuke.methods.bits import _limits, _refine, _whole
from netsuke.methods.bits._probe import Probe
from netsuke.methods.bits._problem import Format, Problem, Solution, group_options, spread
from netsuke.methods.quantize import _rows, _widths
from netsuke.methods.quantize._context import Context, Finish

Table = dict[tuple[str, Format], float]
AUTO = "auto"
POINTS = 8  # of the trade-off curve
FEW_CHOICES = 8  # whole choices that are compared without being improved


@dataclass(frozen=True)
class Search:
    """sensitivity, allocator  names of records of this room, without "bits/"
    formats    what layers may have, "w4a8+w8a8"; "auto": what suits the kind of budget
    samples    calibration samples that sensitivities are measured on; 0: none, weights' rounding errors only
    compare    calibration samples on which the allocator's choice is compared with its choices without the narrowest
               weights and with one format everywhere; fewer for large networks; 0: it stands as it is
    refine     whole networks that are run to compare these choices and to improve the best one; 0: no improvement
    """

    sensitivity: str = "kl"
    allocator: str = "integer_program"
    formats: str = AUTO
    samples: int = 32
    compare: int = 512
    refine: int = 150

    def __post_init__(self) -> None:
        problems = [
            Trouble(name, "bits/search", str(getattr(self, name)), "at least 0")
            for name in ("samples", "compare", "refine")
            if getattr(self, name) < 0
        ]
        if self.formats != AUTO:
            try:
                Format.parse_all(self.formats, "bits/search formats")
            except UsageError as error:
                problems += error.problems
        if problems:
            raise UsageError(problems)


def apply(context: Context, budget: Budget, config: Search, finish: Finish, deadline: float | None = None) -> None:
    """Set the bits of the plan's rows, its curve and its notes. `deadline` is a time.monotonic()."""
    records = {tag: _record(tag, getattr(config, tag)) for tag in ("sensitivity", "allocator")}
    kinds = _limits.kinds(budget)
    formats = Format.parse_all(_limits.FORMATS[kinds[0]] if config.formats == AUTO else config.formats)
    layers, allowed = candidates(context, formats)
    probe = Probe(context, max(config.samples, 1))
    context.progress("bit search: costs", 0, 1)
    costs = {kind: _find(f"bits/{kind}") for kind in kinds}
    tables = [record.apply(probe, layers, formats, record.config()) for record in costs.values()]
    limits = _limits.limits(probe, budget, kinds, layers)
    harm = _harms(probe, records["sensitivity"], layers, formats, config, deadline)
    groups = tuple(group_options(g, allowed, harm, tables) for g in shared(context, layers))
    problem = Problem(groups, tuple(limit.room for limit in limits), kinds)
    allocate = records["allocator"]
    found = allocate.apply(problem, allocate.config(), deadline=deadline)
    uniform = _uniform(formats, harm, tables, layers)
    if config.samples and config.compare:
        if found.complete and (deadline is None or time.monotonic() < deadline):
            free = [u for u in uniform if all(u[0] in allowed[name] for name in layers)]
            judge = _whole.Judge(context, finish, config.compare, max(config.refine, FEW_CHOICES), deadline)
            judge.warm(dict.fromkeys(layers, u[0]) for u in free)
            found = _compared(context.plan, judge, _whole.choices(problem, allocate, found, free, deadline))
            if config.refine and judge.known:
                space = _refine.Space(shared(context, layers), allowed, tables)
                found = _improved(context.plan, judge, space, problem, allocate, found, harm)
        else:
            context.plan.note("out of time: whole choices were not compared")
    _write(context.plan, found, config)
    context.plan.curve = _curve(problem, allocate, limits, found, uniform)
    _widths.resolve(context.plan, context.placement)
    _rows.follow(context.plan, context.placement)
    text = ", ".join(x.describe(c) for x, c in zip(limits, found.costs, strict=True))
    early = "" if found.complete else "; the allocator ran out of time, best so far"
    context.plan.note(f"bit search over {len(layers)} layers, {config.sensitivity}, {config.allocator}: {text}{early}")


def _compared(plan: Plan, judge: _whole.Judge, solutions: Mapping[str, Solution]) -> Solution:
    """The solution that harms least as a whole, with a note of what all of them do."""
    name, harms = judge.least(solutions)
    told = ", ".join(f"{other} {harm:.3g}" for other, harm in harms.items()) or "out of time"
    plan.note(f"whole choices on {judge.samples} samples, divergence of the predictions: {told}; taken: {name}")
    return solutions[name]


def _improved(
    plan: Plan, judge: _whole.Judge, space: _refine.Space, problem: Problem, allocate: Method, found: Solution,
    harm: Table,
) -> Solution:  # fmt: skip
    """The solution improved where it stands, with a note of what that brought."""
    formats = _refine.refine(judge, space, problem, allocate, found.formats)
    spent = tuple(sum(table[pair] for pair in formats.items()) for table in space.tables)
    if formats != dict(found.formats):
        plan.note(f"improved in {len(judge.known)} runs of the network: divergence {judge(formats):.3g}")
    return Solution(formats, sum(harm[pair] for pair in formats.items()), spent, found.complete)


def candidates(context: Context, formats: Sequence[Format]) -> tuple[list[str], dict[str, list[Format]]]:
    """Layers whose bits are searched, and what each may have.

    All planned layers with weights but the first and the last; one that reads a tensor together with a layer that is
    not searched keeps that layer's activation width.
    """
    placement, rows = context.placement, {row.name: row for row in context.plan.rows}
    weighted = [x for x in placement.layers.values() if x.weight is not None and not x.blocked]
    ends = {weighted[0].name, weighted[-1].name} if weighted else set()
    names = [x.name for x in weighted if x.quantized and x.name not in ends and not rows[x.name].kept]
    if not names:
        raise UsageError(Trouble("no layer's bits can be searched", hint="a network with more than two packed layers"))
    fixed: dict[str, set[int]] = {}
    for root in placement.roots:
        readers = [x.name for x in _widths.deciders(placement, root)]
        widths = {rows[n].activation_bits for n in readers if n not in names}
        for name in readers:
            fixed.setdefault(name, set()).update(widths)
    allowed = {n: [f for f in formats if not fixed.get(n) or f.activation_bits in fixed[n]] for n in names}
    stuck = [n for n in names if not allowed[n]]
    if stuck:
        what = "shares a tensor with a layer that is not searched"
        raise UsageError([Trouble(what, n, hint=f"a format with a{max(fixed[n])}") for n in stuck])
    return names, allowed


def shared(context: Context, layers: Sequence[str]) -> list[list[str]]:
    """The searched layers in sets that read one tensor, in graph order."""
    owner = {name: name for name in layers}

    def find(name: str) -> str:
        while owner[name] != name:
            name = owner[name]
        return name

    for root in context.placement.roots:
        readers = [x.name for x in _widths.deciders(context.placement, root) if x.name in owner]
        for a, b in pairwise(readers):
            owner[find(b)] = find(a)
    sets: dict[str, list[str]] = {}
    for name in layers:
        sets.setdefault(find(name), []).append(name)
    return list(sets.values())


def _find(name: str) -> Method:
    return methods()[name]


def _record(tag: str, name: str) -> Method:
    known = {m.name.partition("/")[2]: m for m in methods().values() if tag in m.tags and m.room == "bits"}
    if name not in known:
        raise UsageError(Trouble(f"no such {tag}", "bits/search", name, near(name, known)))
    return known[name]


def _harms(
    probe: Probe, record: Method, layers: Sequence[str], formats: Sequence[Format], config: Search,
    deadline: float | None,
) -> Table:  # fmt: skip
    """Measured harms; what time did not allow (or samples = 0) is estimated from the weights' rounding errors."""
    proxy = {(n, f): _proxy(probe, n, f) for n in layers for f in formats}
    if config.samples == 0:
        probe.context.plan.note("bit search without runs: harms are the weights' relative rounding errors")
        return proxy
    found: Table = {}
    for index, name in enumerate(layers):
        probe.context.progress("bit search: sensitivity", index, len(layers))
        if deadline is not None and time.monotonic() > deadline:
            break
        found |= record.apply(probe, [name], formats, record.config())
    missing = [n for n in layers if (n, formats[0]) not in found]
    if missing:
        for fmt in formats:
            ratios = [found[n, fmt] / max(proxy[n, fmt], 1e-30) for n in layers if (n, fmt) in found]
            factor = float(np.median(ratios)) if ratios else 1.0
            found |= {(n, fmt): factor * proxy[n, fmt] for n in missing}
        text = f"out of time: {len(missing)} of {len(layers)} layers rated by their weights' rounding errors"
        probe.context.plan.note(text)
    return found


def _proxy(probe: Probe, name: str, fmt: Format) -> float:
    power = float((probe.weight(name).astype(np.float64) ** 2).sum())
    return probe.rounding_error(name, fmt.weight_bits) / max(power, 1e-30) + 4.0**-fmt.activation_bits


def _write(plan: Plan, found: Solution, config: Search) -> None:
    for name, fmt in found.formats.items():
        row = plan[name].rows[0]
        row.weight_bits, row.activation_bits = fmt.weight_bits, fmt.activation_bits
        row.reason = f"{config.allocator} on {config.sensitivity}"


def _uniform(
    formats: Sequence[Format], harm: Table, tables: Sequence[Mapping[tuple[str, Format], float]], layers: Sequence[str]
) -> list[tuple[Format, float, tuple[float, ...]]]:
    """Harm and costs when every searched layer has the same format."""
    return [(f, sum(harm[n, f] for n in layers), tuple(sum(t[n, f] for n in layers) for t in tables)) for f in formats]


def _curve(
    problem: Problem, allocate: Method, limits: Sequence[_limits.Limit], found: Solution,
    uniform: Sequence[tuple[Format, float, tuple[float, ...]]],
) -> list[dict[str, Any]]:  # fmt: skip
    """Points from the cheapest to the most harmless choice (other limits kept), the chosen and the uniform ones."""
    points = [("chosen", found)]
    for limit in spread(problem.cheapest(0), problem.dearest(0), POINTS):
        try:
            trial = replace(problem, limits=(limit, *problem.limits[1:]))
            points.append(("", allocate.apply(trial, allocate.config(), deadline=time.monotonic() + 2)))
        except UsageError:
            continue  # with the other limits in force this one cannot be met: no point of the curve
    rows = [_point(limits[0], name, p.harm, p.costs[0], _words(p.formats.values())) for name, p in points]
    rows += [_point(limits[0], "uniform", harm, costs[0], str(fmt)) for fmt, harm, costs in uniform]
    return sorted(rows, key=lambda r: (r["cost"], r["harm"], r["name"]))


def _point(limit: _limits.Limit, name: str, harm: float, cost: float, words: str) -> dict[str, Any]:
    total = cost + limit.fixed
    return {"name": name, "kind": limit.kind, "cost": round(total, 6), "harm": float(f"{harm:.6g}"), "formats": words}


def _words(formats: Any) -> str:
    counted: dict[Format, int] = {}
    for fmt in formats:
        counted[fmt] = counted.get(fmt, 0) + 1
    return " ".join(f"{fmt}x{n}" for fmt, n in sorted(counted.items()))


METHOD = register(
    Method(
        name="bits/search",
        purpose="choose each layer's bits under a budget of bytes, bit operations or milliseconds",
        paper="hawq-v3",
        config=Search,
        apply=apply,
        needs=("data",),
        touches=("weights",),
        exports=("qconv", "qlinear"),
        cost="layers x formats runs over a few samples",
        tags=("search",),
    )
)
