"""Placement and rewriting of a traced network. See `_network`."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from netsuke.methods.qat import _trace
from netsuke.methods.qat._request import LAYERS, Request, row
from netsuke.methods.qat._rules import input_spec
from netsuke.methods.qat._stream import narrow_streams
from netsuke.methods.qat._trace import Unit, find_units, kind, nonnegative, shape_of, trace, without_residual
from netsuke.nn.qlayers import FoldedNorm, QuantLayer
from netsuke.nn.qlayers_elementwise import QuantAdd, QuantAvgPool, QuantMean, QuantMul, QuantTable
from netsuke.nn.quantizer import Quantizer

FREE = (-_trace.INF, _trace.INF)


class Groups:
    """Which tensors share a quantizer: a union of nodes."""

    def __init__(self) -> None:
        self.parent: dict[fx.Node, fx.Node] = {}

    def __contains__(self, node: fx.Node) -> bool:
        return node in self.parent

    def root(self, node: fx.Node) -> fx.Node:
        while self.parent[node] is not node:
            node = self.parent[node]
        return node

    def add(self, node: fx.Node) -> None:
        self.parent.setdefault(node, node)

    def join(self, node: fx.Node, other: fx.Node) -> None:
        self.add(node)
        self.add(other)
        a, b = self.root(node), self.root(other)
        if a is not b:
            self.parent[a] = b


def insert(model: nn.Module, request: Request) -> nn.Module:
    """The network with quantizers; the model given is used up. Fills the request's plan."""
    plan = request.plan
    plan.network, plan.recipe = type(model).__name__, request.method
    samples = [torch.zeros((max(2, size[0]), *size[1:]), dtype=dtype) for size, dtype in request.inputs()]
    try:
        with torch.no_grad():
            traced = trace(model, *samples)
    except Exception as error:  # control flow on data, *args, ...: torch.fx raises many types
        text = " ".join(str(error).split())[:160]
        plan.note(
            f"torch.fx cannot trace the network ({text}): every layer got a quantizer of its own, nothing fused. The "
            "compiled network may fuse what stands between layers, and then round a code otherwise than training did"
        )
        if request.stream:
            plan.note("no stream of codes to give bits to: what stands between the layers is float")
        return _per_module(model, request)
    narrow_streams(traced, request)
    return _rewrite(traced, request)


def _rewrite(gm: fx.GraphModule, request: Request) -> fx.GraphModule:
    units = find_units(gm.graph, request.keep)
    usable = [u for u in units if not u.reason]
    groups = _place(usable)
    _rows(gm, units, request)
    quantizers = _quantizers(gm, groups, usable, request)
    ends = {u.end: u for u in usable if u.reached or u.kind == "layer"}
    for node in list(gm.graph.nodes):
        unit = ends.get(node)
        if unit is not None and unit.kind != "cat":
            _replace(gm, unit, groups, quantizers, request)
        elif node in groups:
            _behind(gm, node, quantizers[groups.root(node)], moved=kind(node) in ("move", "cat"))
    gm.graph.lint()
    gm.recompile()
    return gm


def _place(units: list[Unit]) -> Groups:
    """Tensors that need codes. Units that are reached are marked; layers that are not lose their residual."""
    groups, ends = Groups(), {u.end: u for u in units}
    queue = [u.inputs[0] for u in units if u.kind == "layer"]
    while queue:
        node = queue.pop()
        if node in groups:
            continue
        groups.add(node)
        unit = ends.get(node)
        if unit is not None:
            unit.reached = True
            queue += [n for n in (*unit.inputs, unit.residual) if n is not None]
            if unit.kind == "cat":
                for part in unit.inputs:
                    _join(groups, part, node, queue, ends)
        elif kind(node) == "move":
            source = node.all_input_nodes[0]
            _join(groups, source, node, queue, ends)
    for unit in units:
        if unit.kind == "layer" and not unit.reached:
            without_residual(unit)
    return groups


