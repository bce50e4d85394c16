"""The window of an ONNX pooling node in program attributes."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from netsuke.capture.graph import attr, dims_of
from netsuke.passes.lower_qconv import window_pads


def pool_window(node: ir.Node) -> dict[str, Any] | None:
    """kernel, strides, pads, dilations, ceil and count_include_pad; one-dimensional pools get H = 1."""
    dims = dims_of(node.inputs[0])
    kernel = [int(k) for k in attr(node, "kernel_shape", [])]
    if dims is None or len(kernel) != len(dims) - 2 or len(kernel) not in (1, 2):
        return None
    spatial = len(kernel)
    strides = list(attr(node, "strides", [1] * spatial))
    dilations = list(attr(node, "dilations", [1] * spatial))
    pads = window_pads(node, dims, kernel, strides, dilations)
    if spatial == 1:
        kernel, strides, dilations, pads = [1, *kernel], [1, *strides], [1, *dilations], [0, pads[0], 0, pads[1]]
    window: dict[str, Any] = {"kernel": kernel, "strides": strides, "pads": pads, "dilations": dilations}
    window["ceil"] = int(attr(node, "ceil_mode", 0))
    if node.op_type == "AveragePool":
        window["count_include_pad"] = int(attr(node, "count_include_pad", 0))
    return window
