"""Optimise inputs until the moments of normalized layers are those the network remembers. Imports torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from netsuke.core.errors import Problem, UsageError
from netsuke.core.seeds import generator
from netsuke.methods.quantize import _torch_nodes
from netsuke.methods.quantize._context import data_input
from netsuke.methods.quantize._graph import Array, bn_statistics, normalized

SMALLEST = 1e-3  # share of the largest |gamma|: channels that hardly vary are compared in this unit


@dataclass(frozen=True)
class Distilled:
    """Inputs, and the loss of the first and of the last of them."""

    inputs: Array
    before: float
    after: float


def distill(model: ir.Model, shape: tuple[int, ...], iterations: int, rate: float, seed: int) -> Distilled:
    """Inputs of this shape whose moments in every normalized layer come close to the stored ones."""
    nodes = _needed(model)
    missing = _torch_nodes.unsupported(nodes)
    if missing:
        hint = "give calibration data, or leave quantize/zeroq out"
        raise UsageError(Problem("operators without a gradient here", got=", ".join(missing), hint=hint))
    targets = {node.outputs[0]: _target(node) for node in normalized(model)}
    source = data_input(model)
    x = torch.from_numpy(generator(seed, "quantize.zeroq").standard_normal(shape).astype(np.float32)).requires_grad_()
    optimiser = torch.optim.Adam([x], lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * step / max(1, iterations)))
    )
    losses = []
    for _ in range(iterations):
        loss = _loss(nodes, source, x, targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        losses.append(float(_loss(nodes, source, x, targets)))
    if not math.isfinite(losses[-1]):
        raise UsageError(Problem("distilling inputs diverged", got=f"loss {losses[-1]}", hint="a smaller rate"))
    return Distilled(x.detach().numpy(), losses[0], losses[-1])


def _needed(model: ir.Model) -> list[ir.Node]:
    """Nodes up to the last normalized layer that some normalized layer needs, in graph order."""
    wanted = {node.outputs[0] for node in normalized(model)}
    kept = []
    for node in reversed(list(model.graph)):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(v for v in node.inputs if v is not None)
    return kept[::-1]


def _target(node: ir.Node) -> tuple[Tensor, Tensor, Tensor]:
    found = bn_statistics(node)
    assert found is not None
    mean, deviation = (torch.from_numpy(np.asarray(v, np.float32)) for v in found)
    return mean, deviation, torch.clamp(deviation, min=float(deviation.max()) * SMALLEST + 1e-12)


def _loss(
    nodes: list[ir.Node], source: ir.Value, x: Tensor, targets: dict[ir.Value, tuple[Tensor, Tensor, Tensor]]
) -> Tensor:
    values = _torch_nodes.run(nodes, {source: x})
    one, zero = torch.ones(x.shape[1]), torch.zeros(x.shape[1])
    parts = [_distance(x, zero, one, one)]
    parts += [_distance(values[v], *target) for v, target in targets.items()]
    return torch.stack(parts).sum()


def _distance(y: Tensor, mean: Tensor, deviation: Tensor, unit: Tensor) -> Tensor:
    axes = [i for i in range(y.ndim) if i != 1]
    spread = torch.sqrt(y.var(dim=axes, unbiased=False) + 1e-12)
    return torch.as_tensor((((y.mean(dim=axes) - mean) / unit) ** 2 + ((spread - deviation) / unit) ** 2).mean())
