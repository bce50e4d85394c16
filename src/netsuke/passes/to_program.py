"""The graph, by now made of program operators only, as a `Program`. The only step that leaves onnx_ir."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import array_of, attr, dims_of, source_of
from netsuke.core.errors import Problem, UnsupportedError
from netsuke.passes.nodes import is_ns
from netsuke.passes.rules import word
from netsuke.program.model import Dim, Node, Port, Program, Value
from netsuke.program.opset import OPERATORS, output_dtypes
from netsuke.program.ranges import COPIES


def to_program(graph: ir.Graph, *, name: str, plan: str, meta: dict[str, str]) -> Program:
    """The program of a graph whose nodes are all of the `netsuke` domain, in order."""
    names = _value_names(graph)
    constants: dict[str, np.ndarray[Any, Any]] = {}
    bf16: set[str] = set()
    for value in graph.initializers.values():
        array = array_of(value)
        if array is None or not list(value.uses()):
            continue
        key = names[id(value)]
        if value.dtype == ir.DataType.BFLOAT16:
            bf16.add(key)
            array = array.view(np.uint16)
        constants[key] = np.asarray(array, order="C")
    program = Program(
        name=name,
        inputs=[Port(names[id(v)], word(v.dtype), _dims(v, names[id(v)])) for v in graph.inputs],
        outputs=[],
        nodes=[],
        constants=constants,
        plan=plan,
        meta=dict(meta),
        bf16=bf16,
    )
    _add_nodes(graph, names, program)
    for value in graph.outputs:
        made = names[id(value)]
        program.outputs.append(Port(made, program.values[made].dtype, _dims(value, made)))
    return program


def _add_nodes(graph: ir.Graph, names: dict[int, str], program: Program) -> None:
    dtypes = {port.name: port.dtype for port in program.inputs}
    dtypes |= {key: "bf16" if key in program.bf16 else _array_word(array) for key, array in program.constants.items()}
    used: set[str] = set()
    for node in graph:
        if node.domain != "netsuke" or node.op_type not in OPERATORS:
            raise UnsupportedError(Problem(f"{node.op_type} has no place in a program", where=node.name or ""))
        inputs = ["" if v is None else names[id(v)] for v in node.inputs]
        wanted = OPERATORS[node.op_type].inputs
        if not wanted[-1].many:
            inputs += [""] * (len(wanted) - len(inputs))
        made = Node(
            node.op_type,
            _unique(node.name or node.op_type, used),
            inputs,
            [names[id(v)] for v in node.outputs],
            _attrs(node),
        )
        program.nodes.append(made)
        kinds = output_dtypes(made, [dtypes[n] if n else "" for n in inputs])
        for value, key, kind in zip(node.outputs, made.outputs, kinds, strict=True):
            dtypes[key] = kind
            scale, zero = _grid(value) if kind == "u8" else (None, None)
            program.values[key] = Value(kind, scale, zero, source_of(value))


def _attrs(node: ir.Node) -> dict[str, Any]:
    """Attributes as plain Python numbers, without those that say what the default says."""
    defaults = OPERATORS[node.op_type].attrs
    result: dict[str, Any] = {}
    for key in sorted(node.attributes):
        value = attr(node, key)
        kind = defaults[key].kind if key in defaults else ""
        if kind == "float":
            value = float(np.float32(value))
        elif kind == "ints":
            value = [int(v) for v in value]
        elif kind == "int":
            value = int(value)
        if key not in defaults or value != defaults[key].default:
            result[key] = value
    return result


def _unique(name: str, used: set[str]) -> str:
    candidate, index = name, 1
    while candidate in used:
        index += 1
        candidate = f"{name}.{index}"
    used.add(candidate)
    return candidate


def _value_names(graph: ir.Graph) -> dict[int, str]:
    """Inputs and outputs keep their names; other values are named after what they stand for."""
    names: dict[int, str] = {}
    used = {""}
    for value in [*graph.inputs, *graph.outputs]:
        if id(value) not in names:
            names[id(value)] = _unique(value.name or "value", used)
    for value in graph.initializers.values():
        if list(value.uses()):
            names.setdefault(id(value), _unique(value.name or "constant", used))
    for node in graph:
        for out in node.outputs:
            if id(out) not in names:
                names[id(out)] = _unique(source_of(out) or node.name or "value", used)
    return names


def _dims(value: ir.Value, name: str) -> tuple[Dim, ...]:
    dims = dims_of(value)
    if dims is None:
        raise UnsupportedError(Problem("the rank is not known", where=name))
    return tuple(d if isinstance(d, int) else (d or f"{name}.{i}") for i, d in enumerate(dims))


def _array_word(array: np.ndarray[Any, Any]) -> str:
    words = {"float32": "f32", "uint8": "u8", "int8": "s8", "int32": "i32", "int64": "i64", "bool": "bool"}
    kind = words.get(str(array.dtype))
    if kind is None:
        raise UnsupportedError(Problem("no such constant in a program", got=str(array.dtype)))
    return kind


# Those that fill in or join values keep the grid of their first input as well.
_COPIES = COPIES | {"pad", "resize", "concat"}


def _grid(value: ir.Value) -> tuple[float | None, int | None]:
    """Scale and zero of a code tensor: stated by its maker's `grid`, or those of what it copies."""
    for _ in range(1000):
        node = value.producer()
        if "grid" in value.meta:
            scale, zero = value.meta["grid"]
            return float(scale), int(zero)
        if node is None:
            return None, None
        if is_ns(node, "quantize"):
            return float(attr(node, "scale")), int(attr(node, "zero"))
        if "quant_scale" in node.attributes:
            return float(attr(node, "quant_scale")), int(attr(node, "quant_zero"))
        if node.op_type not in _COPIES or node.inputs[0] is None:
            return None, None
        value = node.inputs[0]
    return None, None