def _join(groups: Groups, source: fx.Node, node: fx.Node, queue: list[fx.Node], ends: dict[fx.Node, Unit]) -> None:
    """One quantizer for both; the source is demanded too, before the union makes it look done."""
    if source not in groups:
        unit = ends.get(source)
        groups.add(source)
        if unit is not None:
            unit.reached = True
            queue += [n for n in (*unit.inputs, unit.residual) if n is not None]
            if unit.kind == "cat":
                for part in unit.inputs:
                    _join(groups, part, source, queue, ends)
        elif kind(source) == "move":
            _join(groups, source.all_input_nodes[0], source, queue, ends)
    groups.join(node, source)


def _rows(gm: fx.GraphModule, units: list[Unit], request: Request) -> None:
    reasons = {u.name: u.reason for u in units if u.kind == "layer"}
    for name, module in gm.named_modules():
        if isinstance(module, LAYERS):
            why = "kept in float, as asked" if name in request.keep else reasons.get(name, "not reached by the trace")
            request.plan.rows.append(row(request, name, type(module).__name__, module, why, kept=bool(why)))
    for unit in units:
        if unit.reached and unit.kind != "layer":
            width = request.stream or request.default.activation
            request.plan.note(f"{unit.name}: {unit.kind} on codes of {width} bits or those of its reader")


def _quantizers(gm: fx.GraphModule, groups: Groups, units: list[Unit], request: Request) -> dict[fx.Node, Quantizer]:
    """One quantizer per group: as wide as its widest reader wants, with a zero point where values can be negative."""
    width: dict[fx.Node, int] = {}
    for unit in units:
        if unit.kind != "layer" and not unit.reached:
            continue
        layer, between = unit.kind == "layer", request.stream or request.default.activation
        wanted = [(node, request.bits[unit.name].activation if layer else between) for node in unit.inputs]
        if request.stream and unit.residual is not None:
            wanted.append((unit.residual, request.stream))
        for node, bits in wanted:
            if node in groups:
                root = groups.root(node)
                width[root] = max(width.get(root, 2), bits)
    members: dict[fx.Node, list[fx.Node]] = {}
    for node in groups.parent:
        members.setdefault(groups.root(node), []).append(node)
    made = {}
    for root, nodes in members.items():
        first = any(n.op == "placeholder" for n in nodes)
        floor = all(nonnegative(n) for n in nodes)
        spec = input_spec() if first else request.rules.activation(width.get(root, request.default.activation), floor)
        made[root] = Quantizer(spec)
        names = {n.name for n in nodes}
        gm.add_module(f"codes_{min(names, key=[n.name for n in gm.graph.nodes].index)}", made[root])
    return made


def _behind(gm: fx.GraphModule, node: fx.Node, quantizer: Quantizer, *, moved: bool) -> None:
    """A quantizer behind a tensor; moved codes only carry a note for the export, they are on the grid already."""
    name = next(name for name, m in gm.named_modules() if m is quantizer)
    if moved:
        node.meta["moved"] = name
        return
    with gm.graph.inserting_after(node):
        made = gm.graph.call_module(name, (node,))
    made.meta["shape"] = shape_of(node)
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)


def _replace(
    gm: fx.GraphModule, unit: Unit, groups: Groups, quantizers: dict[fx.Node, Quantizer], request: Request
) -> None:
    def of(node: fx.Node | None) -> Quantizer | None:
        return None if node is None or node not in groups else quantizers[groups.root(node)]

    target = of(unit.end)
    module = _module(gm, unit, [of(n) for n in unit.inputs], target, of(unit.residual), request)
    name = unit.name if unit.kind == "layer" else f"op_{unit.name}"
    _set(gm, name, module)
    # Not unit.inputs: what these were has been replaced by quantized forms since.
    inputs = [*unit.node.all_input_nodes]
    if unit.residual is not None:
        inputs += [n for n in unit.chain[-1 - (unit.bounds != FREE)].all_input_nodes if n not in unit.chain]
    with gm.graph.inserting_after(unit.end):
        made = gm.graph.call_module(name, tuple(inputs))
    made.meta["shape"] = shape_of(unit.end)
    unit.end.replace_all_uses_with(made)
    for node in reversed(unit.chain):
        norm = node.op == "call_module" and node is unit.norm
        target_name = str(node.target)
        gm.graph.erase_node(node)
        if norm:
            _set(gm, target_name, None)


