"""What the nodes say about values: ranges of codes for the accumulator bounds (numerics.md section 3), of inputs."""

from __future__ import annotations

from netsuke.program.model import Program
from netsuke.program.opset import attributes

# Operators that give only codes of their first input (all of them copy or select).
COPIES = frozenset(
    (
        *("reshape", "squeeze", "unsqueeze", "transpose", "depth_to_space", "space_to_depth", "identity"),
        *("split", "slice", "gather", "expand", "tile", "maxpool"),
    )
)


def code_ranges(program: Program) -> dict[str, tuple[int, int]]:
    """[lo, hi] of every u8 node output: its node's `lo` and `hi`, carried through operators that only copy codes.

    Values that are not listed have the range [0, 255].
    """
    ranges: dict[str, tuple[int, int]] = {}
    for node in program.nodes:
        attrs = attributes(node)
        if attrs.get("out", "u8") == "u8" and "lo" in attrs and "hi" in attrs:
            found = (int(attrs["lo"]), int(attrs["hi"]))  # type: ignore[arg-type]
        elif node.op in COPIES and node.inputs[0] in ranges:
            found = ranges[node.inputs[0]]
        elif node.op == "concat" and all(name in ranges for name in node.inputs):
            found = (min(ranges[n][0] for n in node.inputs), max(ranges[n][1] for n in node.inputs))
        elif node.op == "lut" and node.inputs[1] in program.constants:
            table = program.constants[node.inputs[1]]
            if table.dtype != "u1" or not table.size:
                continue
            found = (int(table.min()), int(table.max()))
        else:
            continue
        for name in node.outputs:
            ranges[name] = found
    return ranges


def input_ranges(program: Program) -> dict[str, tuple[float, float]]:
    """[lowest, highest] float value that the codes of an input can hold, of every input that is quantized."""
    source = {port.name: port.name for port in program.inputs}
    ranges: dict[str, tuple[float, float]] = {}
    for node in program.nodes:
        name = source.get(node.inputs[0]) if node.inputs else None
        if name is None:
            continue
        if node.op in COPIES:
            source.update(dict.fromkeys(node.outputs, name))
        elif node.op == "quantize":
            attrs = attributes(node)
            scale, zero = float(attrs["scale"]), int(attrs["zero"])  # type: ignore[arg-type]
            low, high = int(attrs.get("lo", 0)), int(attrs.get("hi", 255))  # type: ignore[arg-type]
            ranges[name] = (scale * (low - zero), scale * (high - zero))
    return ranges


def bit_channels(program: Program) -> dict[str, int]:
    """Channels of every value that holds packed signs: made by a one-bit operator, or copied from such a value."""
    found: dict[str, int] = {}
    for node in program.nodes:
        if node.op == "sign_pack" and node.inputs[1] in program.constants:
            found[node.outputs[0]] = int(program.constants[node.inputs[1]].shape[0])
        elif node.op in ("bconv", "blinear") and node.inputs[1] in program.constants:
            packed = node.outputs if attributes(node).get("out") == "bits" else node.outputs[1:]
            found.update(dict.fromkeys(packed, int(program.constants[node.inputs[1]].shape[0])))
        elif node.op == "bmatmul" and "columns" in node.attrs:
            found[node.outputs[0]] = int(node.attrs["columns"])  # type: ignore[arg-type]
        elif node.op == "identity" and node.inputs[0] in found:
            found[node.outputs[0]] = found[node.inputs[0]]
    return found
