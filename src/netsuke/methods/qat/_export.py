"""A trained network as a module of standard ONNX operators, which the capture then exports.

Activations: Clip (where there are fewer codes than 256), QuantizeLinear to uint8, DequantizeLinear. Weights: int8 codes
behind DequantizeLinear, batch norm merged into their scales. Emitted with `torch.onnx.ops.symbolic`, so the exporter
takes them as they are and free dimensions stay free.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from netsuke.methods.qat._insert import PerModule
from netsuke.nn.qlayers import INF, Grid8, QuantLayer, served
from netsuke.nn.qlayers_elementwise import _Linked
from netsuke.nn.quantizer import Quantizer


class Pair(nn.Module):
    """(Clip,) QuantizeLinear, DequantizeLinear; limited=False leaves the Clip out (moved codes keep their range)."""

    scale: Tensor
    zero: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, grid: Grid8, *, limited: bool = True) -> None:
        super().__init__()
        self.limited = limited and (grid.lo, grid.hi) != (0, 255)
        self.register_buffer("scale", torch.tensor(grid.scale))
        self.register_buffer("zero", torch.tensor(grid.zero, dtype=torch.uint8))
        for name, code in (("low", grid.lo), ("high", grid.hi)):
            self.register_buffer(name, torch.tensor(float(code - grid.zero)) * torch.tensor(grid.scale))

    def forward(self, x: Tensor) -> Tensor:
        if self.limited:
            x = _op("Clip", x, self.low, self.high)
        q = _op("QuantizeLinear", x, self.scale, self.zero, dtype=torch.uint8)
        return _op("DequantizeLinear", q, self.scale, self.zero)


def _op(name: str, x: Tensor, *inputs: Tensor, dtype: torch.dtype = torch.float32, **attributes: Any) -> Tensor:
    """An ONNX operator whose result has the shape of x."""
    made: Tensor = torch.onnx.ops.symbolic(name, (x, *inputs), attributes, dtype=dtype, shape=x.shape)
    return made


def _clamped(y: Tensor, bounds: tuple[float, float]) -> Tensor:
    if bounds == (-INF, INF):
        return y
    return torch.relu(y) if bounds == (0.0, INF) else _op("Clip", y, torch.tensor(bounds[0]), torch.tensor(bounds[1]))


class Served(nn.Module):
    """A QuantLayer with integer weights."""

    codes: Tensor
    scale: Tensor
    zero: Tensor
    bias: Tensor | None

    def __init__(self, layer: QuantLayer) -> None:
        super().__init__()
        made = layer.serve()
        self.register_buffer("codes", made.codes)
        self.register_buffer("scale", made.scale)
        self.register_buffer("zero", torch.zeros(len(made.scale), dtype=torch.int8))
        self.register_buffer("bias", made.bias)
        self.bounds, self._operator = layer.bounds, layer.apply_layer
        self.target = None if layer.target is None else Pair(served(layer.target))

    def forward(self, x: Tensor, r: Tensor | None = None) -> Tensor:
        w = _op("DequantizeLinear", self.codes, self.scale, self.zero, axis=0)
        y = self._operator(x, w, self.bias)
        if r is not None:
            y = y + r
        y = _clamped(y, self.bounds)
        return y if self.target is None else self.target(y)


class Elementwise(nn.Module):
    """An operator without weights behind which a quantizer stands."""

    def __init__(self, real: Callable[..., Tensor], bounds: tuple[float, float], target: Quantizer) -> None:
        super().__init__()
        self._real, self.bounds, self.target = real, bounds, Pair(served(target))

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.target(_clamped(self._real(*inputs), self.bounds))
        return out


def served_network(network: nn.Module) -> nn.Module:
    """A copy of the network in which every quantized module is replaced by its ONNX form."""
    net = copy.deepcopy(network).eval()
    if isinstance(net, fx.GraphModule):
        for node in list(net.graph.nodes):
            if "moved" in node.meta:
                _behind(net, node, node.meta["moved"])
        net.recompile()
    done: list[str] = []
    for name, module in list(net.named_modules()):
        made = None if name.startswith(tuple(done)) else _form(module)
        if made is not None:
            done.append(name + ".")  # what is inside went with it
            parent, _, leaf = name.rpartition(".")
            setattr(net.get_submodule(parent), leaf, made)
    return net


def _form(module: nn.Module) -> nn.Module | None:
    if isinstance(module, PerModule):
        return nn.Sequential(Pair(served(module.quantizer)), Served(module.inner))
    if isinstance(module, QuantLayer):
        return Served(module)
    if isinstance(module, _Linked):
        return Elementwise(module.real, module.bounds, module.target)
    if isinstance(module, Quantizer) and module.spec.role == "activation" and bool(module.ready):
        return Pair(served(module))
    return None


def _behind(net: fx.GraphModule, node: fx.Node, name: str) -> None:
    """Moved codes are quantized again on their own grid: exact, and it shows the compiler that they are codes."""
    quantizer = net.get_submodule(name)
    assert isinstance(quantizer, Quantizer)
    label = f"{node.name}_moved"
    net.add_module(label, Pair(served(quantizer), limited=False))
    with net.graph.inserting_after(node):
        made = net.graph.call_module(label, (node,))
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)