def _module(
    gm: fx.GraphModule,
    unit: Unit,
    sources: list[Quantizer | None],
    target: Quantizer | None,
    residual: Quantizer | None,
    request: Request,
) -> nn.Module:
    known: Any = tuple(sources)
    if unit.kind == "layer":
        norm = _trace.module_of(unit.norm) if unit.norm is not None else None
        return quant_layer(gm.get_submodule(unit.name), norm, unit, known[0], target, residual, request)
    assert target is not None
    if unit.kind == "add":
        return QuantAdd(known, target, unit.bounds)
    if unit.kind == "mul":
        return QuantMul(known, target, unit.bounds)
    if unit.kind == "mean":
        return QuantMean(known, target, unit.bounds, keep=len(shape_of(unit.node) or ()) == 4)
    if unit.kind == "avgpool":
        return QuantAvgPool(known, target, unit.bounds, _avg_pool(unit.node))
    module = _trace.module_of(unit.node)
    function: Any = module if module is not None else unit.node.target
    return QuantTable(known, target, unit.bounds, function)


def _avg_pool(node: fx.Node) -> nn.AvgPool2d:
    module = _trace.module_of(node)
    if isinstance(module, nn.AvgPool2d):
        return module
    return nn.AvgPool2d(*node.args[1:], **dict(node.kwargs))  # type: ignore[arg-type]


def quant_layer(
    layer: nn.Module,
    norm: nn.Module | None,
    unit: Unit | None,
    source: Quantizer,
    target: Quantizer | None,
    residual: Quantizer | None,
    request: Request,
    name: str = "",
) -> QuantLayer:
    """The quantized form of a layer as the request's rules say."""
    bits = request.bits[unit.name if unit is not None else name].weight
    rules = request.rules
    weight: Quantizer = (rules.quantizer or Quantizer)(rules.weight(bits), layer.weight.shape)  # type: ignore[arg-type]
    if norm is not None and rules.fold:
        norm = FoldedNorm(norm)  # type: ignore[arg-type]
    bounds = unit.bounds if unit is not None else FREE
    transform = rules.transform(bits) if rules.transform is not None else None
    made = QuantLayer(layer, norm, weight, source, target, residual, bounds, transform)
    weight.calibrate(made.real_weight())
    return made


def _set(root: nn.Module, name: str, module: nn.Module | None) -> None:
    """Put a module where another was; None takes it out."""
    parent, _, leaf = name.rpartition(".")
    owner = root.get_submodule(parent)
    if module is None:
        delattr(owner, leaf)
    else:
        setattr(owner, leaf, module)


class PerModule(nn.Module):
    """A layer with a quantizer of its own in front: for networks that cannot be traced."""

    def __init__(self, quantizer: Quantizer, inner: QuantLayer) -> None:
        super().__init__()
        self.quantizer, self.inner = quantizer, inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(self.quantizer(x))
        return out


def _per_module(model: nn.Module, request: Request) -> nn.Module:
    for name, layer in [(n, m) for n, m in model.named_modules() if isinstance(m, LAYERS)]:
        plain = not isinstance(getattr(layer, "padding", 0), str)
        why = "kept in float, as asked" if name in request.keep else "" if plain else "padding is not a number"
        request.plan.rows.append(row(request, name, type(layer).__name__, layer, why, kept=bool(why)))
        if not why:
            quantizer = Quantizer(request.rules.activation(request.bits[name].activation, False))
            made = quant_layer(layer, None, None, quantizer, None, None, request, name)
            _set(model, name, PerModule(quantizer, made))
    return model
