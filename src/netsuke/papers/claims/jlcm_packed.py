"""JLCM: a packed file at 3 bits whose learned tables err less than k-means tables.

Paper: similar neurons grouped, entries and index maps learned together by small moves, weights squeezed to a few
bits.
Checked: the shipped digits network with eight entries a layer between its ends, channels in 8 groups of one scale,
128 unlabelled images. Exact: every layer between the ends is stored as 3-bit indices and 8 entries, decoded at load;
the file is smaller than with plain 4-bit codes; engine and reference agree on every code. Statistical: the output
error of the learned tables is at least 2 dB below that of k-means tables in the same bytes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netsuke import engine
from netsuke.capture import capture
from netsuke.data import load_data
from netsuke.models import build
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import SHAPE, engine_equals_reference, small, top1
from netsuke.passes import compile_program

BASE = "quantize/uniform:weight_bits=3,activation_bits=8"
RECIPES: dict[str, Any] = {
    "kmeans": [BASE, "codebook/jlcm:iterations=0,groups=8"],
    "learned": [BASE, "codebook/jlcm:groups=8"],
}


def decibel(program: Any, exact: Any, x: Any) -> float:
    """Signal to error of the logits against the float network's."""
    found = np.asarray(engine.load(program)(x), np.float64)
    return 10 * math.log10(float((exact**2).sum() / ((found - exact) ** 2).sum()))


def tables(program: Any) -> list[str]:
    """How the weights of the layers between the first and the last are stored."""
    rows = [r for r in engine.load(program).kernels() if r["op"] in ("qconv", "qlinear")]
    return [r["stored"] for r in rows[1:-1]]


def measure(context: Context, seed: int) -> Outcome:
    """Two codebooks and a uniform 4-bit grid from the same images."""
    x = next(load_data("digits:test").batches(359))[0]
    exact_out = np.asarray(engine.load(compile_program(capture(build("digits_cnn"), shape=SHAPE)))(x), np.float64)
    uniform = small(["quantize/uniform:weight_bits=4,activation_bits=8"], seed)
    figures, exact = {"bytes_uniform4": float(uniform.bytes_after)}, {}
    for name, recipe in RECIPES.items():
        result = small(recipe, seed)
        context.progress(f"seed {seed}: {name}: {result.summary().splitlines()[0]}")
        figures[f"db_{name}"] = decibel(result.program, exact_out, x)
        figures["top1_float"], figures[f"top1_{name}"] = top1(result)
        figures[f"bytes_{name}"] = float(result.bytes_after)
        wanted = "3-bit indices, 8 entries of 1, decoded at load"
        exact[f"{name}: stored as 3-bit indices"] = set(tables(result.program)) == {wanted}
        exact[f"{name}: smaller than 4-bit codes"] = result.bytes_after < uniform.bytes_after
        exact[f"{name}: engine equals the reference"] = engine_equals_reference(result.program)
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="jlcm/packed",
        paper="jlcm",
        sentence="Tables learned with their index map err less than k-means tables in a file of 3-bit indices.",
        baseline="k-means tables of the same bytes",
        measure=measure,
        compares=(Compare("db_learned", "db_kmeans", 2.0), Compare("top1_learned", "top1_float", -0.02)),
        minutes=2,
        methods=("codebook/jlcm",),
    )
)
