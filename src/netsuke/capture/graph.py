"""Small verbs over onnx_ir graphs, shared by capture and by the passes.

Every rewrite of the compiler is written with these: read a constant or an attribute, emit a node that carries shape
and dtype, replace a value, erase what died. A value's `meta["source"]` is the name of the value of the user's graph
that it stands for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, Any]
Dims = Sequence[Any]
NETSUKE = "netsuke"
PRODUCTS = "netsuke.products"  # metadata of a layer: "bf16" where the plan wants its products on bfloat16

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


def array_of(value: ir.Value | None) -> Array | None:
    """The constant behind a value (initializer or Constant node) as an array, or None."""
    if value is None:
        return None
    tensor = value.const_value
    if tensor is None:
        tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.dtype == ir.DataType.STRING else np.asarray(tensor.numpy())


def is_constant(value: ir.Value | None) -> bool:
    """True when the value is an initializer that no caller can feed (graph inputs with a default are not constants)."""
    return value is not None and value.const_value is not None and not value.is_graph_input()


def scalar_of(value: ir.Value | None) -> float | None:
    """The only element of a constant, or None when the value is no constant of one element."""
    array = array_of(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 and array.dtype.kind in "fiub" else None


def ints_of(value: ir.Value | None) -> list[int] | None:
    """A constant integer tensor as a flat list, or None."""
    array = array_of(value)
    return [int(v) for v in array.reshape(-1)] if array is not None and array.dtype.kind in "iu" else None


def attr(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of an attribute (lists as lists), or the default."""
    found = node.attributes.get(name)
    if found is None or found.value is None:
        return default
    return list(found.value) if isinstance(found.value, tuple) else found.value


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """The input at that index, or None when it is absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def is_op(node: ir.Node | None, *op_types: str, domain: str = "") -> bool:
    """True when the node is one of these operators of the domain."""
    return node is not None and node.domain == domain and node.op_type in op_types


def made_by(value: ir.Value | None, *op_types: str, domain: str = "") -> ir.Node | None:
    """The node that produces the value, if it is one of these operators."""
    node = value.producer() if value is not None else None
    return node if is_op(node, *op_types, domain=domain) else None


def only_user(value: ir.Value) -> ir.Node | None:
    """The node that reads the value, when there is exactly one read and the value is no graph output."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def dims_of(value: ir.Value | None) -> list[Any] | None:
    """Dimensions as a list of int, str (a named free dimension) or None (unknown).

    None when even the rank is unknown.
    """
    if value is None or value.shape is None:
        return None
    return [int(d) if isinstance(d, int) else d.value for d in value.shape]


def rank_of(value: ir.Value | None) -> int | None:
    """The rank, or None when it is unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def axis_of(node: ir.Node, rank: int, default: int = 0, name: str = "axis") -> int:
    """A non-negative axis attribute."""
    axis = int(attr(node, name, default))
    return axis + rank if axis < 0 else axis


def source_of(value: ir.Value) -> str:
    """Name of the value of the user's graph that this one stands for."""
    return str(value.meta.get("source", value.name or ""))


def fresh_name(graph: ir.Graph, base: str) -> str:
    """A value name that the graph does not use yet: base, base.1, base.2, ...

    The table of names is kept with the graph; what others add to the graph without it are initializers.
    """
    taken: dict[str, int] = graph.meta.setdefault("netsuke_names", {})
    if not taken:
        for value in [*graph.inputs, *graph.initializers.values(), *(o for node in graph for o in node.outputs)]:
            taken.setdefault(value.name or "", 0)
    if base not in taken and base not in graph.initializers:
        taken[base] = 0
        return base
    taken.setdefault(base, 0)
    while True:
        taken[base] += 1
        name = f"{base}.{taken[base]}"
        if name not in taken and name not in graph.initializers:
            taken[name] = 0
            return name


