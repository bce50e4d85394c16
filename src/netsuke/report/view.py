"""A program as ONNX for viewers: real names, types and shapes, each operator of ours in the domain "netsuke", with a
note of
what the layer is and costs. It is for looking at, not for running; `Small.export` writes an ONNX that runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netsuke.program.model import Port, Program

_TYPES = {
    "f32": "FLOAT",
    "bf16": "BFLOAT16",
    "u8": "UINT8",
    "s8": "INT8",
    "i32": "INT32",
    "i64": "INT64",
    "bool": "BOOL",
}


def _note(layer: Mapping[str, Any] | None) -> str:
    if not layer:
        return ""
    parts = [str(layer["status"]), f"{layer['bytes']:,} bytes"]
    parts += [f"{layer['ms']:.3f} ms"] if layer.get("ms") is not None else []
    parts += [f"SQNR {layer['sqnr_db']:.1f} dB"] if layer.get("sqnr_db") is not None else []
    return ", ".join([*parts, *([str(layer["reason"])] if layer.get("reason") else [])])


def view_model(program: Program, notes: Mapping[str, Mapping[str, Any]] | None = None) -> Any:
    """The ONNX ModelProto. Constants keep their bytes; code tensors carry scale and zero in their description."""
    import onnx
    from onnx import TensorProto, helper

    kinds = {word: getattr(TensorProto, name) for word, name in _TYPES.items()}

    def port(p: Port) -> Any:
        return helper.make_tensor_value_info(p.name, kinds[p.dtype], list(p.shape))

    nodes = []
    for node in program.nodes:
        attrs: dict[str, Any] = dict(node.attrs)
        made = helper.make_node(node.op, node.inputs, node.outputs, name=node.name, domain="netsuke", **attrs)
        made.doc_string = _note((notes or {}).get(node.name))
        nodes.append(made)
    constants = []
    for name, array in program.constants.items():
        kind = TensorProto.BFLOAT16 if name in program.bf16 else None
        tensor = onnx.numpy_helper.from_array(array, name)
        if kind is not None:
            tensor.data_type = kind
        constants.append(tensor)
    graph = helper.make_graph(
        nodes,
        program.name or "program",
        [port(p) for p in program.inputs],
        [port(p) for p in program.outputs],
        constants,
    )
    for name, value in program.values.items():
        if any(p.name == name for p in program.outputs):
            continue
        info = onnx.ValueInfoProto(name=name)
        info.type.tensor_type.elem_type = kinds[value.dtype]
        if value.scale is not None:
            info.doc_string = f"scale {value.scale:g}, zero {value.zero}"
        graph.value_info.append(info)
    imports = [helper.make_opsetid("netsuke", 1), helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=imports, producer_name="netsuke", ir_version=10)


def write_view(program: Program, path: Path, notes: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Write the viewable ONNX; returns the path."""
    import onnx

    onnx.save(view_model(program, notes), str(path))
    return path
