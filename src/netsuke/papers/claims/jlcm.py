"""JLCM: codebooks and index maps learned together against k-means.

Paper: entries and mappings learned jointly, a weight moving to neighbouring entries only, compress further than
fixed mappings.
Checked: the shipped digits network with four entries a layer (2-bit indices) between its ends, 128 unlabelled
images.
Exact: no layer between the ends has more than four different codes; engine and reference agree on every code.
Statistical: the learned books answer as the float network more often than k-means books, those more often than a
uniform 2-bit grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import agreement, engine_equals_reference, small, top1, weight_codes

BASE = "quantize/uniform:weight_bits=2,activation_bits=8"
RECIPES: dict[str, Any] = {
    "uniform": [BASE],
    "kmeans": [BASE, "codebook/jlcm:iterations=0"],
    "learned": [BASE, "codebook/jlcm"],
}


def few(result: Any) -> bool:
    """At most four different codes in every layer between the ends."""
    return all(len(np.unique(c)) <= 4 for c in weight_codes(result)[1:-1])


def measure(context: Context, seed: int) -> Outcome:
    """Three recipes from the same calibration images."""
    figures: dict[str, float] = {}
    exact: dict[str, bool] = {}
    for name, recipe in RECIPES.items():
        result = small(recipe, seed)
        context.progress(f"seed {seed}: {name}: {result.summary().splitlines()[0]}")
        figures["top1_float"], figures[f"top1_{name}"] = top1(result)
        figures[f"agreement_{name}"] = agreement(result)
        exact[f"{name}: at most four codes a layer"] = few(result)
        if name == "learned":
            exact["engine equals the reference"] = engine_equals_reference(result.program)
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="jlcm/learned",
        paper="jlcm",
        sentence="Books of four entries learned with their index map beat k-means books, and those a uniform grid.",
        baseline="k-means codebooks; a uniform 2-bit grid",
        measure=measure,
        compares=(
            Compare("agreement_learned", "agreement_kmeans", 0.005),
            Compare("agreement_kmeans", "agreement_uniform", 0.01),
        ),
        minutes=3,
        methods=("codebook/jlcm",),
    )
)
