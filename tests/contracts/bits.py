"""How the contract tests exercise a method of the room `bits`: as part of a search on a tiny network, or on a table."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from contracts.quantize import CountingRunner, Observation, differing
from methods.quantize.graphs import data, resnet
from netsuke.capture import capture
from netsuke.core.budget import Budget
from netsuke.core.method import Method
from netsuke.core.recipe import Recipe
from netsuke.methods.bits._probe import Probe
from netsuke.methods.bits._problem import Format, Option, Problem
from netsuke.methods.quantize import ptq
from netsuke.pipeline.profiler import layer_profiler

BASE = "quantize/uniform:weight_bits=8,activation_bits=8,calibrator=minmax"
FORMATS = (Format(4, 8), Format(8, 8))


def _context(runner: CountingRunner, seed: int) -> Any:
    model, calib = capture(resnet()), data(32)
    plan = ptq.make_plan(model, recipe=Recipe.make([BASE]), calib=calib, runner=runner, effort="fast", seed=seed)
    return ptq.prepare(model, plan, calib, runner, seed, histograms=True)


def _quantized(steps: list[str], seed: int) -> tuple[ir.Model, int]:
    model, calib, runner = capture(resnet()), data(32), CountingRunner(1)
    plan = ptq.make_plan(
        model, budget=Budget(size="0.2x"), recipe=Recipe.make(steps), calib=calib, runner=runner, effort="normal",
        seed=seed,
    )  # fmt: skip
    return ptq.quantize(model, plan=plan, calib=calib, runner=runner, seed=seed), runner.calls


def exercise(method: Method, seed: int) -> Observation:
    """Run the method as its tag says; only a search changes the network, through the plan."""
    if "search" in method.tags:
        base, calls = _quantized([BASE], seed)
        model, with_calls = _quantized([BASE, method.name], seed)
        text = bytes(ir.to_proto(model).SerializeToString(deterministic=True))
        return Observation(text, differing(base, model), with_calls > calls)
    if "allocator" in method.tags:
        options = tuple(Option((("a", f),), 1 / f.weight_bits, (float(f.weight_bits),)) for f in FORMATS)
        found = method.apply(Problem((options,), (6.0,), ("size",)), method.config())
        return Observation(repr(found).encode(), set(), False)
    runner = CountingRunner(1)
    context = _context(runner, seed)
    if "cost" in method.tags:
        context.profiler = layer_profiler(data(32), 1)
    calls = runner.calls
    table = method.apply(Probe(context, 4), ["block.conv1", "block.conv2"], FORMATS, method.config())
    text = repr(sorted(table.items())).encode()
    return Observation(text, set(), runner.calls > calls)
