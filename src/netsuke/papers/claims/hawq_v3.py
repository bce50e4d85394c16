"""Yao et al. 2021, "HAWQ-V3": dyadic requantization.

Paper: the whole graph uses integer multiplication, addition and shift; the hardware's result equals the reference bit
for bit. Checked: a residual network (the shipped digits network) with the dyadic recipe. Exact: every convolution and
linear layer that writes codes is a dyadic operator; multipliers are 31-bit integers; engine and reference agree on
every code. Statistical: accuracy within 0.5 points of the float-multiplier program. A mean
over an image of free size, as here, still uses a float multiplier (`float_multiplier_ops` counts such operators); the
bit assignment is checked by hawq-v3/bits.
"""

from __future__ import annotations

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import engine_equals_reference, small, top1

FLOAT_LAYERS = ("qconv", "qlinear")
FLOAT_OTHERS = ("qadd", "qmul", "qmean", "qavgpool")


def measure(context: Context, seed: int) -> Outcome:
    """Compress twice, with and without dyadic requantization, from the same calibration images."""
    dyadic, plain = small("cpu-int8-dyadic", seed), small("cpu-int8", seed)
    context.progress(f"seed {seed}: {dyadic.summary().splitlines()[0]}")
    program = dyadic.program
    layers = [n for n in program.nodes if n.op in ("qconv_dyadic", "qlinear_dyadic")]
    left = [n.name for n in program.nodes if n.op in FLOAT_LAYERS and program.values[n.outputs[0]].dtype == "u8"]
    others = sum(n.op in FLOAT_OTHERS for n in program.nodes)
    multipliers = np.concatenate([program.constants[n.inputs[2]] for n in layers]) if layers else np.zeros(0)
    return Outcome(
        exact={
            "engine equals the reference": engine_equals_reference(program),
            "every layer that writes codes is dyadic": bool(layers) and not left,
            "multipliers are 31-bit integers": bool(np.all((multipliers == 0) | (multipliers >= 2**30))),
        },
        figures={
            "top1_dyadic": top1(dyadic)[1],
            "top1_int8": top1(plain)[1],
            "dyadic_layers": float(len(layers)),
            "float_multiplier_ops": float(others),
        },
    )


CLAIM = register(
    Claim(
        id="hawq-v3/dyadic",
        paper="hawq-v3",
        sentence="The layers of a residual network requantize with integer multiply and shift, equal to the reference.",
        baseline="the same network with float multipliers",
        measure=measure,
        compares=(Compare("top1_dyadic", "top1_int8", -0.005),),
        minutes=3,
        methods=("quantize/dyadic",),
    )
)
