"""A residual stream wider than what layers read.

A tensor that both a layer and an addition (or a mean, a concat, a table) read has one quantizer. At 2 bits the sum
of many blocks then loses more than the products do; published networks of these widths keep their shortcuts in float.
Here the stream has `stream` bits, and each layer reads codes of its own bits made from the stream's by a table.
"""

from __future__ import annotations

from torch import fx

from netsuke.methods.qat._request import Request
from netsuke.methods.qat._trace import Narrow, kind

_READERS = ("add", "mul", "mean", "avgpool", "table", "cat", "move")


def narrow_streams(gm: fx.GraphModule, request: Request) -> None:
    """Put a `Narrow` in front of every layer that reads fewer bits of a tensor than its other readers."""
    if request.stream is None:
        return
    for node in list(gm.graph.nodes):
        layers = [user for user in node.users if kind(user) == "layer" and str(user.target) not in request.keep]
        if not layers or not any(kind(user) in _READERS for user in node.users):
            continue
        narrow: dict[int, fx.Node] = {}
        for layer in layers:
            bits = request.bits[str(layer.target)].activation
            if bits < request.stream:
                if bits not in narrow:
                    narrow[bits] = _narrow(gm, node, f"{node.name}_a{bits}")
                layer.replace_input_with(node, narrow[bits])
    gm.graph.lint()
    gm.recompile()


def _narrow(gm: fx.GraphModule, node: fx.Node, name: str) -> fx.Node:
    gm.add_module(name, Narrow())
    with gm.graph.inserting_after(node):
        made = gm.graph.call_module(name, (node,))
    made.meta["shape"] = node.meta["shape"]
    return made
