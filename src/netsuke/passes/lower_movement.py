"""ONNX operators that move data or compute shapes to program operators, one rule each."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import array_of, attr, axis_of, constant, dims_of, ints_of, operand, replace, source_of
from netsuke.passes.nodes import I64, from_nhwc, nhwc_dims, ns, to_nhwc
from netsuke.passes.rules import Rule, like, refuse, word


def _int_constant(node: ir.Node, values: list[int], name: str) -> ir.Value:
    assert node.graph is not None
    return constant(node.graph, np.asarray(values, np.int64), f"{node.name}.{name}")


def as_i64(node: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """Index and shape operands are i64 in a program."""
    if value is None or value.dtype in (I64, None):
        return value
    array = array_of(value)
    if array is not None and node.graph is not None:
        return constant(node.graph, array.astype(np.int64), f"{value.name}.i64")
    return ns(node, "cast", [value], {"to": "i64"}, dtype=I64, dims=dims_of(value))


def _reshape(node: ir.Node) -> ir.Value:
    attrs = {"allowzero": 1} if int(attr(node, "allowzero", 0)) else {}
    return like(node, "reshape", [node.inputs[0], as_i64(node, node.inputs[1])], attrs)


def _flatten(node: ir.Node) -> ir.Value:
    """[d0*...*d(axis-1), rest] as a reshape; sizes come from the shape when they are not all constants."""
    x, dims = node.inputs[0], dims_of(node.inputs[0])
    if x is None or dims is None:
        raise refuse(node, "unknown rank")
    rank = len(dims)
    axis = axis_of(node, rank, 1) if int(attr(node, "axis", 1)) != rank else rank
    rows, columns = dims[:axis], dims[axis:]
    if axis == 0:
        return like(node, "reshape", [x, _int_constant(node, [1, -1], "shape")])
    if all(isinstance(d, int) for d in columns) and axis == 1:
        return like(node, "reshape", [x, _int_constant(node, [0, int(np.prod(columns, dtype=np.int64))], "shape")])
    if axis == 1:
        return like(node, "reshape", [x, _int_constant(node, [0, -1], "shape")])
    if all(isinstance(d, int) for d in columns):
        return like(node, "reshape", [x, _int_constant(node, [-1, int(np.prod(columns, dtype=np.int64))], "shape")])
    if all(isinstance(d, int) for d in rows):
        return like(node, "reshape", [x, _int_constant(node, [int(np.prod(rows, dtype=np.int64)), -1], "shape")])
    shape = ns(node, "shape", [x], {"start": axis}, dtype=I64, dims=[rank - axis])
    size = ns(node, "reduce", [shape], {"fn": "prod", "axes": [0], "keepdims": 1}, dtype=I64, dims=[1])
    target = ns(node, "concat", [_int_constant(node, [-1], "rows"), size], {"axis": 0}, dtype=I64, dims=[2])
    return like(node, "reshape", [x, target])


def _transpose(node: ir.Node) -> ir.Value:
    rank = len(dims_of(node.inputs[0]) or ())
    perm = [int(p) for p in attr(node, "perm", list(range(rank))[::-1])]
    return like(node, "transpose", [node.inputs[0]], {"perm": perm})


def _concat(node: ir.Node) -> ir.Value:
    rank = len(dims_of(node.outputs[0]) or ())
    return like(node, "concat", list(node.inputs), {"axis": axis_of(node, rank)})


def _split(node: ir.Node) -> ir.Value:
    """All outputs are replaced here; equal parts need the size when they are not even."""
    x, dims = node.inputs[0], dims_of(node.inputs[0])
    if x is None or dims is None:
        raise refuse(node, "unknown rank")
    axis, count = axis_of(node, len(dims)), len(node.outputs)
    sizes = operand(node, 1)
    if sizes is None and isinstance(dims[axis], int):
        part = -(-dims[axis] // count)
        sizes = _int_constant(node, [part] * (count - 1) + [dims[axis] - part * (count - 1)], "sizes")
    made = ir.node(
        "split",
        inputs=[x, sizes] if sizes is not None else [x],
        attributes={"axis": axis},
        domain="netsuke",
        num_outputs=count,
        name=node.name,
    )
    assert node.graph is not None
    node.graph.insert_before(node, made)
    for index, (old, new) in enumerate(zip(node.outputs, made.outputs, strict=True)):
        new.name = f"{old.name or node.name}/split{index}"
        new.meta["fresh"], new.meta["source"] = True, source_of(old)
        new.shape, new.type = old.shape, ir.TensorType(x.dtype) if x.dtype is not None else None
    for old, new in list(zip(node.outputs, made.outputs, strict=True))[1:]:
        replace(old, new)
    return made.outputs[0]


def _slice(node: ir.Node) -> ir.Value:
    return like(node, "slice", [node.inputs[0], *(as_i64(node, operand(node, i)) for i in range(1, 5))])


def _gather(node: ir.Node) -> ir.Value:
    rank = len(dims_of(node.inputs[0]) or ())
    return like(node, "gather", [node.inputs[0], as_i64(node, node.inputs[1])], {"axis": axis_of(node, rank)})


def _pad(node: ir.Node) -> ir.Value:
    """Pads for chosen axes become pads for all of them."""
    x, pads = node.inputs[0], as_i64(node, operand(node, 1))
    rank = len(dims_of(x) or ())
    axes = ints_of(operand(node, 3))
    if axes is not None:
        given = ints_of(pads)
        if given is None:
            raise refuse(node, "computed pads together with axes")
        full = [0] * 2 * rank
        for index, axis in enumerate(axes):
            full[axis % rank], full[rank + axis % rank] = given[index], given[len(axes) + index]
        pads = _int_constant(node, full, "pads")
    value = operand(node, 2)
    mode = attr(node, "mode", "constant")
    return like(node, "pad", [x, pads, value if mode == "constant" else None], {"mode": mode})


def _expand(node: ir.Node) -> ir.Value:
    return like(node, "expand", [node.inputs[0], as_i64(node, node.inputs[1])])


def _tile(node: ir.Node) -> ir.Value:
    return like(node, "tile", [node.inputs[0], as_i64(node, node.inputs[1])])


def _squeeze(node: ir.Node) -> ir.Value:
    axes, dims = operand(node, 1), dims_of(node.inputs[0])
    if axes is None:
        ones = [i for i, d in enumerate(dims or []) if d == 1]
        if dims is None or len(dims) - len(ones) != len(dims_of(node.outputs[0]) or ()):
            raise refuse(node, "which dimensions are 1 is not known")
        axes = _int_constant(node, ones, "axes")
    return like(node, "squeeze", [node.inputs[0], as_i64(node, axes)])


def _unsqueeze(node: ir.Node) -> ir.Value:
    return like(node, "unsqueeze", [node.inputs[0], as_i64(node, node.inputs[1])])


def _resize(node: ir.Node) -> ir.Value:
    """Only the two spatial dimensions are resized."""
    x = node.inputs[0]
    assert x is not None
    rank = len(dims_of(x) or ())
    scales, sizes = _spatial(node, operand(node, 2), rank, np.float32), _spatial(node, operand(node, 3), rank, np.int64)
    if (scales is None) == (sizes is None):
        raise refuse(node, "either scales or sizes are needed")
    attrs: dict[str, Any] = {
        "mode": attr(node, "mode", "nearest"),
        "coord": attr(node, "coordinate_transformation_mode", "half_pixel"),
        "nearest": attr(node, "nearest_mode", "round_prefer_floor"),
    }
    dims = nhwc_dims(node.outputs[0])
    y = ns(
        node,
        "resize",
        [to_nhwc(node, x), sizes, scales],
        attrs,
        dtype=x.dtype,
        dims=dims,
        name=node.name or "",
        source=source_of(node.outputs[0]),
    )
    return from_nhwc(node, y, rank)


def _spatial(node: ir.Node, value: ir.Value | None, rank: int, dtype: type) -> ir.Value | None:
    """The last two entries of a vector with one entry per dimension (a 1 in front for one-dimensional data)."""
    if value is None:
        return None
    assert node.graph is not None
    array = array_of(value)
    if array is not None:
        if np.any(array[:2] != 1) and dtype is np.float32:
            raise refuse(node, "batch or channels are resized")
        spatial = array[2:] if rank == 4 else np.concatenate([np.ones(1), array[2:]])
        return constant(node.graph, spatial.astype(dtype), f"{node.name}.size")
    if rank != 4:
        raise refuse(node, "computed size of one-dimensional data")
    kind = I64 if dtype is np.int64 else ir.DataType.FLOAT
    picked = _int_constant(node, [2, 3], "spatial")
    return ns(
        node, "gather", [as_i64(node, value) if kind == I64 else value, picked], {"axis": 0}, dtype=kind, dims=[2]
    )


def _block(node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    assert x is not None
    attrs: dict[str, Any] = {"block": int(attr(node, "blocksize"))}
    op = "depth_to_space" if node.op_type == "DepthToSpace" else "space_to_depth"
    if op == "depth_to_space":
        attrs["mode"] = attr(node, "mode", "DCR")
    dims = nhwc_dims(node.outputs[0])
    y = ns(
        node,
        op,
        [to_nhwc(node, x)],
        attrs,
        dtype=x.dtype,
        dims=dims,
        name=node.name or "",
        source=source_of(node.outputs[0]),
    )
    return from_nhwc(node, y, 4)


def _shape(node: ir.Node) -> ir.Value:
    return like(node, "shape", [node.inputs[0]], {"start": int(attr(node, "start", 0)), "end": attr(node, "end")})


def _range(node: ir.Node) -> ir.Value:
    return like(node, "range", [as_i64(node, v) for v in node.inputs])


def _constant_of_shape(node: ir.Node) -> ir.Value:
    tensor = attr(node, "value")
    array = np.zeros(1, np.float32) if tensor is None else tensor.numpy()
    attrs = {"value": float(array.reshape(-1)[0]), "dtype": word(node.outputs[0].dtype)}
    return like(node, "constant_of_shape", [as_i64(node, node.inputs[0])], attrs)


def _identity(node: ir.Node) -> ir.Value:
    return like(node, "identity", [node.inputs[0]])


def _constant(node: ir.Node) -> ir.Value:
    """Only a Constant that is a graph output is left here."""
    assert node.graph is not None
    tensor = ir.convenience.get_const_tensor(node.outputs[0])
    if tensor is None:
        raise refuse(node, "not a tensor")
    return like(node, "identity", [constant(node.graph, tensor.numpy(), f"{node.name}.value")])


RULES: dict[str, Rule] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _block,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "SpaceToDepth": _block,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
