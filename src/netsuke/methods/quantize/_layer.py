"""`Layer`: one unit of the plan."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

ONE_BIT = ("bconv", "blinear")


@dataclass
class Layer:
    """One unit of the plan: the operator and what is fused behind it.

    inputs   activations it reads that must be quantized when it is
    output   the tensor it writes (end of the fused chain)
    residual the tensor its fused add reads, or None
    table    of an embedding: the constant matrix whose rows it reads
    blocked  why it cannot be quantized; "" when it can
    reached  True when its output is demanded as codes
    """

    name: str
    node: ir.Node
    kernel: str
    inputs: list[ir.Value]
    output: ir.Value
    nodes: list[ir.Node]
    weight: ir.Value | None = None
    axis: int | None = None
    residual: ir.Value | None = None
    table: ir.Value | None = None
    blocked: str = ""
    quantized: bool = False
    reached: bool = False

    @property
    def one_bit(self) -> bool:
        """True for a layer of packed signs: its own operands need no quantizer."""
        return self.kernel in ONE_BIT

    @property
    def stored(self) -> ir.Value | None:
        """What the file keeps as codes: weights, or the table of an embedding."""
        return self.table if self.weight is None else self.weight

    @property
    def reads(self) -> list[ir.Value]:
        """Inputs and the residual."""
        return self.inputs if self.residual is None else [*self.inputs, self.residual]
