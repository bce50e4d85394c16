"""Gradient-based post-training quantization: learned rounding against nearest rounding, switches against each other.

Paper: the choice of loss, variable and optimiser of learned rounding matters, and the best combination improves
every method it was tried with.
Checked: the shipped digits network with 2-bit weights and 8-bit activations between its ends, 128 unlabelled
images. Exact: codes stay in {-1, 0, 1}; engine and reference agree on every code. Statistical: the default of
quantize/gradient_ptq, AdaRound and BRECQ answer as the float network more often than nearest rounding with bias
correction, by the margins below, and the default loses at most 2.5 points.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import agreement, engine_equals_reference, small, top1, weight_codes

BASE = "quantize/uniform:weight_bits=2,activation_bits=8"
RECIPES = {
    "nearest": [BASE],
    "bias_corrected": [BASE, "quantize/bias_correction"],
    "gptq": [BASE, "quantize/gptq"],
    "adaround": [BASE, "quantize/adaround"],
    "brecq": [BASE, "quantize/brecq"],
    "recipe": [BASE, "quantize/gradient_ptq"],
}


def narrow(result: Any) -> bool:
    """The codes of all layers between the ends lie in {-1, 0, 1}."""
    return all(int(np.abs(c.astype(int)).max()) <= 1 for c in weight_codes(result)[1:-1])


def measure(context: Context, seed: int) -> Outcome:
    """Six recipes from the same calibration images."""
    figures: dict[str, float] = {}
    exact: dict[str, bool] = {}
    for name, recipe in RECIPES.items():
        result = small(recipe, seed)
        context.progress(f"seed {seed}: {name}: {result.summary().splitlines()[0]}")
        figures["top1_float"], figures[f"top1_{name}"] = top1(result)
        figures[f"agreement_{name}"] = agreement(result)
        exact[f"{name}: ternary codes"] = narrow(result)
        if name in ("gptq", "recipe"):
            exact[f"{name}: engine equals the reference"] = engine_equals_reference(result.program)
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="gptq-status-quo/rounding",
        paper="gptq-status-quo",
        sentence="Learned rounding keeps a network at 2-bit weights where nearest rounding loses answers.",
        baseline="nearest rounding with bias correction, same scales",
        measure=measure,
        compares=(
            Compare("agreement_recipe", "agreement_bias_corrected", 0.02),
            Compare("agreement_adaround", "agreement_bias_corrected", 0.02),
            Compare("agreement_brecq", "agreement_bias_corrected", 0.02),
            Compare("top1_recipe", "top1_float", -0.025),
        ),
        minutes=6,
        methods=("quantize/gradient_ptq", "quantize/adaround", "quantize/brecq", "quantize/gptq"),
    )
)
