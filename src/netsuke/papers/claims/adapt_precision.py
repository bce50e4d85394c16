"""Kummer et al. 2021, "Adaptive Precision Training (AdaPT)".

Paper: word lengths switched during training give float's accuracy (0.98 points above on average) and a speed-up of 1.27
by an analytical model. Checked: the residual network of the demo on the shipped digits, 8 epochs, every layer decides
once an epoch. Exact: the log holds one decision a layer and epoch, words and fractions go up and go down, and weights
in use are the ones that the last decision allows. Statistical: within 1 point of float; the modelled speed-up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._integer import BATCH, Budget, batch, resnet, run

BUDGET = Budget()
STEPS = -(-1438 // BATCH)  # of an epoch


def _in_use(model: Any) -> bool:
    """Weight codes of every layer: at most WL bits, and multiples of 2^-FL."""
    from netsuke.nn.integer_swap import integer_layers

    held = []
    for layer in integer_layers(model).values():
        codes = layer.quantize_weight(layer.weight)
        state: Any = layer.adapt
        held.append(int(codes.codes.abs().max()) < 2 ** (int(state.word) - 1))
        held.append(bool((codes.scale == 2.0 ** -int(state.fraction)).all()))
    return all(held)


def measure(context: Context, seed: int) -> Outcome:
    """Float and AdaPT, the same weights and order of images."""
    from netsuke.methods.integer import adapt

    plain = run(context, "float", resnet, seed, BUDGET)
    window = {"lookback_min": STEPS, "lookback_max": STEPS}
    small = run(context, "AdaPT", resnet, seed, BUDGET, "integer/adapt", **window)
    small.model(batch(1)[0])  # a forward pass lets every layer take what its state says
    log, model = adapt.log(small.model), adapt.performance(small.model)
    layers = adapt.states(small.model)
    words = [float(np.mean([s.after[0] for s in log if s.step == STEPS * (e + 1)])) for e in range(BUDGET.epochs)]
    context.progress(f"seed {seed}: words by epoch {' '.join(f'{w:.1f}' for w in words)}")
    return Outcome(
        exact={
            "every layer decided once an epoch": len(log) == BUDGET.epochs * len(layers),
            "words and fractions went up": any(s.after[0] > s.before[0] and s.after[1] > s.before[1] for s in log),
            "words and fractions went down": any(s.after[0] < s.before[0] and s.after[1] < s.before[1] for s in log),
            "layers chose differently": len({s.after for s in log}) > 2,
            "weights are what the last decision allows": _in_use(small.model),
        },
        figures={
            "top1": small.top1,
            "top1_float": plain.top1,
            "modelled_training": model.training,
            "modelled_inference": model.inference,
            "modelled_size": model.size,
            "mean_bits": model.bits,
        },
        curves={"word length": words, **small.curves("AdaPT"), **plain.curves("float")},
    )


CLAIM = register(
    Claim(
        id="adapt-precision/digits",
        paper="adapt-precision",
        sentence="Layers that choose their word length every epoch train to float's accuracy, words going up and down.",
        baseline="float32 training, equal budget; 32-bit words in the analytical model",
        measure=measure,
        compares=(Compare("top1", "top1_float", -0.01), Compare("modelled_training", "", 1.27)),
        minutes=1,
        methods=("integer/adapt",),
    )
)
