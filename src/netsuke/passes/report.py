"""What of a program runs as integers, as floats, only moves data, or was quantized but still computes in floats."""

from __future__ import annotations

import numpy as np

from netsuke.program.model import Node, Program
from netsuke.program.opset import OPERATORS

ONE_BIT = ("bconv", "blinear", "bmatmul")  # signs of weights and activations, or of two activations
_LAYERS = ("conv", "conv_transpose", "linear", "matmul", "lstm", "gru")


def packed_report(program: Program) -> list[dict[str, str]]:
    """One row per node in order: {"name", "op", "kind", "note"}.

    kind: "packed" computes on integer codes, "float" on floats, "simulated" is a float layer with codes at its
    input or weights that were integers in the source graph (its arithmetic is not that of an integer layer),
    "movement" copies or computes shapes.
    """
    makers = {name: node for node in program.nodes for name in node.outputs}
    folded = {name for name in program.meta.get("simulated", "").split(", ") if name}
    tables = {name for name, array in program.constants.items() if array.dtype == np.uint8}
    return [_row(node, makers, folded, tables) for node in program.nodes]


def counts(rows: list[dict[str, str]]) -> dict[str, int]:
    """How many nodes of each kind a report holds."""
    result = dict.fromkeys(("packed", "float", "simulated", "movement"), 0)
    for row in rows:
        result[row["kind"]] += 1
    return result


def _row(node: Node, makers: dict[str, Node], folded: set[str], tables: set[str]) -> dict[str, str]:
    group = OPERATORS[node.op].group
    kind = {"integer": "packed", "movement": "movement"}.get(group, "float")
    note = ""
    if node.op == "maxpool" and _on_codes(node, makers):
        kind = "packed"
    elif node.op == "gather" and node.inputs[0] in tables:
        kind, note = "packed", "rows of a table of codes"
    elif node.op == "gather" and node.name in folded:
        kind, note = "simulated", "a table of integers, stored as float32"
    elif node.op == "wlinear":
        kind, note = "packed", "weights as codes, activations float"
        if node.attrs.get("compute") in ("s8", "bf16"):
            how = "quantized" if node.attrs["compute"] == "s8" else "rounded to bfloat16"
            note = f"weights as codes, activations {how} on the fly"
    elif node.op in _LAYERS and node.name in folded:
        kind, note = "simulated", "integer weights, computed as float32"
    elif node.op in _LAYERS and any(name in makers and makers[name].op == "dequantize" for name in node.inputs):
        kind, note = "simulated", "codes at the input, computed as float32"
    elif node.op in ("quantize", "dequantize"):
        note = "border between floats and codes"
    elif kind == "packed" and node.attrs.get("out") == "f32":
        note = "integer sums, float32 result"
    return {"name": node.name, "op": node.op, "kind": kind, "note": note}


def _on_codes(node: Node, makers: dict[str, Node]) -> bool:
    """Follows copies upwards to an operator that makes codes."""
    name = node.inputs[0]
    for _ in range(len(makers) + 1):
        maker = makers.get(name)
        if maker is None:
            return False
        if maker.op == "dequantize":
            return False
        if OPERATORS[maker.op].group == "integer":
            return maker.attrs.get("out", "u8") == "u8"
        if "quant_scale" in maker.attrs:
            return True
        if not maker.inputs:
            return False
        name = maker.inputs[0]
    return False
