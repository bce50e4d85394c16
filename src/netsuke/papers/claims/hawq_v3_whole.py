"""Yao et al. 2021, "HAWQ-V3": the whole graph of a residual network in integer multiplications, additions and shifts.

Paper: nothing between the first and the last quantizer is computed in float. Checked: the shipped digits network
(residual, with an average over the image) captured at its image size and compiled with the dyadic recipe. Exact:
between the input's quantizer and the logits every operator is dyadic or moves codes; engine and reference agree on
every code. The logits themselves are float: one multiplication a class turns the last sums into numbers. Statistical:
accuracy within 0.5 points of the float-multiplier program.
"""

from __future__ import annotations

from typing import Any

from netsuke.capture import capture
from netsuke.data import load_data
from netsuke.models import build
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import SAMPLES, SHAPE, engine_equals_reference, small, top1
from netsuke.pipeline import compress

INTEGER = {
    "qconv_dyadic", "qlinear_dyadic", "qadd_dyadic", "qmean_dyadic", "maxpool", "reshape", "transpose", "pad", "concat",
    "slice", "identity",
}  # fmt: skip


def whole(seed: int) -> Any:
    """The network with its image size fixed, so that the mean divides by a known number."""
    graph = capture(build("digits_cnn"), shape=SHAPE)
    for value in graph.graph.inputs:
        value.shape = type(value.shape)(["N", *SHAPE[1:]])  # type: ignore[misc]
    calib = load_data("digits:train").take(SAMPLES, seed)
    return compress(
        graph, recipe="cpu-int8-dyadic", calib=calib, evaluate="digits:test", seed=seed, effort="fast", measure=False
    )


def measure(context: Context, seed: int) -> Outcome:
    """Compile, look at every operator, judge."""
    result, plain = whole(seed), small("cpu-int8", seed)
    program = result.program
    context.progress(f"seed {seed}: {result.summary().splitlines()[0]}")
    last = max(i for i, n in enumerate(program.nodes) if n.op in ("qlinear", "qlinear_dyadic"))
    inner = [n for i, n in enumerate(program.nodes) if n.op not in ("quantize", "dequantize") and i != last]
    kinds = [n.op for n in inner if program.values[n.outputs[0]].dtype != "i64"]
    return Outcome(
        exact={
            "every operator between the ends is integer": set(kinds) <= INTEGER,
            "the mean is dyadic": "qmean_dyadic" in kinds,
            "sums of branches are dyadic": "qadd_dyadic" in kinds
            or any(n.op == "qconv_dyadic" and len(n.inputs) > 5 and n.inputs[5] for n in inner),
            "engine equals the reference": engine_equals_reference(program),
        },
        figures={"top1_dyadic": top1(result)[1], "top1_int8": top1(plain)[1], "operators": float(len(kinds))},
    )


CLAIM = register(
    Claim(
        id="hawq-v3/whole",
        paper="hawq-v3",
        sentence="A whole residual network between its input codes and its logits is integer multiply, add and shift.",
        baseline="the same network with float multipliers",
        measure=measure,
        compares=(Compare("top1_dyadic", "top1_int8", -0.005),),
        minutes=2,
        methods=("quantize/dyadic",),
    )
)
