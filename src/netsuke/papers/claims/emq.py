"""EMQ: an evolved formula ranks bit configurations better than hand-made proxies, on configurations it never saw.

Paper: evolved proxies correlate better with quantized accuracy than hand-made ones.
Checked: the shipped digits network, 300 random configurations of 2, 3 and 4 bits of its six weight layers, top-1 of
each on the 359 test digits; 150 configurations to evolve on, 150 held out. Exact: every tree's value is finite.
Statistical: Spearman's correlation of the evolved formula on held-out configurations is above those of size, rounding
error and Hessian by 0.05, and above that of the sum of single-layer divergences by more than the spread over seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke import engine
from netsuke.capture import capture
from netsuke.core.recipe import Recipe
from netsuke.data import load_data
from netsuke.models import build
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import SAMPLES, SHAPE
from netsuke.passes import compile_program
from netsuke.pipeline.runner import EngineRunner

TABLE = 300


def probe_of(seed: int) -> Any:
    """The calibrated network as bit searches see it."""
    from netsuke.methods.bits._probe import Probe
    from netsuke.methods.quantize import ptq

    model, calib, runner = (
        capture(build("digits_cnn"), shape=SHAPE),
        load_data("digits:train").take(SAMPLES, seed),
        EngineRunner(1),
    )
    recipe = Recipe.make(["quantize/uniform:weight_bits=4,activation_bits=8"])
    plan = ptq.make_plan(model, recipe=recipe, calib=calib, runner=runner, effort="fast", seed=seed)
    return Probe(ptq.prepare(model, plan, calib, runner, seed, histograms=True), 64)


def measure(context: Context, seed: int) -> Outcome:
    """Measure the table, evolve on half of it, judge on the other half."""
    from netsuke.methods.bits import _proxies, emq
    from netsuke.methods.bits._problem import Format

    probe = probe_of(seed)
    formats = tuple(Format(b, 8) for b in (2, 3, 4))
    layers = [x.name for x in probe.context.placement.layers.values() if x.weight is not None]
    rng = np.random.default_rng(seed)
    configs = np.unique(rng.integers(0, 3, (3 * TABLE, len(layers))), axis=0)
    configs = rng.permutation(configs)[:TABLE]
    x, y = next(load_data("digits:test").batches(359))[:2]
    quality = np.zeros(len(configs))
    for i, row in enumerate(configs):
        model = emq.rounded(probe, layers, [formats[j] for j in row])
        found = np.asarray(engine.load(compile_program(model, name="digits"), threads=1)(x))
        quality[i] = float((found.argmax(1) == np.asarray(y)).mean())
    context.progress(f"seed {seed}: {len(configs)} configurations, top1 {quality.min():.3f} to {quality.max():.3f}")
    inputs = emq.features(probe, layers, formats)
    half = np.arange(len(configs)) % 2 == 0
    best = emq.best_tree(inputs, configs[half], quality[half], emq.Emq(), rng)
    held = emq.correlations(inputs, configs[~half], quality[~half])
    own = _proxies.rank_correlation(_proxies.scores(best.tree.values(inputs), configs[~half]), quality[~half])
    context.progress(f"seed {seed}: {best.tree}: {own:.3f} held out; {held}")
    figures = {"evolved": own, "evolved_on_training_half": best.fitness, "spread_of_top1": float(np.ptp(quality))}
    figures |= {name.replace(" ", "_"): value for name, value in held.items()}
    return Outcome({"values are finite": bool(np.isfinite(best.tree.values(inputs)).all())}, figures)


CLAIM = register(
    Claim(
        id="emq/digits",
        paper="emq",
        sentence="A formula evolved on half of a table ranks the other half better than hand-made proxies.",
        baseline="size, rounding error, Hessian perturbation and single-layer divergence",
        measure=measure,
        compares=(
            Compare("evolved", "size", 0.05),
            Compare("evolved", "rounding_error", 0.05),
            Compare("evolved", "hessian", 0.05),
            Compare("evolved", "kl", clear=True),
        ),
        seeds=(0, 1),
        minutes=3,
        methods=("bits/emq",),
    )
)
