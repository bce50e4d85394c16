"""How the contract tests exercise a method of the room `quantize`: on a tiny network, beside a run without it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from methods.quantize.graphs import data, normed, resnet
from netsuke.capture import capture
from netsuke.core.method import Method
from netsuke.core.recipe import Recipe
from netsuke.methods.quantize import ptq, weight_only
from netsuke.pipeline.runner import EngineRunner

# Few iterations are enough to see what a learned method touches.
OPTIONS = {f"quantize/{name}": "iterations=5" for name in ("adaround", "adaquant", "brecq", "gradient_ptq")}
OPTIONS["codebook/jlcm"] = "iterations=5"
OPTIONS["quantize/zeroq"] = "iterations=3,samples=4"
NETWORKS = {"quantize/smoothquant": normed}  # others: resnet
BASE = "quantize/whitepaper_int8:calibrator=minmax"


def digits() -> Any:
    """A network that remembers the statistics of its batch normalizations."""
    from netsuke.models import build

    return build("digits_cnn")


@dataclass
class Observation:
    """What a run did: bytes of the result, and whether it differs from the run without the method, part by part."""

    result: bytes
    touched: set[str]
    reads_data: bool


class CountingRunner(EngineRunner):
    """Counts how often the network is run over data."""

    calls = 0

    def __call__(
        self, model: Any, batches: Iterable[Mapping[str, Any]], taps: Sequence[str]
    ) -> Iterator[Mapping[str, Any]]:
        self.calls += 1
        return super().__call__(model, batches, taps)


def run(steps: list[str], seed: int, *, with_data: bool = True, network: Any = resnet) -> tuple[ir.Model, int]:
    """The tiny network quantized by these steps, and how many times it was run over data."""
    samples = data(64)  # two batches: a moving average differs from the extremes
    given = network()
    model = capture(given, shape=(1, 1, 8, 8)) if network is digits else capture(given)
    runner = CountingRunner(1)
    calib = samples if with_data else None
    plan = ptq.make_plan(model, recipe=Recipe.make(steps), calib=calib, runner=runner, effort="fast", seed=seed)
    return ptq.quantize(model, plan=plan, calib=calib, runner=runner, seed=seed), runner.calls


def parts(model: ir.Model) -> dict[str, Any]:
    """Weights (float values of dequantized parameters), activations (ranges, requantization) and graph (operators)."""
    tensors = {
        name: value.const_value.numpy().tobytes()
        for name, value in sorted(model.graph.initializers.items())
        if value.const_value is not None
    }
    scales = {k: v for k, v in tensors.items() if len(v) <= 4}
    return {
        "weights": {k: v for k, v in tensors.items() if len(v) > 4},
        "activations": (scales, dict(model.metadata_props)),
        "graph": [n.op_type for n in model.graph if n.op_type not in ("QuantizeLinear", "DequantizeLinear")],
    }


def differing(before: ir.Model, after: ir.Model) -> set[str]:
    first, second = parts(before), parts(after)
    return {name for name in first if first[name] != second[name]}


def exercise(method: Method, seed: int) -> Observation:
    """Run the method on the tiny network as its tag says."""
    if "recipe" in method.tags:
        float_model, (model, calls) = capture(resnet()), run([method.name], seed)
        return Observation(_bytes(model), differing(float_model, model), calls > 0)
    if "weight-only" in method.tags:
        float_model = capture(resnet())
        plan = weight_only.make_plan(float_model, recipe=Recipe.make([method.name]), seed=seed)
        model = weight_only.quantize(float_model, plan=plan)
        return Observation(_bytes(model), differing(float_model, model), False)
    if "fallback" in method.tags:
        float_model, (model, _) = capture(resnet()), run(["quantize/whitepaper_int8"], seed, with_data=False)
        return Observation(_bytes(model), differing(float_model, model) - {"weights"}, False)
    if "source" in method.tags:
        step = f"{method.name}:{OPTIONS[method.name]}"
        base, _ = run([BASE], seed, with_data=False, network=digits)
        model, _ = run([step, BASE], seed, with_data=False, network=digits)
        return Observation(_bytes(model), differing(base, model), False)
    if "calibrator" in method.tags:
        other = "minmax" if method.name != "quantize/minmax" else "percentile"
        base, _ = run([f"quantize/whitepaper_int8:calibrator={other}"], seed)
        model, with_calls = run([f"quantize/whitepaper_int8:calibrator={method.name.partition('/')[2]}"], seed)
        return Observation(_bytes(model), differing(base, model), with_calls > 0)
    network, step = NETWORKS.get(method.name, resnet), method.name
    if method.name in OPTIONS:
        step = f"{step}:{OPTIONS[method.name]}"
    first = "quantize/uniform:weight_bits=3" if method.room == "codebook" else BASE  # 8 bits need no codebook
    base, calls = run([first], seed, network=network)
    model, with_calls = run([step, first] if "graph" in method.tags else [first, step], seed, network=network)
    return Observation(_bytes(model), differing(base, model), with_calls > calls)


def _bytes(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))
