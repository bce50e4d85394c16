"""The search on small networks: sensitivities that mean what they say, budgets that are met, time that runs out."""

import time
from dataclasses import replace

import numpy as np
import pytest

from methods.quantize.graphs import Build, data, resnet
from netsuke.capture import capture
from netsuke.core.budget import Budget
from netsuke.core.errors import UsageError
from netsuke.core.method import methods
from netsuke.core.recipe import Recipe
from netsuke.methods.bits import _refine, _whole, hessian, kl, layer_loss, sqnr
from netsuke.methods.bits._probe import Probe
from netsuke.methods.bits._problem import Format, Option, Problem
from netsuke.methods.quantize import ptq
from netsuke.methods.quantize._profile import times
from netsuke.pipeline.profiler import layer_profiler
from netsuke.pipeline.runner import EngineRunner

CALIB = data(32)
BASE = ["quantize/uniform:weight_bits=8,activation_bits=8"]


def planned(search="bits/search:samples=8", model=None, effort="fast", deadline=None, profiler=None, **limits):
    recipe = Recipe.make([*BASE, search])
    return ptq.make_plan(
        model or capture(resnet()), budget=Budget(**limits), recipe=recipe, calib=CALIB, runner=EngineRunner(1),
        effort=effort, deadline=deadline, profiler=profiler,
    )  # fmt: skip


def context_of(model):
    plan = ptq.make_plan(model, recipe=Recipe.make(BASE), calib=CALIB, runner=EngineRunner(1), effort="fast")
    return ptq.prepare(model, plan, CALIB, EngineRunner(1), 0, histograms=True)


def weight_bits(plan):
    return {row.name: row.weight_bits for row in plan if row.weight_bits is not None}


@pytest.mark.parametrize("allocator", ["integer_program", "dynamic_program", "pareto"])
def test_size_budget_is_met_and_used(allocator):
    plan = planned(f"bits/search:samples=8,allocator={allocator},refine=0", effort="normal", size="0.19x")
    before, after = plan.bytes()
    assert 0.95 * 0.19 * before < after <= 0.19 * before
    bits = weight_bits(plan)
    assert bits["stem"] == bits["head"] == 8
    assert min(bits.values()) < 8
    chosen = [p for p in plan.curve if p["name"] == "chosen"]
    assert chosen[0]["cost"] == after
    uniform = [p for p in plan.curve if p["name"] == "uniform" and p["cost"] <= after]
    assert all(chosen[0]["harm"] <= p["harm"] * 1.0001 for p in uniform)
    graph = ptq.quantize(capture(resnet()), plan=plan, calib=CALIB, runner=EngineRunner(1))
    assert graph is not None


def judge_of(model, tries=200):
    return _whole.Judge(context_of(model), ptq._finish_fast, 128, tries, None)


def test_the_choice_diverges_no_more_than_one_format_everywhere():
    plan = planned("bits/search:samples=8", effort="normal", size="0.19x")
    (note,) = [n for n in plan.notes if "whole choices" in n]
    assert "the allocator's own" in note
    judge = judge_of(capture(resnet()))
    rows = {r.name: Format(r.weight_bits, r.activation_bits) for r in plan if r.weight_bits}
    searched = {n: f for n, f in rows.items() if n not in ("stem", "head")}
    spent = sum(r.bytes_after for r in plan)
    assert spent == plan.bytes()[1]
    within = [p["formats"] for p in plan.curve if p["name"] == "uniform" and p["cost"] <= plan.bytes()[1]]
    widest = Format.parse_all(within[-1])[0]
    assert judge(searched) <= judge(dict.fromkeys(searched, widest)) * 1.0001
    alone = planned("bits/search:samples=8,compare=0", effort="normal", size="0.19x")
    assert not any("whole choices" in n for n in alone.notes)


