"""Read an ONNX file that may be damaged or hostile.

Nothing of a file is trusted: sizes are limited before anything is allocated, external data must be plain files
inside the folder of the model, tensors must hold exactly the bytes their shape asks for, names must be unique and
defined before use, and the graph must be free of cycles. All problems are collected and raised as one FileError.
"""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import onnx_ir as ir

from netsuke.core.errors import FileError, Problem

MAX_FILE_BYTES = 2**31  # protobuf itself cannot hold more; larger models keep weights in external data
MAX_TENSOR_BYTES = 2**34
MAX_NODES = 1_000_000
MAX_RANK = 8
MAX_SHOWN = 20  # problems of one kind listed before the rest is only counted

# Bits of one element for every ONNX tensor type that a file may hold.
_BITS = {
    1: 32,
    2: 8,
    3: 8,
    4: 16,
    5: 16,
    6: 32,
    7: 64,
    9: 8,
    10: 16,
    11: 64,
    12: 32,
    13: 64,
    14: 64,
    15: 128,
    16: 16,
    17: 8,
    18: 8,
    19: 8,
    20: 8,
    21: 4,
    22: 4,
    23: 4,
    24: 8,
    25: 2,
    26: 2,
}
_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def read_onnx(path: str | Path) -> ir.Model:
    """Read, check and return the model of an ONNX file; FileError with everything that is wrong."""
    path = Path(path)
    if not path.is_file():
        raise FileError(Problem("no such file", where=str(path)))
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise FileError(
            Problem(
                "file too large",
                where=str(path),
                got=f"{size} bytes",
                allowed=f"{MAX_FILE_BYTES}",
                hint="store the weights as external data",
            )
        )
    return parse_onnx(path.read_bytes(), where=str(path), folder=path.parent)


def parse_onnx(data: bytes, *, where: str = "model", folder: Path | None = None) -> ir.Model:
    """Check the bytes of an ONNX model and return it; `folder` is where external data may lie (None: nowhere)."""
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # protobuf raises several types, none of them public
        raise FileError(Problem("not an ONNX file, or a damaged one", where=where, got=str(error)[:200])) from None
    return check_proto(proto, where=where, folder=folder)


def check_proto(proto: onnx.ModelProto, *, where: str = "model", folder: Path | None = None) -> ir.Model:
    """Check a parsed model and turn it into an onnx_ir model; FileError with everything that is wrong."""
    try:
        return _checked(proto, where, folder)
    except UnicodeDecodeError as error:  # protobuf raises it where a text field is read
        raise FileError(Problem("a text of the model is not UTF-8", where=where, got=str(error)[:120])) from None


def _checked(proto: onnx.ModelProto, where: str, folder: Path | None) -> ir.Model:
    problems: list[Problem] = []
    if not proto.opset_import:
        problems.append(Problem("the model names no opset", where=where, hint="is this an ONNX model?"))
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        problems.append(Problem("the model has no graph", where=where, hint="is this an ONNX model?"))
    else:
        _check_graph(proto.graph, set(), problems, folder, depth=0)
    for function in proto.functions:
        _check_nodes(function.node, set(function.input), problems, folder, depth=0)
    if problems:
        raise FileError(_shorten(problems), summary=f"{where}: not a valid ONNX model")
    _check_schemas(proto, where)
    try:
        model = ir.serde.deserialize_model(proto)
        if folder is not None:
            ir.external_data.set_base_dir(model.graph, str(folder))
    except Exception as error:  # a file that passed the checks above and still breaks the reader is damaged
        raise FileError(Problem("the model cannot be read", where=where, got=str(error)[:300])) from None
    return model


def _check_schemas(proto: onnx.ModelProto, where: str) -> None:
    """Operators, attribute types and numbers of inputs against the operator schemas of the onnx package."""
    newest = onnx.defs.onnx_opset_version()
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if any(v > newest for v in versions):
        return  # newer than the installed onnx package; what follows checks what it needs
    light = onnx.ModelProto(ir_version=max(4, proto.ir_version), producer_name=proto.producer_name)
    light.opset_import.extend(proto.opset_import)
    light.functions.extend(proto.functions)
    light.graph.name = proto.graph.name or "graph"
    light.graph.node.extend(proto.graph.node)
    light.graph.input.extend(proto.graph.input)
    light.graph.output.extend(proto.graph.output)
    given = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:  # the weights themselves are checked above, here they are inputs
        if tensor.name not in given:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    try:
        onnx.checker.check_model(light, full_check=False)
    except Exception as error:  # ValidationError, and whatever its C++ side trips over
        got = " ".join(str(error).split())[:300]
        raise FileError(Problem("the model breaks a rule of ONNX", where=where, got=got)) from None


def _shorten(problems: list[Problem]) -> list[Problem]:
    if len(problems) <= MAX_SHOWN:
        return problems
    return [*problems[:MAX_SHOWN], Problem(f"and {len(problems) - MAX_SHOWN} more")]


def _check_graph(
    graph: onnx.GraphProto, outer: set[str], problems: list[Problem], folder: Path | None, depth: int
) -> None:
    if depth > 8:
        problems.append(Problem("subgraphs nested deeper than 8", where=graph.name))
        return
    known = set(outer)
    for value in graph.input:
        _check_value_info(value, problems)
    known |= {value.name for value in graph.input}
    names: set[str] = set()
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in names:
            problems.append(Problem("initializer without a name of its own", where=graph.name, got=repr(tensor.name)))
        names.add(tensor.name)
        _check_tensor(tensor, tensor.name, problems, folder)
    problems += [
        Problem("sparse initializers are not supported", where=s.values.name) for s in graph.sparse_initializer
    ]
    known |= names
    known = _check_nodes(graph.node, known, problems, folder, depth)
    for value in graph.output:
        if value.name not in known:
            problems.append(Problem("output that nothing computes", where=value.name))
        _check_value_info(value, problems)
    if not graph.output:
        problems.append(Problem("graph without outputs", where=graph.name))
    for value in graph.value_info:
        _check_value_info(value, problems)


