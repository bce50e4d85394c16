"""Krishnamoorthi 2018, section 3, and the calibrators later work added: ways to find activation ranges after training.

Checked: extremes, moving average (Jacob et al. 2018), percentile (McKinstry et al. 2018), least error (Choukroun et
al. 2019) and least divergence (Migacz 2017) on the shipped digits network. Exact: every program's codes equal the
reference; zero is a code of every tensor. Statistical: no calibrator loses more than 2 points.
"""

from __future__ import annotations

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import engine_equals_reference, small, top1

CALIBRATORS = ("minmax", "moving_average", "percentile", "mse", "entropy")


def measure(context: Context, seed: int) -> Outcome:
    """One program a calibrator, from the same calibration images."""
    exact, figures = {}, {}
    for name in CALIBRATORS:
        result = small([f"quantize/whitepaper_int8:calibrator={name}"], seed)
        context.progress(f"seed {seed}: {name}: {result.summary().splitlines()[0]}")
        program = result.program
        codes = [v for v in program.values.values() if v.zero is not None]
        exact[f"{name}: engine equals the reference"] = engine_equals_reference(program)
        exact[f"{name}: zero is a code of every tensor"] = all(0 <= (v.zero or 0) <= 255 for v in codes)
        figures["top1_float"], figures[f"top1_{name}"] = top1(result)
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="quant-whitepaper/calibrators",
        paper="quant-whitepaper",
        sentence="Five ways to find activation ranges, each within 2 points of float at 8 bits.",
        baseline="the float network on the same 359 test digits",
        measure=measure,
        compares=tuple(Compare(f"top1_{name}", "top1_float", -0.02) for name in CALIBRATORS),
        minutes=5,
        methods=tuple(f"quantize/{name}" for name in CALIBRATORS),
    )
)
