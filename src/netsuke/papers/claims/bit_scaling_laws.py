"""Bit-level scaling laws of generators (2025), and the top-K distillation loss.

Paper: language-style generators trade quality per total bit better than diffusion; TopKLD lifts low-bit models by about
a level. Checked: a pixel-by-pixel decoder and a diffusion transformer on the digits, three sizes each, float and 8, 4,
3 and 2 bits a weight without training, the decoder trained at 3 and 2 bits with labels alone and with TopKLD on top, as
many steps on the same batches. Quality: Frechet distance of 500 samples. Exact: every matrix of every cell runs packed
and the engine computes what PyTorch does to 1e-3; every curve has a finite fit, and quality of each kind's best points
improves with total bits. Statistical: with TopKLD the distance is lower by more than the spread over seeds (mean
logarithm over sizes and widths).
"""

from __future__ import annotations

import math
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

SETTINGS: dict[str, Any] = {"steps": 800, "tuned": (3, 2), "tune_steps": 120}


def measure(context: Context, seed: int) -> Outcome:
    """One sweep; its cells are kept until it is complete."""
    import shutil

    from netsuke.papers.runner import state_folder
    from netsuke.pipeline import scaling
    from netsuke.report.scaling import html

    folder = state_folder() / f"bit-scaling-laws-{seed}"
    result = scaling.run(scaling.Sweep(seed=seed, **SETTINGS), state=folder, say=context.progress)
    shutil.rmtree(folder)
    rows, fits = result["rows"], result["fits"]
    page = html(result)
    figures = {
        f"{name.replace(', ', '_').replace(' ', '_')}_{figure}_{key}": both[figure][key]
        for name, both in fits.items()
        for figure in both
        for key in ("exponent", "r2")
    }
    for figure, found in result["shifts"]["topkld against labels"].items():
        figures |= {f"topkld_shift_{figure}_{key}": value for key, value in found.items()}
    for figure, found in result["shifts"]["topkld against ptq"].items():
        figures[f"topkld_shift_from_ptq_{figure}"] = found["all"]
    best = [both["distance"]["exponent"] for name, both in fits.items() if name.endswith(", best")]
    return Outcome(
        exact={
            "every matrix runs packed": all(r["packed"] == 1.0 for r in rows),
            "the engine computes what PyTorch does": all(r["apart"] < 1e-3 for r in rows),
            "every curve has a finite fit": len(fits) == 16
            and all(math.isfinite(v) for b in fits.values() for f in b.values() for v in f.values()),
            "quality of the best points improves with total bits": len(best) == 2 and all(e > 0 for e in best),
            "the page draws both kinds": page.count("<path") == 2 * (9 + 5),
        },
        figures=figures,
        curves={
            f"{name}: {key}": [float(r[key]) for r in part]
            for name, part in scaling.curves(rows).items()
            for key in ("total_bits", "distance", "loss")
        },
    )


CLAIM = register(
    Claim(
        id="bit-scaling-laws/digits",
        paper="bit-scaling-laws",
        sentence="Quality follows total bits with a fit per width, and TopKLD lowers the low-bit curve.",
        baseline="training at the same width on labels alone, as many steps",
        measure=measure,
        compares=(Compare("topkld_shift_distance_all", clear=True),),
        seeds=(0, 1),
        minutes=15,
        methods=("qat/topkld",),
    )
)
