"""Every ONNX operator left becomes a program operator, by the tables of `lower_float` and `lower_movement`."""

from __future__ import annotations

import onnx_ir as ir

from netsuke.capture.graph import replace, source_of
from netsuke.core.errors import Problem, UnsupportedError
from netsuke.passes import lower_float, lower_layers, lower_movement

RULES = {**lower_float.RULES, **lower_layers.RULES, **lower_movement.RULES}


def lower(graph: ir.Graph) -> int:
    """Rewrite in place; returns how many nodes were lowered.

    Operators without a rule are listed in one UnsupportedError.
    """
    unknown = [n for n in graph if n.domain != "netsuke" and (n.domain != "" or n.op_type not in RULES)]
    if unknown:
        raise UnsupportedError(
            [Problem(f"{n.domain}::{n.op_type} has no place in a program", where=n.name or "") for n in unknown]
        )
    count = 0
    for node in list(graph):
        if node.domain == "netsuke":
            continue
        out = node.outputs[0]
        source = source_of(out)
        new = RULES[node.op_type](node)
        replace(out, new)
        if new.producer() is not None and not new.is_graph_input():
            new.meta["source"] = source
        graph.remove(node, safe=True)
        count += 1
    return count
