"""Milliseconds per layer of a quantized graph on this machine, kept by CPU and by what the layer is.

A layer's time depends on its operator, window, widths and sizes and on the machine, not on the values of its weights:
so times are cached under a digest of the former, in one file per CPU, instruction set and number of threads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from netsuke import __version__, engine
from netsuke import program as files
from netsuke.core.plan import Plan
from netsuke.data import Dataset
from netsuke.formats.packing import fewest_bits
from netsuke.measure import environment, machine
from netsuke.passes import compile_program
from netsuke.pipeline.layers import by_layer
from netsuke.program.model import Node, Program
from netsuke.program.ranges import code_ranges
from netsuke.verify.batches import feeds_of, fixed_batch
from netsuke.verify.runners import runtime_available

RUNS = 30
SCHEMA = "netsuke.layer-times/1"
_SHAPED = ("strides", "pads", "dilations", "groups", "kernel", "ceil", "trans_b", "out", "perm", "axis", "fn", "act")


class LayerProfiler:
    """A `Profiler` for the methods: (quantized graph, plan) -> milliseconds by layer.

    One sample of the data runs, or as many as the inputs' batch where that is fixed.
    """

    def __init__(self, data: Dataset, threads: int | None = None) -> None:
        self.data = data
        self.threads = threads

    def __call__(self, model: Any, plan: Plan) -> Mapping[str, float]:
        program = compile_program(model, name="profile")
        feeds = feeds_of(program.inputs, next(self.data.batches(fixed_batch(program.inputs) or 1))[0])
        shapes = {name: list(array.shape) for name, array in sorted(feeds.items())}
        loaded = engine.load(program, threads=self.threads)
        store = _Store(str(loaded.isa), int(loaded.threads))
        macs = {row.name: row.macs for row in plan.rows}
        layer_of = {n.name: name for name, nodes in by_layer(program, list(macs)).items() for n in nodes}
        ranges, kernels = code_ranges(program), {row["node"]: row["kernel"] for row in loaded.kernels()}
        keys = {}
        for n in program.nodes:
            facts = {"macs": macs.get(layer_of.get(n.name, "")), "kernel": kernels.get(n.name, "")}
            keys[n.name] = _key(program, n, ranges, {**facts, "inputs": shapes, "version": __version__})
        if any(key not in store.times for key in keys.values()):
            for row in loaded.profile(feeds, runs=RUNS):
                store.times.setdefault(keys[row["node"]], float(f"{row['ms']:.3g}"))
            for key in keys.values():
                store.times.setdefault(key, 0.0)  # views do not run
            store.save()
        found: dict[str, float] = {}
        for node in program.nodes:
            name = layer_of.get(node.name, "")
            found[name] = found.get(name, 0.0) + store.times.get(keys[node.name], 0.0)
        return found


def layer_profiler(data: Dataset | None, threads: int | None = None) -> LayerProfiler | None:
    """None without the engine or without data."""
    return LayerProfiler(data, threads) if data is not None and runtime_available() else None


def file_bytes(model: Any, plan: Plan) -> int:
    """A `Sizer` for the methods: bytes of the .nsk file of a graph with this plan in it."""
    return len(files.to_bytes(compile_program(model, name="size", plan=plan.to_toml(measured=False))))


def _key(program: Program, node: Node, ranges: Mapping[str, tuple[int, int]], known: Mapping[str, Any]) -> str:
    """Digest of what decides a node's time. The size of its input follows from what is known: macs and the sample."""
    constants = [program.constants.get(name) for name in node.inputs]
    shapes = [None if c is None else [str(c.dtype), list(c.shape)] for c in constants]
    weight = constants[1] if len(constants) > 1 else None
    bits = fewest_bits(weight) if weight is not None and weight.dtype == np.int8 else None
    facts: dict[str, Any] = {"op": node.op, **known, "constants": shapes, "bits": bits}
    facts["attrs"] = {k: v for k, v in node.attrs.items() if k in _SHAPED}
    facts["ranges"] = [
        list(ranges.get(name, (0, 255))) for name in node.inputs if name and name not in program.constants
    ]
    if known["macs"] is None:
        facts["node"] = node.name  # nothing else tells the sizes of such nodes apart
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


class _Store:
    """Times of one CPU, instruction set and number of threads, in the cache folder."""

    def __init__(self, isa: str, threads: int) -> None:
        name = f"layers-{environment.cpu_identity()}-{isa}-{threads}.json"
        self.path: Path = machine.cache_folder() / name
        self.times: dict[str, float] = {}
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            if stored.get("schema") == SCHEMA:
                self.times = {str(k): float(v) for k, v in stored["times"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            self.times = {}  # never measured here, or a torn file: measured again

    def save(self) -> None:
        """Write what is known; a read-only home only costs measuring again."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps({"schema": SCHEMA, "times": self.times}, sort_keys=True), encoding="utf-8")
            part.replace(self.path)
        except OSError:
            return
