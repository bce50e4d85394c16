"""HASB of double rounding: mixes of widths drawn by the curvature of the loss, and a mix chosen for serving.

Source: Huang et al. 2025, "Nearly Lossless Adaptive Bit Switching" (arXiv 2502.01199); trace by Hutchinson's estimator.
A layer whose trace is below the mean draws its width evenly, any other with p_i = b_i / sum b: fragile layers get more
bits more often. A drawn width is taken with a probability that grows from 0 to 1 over the training; else the layer
keeps the width of the batch, which is drawn evenly.
`choose` minimises sum_l (t_l / n_l) |Q_b(W_l) - W_l|^2 at a mean number of bits (the harm of HAWQ-V3; the paper's text
has no rounding error in it, which would give the most fragile layers the fewest bits).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from netsuke.core.errors import Problem, UsageError
from netsuke.core.seeds import generator

if TYPE_CHECKING:
    from netsuke.methods.qat._network import QatNetwork
    from netsuke.methods.qat.double_rounding import Views


def traces(network: QatNetwork, x: Tensor, y: Tensor, *, draws: int = 8, seed: int = 0) -> dict[str, float]:
    """Trace of the Hessian of the float network's cross-entropy in each layer's weights: mean of v' H v, v in {-1, 1}.

    The network is left as it was: quantizers are switched off meanwhile, norms hold their statistics.
    """
    layers, was = network.layers(), network.training
    enabled = {n: q.enabled for n, q in network.quantizers().items()}
    for quantizer in network.quantizers().values():
        quantizer.enabled = False
    network.train()
    network.freeze_norms()
    try:
        weights: list[Tensor] = [layer.layer.weight for layer in layers.values()]  # type: ignore[misc]
        grads = torch.autograd.grad(F.cross_entropy(network(x), y), weights, create_graph=True)
        rng, sums = generator(seed, "hasb"), [0.0] * len(weights)
        for _ in range(draws):
            v = [torch.from_numpy(rng.integers(0, 2, w.shape).astype("float32") * 2 - 1) for w in weights]
            product = torch.autograd.grad(grads, weights, v, retain_graph=True)
            sums = [s + float((a * b).sum()) / draws for s, a, b in zip(sums, product, v, strict=True)]
    finally:
        for name, quantizer in network.quantizers().items():
            quantizer.enabled = enabled[name]
        network.train(was)
    return dict(zip(layers, sums, strict=True))


class Hasb:
    """Draws mixes for the layers that switch.

    traces  of `traces`, or None: every layer draws evenly, what HASB is compared with
    steps   draws until every layer takes its own width
    """

    def __init__(self, views: Views, traces: Mapping[str, float] | None, steps: int, seed: int = 0) -> None:
        missing = [n for n in views.layers if traces is not None and n not in traces]
        if missing or steps < 1:
            raise UsageError(
                [Problem("no trace", n) for n in missing] + [Problem("steps", got=str(steps))] * (steps < 1)
            )
        self.bits, self.steps, self.drawn = views.bits, steps, 0
        known = dict.fromkeys(views.layers, 0.0) if traces is None else {n: traces[n] for n in views.layers}
        mean = 1.0 if traces is None else sum(known.values()) / len(known)
        even, heavy = [1 / len(self.bits)] * len(self.bits), [b / sum(self.bits) for b in self.bits]
        self.chances = {n: even if known[n] < mean else heavy for n in views.layers}
        self.rng = generator(seed, "hasb.draw")

    def draw(self) -> dict[str, int]:
        """The widths of the next mix."""
        own = min(1.0, self.drawn / self.steps)
        self.drawn += 1
        base = int(self.rng.choice(self.bits))
        return {
            name: int(self.rng.choice(self.bits, p=chance)) if self.rng.random() < own else base
            for name, chance in self.chances.items()
        }


def choose(views: Views, traces: Mapping[str, float], mean_bits: float) -> dict[str, int]:
    """The mix of least harm with at most `mean_bits` bits a weight, by the integer program; UsageError if none fits."""
    from netsuke.methods.bits import integer_program
    from netsuke.methods.bits._problem import Format, Option
    from netsuke.methods.bits._problem import Problem as Choice

    groups, total = [], 0
    for name, layer in views.layers.items():
        w = layer.real_weight().detach()
        total += w.numel()
        options = []
        for bits in views.bits:
            kept, layer.weight.view = layer.weight.view, bits  # type: ignore[assignment]
            error = float(((layer.weight(w) - w) ** 2).sum().detach())
            layer.weight.view = kept
            harm = max(traces[name], 0.0) / w.numel() * error
            options.append(Option(((name, Format(bits, 8)),), harm, (float(w.numel() * bits),)))
        groups.append(tuple(options))
    found = integer_program.apply(Choice(tuple(groups), (mean_bits * total,), ("weight bits",)))
    return {name: fmt.weight_bits for name, fmt in found.formats.items()}
