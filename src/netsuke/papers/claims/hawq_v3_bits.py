"""Yao et al. 2021, "HAWQ-V3": bits per layer by an integer program, in an integer-only network.

Paper: sensitivities from the Hessian, an integer program under a limit on size or bit operations, weights and
activations of 4 or 8 bits, dyadic requantization throughout. Checked: the shipped digits network (a residual network)
with the Hessian's sensitivities and the integer program under a limit on bit operations, then compiled dyadic. Exact:
the limit is kept; both widths occur; engine and reference agree on every code. Statistical: accuracy within 2 points
of the float network.
"""

from __future__ import annotations

from typing import Any

from netsuke.core.budget import Budget
from netsuke.core.recipe import Recipe
from netsuke.data import load_data
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import SAMPLES, SHAPE, engine_equals_reference, top1
from netsuke.pipeline import compress, plan

RECIPE = (
    "quantize/uniform:weight_bits=8,activation_bits=8",
    "quantize/bias_correction",
    "bits/search:sensitivity=hessian,formats=w4a4+w8a8",
    "quantize/dyadic",
)
LIMITS = Budget(bops=0.6)


def measure(context: Context, seed: int) -> Outcome:
    """Search, compress, judge."""
    calib = load_data("digits:train").take(SAMPLES, seed)
    made = plan("models:digits_cnn", calib, recipe=Recipe.make(RECIPE), budget=LIMITS, shape=SHAPE, seed=seed)
    rows = [r for r in made.rows if r.weight_bits and not r.kept]
    spent = sum((r.macs or 0) * (r.weight_bits or 8) * r.activation_bits for r in rows)
    full = sum(64 * (r.macs or 0) for r in rows)
    small = _small(made, calib, seed)
    context.progress(f"seed {seed}: {small.summary().splitlines()[0]}")
    before, after = top1(small)
    return Outcome(
        exact={
            "bit operations keep the limit": spent <= (LIMITS.bops_ratio or 0) * full,
            "both widths occur": {r.weight_bits for r in rows} >= {4, 8},
            "engine equals the reference": engine_equals_reference(small.program),
        },
        figures={"top1_float": before, "top1_mixed": after, "bops_share": spent / full},
    )


def _small(made: Any, calib: Any, seed: int) -> Any:
    return compress(
        "models:digits_cnn", made, calib=calib, evaluate="digits:test", shape=SHAPE, seed=seed, measure=False
    )


CLAIM = register(
    Claim(
        id="hawq-v3/bits",
        paper="hawq-v3",
        sentence="An integer program keeps a limit on bit operations in a dyadic residual network.",
        baseline="the float network on the same 359 test digits",
        measure=measure,
        compares=(Compare("top1_mixed", "top1_float", -0.02),),
        minutes=3,
        methods=("bits/search", "bits/hessian", "bits/integer_program", "bits/bops", "quantize/dyadic"),
    )
)
