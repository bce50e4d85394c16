"""What every rule about transposes needs: read one above a node, write one below it, tell which move no data."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from netsuke.capture.graph import (
    attr,
    dims_of,
    replace,
    source_of,
)
from netsuke.passes.nodes import from_ns, inverse, ns, permuted, transposed


def perm_of(value: ir.Value | None) -> tuple[ir.Value, list[int]] | None:
    """(source, perm) when the value is a transpose."""
    node = from_ns(value, "transpose")
    if node is None or node.inputs[0] is None:
        return None
    return node.inputs[0], [int(p) for p in attr(node, "perm")]


def finish(node: ir.Node, y: ir.Value, perm: list[int]) -> bool:
    """Put transpose(y, perm) in the place of the node."""
    out = node.outputs[0]
    source = source_of(out)
    new = transposed(node, y, perm, name=f"{node.name}.transpose")
    replace(out, new)
    new.meta["source"] = source
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def again(
    node: ir.Node, inputs: list[ir.Value | None], perm: list[int], attrs: dict[str, Any] | None = None
) -> ir.Value:
    """The node on permuted axes: dimensions of the output are those of the old output before `perm`."""
    out = node.outputs[0]
    given = {name: a.value for name, a in node.attributes.items()} | (attrs or {})
    given = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
    dims = permuted(dims_of(out), inverse(perm))
    y = ns(node, node.op_type, inputs, given, dtype=out.dtype, dims=dims, name=node.name or "", source=source_of(out))
    if "grid" in out.meta:
        y.meta["grid"] = out.meta["grid"]
    return y


def only_ones_move(dims: list[Any], perm: list[int]) -> bool:
    """True when the dimensions other than 1 keep their order."""
    kept = [p for p in perm if dims[p] != 1]
    return kept == sorted(kept)


def moves_only_ones(x: ir.Value, perm: list[int]) -> bool:
    dims = dims_of(x)
    return dims is not None and only_ones_move(dims, perm)
