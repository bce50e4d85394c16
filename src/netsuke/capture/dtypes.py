"""Float16, bfloat16 and float64 networks become float32: constants, casts, inputs and outputs.

Integer 8-bit tensors of quantized networks keep their types, and so do integers and booleans.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import is_op

_TO_F32 = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


def to_float32(model: ir.Model) -> int:
    """Convert in place; returns how many tensors, values and casts changed."""
    changed = 0
    graph = model.graph
    for value in list(graph.initializers.values()):
        if value.dtype in _TO_F32 and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT)
            changed += 1
    for node in graph:
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in _TO_F32:
                array = attribute.value.numpy().astype(np.float32)
                node.attributes[name] = ir.AttrTensor(name, ir.tensor(array))
                changed += 1
        if is_op(node, "Cast") and node.attributes["to"].value in [int(t) for t in _TO_F32]:
            node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT))
            changed += 1
        node.attributes.pop("output_dtype", None) if is_op(node, "DequantizeLinear") else None
        changed += sum(_retype(out) for out in node.outputs)
    return changed + sum(_retype(value) for value in graph.inputs)


def _retype(value: ir.Value) -> bool:
    if value.dtype not in _TO_F32:
        return False
    value.type = ir.TensorType(ir.DataType.FLOAT)
    return True
