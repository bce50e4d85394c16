"""Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference": per-channel INT8 without
training.

Paper: per-channel weights and per-tensor activations, 8 bits, post-training: within 2% of float, 4x smaller.
Checked: the shipped digits network, three draws of 128 calibration images. Exact: the engine computes the reference's
codes; every convolution and linear layer is packed; weights take one byte each. Statistical: top-1 falls by less than
2 points.
"""

from __future__ import annotations

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import engine_equals_reference, small, top1

LAYERS = ("qconv", "qlinear")


def measure(context: Context, seed: int) -> Outcome:
    """Compress with the cpu-int8 recipe; calibration images drawn by the seed."""
    result = small("cpu-int8", seed)
    program = result.program
    context.progress(f"seed {seed}: {result.summary().splitlines()[0]}")
    layers = [n for n in program.nodes if n.op in LAYERS]
    float_layers = [n.name for n in program.nodes if n.op in ("conv", "linear")]
    weights = [program.constants[n.inputs[1]] for n in layers]
    before, after = top1(result)
    return Outcome(
        exact={
            "engine equals the reference": engine_equals_reference(program),
            "every convolution and linear layer is packed": bool(layers) and not float_layers,
            "one byte a weight": all(w.dtype.itemsize == 1 for w in weights),
        },
        figures={
            "top1_float": before,
            "top1_int8": after,
            "file_ratio": result.bytes_before / result.bytes_after,
            "weight_bytes": float(sum(w.nbytes for w in weights)),
        },
    )


CLAIM = register(
    Claim(
        id="quant-whitepaper/int8",
        paper="quant-whitepaper",
        sentence="Per-channel INT8 after training: accuracy falls by less than 2 points, every layer runs in integers.",
        baseline="the float network on the same 359 test digits",
        measure=measure,
        compares=(Compare("top1_int8", "top1_float", -0.02),),
        minutes=1.5,
        methods=("quantize/whitepaper_int8", "quantize/minmax"),
    )
)