def test_narrow_layers_that_ruin_the_network_together_are_not_taken():
    narrow, wide = Format(2, 8), Format(4, 8)
    pairs = [((n, f),) for n in "ab" for f in (narrow, wide)]
    cost = {narrow: 1.0, wide: 2.0}
    options = [Option(p, {narrow: 0.1, wide: 0.0}[p[0][1]], (cost[p[0][1]],)) for p in pairs]
    problem = Problem((tuple(options[:2]), tuple(options[2:])), (4.0,), ("size",))
    record = methods()["bits/integer_program"]
    bad = problem.solution([0, 1])
    found = _whole.choices(problem, record, bad, [(wide, 0.0, (4.0,)), (narrow, 0.2, (2.0,))], None)
    assert list(found) == ["the allocator's own", "no weights below 4 bits", "w4a8 everywhere"]
    assert set(found["no weights below 4 bits"].formats.values()) == {wide}
    assert found["w4a8 everywhere"].costs == (4.0,)
    tight = replace(problem, limits=(3.0,))
    assert list(_whole.choices(tight, record, bad, [(wide, 0.0, (4.0,))], None)) == ["the allocator's own"]


@pytest.mark.parametrize("allocator", ["integer_program", "dynamic_program", "pareto"])
def test_a_choice_is_improved_where_it_stands_and_never_made_worse(allocator):
    judge = judge_of(capture(resnet()))
    layers, formats = ["block.conv1", "block.conv2", "block.short"], [Format(b, 8) for b in (2, 4, 8)]
    table = {(n, f): float(f.weight_bits) for n in layers for f in formats}
    space = _refine.Space([["block.conv1", "block.short"], ["block.conv2"]], dict.fromkeys(layers, formats), [table])
    problem = Problem(((),), (14.0,), ("size",))
    start = {"block.conv1": formats[0], "block.conv2": formats[2], "block.short": formats[1]}
    found = _refine.refine(judge, space, problem, methods()[f"bits/{allocator}"], start)
    assert sum(table[pair] for pair in found.items()) <= 14.0
    assert judge(found) < judge(start)
    few = judge_of(capture(resnet()), tries=2)
    assert few(start) == judge(start)
    assert _refine.refine(few, space, problem, methods()[f"bits/{allocator}"], start) == start
    assert len(few.known) == 2


def test_neighbours_change_one_width():
    formats = [Format(w, a) for w in (2, 4, 8) for a in (4, 8)]
    table = {(n, f): 1.0 for n in "ab" for f in formats}
    space = _refine.Space([["a", "b"]], {"a": formats, "b": formats[:2]}, [table])
    found = space.neighbours(["a", "b"], {"a": Format(4, 8), "b": Format(2, 8)})
    words = [" ".join(str(f) for _, f in o.formats) for o in found]
    assert words == ["w4a8 w2a8", "w2a8 w2a8", "w8a8 w2a8", "w4a4 w2a4"]


def test_bops_budget_makes_both_widths_fall_and_shared_tensors_agree():
    plan = planned(effort="normal", bops="0.45x")
    rows = {row.name: row for row in plan}
    assert rows["block.conv1"].activation_bits == rows["block.short"].activation_bits  # both read the stem
    spent = sum(r.macs * r.weight_bits * r.activation_bits for r in plan if r.weight_bits)
    full = sum(64 * r.macs for r in plan if r.weight_bits)
    assert spent <= 0.45 * full


def test_two_budgets_hold_together():
    plan = planned(effort="normal", bops="0.5x", size="0.18x")
    before, after = plan.bytes()
    assert after <= 0.18 * before
    spent = sum(r.macs * r.weight_bits * r.activation_bits for r in plan if r.weight_bits)
    assert spent <= 0.5 * sum(64 * r.macs for r in plan if r.weight_bits)


def test_impossible_budget_and_unknown_names_are_refused():
    with pytest.raises(UsageError, match="cannot be met"):
        planned(size="0.01x")
    with pytest.raises(UsageError, match="did you mean"):
        planned("bits/search:sensitivity=hesian", size="0.2x")
    with pytest.raises(UsageError, match="needs a budget"):
        planned()
    with pytest.raises(UsageError, match="not a format"):
        planned("bits/search:formats=w4", size="0.2x")
    with pytest.raises(UsageError, match="needs a bit search"):
        ptq.make_plan(
            capture(resnet()), budget=Budget(bops="0.5x"), recipe="cpu-int8", calib=CALIB,
            runner=EngineRunner(1),
        )  # fmt: skip
    with pytest.raises(UsageError, match="engine can be timed"):
        planned(latency="0.9x")