def constant(graph: ir.Graph, array: Array, name: str) -> ir.Value:
    """Add an initializer (its name is made unique) and return its value."""
    tensor = ir.tensor(np.asarray(array, order="C"), name=fresh_name(graph, name))
    shape = ir.Shape([int(d) for d in array.shape])
    value = ir.Value(name=tensor.name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def set_type(value: ir.Value, dtype: ir.DataType | None, dims: Dims | None) -> None:
    """Give a value its dtype and dimensions; None leaves that part unknown."""
    if dtype is not None:
        value.type = ir.TensorType(dtype)
    value.shape = None if dims is None else ir.Shape(list(dims))


def _attribute(name: str, value: Any) -> ir.Attr:
    """The attribute of a Python value. The common kinds are told apart here: onnx_ir asks protocols, which takes as
    long as the rest of a pass.
    """
    if type(value) is int or type(value) is bool:
        return ir.AttrInt64(name, int(value))
    if type(value) is float:
        return ir.AttrFloat32(name, value)
    if type(value) is str:
        return ir.AttrString(name, value)
    if type(value) in (list, tuple) and value and all(type(item) is int for item in value):
        return ir.AttrInt64s(name, value)
    return ir.convenience.convert_attribute(name, value)


def emit(
    before: ir.Node,
    op: str,
    inputs: Sequence[ir.Value | None],
    attrs: dict[str, Any] | None = None,
    *,
    domain: str = "",
    dtype: ir.DataType | None = None,
    dims: Dims | None = None,
    name: str = "",
    source: str = "",
) -> ir.Value:
    """Insert a node with one output in front of another node and return the output.

    `name` names the node (the node in front of which it stands lends its own by default); `source` is what the
    output stands for.
    """
    graph = before.graph
    assert graph is not None
    trimmed = list(inputs)
    while trimmed and trimmed[-1] is None:
        trimmed.pop()
    listed = [_attribute(key, value) for key, value in (attrs or {}).items() if value is not None]
    node = ir.Node(domain, op, trimmed, listed, num_outputs=1, name=name or before.name)
    out = node.outputs[0]
    out.name = fresh_name(graph, (source or before.outputs[0].name or "") + "/" + op.lower())
    out.meta["fresh"] = True
    set_type(out, dtype, dims)
    if source:
        out.meta["source"] = source
    graph.insert_before(before, node)
    return out


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let every reader of `old`, graph outputs included, read `new`.

    A value made by `emit` takes over the name of the old one, and so does any value that becomes a graph output:
    names of the user's graph survive rewrites.
    """
    was_output = old.is_graph_output()
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    producer = new.producer()
    if producer is None or producer.graph is None:
        return
    graph = producer.graph
    if was_output or new.meta.get("fresh"):
        name, source = old.name or "", old.meta.get("source")
        old.name = fresh_name(graph, f"{name}.old")
        new.name = name
        new.meta["fresh"] = False
        if source is not None:
            new.meta["source"] = source
    if new.shape is None and old.shape is not None:
        new.shape = old.shape
    if new.type is None and old.type is not None:
        new.type = old.type


def can_replace(old: ir.Value, new: ir.Value) -> bool:
    """False when `old` is a graph output and `new` cannot become one (graph input, initializer, already an output)."""
    return not (old.is_graph_output() and (new.producer() is None or new.is_graph_output()))


def erase(nodes: Iterable[ir.Node]) -> None:
    """Remove nodes whose outputs nothing reads."""
    for node in nodes:
        if node.graph is not None:
            node.graph.remove(node, safe=True)


def dead(node: ir.Node) -> bool:
    """True when nothing reads any output of the node."""
    return not any(list(out.uses()) or out.is_graph_output() for out in node.outputs)


def sweep(graph: ir.Graph) -> int:
    """Remove nodes without readers, and initializers without readers; returns how many nodes went."""
    removed = 0
    for node in reversed(list(graph)):
        if dead(node):
            graph.remove(node, safe=True)
            removed += 1
    for name in [n for n, v in graph.initializers.items() if not list(v.uses()) and not v.is_graph_output()]:
        if not graph.initializers[name].is_graph_input():
            del graph.initializers[name]
    return removed
