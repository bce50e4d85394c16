"""What the lowering rules share: emit like a node, refuse a node, the words of data types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import (
    constant,
    dims_of,
    source_of,
)
from netsuke.core.errors import Problem, UnsupportedError
from netsuke.passes.nodes import ns

Rule = Callable[[ir.Node], ir.Value]


def like(node: ir.Node, op: str, inputs: list[ir.Value | None], attrs: dict[str, Any] | None = None) -> ir.Value:
    """A program operator whose output has dtype, shape and name of the node's first output."""
    out = node.outputs[0]
    return ns(node, op, inputs, attrs, dtype=out.dtype, dims=dims_of(out), name=node.name or "", source=source_of(out))


def refuse(node: ir.Node, what: str) -> UnsupportedError:
    return UnsupportedError(Problem(f"{node.op_type}: {what}", where=node.name or ""))


def word(dtype: ir.DataType | None) -> str:
    """The program's word for an ONNX type."""
    words = {
        ir.DataType.FLOAT: "f32",
        ir.DataType.UINT8: "u8",
        ir.DataType.INT8: "s8",
        ir.DataType.INT32: "i32",
        ir.DataType.INT64: "i64",
        ir.DataType.BOOL: "bool",
    }
    if dtype not in words:
        raise UnsupportedError(Problem("no such type in a program", got=dtype.name if dtype else "unknown"))
    return words[dtype]


def scalar(node: ir.Node, value: float) -> ir.Value:
    assert node.graph is not None
    return constant(node.graph, np.asarray(value, np.float32), f"{node.name}.c")
