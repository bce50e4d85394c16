"""The traced network: what each node of the torch.fx graph is, and the units that will be fused."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from netsuke.nn.tracer import traced

INF = float("inf")
Bounds = tuple[float, float]

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_MOVES = (nn.MaxPool2d, nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d, nn.PixelShuffle, nn.ZeroPad2d, nn.Unflatten)
_TABLES = (nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Mish, nn.LeakyReLU, nn.ELU)
_MOVE_FUNCTIONS = (torch.flatten, torch.reshape, torch.permute, torch.transpose, F.max_pool2d, F.dropout)
_MOVE_METHODS = ("flatten", "view", "reshape", "permute", "transpose", "contiguous", "unsqueeze", "squeeze")
_TABLE_FUNCTIONS = (F.silu, F.gelu, F.hardswish, F.hardsigmoid, F.sigmoid, torch.sigmoid, torch.tanh, F.mish)
_NONNEGATIVE = (nn.Sigmoid, nn.Hardsigmoid, F.sigmoid, torch.sigmoid, F.hardsigmoid)


class Narrow(nn.Module):
    """The tensor itself, on a grid of fewer bits: what a layer reads of a wider stream (`_stream`)."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def trace(model: nn.Module, *samples: Tensor) -> fx.GraphModule:
    """The traced network, every node with its result's shape in meta["shape"] (None: no float tensor).

    Raises what torch.fx raises when the network's control flow depends on data.
    """
    made = traced(model)
    _Shapes(made).run(*samples)
    return made


class _Shapes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        real = isinstance(result, Tensor) and result.is_floating_point()
        n.meta["shape"] = tuple(result.shape) if real else None
        return result


def module_of(node: fx.Node) -> nn.Module | None:
    """The module a node calls."""
    if node.op != "call_module" or node.graph.owning_module is None:
        return None
    return node.graph.owning_module.get_submodule(str(node.target))


def shape_of(node: Any) -> tuple[int, ...] | None:
    return node.meta.get("shape") if isinstance(node, fx.Node) else None


def kind(node: fx.Node) -> str:
    """ "layer", "norm", "clamp", "move", "mean", "avgpool", "table", "add", "mul", "cat", or "" for anything else."""
    if shape_of(node) is None or node.op in ("placeholder", "output", "get_attr"):
        return ""
    module = module_of(node)
    if module is not None:
        return _module_kind(module, node)
    target = node.target
    if node.op == "call_method":
        if target in _MOVE_METHODS:
            return "move"
        return {"relu": "clamp", "clamp": "clamp", "mean": "mean", "add": "add", "mul": "mul"}.get(str(target), "")
    return _function_kind(target, node)


def _module_kind(module: nn.Module, node: fx.Node) -> str:
    if isinstance(module, _LAYERS):
        pads = getattr(module, "padding", 0)
        plain = not isinstance(pads, str) and getattr(module, "padding_mode", "zeros") == "zeros"
        return "layer" if plain else ""
    if isinstance(module, _NORMS):
        return "norm" if module.track_running_stats else ""
    if isinstance(module, (nn.ReLU, nn.ReLU6, nn.Hardtanh)):
        return "clamp"
    if isinstance(module, _MOVES):
        return "move"
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return "mean" if module.output_size in (1, (1, 1)) else ""
    if isinstance(module, nn.AvgPool2d):
        return "avgpool" if module.divisor_override is None else ""
    return "table" if isinstance(module, (*_TABLES, Narrow)) and _first(node) is not None else ""


def _function_kind(target: Any, node: fx.Node) -> str:
    if target in (operator.add, operator.iadd, torch.add):
        return "add"
    if target in (operator.mul, torch.mul):
        return "mul"
    if target in (F.relu, torch.relu, F.relu6, F.hardtanh, torch.clamp):
        return "clamp"
    if target is F.pad:
        value = node.kwargs.get("value", node.args[3] if len(node.args) > 3 else 0)
        return "move" if not value and node.kwargs.get("mode", "constant") == "constant" else ""
    if target in _MOVE_FUNCTIONS or (target is operator.getitem and shape_of(_first(node)) is not None):
        return "move"
    if target is torch.cat:
        return "cat"
    if target is F.adaptive_avg_pool2d:
        return "mean" if node.args[1] in (1, (1, 1), [1, 1]) else ""
    if target is torch.mean:
        return "mean"
    if target is F.avg_pool2d:
        return "avgpool"
    return "table" if target in _TABLE_FUNCTIONS and len(node.args) == 1 else ""


def _first(node: fx.Node) -> fx.Node | None:
    return node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None


def bounds_of(node: fx.Node) -> Bounds | None:
    """(low, high) of a clamp with constant bounds."""
    module = module_of(node)
    if isinstance(module, nn.ReLU6):
        return 0.0, 6.0
    if isinstance(module, nn.Hardtanh):
        return float(module.min_val), float(module.max_val)
    if isinstance(module, nn.ReLU) or node.target in (F.relu, torch.relu, "relu"):
        return 0.0, INF
    if node.target is F.relu6:
        return 0.0, 6.0
    low = node.kwargs.get("min", node.kwargs.get("min_val", node.args[1] if len(node.args) > 1 else -INF))
    high = node.kwargs.get("max", node.kwargs.get("max_val", node.args[2] if len(node.args) > 2 else INF))
    low, high = (-INF if low is None else low), (INF if high is None else high)
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return None
    return float(low), float(high)


