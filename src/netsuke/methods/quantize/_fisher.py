"""How much each element of a unit's output matters to the network's answer: the diagonal of the Fisher information."""

from __future__ import annotations

import torch
from torch import Tensor

from netsuke.core.seeds import generator
from netsuke.methods.quantize import _torch_nodes
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._graph import is_float
from netsuke.methods.quantize._units import Unit

BATCH = 32


def squared_scores(context: Context, unit: Unit, target: Tensor) -> Tensor | None:
    """(1 + |g| / rms(g))^2 over its mean, g = d log p(y | x) / d output, y drawn from the network's own answer.

    rms is taken per sample: a network is sure of most samples, and without this the few others would decide alone; 1
    keeps every element in the sum. Shaped as `target`.

    A two- or three-dimensional output is read as logits over its last axis, any other as the mean of a unit normal.
    None, with a note in the plan, where the rest of the network has no gradient here or needs more than this output.
    """
    nodes = _behind(context, unit)
    missing = _torch_nodes.unsupported(nodes)
    known = {unit.output, *(v for n in nodes for v in n.outputs)}
    other = [v.name for n in nodes for v in n.inputs if v is not None and v not in known and v.producer() is not None]
    outputs = [v for v in context.model.graph.outputs if v in known and is_float(v)]
    others = [name for name in other if not _constant(context, name)]
    if missing or others or not outputs:
        why = f"operators {', '.join(missing)}" if missing else "it reads other tensors too" if others else "no output"
        context.plan.note(f"{unit.name}: plain squared error, the network behind it has no gradient here ({why})")
        return None
    rng = torch.Generator().manual_seed(int(generator(context.seed, "fisher", unit.name).integers(2**31)))
    parts = []
    for x in target.split(BATCH):
        leaf = x.clone().requires_grad_()
        values = _torch_nodes.run(nodes, {unit.output: leaf})
        score = torch.stack([_log_likelihood(values[v], rng) for v in outputs]).sum()
        (gradient,) = torch.autograd.grad(score, leaf)
        axes = list(range(1, gradient.ndim))
        size = torch.sqrt((gradient**2).mean(dim=axes, keepdim=True))
        parts.append((1 + gradient.abs() / torch.where(size > 0, size, torch.ones_like(size))) ** 2)
    found = torch.cat(parts)
    return found / found.mean()


def _behind(context: Context, unit: Unit) -> list:  # type: ignore[type-arg]
    """Nodes that depend on the unit's output, in graph order."""
    reached, found = {unit.output}, []
    for node in context.model.graph:
        if reached.intersection(v for v in node.inputs if v is not None):
            reached.update(node.outputs)
            found.append(node)
    return found


def _constant(context: Context, name: str | None) -> bool:
    return name in context.model.graph.initializers


def _log_likelihood(y: Tensor, rng: torch.Generator) -> Tensor:
    if y.ndim in (2, 3) and y.shape[-1] > 1:
        logits = y.reshape(-1, y.shape[-1])
        drawn = torch.multinomial(torch.softmax(logits.detach(), 1), 1, generator=rng)
        return torch.log_softmax(logits, 1).gather(1, drawn).sum()
    return (y * torch.randn(y.shape, generator=rng)).sum()
