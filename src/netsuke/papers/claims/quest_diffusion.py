"""Wang et al. 2024, "QuEST".

Paper: first legible W4A4 images, obtained by fine-tuning only time embedding and fragile layers. Checked: the shipped
digits U-Net, 8 sampling steps, W4A4 (first convolution, first and last layer 8 bits), tuned on its own sampling run
without data. Exact: no weight of a layer that is not tuned changes; less than half of the weights are tuned; the
compiled program of a step gives the trained network's output (see `_diffusion`). Statistical: the distance of 500
samples to the float network's is at most two thirds of the untuned W4A4 network's, and the distance to the real digits
is below the untuned network's, too.
"""

from __future__ import annotations

from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._diffusion import Judge, engine_equals_training, network


def compared(context: Context, seed: int, model: Any, sampling: Any, judge: Judge) -> Outcome:
    """Untuned with common scales, untuned with scales per step, tuned."""
    from netsuke.methods.diffusion import quest
    from netsuke.methods.diffusion._tuned import quantized

    for name, per_step in (("untuned", False), ("untuned_per_step", True)):
        judge(name, quantized(model, sampling, weight_bits=4, activation_bits=4, per_step=per_step))
    tuned = quest.apply(model, sampling)
    judge("tuned", tuned)
    judge.figures["two_thirds"] = judge.figures["distance_untuned"] * 2 / 3
    context.progress(f"seed {seed}: {judge.figures}")
    same = engine_equals_training(next(tuned.exports()), tuned.at(0), 0, sampling.steps, shape=sampling.shape)
    return Outcome(
        exact={
            "frozen layers keep their codes": tuned.facts["frozen_codes_changed"] == 0,
            "less than half of the weights are tuned": tuned.facts["trained_share"] < 0.5,
            "engine equals the trained network": same,
        },
        figures={**judge.figures, "trained_share": tuned.facts["trained_share"]},
    )


def measure(context: Context, seed: int) -> Outcome:
    """The shipped digits U-Net."""
    from netsuke.methods.diffusion._sampling import Sampling

    model, sampling = network("digits_unet"), Sampling(seed=seed)
    return compared(context, seed, model, sampling, Judge(model, sampling.steps, seed))


CLAIM = register(
    Claim(
        id="quest-diffusion/digits",
        paper="quest-diffusion",
        sentence="Tuning time embedding and fragile layers brings W4A4 samples at least a third nearer to float ones.",
        baseline="the untuned W4A4 network (least-squares ranges, nearest rounding)",
        measure=measure,
        compares=(Compare("two_thirds", "distance_tuned"), Compare("real_untuned", "real_tuned")),
        seeds=(0, 1),
        minutes=4,
        methods=("diffusion/quest",),
    )
)
