"""A token that is the same in every prompt: what layers make of it is a constant, and need not be quantized."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from netsuke.nn.tracer import traced


def split_first_token(model: nn.Module) -> tuple[fx.GraphModule, list[str]]:
    """linear(cat(first, rest)) becomes cat(constant, linear(rest)) wherever `first` comes from a table of one row.

    Exact in real arithmetic, since a linear layer treats tokens one by one. Returns the traced network (weights shared
    with the model) and the names of the layers that were split.
    """
    made, found = traced(model), []
    for node in list(made.graph.nodes):
        layer = made.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(layer, nn.Linear):
            continue
        parts = _parts(made, node.args[0])
        if parts is None:
            continue
        head, rest = parts
        table: Any = made.get_submodule(str(head.target))
        constant = nn.Embedding(1, layer.out_features)
        with torch.no_grad():
            constant.weight = nn.Parameter(layer(table.weight), requires_grad=False)
        name = f"{str(node.target).replace('.', '_')}_first"
        made.add_module(name, constant)
        with made.graph.inserting_before(node):
            known = made.graph.call_module(name, head.args)
            others = rest[0] if len(rest) == 1 else made.graph.call_function(torch.cat, (rest, 1))
            new = made.graph.call_module(str(node.target), (others,))
            joined = made.graph.call_function(torch.cat, ([known, new], 1))
        node.replace_all_uses_with(joined)
        made.graph.erase_node(node)
        found.append(str(node.target))
    made.graph.eliminate_dead_code()
    made.graph.lint()
    made.recompile()
    return made.eval(), found


def _parts(made: fx.GraphModule, node: Any) -> tuple[fx.Node, list[fx.Node]] | None:
    """(token of a table with one row, the other tokens) of a concat along tokens that starts with such a token."""
    if not isinstance(node, fx.Node) or node.target is not torch.cat or len(node.args) < 2 or node.args[1] != 1:
        return None
    parts: Any = node.args[0]
    if len(parts) < 2 or parts[0].op != "call_module":
        return None
    table = made.get_submodule(str(parts[0].target))
    single = isinstance(table, nn.Embedding) and table.num_embeddings == 1
    return (parts[0], list(parts[1:])) if single else None
