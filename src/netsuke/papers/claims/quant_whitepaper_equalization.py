"""Nagel et al. 2019 (DFQ), sections 4.1 and 4.2: equalization and bias correction, as steps beside the whitepaper's
recipe.

Paper: with one weight scale a layer, networks whose channels differ widely collapse at 8 bits; equalizing ranges
across layers restores them without training, and correcting the mean error of each output channel adds to it.
Checked: the shipped digits network with channel ranges made uneven (factors 2^-5 to 2^5 between two layers, function
unchanged), one weight scale a layer. Exact: codes equal the reference; the uneven network computes what the even one
does. Statistical: equalization wins back at least what 5 points are; it ends within 2 points of float; with bias
correction the mean error of the logits is no larger than without.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke import engine
from netsuke.data import load_data
from netsuke.models import build
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._digits import engine_equals_reference, small, top1

PLAIN = "quantize/whitepaper_int8:granularity=tensor"
RECIPES = {
    "plain": [PLAIN],
    "equalized": ["quantize/equalization", PLAIN],
    "corrected": ["quantize/equalization", PLAIN, "quantize/bias_correction"],
}


def uneven(seed: int) -> Any:
    """The digits network, the channels between the two convolutions of each block scaled by 2^u, u uniform in [-5,
    5]."""
    import torch

    network: Any = build("digits_cnn")
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for block in (network.block1, network.block2):
            factor = torch.exp2(10 * torch.rand(block.bn1.num_features, generator=rng) - 5)
            block.bn1.weight *= factor
            block.bn1.bias *= factor
            block.conv2.weight /= factor[None, :, None, None]
    return network


def logits(network: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Float logits by torch."""
    import torch

    with torch.no_grad():
        return np.asarray(network(torch.from_numpy(x)).numpy())


def measure(context: Context, seed: int) -> Outcome:
    """Three recipes on one uneven network."""
    network, x = uneven(seed), next(load_data("digits:test").batches(359))[0]
    want, even = logits(network, x), logits(build("digits_cnn"), x)
    exact = {"the uneven network computes the same function": bool(np.allclose(want, even, rtol=1e-4, atol=1e-4))}
    figures: dict[str, float] = {}
    for name, recipe in RECIPES.items():
        result = small(recipe, seed, network)
        context.progress(f"seed {seed}: {name}: {result.summary().splitlines()[0]}")
        got = next(iter(engine.load(result.program).run(x).values()))
        figures["top1_float"], figures[f"top1_{name}"] = top1(result)
        figures[f"shift_{name}"] = float(np.abs((got - want).mean(axis=0)).mean())
        exact[f"{name}: engine equals the reference"] = engine_equals_reference(result.program)
    figures["shift_won_by_correction"] = figures["shift_equalized"] - figures["shift_corrected"]
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="quant-whitepaper/equalization",
        paper="quant-whitepaper",
        sentence="Uneven channels break per-layer INT8; equalization restores it, bias correction removes mean errors.",
        baseline="the same recipe without equalization; without bias correction",
        measure=measure,
        compares=(
            Compare("top1_equalized", "top1_plain", 0.05),
            Compare("top1_equalized", "top1_float", -0.02),
            Compare("shift_won_by_correction"),
        ),
        minutes=4,
        methods=("quantize/equalization", "quantize/bias_correction"),
    )
)
