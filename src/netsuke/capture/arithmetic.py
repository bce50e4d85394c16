"""Which requantization a quantized network was made for: ours, or that of the engines of the tool that wrote the file.

`metadata_props["netsuke.requant"]` of the model says it to the compiler (docs/numerics.md section 4). Graphs that
netsuke quantized carry "float" or "dyadic", and keep it in a saved file. A file with quantizers and without that line
comes from another tool: "single".
"""

from __future__ import annotations

import onnx_ir as ir

REQUANT = "netsuke.requant"
_OPERATORS = ("QuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm")


def is_quantized(model: ir.Model) -> bool:
    """True when activations of the model are quantized."""
    return any(node.op_type in _OPERATORS for node in model.graph)


def quantized_elsewhere(model: ir.Model) -> ir.Model:
    """The model of a file; marked when another tool quantized it."""
    if REQUANT not in model.metadata_props and is_quantized(model):
        model.metadata_props[REQUANT] = "single"
    return model


def quantized_here(model: ir.Model) -> ir.Model:
    """The export of a PyTorch network: layers with quantizers compute what our own forward pass computes."""
    if is_quantized(model):
        model.metadata_props[REQUANT] = "float"
    return model
