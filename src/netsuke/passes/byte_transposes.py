"""A transpose behind a dequantize moves in front of it: it then moves one byte per element instead of four."""

from __future__ import annotations

import onnx_ir as ir

from netsuke.capture.graph import attr, dims_of, only_user, replace, source_of
from netsuke.passes.nodes import F32, from_ns, is_ns, ns, transposed


def transpose_codes(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many transposes moved."""
    count = 0
    for node in list(graph):
        above = from_ns(node.inputs[0], "dequantize") if is_ns(node, "transpose") else None
        if above is None or above.inputs[0] is None or only_user(above.outputs[0]) is not node:
            continue
        out = node.outputs[0]
        perm = [int(p) for p in attr(node, "perm")]
        codes = transposed(node, above.inputs[0], perm, name=node.name or "")
        attrs = {"scale": attr(above, "scale"), "zero": attr(above, "zero")}
        y = ns(
            node,
            "dequantize",
            [codes],
            attrs,
            dtype=F32,
            dims=dims_of(out),
            name=above.name or "",
            source=source_of(out),
        )
        replace(out, y)
        graph.remove(node, safe=True)
        graph.remove(above, safe=True)
        count += 1
    return count
