"""Does float work beside one-bit layers eat what they gain? Measured for the plan, said in milliseconds.

A one-bit convolution is so fast that a shortcut with a float convolution, a normalization in front of a sign or a float
pooling can take most of a call. The planned network is quantized on a few samples, compiled and profiled here: what its
operators take does not depend on the values of its codes.
"""

from __future__ import annotations

import copy
from typing import Any

from netsuke.core.plan import Plan
from netsuke.data import Dataset
from netsuke.passes.report import ONE_BIT, packed_report
from netsuke.verify.runners import runtime_available

SHARE = 0.5  # of a call: what stays float beside one-bit layers is said from here on
_SAMPLES = 2


def has_one_bit_layers(graph: Any) -> bool:
    """True when some layer of the captured graph multiplies packed signs."""
    from netsuke.capture.binary_forms import is_binary_layer

    return any(is_binary_layer(node) for node in graph.graph)


def float_notes(graph: Any, plan: Plan, data: Dataset | None, runner: Any, threads: int | None = None) -> list[str]:
    """One note when float operators take at least half of a call of a network with one-bit layers; else none.

    Without data or without the engine nothing can be measured, and the note says that.
    """
    if not has_one_bit_layers(graph):
        return []
    if data is None or not runtime_available():
        what = "without calibration data" if data is None else "without the compiled runtime"
        return [f"one-bit layers: what float operators cost beside them is not measured {what}"]
    from netsuke import engine
    from netsuke.measure.layers import profile_layers
    from netsuke.methods.quantize.ptq import quantize
    from netsuke.passes import compile_program
    from netsuke.verify.batches import feeds_of, fixed_batch

    few = data.take(min(_SAMPLES, len(data)), plan.seed)
    own = copy.deepcopy(plan)  # quantizing may change rows
    program = compile_program(quantize(graph, plan=own, calib=few, runner=runner), name="float part")
    feeds = feeds_of(program.inputs, next(data.batches(fixed_batch(program.inputs) or 1))[0])
    loaded = engine.load(program, threads=threads)
    rows = profile_layers(loaded, feeds, int(loaded.threads))
    kinds = {row["name"]: row["kind"] for row in packed_report(program)}
    return note_of(rows, kinds)


def note_of(rows: list[dict[str, Any]], kinds: dict[str, str]) -> list[str]:
    """The note on a profile: rows with name, op and ms; kinds as in `packed_report`."""
    total = sum(float(row["ms"]) for row in rows)
    one_bit = [row for row in rows if row["op"] in ONE_BIT]
    floats = [row for row in rows if kinds.get(row["name"]) in ("float", "simulated")]
    taken = sum(float(row["ms"]) for row in floats)
    if not one_bit or not floats or taken < SHARE * total:
        return []
    worst = max(floats, key=lambda row: float(row["ms"]))
    bits = sum(float(row["ms"]) for row in one_bit)
    most = f"{worst['name']} ({worst['op']}, {worst['ms']:.3g} ms)"
    return [
        f"float operators take {taken:.3g} of {total:.3g} ms beside {len(one_bit)} one-bit layers ({bits:.3g} ms); "
        f"most of it {most}: plan it packed, or take it out of the shortcut"
    ]
