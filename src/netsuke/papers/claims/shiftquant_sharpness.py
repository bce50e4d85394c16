"""Guo et al. 2024, ShiftQuant: why L1 normalization. Quantization makes the loss around the weights sharper, and the
paper argues that normalizing by the mean deviation keeps it smoother than normalizing by the standard deviation.

Checked: the residual network of the demo on the shipped digits, 4-bit integers in every product, once with the fully
quantized L1 normalization and once with batch normalization, trained alike; then the mean rise of the training loss
(statistics of the batch, as the optimizer sees it) along eight filter-normalized directions, at five radii. The rises
stand in the result as curves. Exact: measuring leaves every weight as it was. Statistical: at the middle radius the
loss of the L1 network rises less, by more than the spread of seeds. It does not at this scale: neither is the smoother
one, and batch normalization, which stays float here, ends three points higher.
"""

from __future__ import annotations

import copy
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._integer import Budget, batch, resnet, run

BUDGET = Budget()
WIDTHS = {"weight_bits": 4, "activation_bits": 4, "gradient_bits": 4}
RADII = (0.05, 0.1, 0.2, 0.3, 0.4)


def rises(model: Any, seed: int) -> list[float]:
    """Mean rise of the loss on 256 training images at every radius."""
    import torch

    from netsuke.nn.sharpness import sharpness

    x, y = batch(256)
    net = copy.deepcopy(model).train()

    def loss(m: Any) -> Any:
        return torch.nn.functional.cross_entropy(m(x), y)

    return [sharpness(net, loss, radius=radius, directions=8, seed=seed) for radius in RADII]


def measure(context: Context, seed: int) -> Outcome:
    """Two networks, the same weights and order of images at the start."""
    import torch

    made = {
        name: run(context, name, resnet, seed, BUDGET, "integer/shiftquant", l1_norm=name == "L1", **WIDTHS)
        for name in ("L1", "L2")
    }
    before = {n: [p.detach().clone() for p in r.model.parameters()] for n, r in made.items()}
    found = {name: rises(r.model, seed) for name, r in made.items()}
    same = all(torch.equal(a, b) for n, r in made.items() for a, b in zip(before[n], r.model.parameters(), strict=True))
    middle = RADII.index(0.2)
    return Outcome(
        exact={"measuring leaves every weight as it was": same},
        figures={
            **{f"rise_{name}": values[middle] for name, values in found.items()},
            **{f"top1_{name}": r.top1 for name, r in made.items()},
        },
        curves={f"loss rise by radius, {name}": values for name, values in found.items()},
    )


CLAIM = register(
    Claim(
        id="shiftquant/sharpness",
        paper="shiftquant",
        sentence="At 4 bits the loss around a network with L1 normalization rises less than around one with L2.",
        baseline="batch normalization, trained alike",
        measure=measure,
        compares=(Compare("rise_L2", "rise_L1", clear=True),),
        minutes=1.5,
        methods=("integer/shiftquant",),
    )
)
