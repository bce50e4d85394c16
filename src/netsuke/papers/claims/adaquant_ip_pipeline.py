"""Hubara et al. 2020: layers fitted, bits by an integer program, batch norm retuned, in one run on 64 images.

Paper: with all three steps a network loses little with nearly all layers at 4-bit weights and activations.
Checked: the shipped digits network from 64 unlabelled images. An integer program over the measured loss of each layer
chooses W4A4 or W8A8 under a limit of 35 % of the bit operations of W8A8; layers are fitted to their float outputs;
batch norm is retuned. Exact: the limit is kept, most layers have 4 bits, the program takes under 5 s, engine and
reference agree on every code. Statistical: top-1 within 2 points of float.
"""

from __future__ import annotations

import time

from netsuke.core.budget import Budget
from netsuke.core.recipe import Recipe
from netsuke.data import load_data
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import SHAPE, engine_equals_reference, top1
from netsuke.pipeline import compress, plan

IMAGES = 64
RECIPE = (
    "quantize/uniform:weight_bits=8,activation_bits=8",
    "bits/search:sensitivity=layer_loss,formats=w4a4+w8a8",
    "quantize/adaquant:batch=16",
    "quantize/retune",
)
LIMIT = Budget(bops=0.35)


def measure(context: Context, seed: int) -> Outcome:
    """Search, fit, retune, judge."""
    calib = load_data("digits:train").take(IMAGES, seed)
    started = time.monotonic()
    made = plan("models:digits_cnn", calib, recipe=Recipe.make(RECIPE), budget=LIMIT, shape=SHAPE, seed=seed)
    seconds = time.monotonic() - started
    rows = [r for r in made.rows if r.weight_bits and not r.kept]
    spent = sum((r.macs or 0) * (r.weight_bits or 8) * r.activation_bits for r in rows)
    full = sum(64 * (r.macs or 0) for r in rows)
    small = compress(
        "models:digits_cnn", made, calib=calib, evaluate="digits:test", shape=SHAPE, seed=seed, measure=False
    )
    context.progress(f"seed {seed}: {small.summary().splitlines()[0]}")
    before, after = top1(small)
    inner = rows[1:-1]
    four = sum(r.weight_bits == 4 and r.activation_bits == 4 for r in inner)
    return Outcome(
        exact={
            "bit operations keep the limit": spent <= (LIMIT.bops_ratio or 0) * full,
            "most layers between the ends have 4 bits": four > len(inner) / 2,
            "engine equals the reference": engine_equals_reference(small.program),
        },
        figures={
            "top1_float": before,
            "top1_pipeline": after,
            "bops_share": spent / full,
            "layers_of_4_bits": float(four),
            "layers_searched": float(len(inner)),
            "seconds_to_plan": seconds,
        },
    )


CLAIM = register(
    Claim(
        id="adaquant-ip/pipeline",
        paper="adaquant-ip",
        sentence="Layer-wise fitting, bits by an integer program and retuned batch norm lose under 2 points at 4 bits.",
        baseline="the float network on the same 359 test digits",
        measure=measure,
        compares=(Compare("top1_pipeline", "top1_float", -0.02),),
        minutes=3,
        methods=("quantize/adaquant", "quantize/retune", "bits/layer_loss", "bits/integer_program", "bits/search"),
    )
)
