"""Krishnamoorthi 2018: INT8 with and without training, a quarter of the bytes, faster.

Paper: per-channel weights and per-tensor activations of 8 bits stay within 2 % of float, training within 1 %; the
model is 4x smaller and faster on a CPU.
Checked: the shipped digits network trained with batch norm folded as the paper says, and quantized without training.
Exact: the engine gives every output of the trained network; weights take a quarter of the bytes. Statistical: either
falls by less than 2 points. Speed of full-size networks against float32 is in bench/results; here the INT8
convolutions of one residual stage are timed against the float ones in the same process (`times_faster`, the figure on
this machine, gated at 1.2).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from netsuke import engine
from netsuke.capture import capture
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import small, top1


def seconds(programs: list[Any], x: Any) -> list[float]:
    """Least time of one run of each program, taken in turns on one thread."""
    loaded = [engine.load(p, threads=1) for p in programs]
    best = [1e9] * len(loaded)
    for _ in range(12):
        for i, run in enumerate(loaded):
            started = time.perf_counter()
            run(x)
            best[i] = min(best[i], time.perf_counter() - started)
    return best


def measure(context: Context, seed: int) -> Outcome:
    """Train, quantize, time."""
    import torch

    from netsuke.models import build
    from netsuke.papers.claims._digits_train import served, tensors, trained
    from netsuke.passes import compile_program
    from netsuke.pipeline import compress

    network = trained(context, seed, method="qat/whitepaper", weight_bits=8, activation_bits=8)
    x, y = tensors("test")
    program, out, same = served(network, x)
    without = small("cpu-int8", seed)
    before, after = top1(without)
    layers = [n for n in program.nodes if n.op in ("qconv", "qlinear")]
    weights = sum(program.constants[n.inputs[1]].nbytes for n in layers)
    count = sum(p.numel() for n, p in build("digits_cnn").named_parameters() if p.ndim > 1)
    torch.manual_seed(seed)
    wide = build("resnet20").eval()
    images = np.random.default_rng(seed).standard_normal((4, 3, 32, 32)).astype(np.float32)
    graph = capture(wide, shape=(1, 3, 32, 32))
    packed = compress(graph, recipe="cpu-int8", calib=images, seed=seed, effort="fast", measure=False)
    times = seconds([compile_program(graph), packed.program], images)
    context.progress(f"seed {seed}: float {times[0] * 1e3:.2f} ms, INT8 {times[1] * 1e3:.2f} ms")
    return Outcome(
        exact={"engine equals the trained network": same, "weights take a quarter": 4 * weights == 4 * count},
        figures={
            "top1_float": before,
            "top1_without_training": after,
            "top1_with_training": float((out.argmax(1) == y).float().mean()),
            "file_ratio_resnet20": packed.bytes_before / packed.bytes_after,
            "times_faster": times[0] / times[1],
        },
    )


CLAIM = register(
    Claim(
        id="quant-whitepaper/training",
        paper="quant-whitepaper",
        sentence="INT8 with and without training loses under 2 points, is nearly 4x smaller and faster than float.",
        baseline="the float network; the float program on one thread",
        measure=measure,
        compares=(
            Compare("top1_with_training", "top1_float", -0.02),
            Compare("top1_without_training", "top1_float", -0.02),
            Compare("file_ratio_resnet20", "", 3.5),
            Compare("times_faster", "", 1.2),
        ),
        seeds=(0, 1),
        minutes=3,
        methods=("qat/whitepaper", "quantize/whitepaper_int8"),
    )
)
