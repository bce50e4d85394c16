"""Hubara et al. 2020: layer-wise calibration (AdaQuant) and batch-norm tuning on a tiny calibration set.

Paper: with each layer's weights, bias and ranges fitted to its float output on a few unlabelled images, 4-bit
weights and activations lose little.
Checked: the shipped digits network at W4A4 (ends 8 bits) from 64 unlabelled images. Exact: engine and reference
agree on every code. Statistical: AdaQuant stays within 2 points of float, and so does nearest rounding with
batch-norm tuning (the paper's light pipeline); AdaQuant answers as the float network at least as often as plain
nearest rounding. The integer program for bits is a claim of its own.
"""

from __future__ import annotations

from typing import Any

from netsuke.data import load_data
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import agreement, engine_equals_reference, quantized, top1

IMAGES = 64
BASE = "quantize/uniform:weight_bits=4,activation_bits=4"
RECIPES: dict[str, Any] = {
    "nearest": [BASE],
    "bias_corrected": [BASE, "quantize/bias_correction"],
    "light": [BASE, "quantize/retune"],
    "adaquant": [BASE, "quantize/adaquant:batch=16"],
    "advanced": [BASE, "quantize/adaquant:batch=16", "quantize/retune"],
}


def measure(context: Context, seed: int) -> Outcome:
    """Five recipes from the same 64 images."""
    figures: dict[str, float] = {}
    exact: dict[str, bool] = {}
    calib = load_data("digits:train").take(IMAGES, seed)
    for name, recipe in RECIPES.items():
        result = quantized(recipe, calib, seed)
        context.progress(f"seed {seed}: {name}: {result.summary().splitlines()[0]}")
        figures["top1_float"], figures[f"top1_{name}"] = top1(result)
        figures[f"agreement_{name}"] = agreement(result)
        if name in ("light", "adaquant"):
            exact[f"{name}: engine equals the reference"] = engine_equals_reference(result.program)
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="adaquant-ip/layerwise",
        paper="adaquant-ip",
        sentence="Layers fitted to their float outputs on 64 images lose under 2 points at 4 bits.",
        baseline="float; nearest rounding",
        measure=measure,
        compares=(
            Compare("top1_adaquant", "top1_float", -0.02),
            Compare("top1_light", "top1_float", -0.02),
            Compare("agreement_adaquant", "agreement_nearest"),
        ),
        minutes=3,
        methods=("quantize/adaquant", "quantize/retune"),
    )
)
