"""Gao et al. 2024, "1-Bit FQT: Pushing the Limit of Fully Quantized Training to 1-bit".

Paper: fine-tuning binary networks with gradients of one bit on average is about 6 points better than one bit a value
with a scale a sample, about 5 below exact gradients. Checked: a small residual CNN on the shipped digits; binary
pre-training on the digits turned by 90 degrees, then 8 epochs of fine-tuning on the upright ones with Adam: gradients
pruned to a quarter at 4 bits, the per-sample baseline, and exact gradients. Exact: forward, input gradient and weight
gradient of the trained network by the XNOR kernels are the sums of signs that float64 gives. Statistical: pruned
ends above the baseline by at least one point; the distance to exact gradients is stated.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._integer import Budget, backward, run

BEFORE, AFTER = Budget(epochs=8, rate=4e-3, adam=True), Budget(epochs=8, rate=2e-3, adam=True)


def network(seed: int) -> Any:
    """The network of the binary claims: four 3x3 convolutions of width 32 between float shortcuts."""
    import torch

    from netsuke.models.binary_digits import BinaryDigitsCNN

    torch.manual_seed(seed)
    return BinaryDigitsCNN()


def turned() -> tuple[Any, Any]:
    """The training digits turned by 90 degrees, with their labels."""
    import torch

    from netsuke.pipeline.train import samples

    x, y = samples("digits:train", "digits")
    return torch.rot90(x, 1, (2, 3)).contiguous(), y


def layers(model: Any) -> list[Any]:
    """The one-bit layers."""
    from netsuke.nn.one_bit import OneBitLayer

    return [m for m in model.modules() if isinstance(m, OneBitLayer)]


def _kernels_agree(model: Any) -> bool:
    """Gradients of one batch by the XNOR kernels and by float64 products of the same signs, bit for bit."""
    import torch

    twin = copy.deepcopy(model)
    for layer in layers(twin):
        layer.config = replace(layer.config, products="simulation")
    ours, theirs = backward(copy.deepcopy(model)), backward(twin)
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def measure(context: Context, seed: int) -> Outcome:
    """One pre-training, three fine-tunings."""
    method = "integer/one_bit_fqt"
    start = run(context, "pre-training", network, seed, BEFORE, method, data=turned(), gradient="float")
    runs = {
        gradient: run(context, gradient, lambda _: copy.deepcopy(start.model), seed, AFTER, method, gradient=gradient)
        for gradient in ("pruned", "per-sample", "float")
    }
    small = runs["pruned"]
    return Outcome(
        exact={
            "four layers compute with one bit": len(layers(small.model)) == 4,
            "XNOR kernels give the gradients of float64 products of the same signs": _kernels_agree(small.model),
        },
        figures={
            "top1_pruned": small.top1,
            "top1_per_sample": runs["per-sample"].top1,
            "top1_exact": runs["float"].top1,
            "top1_before": start.top1,
        },
        curves={f"{name} {what}": r.curve(what) for name, r in runs.items() for what in ("loss", "accuracy")},
    )


CLAIM = register(
    Claim(
        id="one-bit-fqt/digits",
        paper="one-bit-fqt",
        sentence="4-bit gradients pruned to one bit a value fine-tune a binary CNN better than a bit a value a sample.",
        baseline="one-bit gradients with a scale a sample, equal budget",
        measure=measure,
        compares=(Compare("top1_pruned", "top1_per_sample", 0.01),),
        minutes=2,
        methods=("integer/one_bit_fqt",),
    )
)