def nonnegative(node: fx.Node) -> bool:
    """True when no value of the node can be below zero."""
    what, source = kind(node), _first(node)
    if what == "clamp":
        found = bounds_of(node)
        return found is not None and found[0] >= 0
    module = module_of(node)
    if isinstance(module, Narrow):
        return source is not None and nonnegative(source)
    if what == "table":
        return isinstance(module, _NONNEGATIVE[:2]) or node.target in _NONNEGATIVE[2:]
    if what in ("move", "mean", "avgpool"):
        return source is not None and nonnegative(source)
    if what in ("add", "mul", "cat"):
        return all(nonnegative(n) for n in node.all_input_nodes)
    return False


@dataclass
class Unit:
    """An operator with what is fused behind it.

    kind      "layer", "add", "mul", "mean", "avgpool", "table" or "cat"
    node      the operator; `chain`: it and the nodes fused behind it, the last one makes the result
    inputs    tensors it reads; residual: the other input of a fused add
    """

    kind: str
    name: str
    node: fx.Node
    chain: list[fx.Node]
    inputs: list[fx.Node]
    norm: fx.Node | None = None
    residual: fx.Node | None = None
    bounds: Bounds = (-INF, INF)
    reached: bool = False
    reason: str = ""
    end: fx.Node = field(init=False)

    def __post_init__(self) -> None:
        self.end = self.chain[-1]


def _only_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def find_units(graph: fx.Graph, keep: Sequence[str] = ()) -> list[Unit]:
    """All units in graph order. A residual add goes to the later of its two branches, as in the compiler."""
    nodes, taken, found = list(graph.nodes), set[fx.Node](), []
    calls = [str(n.target) for n in nodes if n.op == "call_module"]
    for node in reversed(nodes):
        if kind(node) == "layer" and str(node.target) not in keep and node not in taken:
            unit = _layer(node, taken)
            if calls.count(str(node.target)) > 1:
                unit.reason = "the module is called more than once"
            found.append(unit)
            taken.update(unit.chain)
    for node in nodes:
        if node in taken or kind(node) not in ("add", "mul", "mean", "avgpool", "table", "cat"):
            continue
        plain = _arithmetic(node, taken)
        if plain is not None:
            found.append(plain)
            taken.update(plain.chain)
    order = {node: i for i, node in enumerate(nodes)}
    return sorted(found, key=lambda unit: order[unit.node])


def _layer(node: fx.Node, taken: set[fx.Node]) -> Unit:
    source = _first(node)
    assert source is not None
    unit = Unit("layer", str(node.target), node, [node], [source])
    user = _only_user(node)
    if user is not None and kind(user) == "norm" and user not in taken:
        unit.norm, unit.end = user, user
        unit.chain.append(user)
        user = _only_user(user)
    if user is not None and user not in taken and kind(user) == "add" and len(user.args) == 2 and not user.kwargs:
        other = user.args[1] if user.args[0] is unit.end else user.args[0]
        if isinstance(other, fx.Node) and other is not unit.end and shape_of(other) == shape_of(user):
            unit.residual, unit.end = other, user
            unit.chain.append(user)
    _clamps(unit, taken)
    return unit


def without_residual(unit: Unit) -> None:
    """Undo the fused add: a float result takes no residual of codes."""
    if unit.residual is None:
        return
    add = unit.chain.index(next(n for n in unit.chain if n is not unit.norm and kind(n) == "add"))
    unit.chain = unit.chain[:add]
    unit.end, unit.residual, unit.bounds = unit.chain[-1], None, (-INF, INF)


def _clamps(unit: Unit, taken: set[fx.Node]) -> None:
    user = _only_user(unit.end)
    if user is not None and user not in taken and kind(user) == "clamp":
        found = bounds_of(user)
        if found is not None:
            unit.bounds, unit.end = found, user
            unit.chain.append(user)


def _arithmetic(node: fx.Node, taken: set[fx.Node]) -> Unit | None:
    what, inputs = kind(node), list(node.all_input_nodes)
    rank = len(shape_of(node) or ())
    if what in ("add", "mul"):
        if len(inputs) != 2 or node.kwargs or any(shape_of(i) is None for i in inputs):
            return None
        a, b = (shape_of(i) or () for i in inputs)
        spatial = what == "mul" and len(a) == len(b) == 4 and a[:2] == b[:2] and b[2:] == (1, 1)
        if a != b and not spatial:
            return None
    if what == "mean" and node.target in (torch.mean, "mean"):
        axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", ())
        source = shape_of(inputs[0]) or ()
        listed = sorted(int(a) % 4 for a in axes) if isinstance(axes, (tuple, list)) else []
        if len(source) != 4 or listed != [2, 3]:
            return None
    if what == "cat" and any(shape_of(i) is None for i in inputs):
        return None
    if what in ("avgpool", "mean") and len(shape_of(inputs[0]) or ()) != 4:
        return None
    unit = Unit(what, node.name, node, [node], inputs)
    if what in ("add", "mul") and rank:
        _clamps(unit, taken)
    return unit
