"""Readable, unique and stable node names.

Networks exported from PyTorch name their nodes by module path ("layer1.0.conv1"); others by the node's own name or
by what it computes.
"""

from __future__ import annotations

import ast
import re

import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"
_NAME = "netsuke.name"  # kept in files, so that a saved canonical graph has the same names when it is captured again


def name_nodes(graph: ir.Graph) -> None:
    """Give every node a unique name; names already given by an earlier call stay."""
    used: set[str] = set()
    paths: dict[str, int] = {}
    modules = {id(node): _module_path(node) for node in graph}
    for node in graph:
        used.add(node.metadata_props.get(_NAME, ""))
    for path in modules.values():
        paths[path] = paths.get(path, 0) + 1
    for node in graph:
        if _NAME in node.metadata_props:
            node.name = node.metadata_props[_NAME]
            continue
        base = modules[id(node)]
        if base and (paths[base] > 1 and not _main(node)):
            base = f"{base}.{node.op_type.lower()}"
        if not base:
            base = node.name if node.name and not re.fullmatch(r"node_\w+|n\d+(_\d+)*", node.name) else ""
        if not base:
            base = f"{node.op_type.lower()}.{node.outputs[0].name}"
        name, index = base, 1
        while name in used:
            index += 1
            name = f"{base}.{index}"
        used.add(name)
        node.name = node.metadata_props[_NAME] = name


def _main(node: ir.Node) -> bool:
    return node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "LayerNormalization", "LSTM", "GRU")


def _module_path(node: ir.Node) -> str:
    """The path of the module that called the node, from the exporter's metadata, or ""."""
    text = node.metadata_props.get(_SCOPES)
    if not text:
        return ""
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    if not isinstance(scopes, list) or len(scopes) < 2 or not all(isinstance(s, str) for s in scopes):
        return ""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    own = weight is not None and weight.is_initializer() and len(list(weight.uses())) == 1
    if _main(node) and weight is not None and own and (weight.name or "").endswith(".weight"):
        return (weight.name or "").removesuffix(".weight")  # exact even where BatchNorm folding moved the node's scope
    path = scopes[-2]
    return "" if path.startswith("_") else path


def name_values(graph: ir.Graph) -> None:
    """Name values that have no name."""
    used = {v.name for node in graph for v in node.outputs}
    for node in graph:
        for index, out in enumerate(node.outputs):
            if not out.name:
                name = f"{node.name}.out{index}"
                while name in used:
                    name += "_"
                out.name = name
                used.add(name)