def test_out_of_time_still_meets_the_budget_and_says_what_was_not_measured():
    plan = planned(effort="normal", size="0.19x", deadline=time.monotonic() - 1)
    before, after = plan.bytes()
    assert after <= 0.19 * before
    assert any("rated by their weights' rounding errors" in note for note in plan.notes)
    assert any("were not compared" in note for note in plan.notes)


def test_latency_is_measured_and_rows_say_what_to_expect(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    profiler = layer_profiler(CALIB, 1)
    assert profiler is not None
    plan = planned("bits/search:samples=4,formats=w4a8+w8a8", effort="normal", latency="3x", profiler=profiler)
    rows = {row.name: row for row in plan}
    assert all(rows[name].expected_ms > 0 for name in ("stem", "block.conv1", "head"))
    stored = list((tmp_path / "netsuke").glob("layers-*.json"))
    assert len(stored) == 1
    again = planned("bits/search:samples=4,formats=w4a8+w8a8", effort="normal", latency="3x", profiler=profiler)
    assert again.to_toml() == plan.to_toml()  # from the cache: the same times, the same plan
    assert "expected_ms" not in plan.to_toml(measured=False)


def test_profiler_attributes_time_to_layers():
    model = capture(resnet())
    context = context_of(model)
    assert times(context) == {}
    context.profiler = layer_profiler(CALIB, 1)
    found = times(context)
    assert set(found) >= {"stem", "block.conv1", "block.conv2", "head"}
    assert all(value >= 0 for value in found.values())


@pytest.mark.parametrize("module", [kl, layer_loss, sqnr, hessian])
def test_fewer_bits_harm_more(module):
    probe = Probe(context_of(capture(resnet())), 8)
    formats = [Format(b, 8) for b in (2, 4, 8)]
    harm = module.apply(probe, ["block.conv1", "block.conv2"], formats, module.METHOD.config())
    for name in ("block.conv1", "block.conv2"):
        values = [harm[name, f] for f in formats]
        assert values[0] > values[1] > values[2] >= 0


def test_trace_of_a_softmax_layer_is_the_closed_form():
    """For logits W x the Hessian of the expected loss is E[(diag p - p p') (x) x x']: trace E[(1 - |p|^2) |x|^2]."""
    b = Build(shape=("N", 6))
    middle = b.linear(b.linear(b.op("Identity", "x"), 6, 6, "first"), 6, 6, "middle")
    model = capture(b.model(b.linear(b.linear(middle, 6, 6, "third"), 4, 6, "last")))
    x = 0.3 * np.random.default_rng(0).standard_normal((32, 6)).astype(np.float32)
    from netsuke.data import Dataset

    calib = Dataset.from_arrays(x, source="test")
    plan = ptq.make_plan(model, recipe=Recipe.make(BASE), calib=calib, runner=EngineRunner(1), effort="fast")
    context = ptq.prepare(model, plan, calib, EngineRunner(1), 0, histograms=True)
    probe = Probe(context, 32)
    found = hessian.trace(probe, "last", hessian.Hessian(probes=200, step=0.05))
    outputs = probe.outputs[0]
    source = probe.layer("last").inputs[0].name
    values = probe.run(context.model, [outputs, source])
    logits, inputs = values[outputs].astype(np.float64), values[source].astype(np.float64)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    exact = float(((1 - (p**2).sum(axis=1)) * (inputs**2).sum(axis=1)).mean())
    assert found == pytest.approx(exact, rel=0.1)


def test_budget_text():
    budget = Budget.parse_text("size=0.15x, latency=1.5ms,bops=2.1G")
    assert (budget.size_ratio, budget.latency_ms, budget.bops) == (0.15, 1.5, 2.1e9)
    assert Budget.parse_text("bops=0.5x,latency=0.8x").searches
    assert not Budget.parse_text("size=0.5x").searches
    with pytest.raises(UsageError) as caught:
        Budget.parse_text("size=2x,speed=3,latency=fast,bops")
    assert len(caught.value.problems) == 4
    with pytest.raises(UsageError, match="twice"):
        Budget.parse_text("size=0.5x", size="0.4x")
