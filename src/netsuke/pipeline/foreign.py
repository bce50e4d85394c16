"""Networks that arrive quantized (QuantizeLinear/DequantizeLinear written by another tool).

Nothing is calibrated or moved: the file's own scales are compiled. The float network beside it is the same graph with
the quantizers taken out; it is also what is quantized when a plan or a recipe asks for something else.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import array_of, constant, dims_of, emit, operand, replace, sweep
from netsuke.core.plan import KEEP, Plan, Row
from netsuke.core.recipe import DEFAULT, Recipe
from netsuke.methods.quantize import weight_only
from netsuke.passes import compile_program, packed_report
from netsuke.passes.nodes import dequantized
from netsuke.program import stored_bits

RECIPE = "as quantized in the file"
AGAIN = "the network came quantized: its quantizers were taken out, and it is quantized again as asked"
_SKIP = ("movement",)


def is_quantized(graph: ir.Model) -> bool:
    """True when the captured graph carries quantizers."""
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.graph)


def stands(graph: ir.Model, recipe: str | Path | Iterable[str] | Recipe | None, plan: Plan | None) -> bool:
    """True when the quantization that came with the graph is kept: no plan or recipe asks for another one.

    A file whose activations are quantized is what the default recipe asks for; one with weights only is not.
    """
    if plan is not None or not is_quantized(graph):
        return False
    activations = any(node.op_type == "QuantizeLinear" for node in graph.graph)
    return recipe is None or (activations and Recipe.make(recipe) == Recipe.make(DEFAULT))


def without_quantizers(model: ir.Model) -> ir.Model:
    """A copy in float: quantize-dequantize pairs removed, quantized constants decoded."""
    found = model.clone()
    graph = found.graph
    for node in [n for n in graph if n.op_type == "DequantizeLinear" and n.domain == ""]:
        codes = array_of(operand(node, 0))
        if codes is not None:
            real = dequantized(node)
            replace(node.outputs[0], constant(graph, real, f"{node.outputs[0].name}.float"))
            continue
        maker = node.inputs[0].producer() if node.inputs[0] is not None else None
        if maker is not None and maker.op_type == "QuantizeLinear" and maker.inputs[0] is not None:
            replace(node.outputs[0], _clipped(graph, maker, maker.inputs[0]))
    sweep(graph)
    return found


def _clipped(graph: ir.Graph, quantizer: ir.Node, value: ir.Value) -> ir.Value:
    """The quantizer's input; clipped to its range where that starts at zero.

    Tools drop a Relu or Relu6 in front of such a quantizer, whose saturation does the same: without the clip the float
    network would be another one.
    """
    scale, zero = array_of(operand(quantizer, 1)), array_of(operand(quantizer, 2))
    if scale is None or zero is None or scale.size != 1 or zero.dtype.kind not in "iu":
        return value
    limits = np.iinfo(zero.dtype)
    if int(zero.reshape(-1)[0]) != limits.min:
        return value
    high = np.float32((limits.max - limits.min) * float(scale.reshape(-1)[0]))
    name = value.name or "value"
    bounds = [constant(graph, np.asarray(v, np.float32), f"{name}.{w}") for v, w in ((0.0, "low"), (high, "high"))]
    return emit(quantizer, "Clip", [value, *bounds], dtype=value.dtype, dims=dims_of(value), name=f"{name}.clip")


def plan_of(model: ir.Model, seed: int) -> Plan:
    """What the compiler makes of the file, as a plan to read: which layers are packed, which stay float."""
    program = compile_program(model, name="foreign")
    rows = []
    for row in packed_report(program):
        if row["kind"] in _SKIP or row["op"] in ("quantize", "dequantize"):
            continue
        packed = row["kind"] == "packed"
        status = row["kind"] if row["kind"] in ("packed", "simulated") else "float"
        method = "" if packed else KEEP
        made = Row(row["name"], row["op"], method=method, kernel=row["op"], status=status, reason=row["note"])
        node = next(n for n in program.nodes if n.name == row["name"])
        compute = str(node.attrs.get("compute", "f32")) if node.op == "wlinear" else "s8"
        made.activation_bits = weight_only.ACTIVATION_BITS[compute] if packed else 32
        if len(node.inputs) > 1 and node.inputs[1] in program.constants:
            made.weight_bits = stored_bits(program, node.inputs[1])
        rows.append(made)
    note = "the network came quantized: its own scales are used; float is the same file with its quantizers taken out"
    return Plan(rows=rows, recipe=RECIPE, seed=seed, data={"source": "the quantized file"}, notes=[note])
