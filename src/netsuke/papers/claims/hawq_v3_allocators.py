"""Yao et al. 2021, "HAWQ-V3", and Cai et al. 2020, "ZeroQ": bits that differ by layer beat one width for all.

Papers: at equal size, weights of chosen widths keep more accuracy than 4 bits everywhere. Checked: the shipped digits
network; the file of the uniform 4-bit plan (first and last layer 8 bits) sets the budget in bytes; the integer program,
the dynamic program and the Pareto sweep choose from 2 to 8 bits by the divergence of the predictions. Exact: no file is
larger than the uniform one; engine and reference agree on every code. Statistical: accuracy of each at least that of
the uniform plan.
"""

from __future__ import annotations

from typing import Any

from netsuke.core.budget import Budget
from netsuke.core.recipe import Recipe
from netsuke.data import load_data
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import SAMPLES, SHAPE, engine_equals_reference, top1
from netsuke.pipeline import compress, plan

ALLOCATORS = ("integer_program", "dynamic_program", "pareto")
NETWORK = "models:digits_cnn"


def measure(context: Context, seed: int) -> Outcome:
    """The uniform plan, then one search per allocator under its bytes."""
    calib = load_data("digits:train").take(SAMPLES, seed)
    uniform = _small(None, calib, seed, recipe="cpu-w4a8", effort="fast")
    figures, exact = {"top1_uniform": top1(uniform)[1], "bytes": float(uniform.bytes_after)}, {}
    for name in ALLOCATORS:
        steps = ("quantize/uniform:weight_bits=8,activation_bits=8", "quantize/bias_correction")
        recipe = Recipe.make((*steps, f"bits/search:sensitivity=kl,allocator={name}"))
        limit = Budget(size=f"{uniform.bytes_after}B")
        small = _small(plan(NETWORK, calib, recipe=recipe, budget=limit, shape=SHAPE, seed=seed), calib, seed)
        context.progress(f"seed {seed}, {name}: {small.summary().splitlines()[0]}")
        figures[f"top1_{name}"] = top1(small)[1]
        exact[f"{name}: no larger than the uniform file"] = small.bytes_after <= uniform.bytes_after
        exact[f"{name}: engine equals the reference"] = engine_equals_reference(small.program)
    return Outcome(exact=exact, figures=figures)


def _small(made: Any, calib: Any, seed: int, **options: Any) -> Any:
    common = {"calib": calib, "evaluate": "digits:test", "shape": SHAPE, "seed": seed, "measure": False}
    return compress(NETWORK, made, **common, **options)


CLAIM = register(
    Claim(
        id="hawq-v3/allocators",
        paper="hawq-v3",
        sentence="Bits chosen per layer by three allocators are as accurate as 4 bits everywhere, in no more bytes.",
        baseline="uniform 4-bit weights on the same 359 test digits",
        measure=measure,
        compares=tuple(Compare(f"top1_{name}", "top1_uniform", 0.0) for name in ALLOCATORS),
        minutes=4,
        methods=("bits/search", "bits/kl", "bits/integer_program", "bits/dynamic_program", "bits/pareto"),
    )
)