def _check_nodes(nodes, known: set[str], problems: list[Problem], folder: Path | None, depth: int) -> set[str]:  # type: ignore[no-untyped-def]
    if len(nodes) > MAX_NODES:
        problems.append(Problem("too many nodes", got=str(len(nodes)), allowed=str(MAX_NODES)))
        return known
    known = set(known)
    later = {name for node in nodes for name in node.output}
    for node in nodes:
        texts = [node.op_type, node.domain, node.name, *node.input, *node.output, *(a.name for a in node.attribute)]
        if not all(isinstance(text, str) for text in texts):  # protobuf hands out bytes for text that is not UTF-8
            problems.append(Problem("a name is not UTF-8 text", got=repr(texts)[:120]))
            return known
        label = f"{node.op_type} {node.name or (node.output[0] if node.output else '')!r}"
        for name in node.input:
            if name and name not in known:
                what = "input computed only later: the graph has a cycle or is out of order"
                problems.append(
                    Problem(what if name in later else "input that nothing computes", where=label, got=name)
                )
        for attribute in node.attribute:
            _check_attribute(attribute, label, known, problems, folder, depth)
        for name in node.output:
            if name and name in known:
                problems.append(Problem("two nodes compute one value", where=label, got=name))
            known.add(name)
    return known


def _check_attribute(
    attribute: onnx.AttributeProto,
    label: str,
    known: set[str],
    problems: list[Problem],
    folder: Path | None,
    depth: int,
) -> None:
    tensors = [*attribute.tensors, attribute.t] if attribute.HasField("t") else list(attribute.tensors)
    for tensor in tensors:
        _check_tensor(tensor, f"{label}.{attribute.name}", problems, folder)
    graphs = [*attribute.graphs, attribute.g] if attribute.HasField("g") else list(attribute.graphs)
    for graph in graphs:
        _check_graph(graph, known, problems, folder, depth + 1)


def _check_value_info(value: onnx.ValueInfoProto, problems: list[Problem]) -> None:
    if not value.type.HasField("tensor_type"):
        return
    dims = value.type.tensor_type.shape.dim
    if len(dims) > MAX_RANK:
        problems.append(Problem("rank too high", where=value.name, got=str(len(dims)), allowed=f"at most {MAX_RANK}"))
    sizes = [dim.dim_value for dim in dims if dim.HasField("dim_value")]
    problems += [Problem("impossible dimension", where=value.name, got=str(s)) for s in sizes if not 0 <= s < 2**31]


def _check_tensor(tensor: onnx.TensorProto, label: str, problems: list[Problem], folder: Path | None) -> None:
    if tensor.data_type == onnx.TensorProto.STRING:
        return
    if tensor.data_type not in _BITS:
        problems.append(Problem("unknown tensor type", where=label, got=str(tensor.data_type)))
        return
    if len(tensor.dims) > MAX_RANK or any(not 0 <= d < 2**40 for d in tensor.dims):
        problems.append(Problem("impossible dimensions", where=label, got=str(list(tensor.dims)[:10])))
        return
    count = math.prod(tensor.dims)
    expected = (count * _BITS[tensor.data_type] + 7) // 8
    if expected > MAX_TENSOR_BYTES:
        problems.append(
            Problem("tensor too large", where=label, got=f"{expected} bytes", allowed=f"{MAX_TENSOR_BYTES}")
        )
    elif tensor.data_location == onnx.TensorProto.EXTERNAL:
        _check_external(tensor, label, expected, problems, folder)
    elif tensor.HasField("raw_data"):
        if len(tensor.raw_data) != expected:
            problems.append(
                Problem(
                    "tensor data of the wrong size",
                    where=label,
                    got=f"{len(tensor.raw_data)} bytes",
                    allowed=f"{expected} bytes for {list(tensor.dims)}",
                )
            )
    elif not _field_count_fits(tensor, count):
        got = sum(len(getattr(tensor, name)) for name in _FIELDS)
        problems.append(
            Problem("tensor data of the wrong size", where=label, got=f"{got} elements", allowed=str(count))
        )


def _field_count_fits(tensor: onnx.TensorProto, count: int) -> bool:
    bits = _BITS[tensor.data_type]
    if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        return False
    got = sum(len(getattr(tensor, name)) for name in _FIELDS)
    return got == count or (bits < 8 and got == (count * bits + 7) // 8)


def _check_external(
    tensor: onnx.TensorProto, label: str, expected: int, problems: list[Problem], folder: Path | None
) -> None:
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if folder is None or not location:
        problems.append(Problem("external data without a file", where=label, got=repr(location)))
        return
    base = folder.resolve()
    target = (base / location).resolve()
    if Path(location).is_absolute() or not target.is_relative_to(base) or (base / location).is_symlink():
        problems.append(Problem("external data outside the folder of the model", where=label, got=location[:120]))
        return
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(expected)))
    except ValueError:
        problems.append(Problem("external data with a bad offset or length", where=label, got=str(entries)[:200]))
        return
    if not target.is_file():
        problems.append(
            Problem("external data file is missing", where=label, got=location, hint="keep it beside the .onnx file")
        )
    elif offset < 0 or length != expected or offset + expected > target.stat().st_size:
        problems.append(
            Problem(
                "external data too short or of the wrong size",
                where=label,
                got=f"offset {offset}, length {length}, file of {target.stat().st_size} bytes",
                allowed=f"{expected} bytes",
            )
        )
