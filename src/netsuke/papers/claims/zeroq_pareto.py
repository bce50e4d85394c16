"""Cai et al. 2020, ZeroQ: a network quantized end to end without data in under a minute.

Paper: distilled inputs give ranges and sensitivities, a Pareto sweep sets the bits, and the result beats calibration
by noise.
Checked: the shipped digits network with 4-bit weights and 3-bit activations between its ends, where ranges matter (at
8 bits every calibration is equal, see zeroq/distilled); then the sweep over widths under the bytes of a uniform 4-bit
network. Exact: both runs use no data and take under a minute of processor time each; the sweep's file keeps the
limit; engine and reference agree. Statistical: distilled inputs agree with the float network by 2 points more than
Gaussian noise of the same number does, on average over seeds.
"""

from __future__ import annotations

import time

import numpy as np

from netsuke.core.budget import Budget
from netsuke.core.recipe import Recipe
from netsuke.data import Dataset
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import SHAPE, agreement, engine_equals_reference, quantized, top1
from netsuke.papers.claims.zeroq import COUNT
from netsuke.pipeline import compress, plan

LOW = "quantize/uniform:weight_bits=4,activation_bits=3"
SWEEP = (
    "quantize/zeroq:iterations=80",
    "quantize/uniform:weight_bits=8,activation_bits=8",
    "bits/search:sensitivity=kl,allocator=pareto",
)


def measure(context: Context, seed: int) -> Outcome:
    """Noise against distilled inputs at few bits; the sweep on distilled inputs."""
    noise = np.random.default_rng(seed).standard_normal((COUNT, *SHAPE[1:])).astype(np.float32)
    rough = quantized([LOW], Dataset.from_arrays(noise, source="noise"), seed)
    started = time.process_time()
    fine = quantized(["quantize/zeroq:iterations=80", LOW], None, seed)
    seconds = time.process_time() - started
    uniform = quantized(
        ["quantize/zeroq:iterations=80", "quantize/uniform:weight_bits=4,activation_bits=8"], None, seed
    )
    started = time.process_time()
    limit = Budget(size=f"{uniform.bytes_after}B")
    made = plan("models:digits_cnn", None, recipe=Recipe.make(SWEEP), budget=limit, shape=SHAPE, seed=seed)
    mixed = compress(
        "models:digits_cnn", made, evaluate="digits:test", shape=SHAPE, seed=seed, measure=False, threads=1
    )
    sweep = time.process_time() - started
    runs = {"noise": rough, "distilled": fine, "uniform": uniform, "pareto": mixed}
    figures = {"seconds": seconds, "seconds_pareto": sweep, "bytes_pareto": float(mixed.bytes_after)}
    for name, result in runs.items():
        context.progress(f"seed {seed}: {name}: {result.summary().splitlines()[0]}")
        figures["top1_float"], figures[f"top1_{name}"] = top1(result)
        figures[f"agreement_{name}"] = agreement(result)
    exact = {
        "under a minute": seconds < 60 and sweep < 60,
        "the sweep keeps the limit": mixed.bytes_after <= uniform.bytes_after,
        "bits differ by layer": len({r.weight_bits for r in made.rows if r.weight_bits and not r.kept}) > 1,
        "engine equals the reference": engine_equals_reference(fine.program) and engine_equals_reference(mixed.program),
    }
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="zeroq/pareto",
        paper="zeroq",
        sentence="Without data, in under a minute: distilled inputs beat noise at few bits, a sweep sets the bits.",
        baseline="the same number of Gaussian noise inputs; uniform 4-bit weights",
        measure=measure,
        compares=(
            Compare("agreement_distilled", "agreement_noise", 0.02),
            Compare("top1_pareto", "top1_uniform", -0.005),
        ),
        minutes=4,
        methods=("quantize/zeroq", "bits/kl", "bits/pareto", "bits/search"),
    )
)
