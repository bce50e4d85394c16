"""Bring every node of the default domain to the one opset the rest of netsuke reads (`CANONICAL`).

Written as one function per operator whose signature or meaning changed between opset 9 and `CANONICAL`; the version
converter of the onnx package refuses many models (adapters are missing for Resize, Upsample and others) and was not
used for that reason. Newer files are accepted too: the operators netsuke supports kept their meaning, and an
operator it does not know is listed by `netsuke.capture.supported`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import array_of, attr, constant, dims_of, emit, operand, rank_of, replace
from netsuke.core.errors import Problem, UnsupportedError

CANONICAL = 24
OLDEST = 9


def canonical_opset(model: ir.Model) -> None:
    """Rewrite all nodes to opset `CANONICAL`; UnsupportedError for opsets older than `OLDEST`."""
    version = model.graph.opset_imports.get("", CANONICAL)
    if version < OLDEST:
        raise UnsupportedError(
            Problem("opset too old", got=str(version), allowed=f"{OLDEST} or newer", hint="export again with opset 17")
        )
    for node in list(model.graph):
        if node.domain == "" and node.op_type in _UPGRADES:
            _UPGRADES[node.op_type](node, version)
        node.version = None
    model.graph.opset_imports[""] = CANONICAL


def _move_to_input(node: ir.Node, name: str, index: int, dtype: type = np.int64) -> None:
    """Turn an attribute into the constant input at `index`."""
    value = attr(node, name)
    if value is None:
        return
    assert node.graph is not None
    while len(node.inputs) <= index:
        node.resize_inputs(len(node.inputs) + 1)
    array: np.ndarray[Any, Any] = np.asarray(value, dtype)
    node.replace_input_with(index, constant(node.graph, array, f"{node.name}.{name}"))
    del node.attributes[name]


def _axes_to_input(node: ir.Node, _: int) -> None:
    _move_to_input(node, "axes", 1)


def _split(node: ir.Node, _: int) -> None:
    _move_to_input(node, "split", 1)
    if operand(node, 1) is None and "num_outputs" not in node.attributes:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _softmax(node: ir.Node, version: int) -> None:
    """Before opset 13 softmax ran over all dimensions from `axis` on, as one."""
    if version >= 13:
        node.attributes.setdefault("axis", ir.AttrInt64("axis", -1))
        return
    axis, rank = int(attr(node, "axis", 1)), rank_of(node.inputs[0])
    if rank is not None and axis in (-1, rank - 1):
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
        return
    x = node.inputs[0]
    assert x is not None
    flat = emit(node, "Flatten", [x], {"axis": axis}, dtype=x.dtype)
    soft = emit(node, node.op_type, [flat], {"axis": -1}, dtype=x.dtype)
    shape = emit(node, "Shape", [x], dtype=ir.DataType.INT64)
    out = emit(node, "Reshape", [soft, shape], dtype=x.dtype, dims=dims_of(x))
    replace(node.outputs[0], out)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _clip(node: ir.Node, _: int) -> None:
    _move_to_input(node, "min", 1, np.float32)
    _move_to_input(node, "max", 2, np.float32)


def _pad(node: ir.Node, _: int) -> None:
    _move_to_input(node, "pads", 1)
    _move_to_input(node, "value", 2, np.float32)


def _slice(node: ir.Node, _: int) -> None:
    if "starts" in node.attributes:
        for index, name in enumerate(("starts", "ends", "axes"), start=1):
            _move_to_input(node, name, index)


def _dropout(node: ir.Node, _: int) -> None:
    node.attributes.pop("ratio", None)


def _batchnorm(node: ir.Node, _: int) -> None:
    node.attributes.pop("spatial", None)


def _resize(node: ir.Node, version: int) -> None:
    """Upsample and Resize 10 have the inputs (x, scales) and sample at asymmetric coordinates, rounding down."""
    if node.op_type == "Upsample" or version < 11:
        assert node.graph is not None
        if "scales" in node.attributes:
            _move_to_input(node, "scales", 1, np.float32)
        x, scales = node.inputs[0], node.inputs[1]
        mode = attr(node, "mode", "nearest")
        attrs = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        out = emit(node, "Resize", [x, None, scales], attrs, dtype=x.dtype if x else None)
        replace(node.outputs[0], out)
        node.graph.remove(node, safe=True)
        return
    for index in (1, 2):  # an empty constant means "absent"
        array = array_of(operand(node, index))
        if array is not None and array.size == 0:
            node.replace_input_with(index, None)


def _groupnorm(node: ir.Node, version: int) -> None:
    """Until opset 20 scale and bias had one element per group."""
    if version >= 21:
        return
    assert node.graph is not None
    dims = dims_of(node.inputs[0])
    groups = int(attr(node, "num_groups", 1))
    for index in (1, 2):
        array = array_of(node.inputs[index])
        if array is None or dims is None or not isinstance(dims[1], int):
            raise UnsupportedError(Problem("GroupNormalization with computed scale", where=node.name or ""))
        repeated = np.repeat(array, dims[1] // groups)
        node.replace_input_with(index, constant(node.graph, repeated, f"{node.name}.{index}"))


_REDUCTIONS = ("Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "Sum", "SumSquare")


def _dequantize(node: ir.Node, _: int) -> None:
    """Constants of 2 bits, which opset 25 brought, as bytes: the same numbers."""
    wider = {"int2": np.int8, "uint2": np.uint8}
    for index, word in ((0, "codes"), (2, "zero")):
        codes = array_of(operand(node, index))
        if codes is not None and str(codes.dtype) in wider and node.graph is not None:
            plain = codes.astype(wider[str(codes.dtype)])
            node.replace_input_with(index, constant(node.graph, plain, f"{node.name}.{word}"))


_UPGRADES: dict[str, Callable[[ir.Node, int], None]] = {
    "DequantizeLinear": _dequantize,
    "Squeeze": _axes_to_input,
    "Unsqueeze": _axes_to_input,
    "Split": _split,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Clip": _clip,
    "Pad": _pad,
    "Slice": _slice,
    "Dropout": _dropout,
    "BatchNormalization": _batchnorm,
    "Resize": _resize,
    "Upsample": _resize,
    "GroupNormalization": _groupnorm,
    **{f"Reduce{kind}": _axes_to_input for kind in _REDUCTIONS},
}
