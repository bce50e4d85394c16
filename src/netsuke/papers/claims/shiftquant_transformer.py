"""Guo et al. 2024, ShiftQuant on a transformer.

Paper: 6-bit transformers lose 0.61 points. Checked: a two-block vision transformer on the shipped digits, every linear
layer in 6-bit integers, layer normalization and attention's own products in float, 20 epochs of AdamW. Statistical:
within 1 point of float.
"""

from __future__ import annotations

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._integer import Budget, run, transformer

BUDGET = Budget(epochs=20, rate=5e-3, adam=True)


def measure(context: Context, seed: int) -> Outcome:
    """Float and 6 bits, the same weights and order of images."""
    from netsuke.nn.integer_swap import integer_layers

    plain = run(context, "float", transformer, seed, BUDGET)
    small = run(context, "6 bits", transformer, seed, BUDGET, "integer/shiftquant")
    return Outcome(
        exact={"patches, every linear layer and the head are integer": len(integer_layers(small.model)) == 10},
        figures={"top1": small.top1, "top1_float": plain.top1},
        curves={**small.curves("6 bits"), **plain.curves("float")},
    )


CLAIM = register(
    Claim(
        id="shiftquant/transformer",
        paper="shiftquant",
        sentence="A tiny vision transformer trained in 6-bit integers ends within 1 point of float.",
        baseline="float32 training, equal budget",
        measure=measure,
        compares=(Compare("top1", "top1_float", -0.01),),
        minutes=2,
        methods=("integer/shiftquant",),
    )
)
