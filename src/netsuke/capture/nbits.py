"""onnxruntime's MatMulNBits as DequantizeLinear with blocks, Transpose and MatMul, which the compiler keeps packed.

The file packs codes of 2, 4 or 8 bits, lowest bits first, as [N, K / block, block * bits / 8]; scales and packed zero
points are [N, K / block] (flat in older files), the zero point 2^(bits-1) where absent. accuracy_level 3 asks
for activations in bfloat16, 4 for 8 bits, which the node's metadata carries on.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import Array, array_of, attr, constant, dims_of, emit, operand

COMPUTE = "netsuke.compute"
_COMPUTE = {3: "bf16", 4: "s8"}  # of accuracy_level; the others compute in float32
_F32 = ir.DataType.FLOAT


def matmul_nbits(node: ir.Node) -> ir.Value | None:
    """None for a form that is not supported: float zero points, reordered groups, other widths."""
    n, k, bits, block = (int(attr(node, name, 0)) for name in ("N", "K", "bits", "block_size"))
    bits = bits or 4
    x, packed, scale, points = (operand(node, i) for i in range(4))
    codes, scales, zeros = array_of(packed), array_of(scale), array_of(points)
    graph = node.graph
    if graph is None or x is None or codes is None or scales is None or bits not in (2, 4, 8) or block < 1:
        return None
    if operand(node, 4) is not None or (points is not None and (zeros is None or zeros.dtype != np.uint8)):
        return None
    groups, half = -(-k // block), 2 ** (bits - 1)
    sizes = (codes.size == n * groups * (block * bits // 8), scales.size == n * groups)
    if codes.dtype != np.uint8 or not all(sizes):
        return None
    w = _unfold(codes.reshape(n * groups, -1), bits).reshape(n, -1)[:, :k].astype(np.int16) - half
    zero = None
    if zeros is not None:
        row = -(-groups * bits // 8)
        if zeros.size != n * row:
            return None
        zero = (_unfold(zeros.reshape(n, row), bits)[:, :groups].astype(np.int16) - half).astype(np.int8)
    name = node.name or "MatMulNBits"
    inputs: list[ir.Value | None] = [
        constant(graph, w.astype(np.int8), f"{name}.codes"),
        constant(graph, scales.astype(np.float32).reshape(n, groups), f"{name}.scales"),
        None if zero is None else constant(graph, zero, f"{name}.zeros"),
    ]
    attrs = {"axis": 1, "block_size": block}
    plain = emit(node, "DequantizeLinear", inputs, attrs, dtype=_F32, dims=[n, k])
    turned = emit(node, "Transpose", [plain], {"perm": [1, 0]}, dtype=_F32, dims=[k, n])
    y = emit(node, "MatMul", [x, turned], dtype=_F32, dims=dims_of(node.outputs[0]), name=name)
    maker = y.producer()
    level = int(attr(node, "accuracy_level", 0))
    if maker is not None and level in _COMPUTE:
        maker.metadata_props[COMPUTE] = _COMPUTE[level]
    bias = operand(node, 5)
    return y if bias is None else emit(node, "Add", [y, bias], dtype=_F32, dims=dims_of(node.outputs[0]))


def _unfold(data: Array, bits: int) -> Array:
    """u8 [R, bytes] -> codes u8 [R, bytes * 8 / bits], lowest bits first."""
    per = 8 // bits
    codes = np.empty((*data.shape, per), np.uint8)
    for i in range(per):
        codes[..., i] = (data >> np.uint8(i * bits)) & np.uint8(2**bits - 1)
    return codes.reshape(data.shape[0], -1)
