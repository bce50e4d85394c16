"""Allocators against brute force, limits that are never broken, and problems that cannot be solved."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from netsuke.core.errors import UsageError
from netsuke.methods.bits import dynamic_program, integer_program, pareto
from netsuke.methods.bits._problem import Format, Option, Problem, greedy, group_options, spread, undominated

ALLOCATORS = {m.METHOD.name: m for m in (integer_program, dynamic_program, pareto)}


def random_problem(seed, groups=6, formats=4, kinds=1, share=0.5):
    rng = np.random.default_rng(seed)
    made = []
    for g in range(groups):
        costs = np.sort(rng.uniform(1, 100, (formats, kinds)), axis=0)
        harms = np.sort(rng.lognormal(0, 2, formats))[::-1]
        options = [
            Option(((f"layer{g}", Format(2 + i, 8)),), float(harms[i]), tuple(map(float, costs[i])))
            for i in range(formats)
        ]
        made.append(undominated(options))
    problem = Problem(tuple(made), (np.inf,) * kinds, tuple(f"kind{k}" for k in range(kinds)))
    low = [problem.cheapest(k) for k in range(kinds)]
    high = [sum(max(o.costs[k] for o in g) for g in problem.groups) for k in range(kinds)]
    limits = tuple(a + share * (b - a) for a, b in zip(low, high, strict=True))
    return Problem(problem.groups, limits, problem.kinds)


def brute_force(problem):
    picks = itertools.product(*(range(len(g)) for g in problem.groups))
    found = [s for s in map(problem.solution, picks) if problem.fits(s.costs)]
    return min(s.harm for s in found)


def within(problem, limit):
    return Problem(problem.groups, (limit,), problem.kinds)


@pytest.mark.parametrize("name", ["bits/integer_program", "bits/pareto"])
@given(seed=st.integers(0, 10**6), share=st.floats(0.02, 1.0))
def test_within_one_percent_of_brute_force_and_within_the_limit(name, seed, share):
    problem = random_problem(seed, groups=5, share=share)
    found = ALLOCATORS[name].apply(problem)
    assert problem.fits(found.costs)
    assert found.harm <= 1.01 * brute_force(problem)
    assert set(found.formats) == {f"layer{g}" for g in range(5)}


@given(seed=st.integers(0, 10**6), share=st.floats(0.02, 1.0), cells=st.sampled_from([100, 20000]))
@example(seed=12241, share=0.8463424976385976, cells=20000)  # the best choice fills the limit to 1 part in 50,000
def test_dynamic_program_loses_at_most_a_cell_a_group(seed, share, cells):
    # every cost is rounded up by less than a cell, so a choice that leaves a cell a group unused cannot be missed
    problem = random_problem(seed, groups=5, share=share)
    found = dynamic_program.apply(problem, dynamic_program.DynamicProgram(cells))
    assert problem.fits(found.costs)
    unused = 5 / cells * (problem.limits[0] - problem.cheapest(0))
    assert found.harm <= brute_force(within(problem, problem.limits[0] - unused)) * (1 + 1e-9)
    assert found.harm >= brute_force(problem) * (1 - 1e-9)
    assert set(found.formats) == {f"layer{g}" for g in range(5)}


@given(seed=st.integers(0, 10**6))
def test_integer_program_keeps_two_limits_at_once(seed):
    problem = random_problem(seed, groups=4, kinds=2, share=0.6)
    found = integer_program.apply(problem)
    assert problem.fits(found.costs)
    assert found.harm <= 1.01 * brute_force(problem)


@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 1.0))
def test_greedy_start_is_feasible(seed, share):
    problem = random_problem(seed, share=share)
    assert problem.fits(greedy(problem).costs)


def test_more_room_never_harms_more():
    whole = random_problem(7, groups=12)
    for module in ALLOCATORS.values():
        harms = [module.apply(within(whole, limit)).harm for limit in spread(whole.cheapest(0), whole.dearest(0), 9)]
        assert all(b <= a * 1.0001 for a, b in itertools.pairwise(harms))
        assert harms[-1] == pytest.approx(sum(min(o.harm for o in g) for g in whole.groups))


def test_a_network_of_fifty_layers_is_solved_to_the_end():
    problem = random_problem(3, groups=54, formats=8, share=0.3)
    found = integer_program.apply(problem)
    assert found.complete
    assert found.harm <= dynamic_program.apply(problem).harm * 1.0005


def test_out_of_time_gives_the_greedy_answer_and_says_so():
    problem = random_problem(5, groups=60, formats=8, share=0.3)
    found = integer_program.apply(problem, deadline=time.monotonic() - 1)
    assert problem.fits(found.costs)
    assert found.harm <= greedy(problem).harm


def test_thinned_frontier_still_meets_the_limit():
    problem = random_problem(11, groups=20, formats=8, share=0.001)
    found = pareto.apply(problem, pareto.Pareto(points=100))
    assert problem.fits(found.costs)
    rough, fine = (pareto.apply(random_problem(11, 20, 8), pareto.Pareto(points=n)).harm for n in (200, 50000))
    assert fine <= rough <= 1.2 * fine


@pytest.mark.parametrize("name", sorted(ALLOCATORS))
def test_a_budget_below_the_cheapest_choice_is_refused(name):
    problem = random_problem(1, share=-0.1)
    with pytest.raises(UsageError, match="cannot be met"):
        ALLOCATORS[name].apply(problem)


@pytest.mark.parametrize("module", [dynamic_program, pareto])
def test_one_budget_only_where_the_method_takes_one(module):
    with pytest.raises(UsageError, match="one budget"):
        module.apply(random_problem(1, kinds=2))


def test_layers_of_one_tensor_get_one_width():
    formats = [Format(2, 4), Format(4, 4), Format(4, 8), Format(8, 8)]
    harm = {(n, f): 1.0 / (f.weight_bits * f.activation_bits) for n in "ab" for f in formats}
    cost = {(n, f): float(f.weight_bits * f.activation_bits) for n in "ab" for f in formats}
    options = group_options(["a", "b"], dict.fromkeys("ab", formats), harm, [cost])
    assert options
    for option in options:
        assert len({fmt.activation_bits for _, fmt in option.formats}) == 1
    every = [
        (harm["a", f] + harm["b", g], cost["a", f] + cost["b", g])
        for f in formats
        for g in formats
        if f.activation_bits == g.activation_bits
    ]
    for h, c in every:  # nothing useful was dropped
        assert any(o.harm <= h + 1e-12 and o.costs[0] <= c + 1e-12 for o in options)
    with pytest.raises(UsageError, match="no activation width in common"):
        group_options(["a", "b"], {"a": formats[:2], "b": formats[2:]}, harm, [cost])


@pytest.mark.parametrize("text", ["", "w4", "w9a8", "w4a8+", "w1a8", "4a8"])
def test_formats_that_cannot_be_are_refused(text):
    with pytest.raises(UsageError, match="not a format"):
        Format.parse_all(text)


def test_formats_are_sorted_and_unique():
    assert [str(f) for f in Format.parse_all("w8a8+w4a8+w4a4+w4a8")] == ["w4a4", "w4a8", "w8a8"]
