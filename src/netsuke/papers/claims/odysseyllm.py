"""OdysseyLLM: W4A8 of a language model with symmetric per-channel weights, clipping and GPTQ.

Paper: without groups or zero points, clipping chosen for the output and GPTQ's compensation bring W4A8 close to
float.
Checked: the character model trained for 600 steps of 16 windows (about six minutes), perplexity per character on
256 windows never trained on, by the engine. Exact: between the ends all weight codes lie within 4 bits, symmetric.
Statistical: the recipe and GPTQ alone stay within 3% of float; the recipe is no worse than nearest rounding with
bias correction. `loss_*` figures are 1 - perplexity / float perplexity: higher is better, -0.03 is 3% worse.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netsuke import engine
from netsuke.capture import capture
from netsuke.data import Dataset
from netsuke.data.text import windows
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.passes import compile_program
from netsuke.pipeline import compress

TEXT = "text/tinyshakespeare.txt"
LENGTH = 128
BASE = "quantize/uniform:weight_bits=4,activation_bits=8,samples=96"
RECIPES: dict[str, Any] = {
    "nearest": [BASE, "quantize/bias_correction"],
    "gptq": [BASE, "quantize/gptq"],
    "recipe": [BASE, "quantize/odysseyllm"],
}


def perplexity(program: Any, test: Dataset) -> float:
    """exp of the mean negative log likelihood per character, by the engine."""
    loaded = engine.load(program)
    total, count = 0.0, 0
    for batch, _ in test.batches(16):
        x = np.asarray(batch, np.int64)
        logits = next(iter(loaded.run(x).values()))[:, :-1].astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        likelihood = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        total -= float(np.take_along_axis(likelihood, x[:, 1:, None], axis=-1).sum())
        count += x[:, 1:].size
    return math.exp(total / count)


def narrow(result: Any) -> bool:
    """Weight codes between the first and the last layer within +-7."""
    codes = [n.inputs[0].const_value.numpy() for n in result.quantized.graph if (n.name or "").endswith("/weight")]
    return all(int(np.abs(c.astype(int)).max()) <= 7 for c in codes[1:-1])


def measure(context: Context, seed: int) -> Outcome:
    """Train, quantize three ways, judge by perplexity."""
    from netsuke.models.train_lm import train

    assert context.data_root is not None
    path = context.data_root / TEXT
    network = train(path, steps=600, count=16, seed=seed)
    graph = capture(network, shape=(1, LENGTH), dtype="i64")
    calib, test = windows(path, LENGTH, "train").take(96, seed), windows(path, LENGTH, "test").take(256, seed)
    exact: dict[str, bool] = {}
    floating = perplexity(compile_program(graph, name="float"), test)
    figures = {"perplexity_float": floating}
    for name, recipe in RECIPES.items():
        result = compress(graph, recipe=recipe, calib=calib, seed=seed, effort="fast", measure=False)
        found = perplexity(result.program, test)
        context.progress(f"seed {seed}: {name}: perplexity {found:.4f}, float {floating:.4f}")
        figures[f"perplexity_{name}"], figures[f"loss_{name}"] = found, 1 - found / floating
        exact[f"{name}: symmetric 4-bit codes"] = narrow(result)
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="odysseyllm/perplexity",
        paper="odysseyllm",
        sentence="A character model at W4A8 per channel keeps its perplexity within 3% through clipping and GPTQ.",
        baseline="float; nearest rounding with bias correction",
        measure=measure,
        compares=(
            Compare("loss_recipe", "", -0.03),
            Compare("loss_gptq", "", -0.03),
            Compare("loss_recipe", "loss_nearest"),
        ),
        seeds=(0,),
        minutes=10,
        data=("tinyshakespeare",),
        methods=("quantize/odysseyllm", "quantize/gptq"),
    )
)
