"""Gholami et al. 2021: every category of quantization is a switch of one config on one network.

Checked: the table `netsuke methods --categories`; each of its post-training categories compresses the shipped digits
network by its config, and each of those that train trains it for one epoch. Exact: every category runs, every program
is another one than that of the category before it where they share a section, engine and reference agree on every
code. Statistical: the categories of 8 bits lose less than a point, all others stay above half.
"""

from __future__ import annotations

import hashlib
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register


def run(found: Any, seed: int) -> tuple[Any, float]:
    """The program of a category and its top-1."""
    from netsuke.core.budget import Budget
    from netsuke.core.options import parse_options
    from netsuke.papers.claims._digits import SHAPE, small, top1
    from netsuke.pipeline import compress
    from netsuke.pipeline.training import TrainRequest, train_network

    if found.kind == "train":
        name, _, options = found.config[0].partition(":")
        request = TrainRequest(
            "digits_cnn", "digits", "digits", method=name, options=parse_options(options), epochs=1, bits=(4, 8),
            rate=0.005, seed=seed,
        )  # fmt: skip
        made = train_network(request)
        return made.program, float(made.after or 0)
    if found.name == "zero-shot" or "weight_only" in found.config[0]:
        result = compress(
            "models:digits_cnn", recipe=found.recipe(), evaluate="digits:test", shape=SHAPE, seed=seed, effort="fast",
            measure=False,
        )  # fmt: skip
        return result.program, top1(result)[1]
    if "bits/search" in found.config[-1]:
        from netsuke.data import load_data

        limit = Budget(latency=1.5) if found.name == "hardware-aware" else Budget(size=0.35)
        result = compress(
            "models:digits_cnn", recipe=found.recipe(), budget=limit, calib=load_data("digits:train").take(128, seed),
            evaluate="digits:test", shape=SHAPE, seed=seed, measure=False,
        )  # fmt: skip
        return result.program, top1(result)[1]
    result = small(found.recipe(), seed)
    return result.program, top1(result)[1]


def measure(context: Context, seed: int) -> Outcome:
    """Every category that the command line reaches, one after the other."""
    from netsuke.papers.claims._digits import engine_equals_reference
    from netsuke.papers.survey import CATEGORIES
    from netsuke.program import to_bytes

    figures: dict[str, float] = {}
    exact: dict[str, bool] = {}
    prints: dict[str, set[str]] = {}
    for found in CATEGORIES:
        if found.kind == "python":
            continue
        program, accuracy = run(found, seed)
        key = found.name.replace(" ", "_").replace(",", "").replace(":", "")
        figures[f"top1_{key}"] = accuracy
        exact[f"{found.name}: engine equals the reference"] = engine_equals_reference(program, 4)
        prints.setdefault(found.section, set()).add(hashlib.sha256(to_bytes(program)).hexdigest())
        context.progress(f"seed {seed}: {found.name}: top1 {accuracy:.4f}")
    counts = {s: sum(c.section == s and c.kind != "python" for c in CATEGORIES) for s in prints}
    exact["categories of one section differ"] = all(len(prints[s]) == n for s, n in counts.items())
    figures["worst"] = min(v for k, v in figures.items() if k.startswith("top1_"))
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="quant-survey/switches",
        paper="quant-survey",
        sentence="Every category of quantization is one switch on the same network, and runs in the engine.",
        baseline="chance, 10 %; the 8-bit network of extremes",
        measure=measure,
        compares=(
            Compare("top1_static_range_percentile", "top1_static_range_extremes", -0.01),
            Compare("top1_static_range_squared_error", "top1_static_range_extremes", -0.01),
            Compare("top1_static_range_entropy", "top1_static_range_extremes", -0.01),
            Compare("top1_granularity_channel", "top1_granularity_layer", -0.005),
            Compare("top1_quantization-aware_training", "top1_uniform", -0.02),
            Compare("worst", "", 0.5),
        ),
        seeds=(0,),
        minutes=3,
        methods=("quantize/uniform", "quantize/weight_only", "bits/search", "qat/lsq"),
    )
)
