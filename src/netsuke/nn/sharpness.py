"""How sharp the loss is around a network's weights: the measure behind L1 normalization's case.

For random directions d with every filter of d as long as the filter of the weights it perturbs (Li et al. 2018,
"Visualizing the Loss Landscape of Neural Nets", arXiv 1712.09913): sharpness = mean over d of
(L(w + r d) + L(w - r d)) / 2 - L(w), a curvature along filter-normalized directions at radius r.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError


def direction(parameter: Tensor, rng: torch.Generator) -> Tensor:
    """Gaussian, every row (output channel) as long as the parameter's; zero for vectors (biases, normalizations)."""
    if parameter.ndim < 2:
        return torch.zeros_like(parameter)
    d = torch.randn(parameter.shape, generator=rng)
    rows, own = d.flatten(1), parameter.detach().flatten(1)
    return (rows * (own.norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True).clamp_min(1e-30))).view_as(parameter)


@torch.no_grad()
def sharpness(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], *, radius: float = 0.05, directions: int = 8, seed: int = 0
) -> float:
    """Mean rise of the loss at `radius` on both sides; weights are restored bit for bit.

    loss: the network -> its mean loss on fixed data. The network's mode is not changed; in training mode normalizations
    use their batch and move their running statistics.
    """
    if not radius > 0 or directions < 1:
        got = f"radius {radius}, directions {directions}"
        raise UsageError(Problem("sharpness needs a positive radius and a direction", got=got))
    parameters = [p for p in model.parameters() if p.ndim >= 2]
    saved = [p.detach().clone() for p in parameters]
    rng = torch.Generator().manual_seed(seed)
    here, total = float(loss(model)), 0.0
    try:
        for _ in range(directions):
            moves = [direction(p, rng) for p in saved]
            for sign in (1.0, -1.0):
                for p, old, d in zip(parameters, saved, moves, strict=True):
                    p.copy_(old + sign * radius * d)
                total += float(loss(model)) - here
    finally:
        for p, old in zip(parameters, saved, strict=True):
            p.copy_(old)
    return total / (2 * directions)
