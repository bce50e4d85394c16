"""MatMul or Gemm of float activations with codes behind DequantizeLinear -> (Add) becomes `wlinear`.

The weights keep their codes: integers of up to 8 bits or floats of 8 and 4, with one scale (and zero point) per output
channel, or per group of k (`block_size`). Metadata "netsuke.compute" of the node or the model chooses f32, bf16 or
s8. What has no kernel (groups that are no multiple of 32, scales along k without blocks) is left to
`fold_constant_dequantizers`, which computes it in float and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import Array, array_of, attr, dims_of, made_by, only_user, operand, replace, source_of
from netsuke.capture.nbits import COMPUTE
from netsuke.formats import ACC_LIMIT, MINIFLOATS, fewest_bits
from netsuke.formats.minifloat import finite_codes
from netsuke.formats.weight_only import S8_PRODUCT, WEIGHT_BLOCK
from netsuke.passes.nodes import F32, ns
from netsuke.passes.tail import as_constant

_INTEGERS = {"int8": 8, "uint8": 8, "int4": 4, "uint4": 4, "int2": 2, "uint2": 2}
_FLOATS = {"float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2", "float4_e2m1fn": "e2m1"}


@dataclass(frozen=True)
class GroupCodes:
    """w [N, K] (s8, or u8 of a minifloat), scale f32 [N, G], zero s8 [N, G] or None."""

    w: Array
    scale: Array
    zero: Array | None
    group: int
    form: str


def lower_weight_only(graph: ir.Graph) -> int:
    """Replace every layer of the pattern; returns how many."""
    count = 0
    for node in list(graph):
        if node.domain == "" and node.op_type in ("MatMul", "Gemm"):
            count += _lower(graph, node)
    return count


def _lower(graph: ir.Graph, node: ir.Node) -> bool:
    x, weight = node.inputs[0], node.inputs[1]
    gemm = node.op_type == "Gemm"
    if x is None or x.dtype != F32 or not (dims_of(x) or ()) or (gemm and not _plain_gemm(node)):
        return False
    found = group_codes(weight, transposed=gemm and bool(int(attr(node, "transB", 0))))
    if found is None:
        return False
    channels = found.w.shape[0]
    bias, last = _bias(node, channels, gemm=gemm)
    if gemm and operand(node, 2) is not None and bias is None:
        return False
    compute = str(node.metadata_props.get(COMPUTE) or graph.meta.get(COMPUTE, "f32"))
    if compute == "s8" and (found.form != "int" or min(found.group, found.w.shape[1]) * S8_PRODUCT > ACC_LIMIT):
        compute = "f32"
    name = node.name or "wlinear"
    inputs = [
        x,
        as_constant(last, found.w, f"{name}.w"),
        as_constant(last, found.scale, f"{name}.scale"),
        as_constant(last, found.zero, f"{name}.zero"),
        as_constant(last, bias, f"{name}.bias"),
    ]
    attrs = {"group": found.group, "format": found.form, "compute": compute}
    out = last.outputs[0]
    y = ns(last, "wlinear", inputs, attrs, dtype=F32, dims=dims_of(out), name=name, source=source_of(out))
    replace(out, y)
    return True


def _plain_gemm(node: ir.Node) -> bool:
    ones = float(attr(node, "alpha", 1.0)) == 1.0 and float(attr(node, "beta", 1.0)) == 1.0
    return ones and not int(attr(node, "transA", 0))


def _bias(node: ir.Node, channels: int, *, gemm: bool) -> tuple[Array | None, ir.Node]:
    """The constant vector added to the product, and the node whose output the layer makes."""
    if gemm:
        return _vector(operand(node, 2), channels), node
    add = only_user(node.outputs[0])
    if add is None or add.op_type != "Add" or add.domain != "":
        return None, node
    other = add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0]
    vector = _vector(other, channels)
    return (None, node) if vector is None else (vector, add)


def _vector(value: ir.Value | None, channels: int) -> Array | None:
    array = array_of(value)
    if array is None or array.dtype != np.float32 or array.size != channels or array.shape[-1:] != (channels,):
        return None
    return array.reshape(-1)


def group_codes(value: ir.Value | None, *, transposed: bool) -> GroupCodes | None:
    """Codes of a constant matrix [K, N] (or [N, K]: transposed) behind DequantizeLinear (and Transpose)."""
    turn = made_by(value, "Transpose")
    if turn is not None and list(attr(turn, "perm", [1, 0])) == [1, 0]:
        value, transposed = turn.inputs[0], not transposed
    node = made_by(value, "DequantizeLinear")
    if node is None:
        return None
    q, scale, point = (array_of(operand(node, i)) for i in range(3))
    if q is None or scale is None or q.ndim != 2 or min(q.shape) < 1 or scale.dtype != np.float32:
        return None
    if not np.isfinite(scale).all():
        return None
    k_axis = 1 if transposed else 0
    depth, block = q.shape[k_axis], int(attr(node, "block_size", 0))
    place = (int(attr(node, "axis", 1)) % 2, k_axis, q.shape[1 - k_axis], depth, block)
    grid = _grid(scale, *place)
    group = block or depth
    if grid is None or (group % WEIGHT_BLOCK and group < depth):
        return None
    points = None if point is None else _grid(point, *place)
    made = _codes(q if transposed else q.T, points, grid.shape[1])
    if made is None or (point is not None and points is None):
        return None
    w, zero, form = made
    return GroupCodes(np.ascontiguousarray(w), np.ascontiguousarray(grid), zero, group, form)


def _grid(values: Array, axis: int, k_axis: int, channels: int, depth: int, block: int) -> Array | None:
    """Scales or zero points as [N, G]."""
    if values.size == 1:
        return np.broadcast_to(values.reshape(1, 1), (channels, -(-depth // (block or depth))))
    if block:
        wanted = [0, 0]
        wanted[k_axis], wanted[1 - k_axis] = -(-depth // block), channels
        if axis != k_axis or list(values.shape) != wanted:
            return None
        return values if k_axis == 1 else values.T
    return values.reshape(-1, 1) if axis != k_axis and values.size == channels else None


def _codes(q: Array, points: Array | None, groups: int) -> tuple[Array, Array | None, str] | None:
    """Codes [N, K] and zero points [N, G] as the operator takes them, and the format."""
    kind = str(q.dtype)
    if kind in _FLOATS:
        codes = np.ascontiguousarray(q).view(np.uint8)
        form = _FLOATS[kind]
        finite = bool(np.isin(codes, finite_codes(MINIFLOATS[form])).all())
        return (codes, None, form) if finite and (points is None or not points.astype(np.float32).any()) else None
    if kind not in _INTEGERS:
        return None
    half = _middle(q, points) if kind.startswith("u") else 0
    codes = (q.astype(np.int16) - half).astype(np.int8)
    if points is None and not half:
        return codes, None, "int"
    zero = np.full((q.shape[0], groups), -half, np.int16) if points is None else points.astype(np.int16) - half
    return codes, (np.ascontiguousarray(zero, np.int8) if zero.any() else None), "int"


def _middle(q: Array, points: Array | None) -> int:
    """What to take off unsigned codes and zero points: half the range of the fewest bits, where both then fit s8."""
    half = int(2 ** (max(2, fewest_bits(q.astype(np.uint8))) - 1))
    return half if points is None or int(points.max()) - half <= 127 else 128
