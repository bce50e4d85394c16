"""Cai et al. 2020, ZeroQ: distilled inputs stand in for calibration data.

Paper: inputs optimised to meet the stored batch-norm statistics calibrate a network in seconds, without any data,
better than noise does.
Checked: the shipped digits network at W8A4 (ends 8 bits). Exact: distilling lowers the loss at least fivefold; it
takes under a minute; engine and reference agree on every code. Statistical: the network calibrated on distilled
inputs answers as the float one more often than when calibrated on Gaussian noise of the same number, and within 3
points of real data.
"""

from __future__ import annotations

import time

import numpy as np

from netsuke.capture import capture
from netsuke.data import Dataset, load_data
from netsuke.models import build
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import SHAPE, agreement, engine_equals_reference, quantized, top1

COUNT = 32
BASE = "quantize/uniform:weight_bits=8,activation_bits=4"


def measure(context: Context, seed: int) -> Outcome:
    """Distil, then quantize three times: from noise, from distilled inputs, from data."""
    from netsuke.methods.quantize._distill import distill

    started = time.monotonic()
    found = distill(capture(build("digits_cnn"), shape=SHAPE), (COUNT, *SHAPE[1:]), 150, 0.2, seed)
    seconds = time.monotonic() - started
    noise = np.random.default_rng(seed).standard_normal((COUNT, *SHAPE[1:])).astype(np.float32)
    runs = {
        "noise": quantized([BASE], Dataset.from_arrays(noise, source="noise"), seed),
        "distilled": quantized(["quantize/zeroq", BASE], None, seed),
        "data": quantized([BASE], load_data("digits:train").take(COUNT, seed), seed),
    }
    figures = {"loss_before": found.before, "loss_after": found.after, "seconds": seconds}
    for name, result in runs.items():
        context.progress(f"seed {seed}: {name}: {result.summary().splitlines()[0]}")
        figures["top1_float"], figures[f"top1_{name}"] = top1(result)
        figures[f"agreement_{name}"] = agreement(result)
    exact = {
        "the loss falls at least fivefold": found.after < found.before / 5,
        "under a minute": seconds < 60,
        "engine equals the reference": engine_equals_reference(runs["distilled"].program),
    }
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="zeroq/distilled",
        paper="zeroq",
        sentence="Inputs distilled from batch-norm statistics calibrate better than noise and nearly as well as data.",
        baseline="the same number of Gaussian noise inputs; of real images",
        measure=measure,
        compares=(
            Compare("agreement_distilled", "agreement_noise", 0.005),
            Compare("agreement_distilled", "agreement_data", -0.03),
        ),
        minutes=2,
        methods=("quantize/zeroq",),
    )
)
