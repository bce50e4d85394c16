"""Wang et al. 2024, "QuEST", at 28x28: the claim of `quest_diffusion` on Fashion-MNIST.

Checked: a U-Net of 14x14 and 7x7 positions, trained by us for at most 20 minutes on two cores, sampled in 8 steps, W4A4
(first convolution, first and last layer 8 bits), tuned on its own sampling run without data. Distances are those of 500
samples, by the 128 features of a classifier trained on the same images. Exact: no weight of a layer that is not tuned
changes; less than half of the weights are tuned; the compiled program of a step gives the trained network's output (see
`_diffusion`). Statistical: the float network makes what it is asked for (8 of 10 read as their class), and the tuned
network's distance to it is at most two thirds of the untuned one's.
"""

from __future__ import annotations

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._diffusion import engine_equals_training, fashion_judge, fashion_network

SHAPE = (1, 28, 28)


def measure(context: Context, seed: int) -> Outcome:
    """Untuned with common scales, untuned with scales per step, tuned."""
    from netsuke.methods.diffusion import quest
    from netsuke.methods.diffusion._sampling import Sampling
    from netsuke.methods.diffusion._tuned import quantized

    model, sampling = fashion_network(context, "fashion_unet"), Sampling(shape=SHAPE, seed=seed)
    judge = fashion_judge(context, model, sampling.steps, seed)
    context.progress(f"float: {judge.figures}")
    for name, per_step in (("untuned", False), ("untuned_per_step", True)):
        judge(name, quantized(model, sampling, weight_bits=4, activation_bits=4, per_step=per_step))
    tuned = quest.apply(model, sampling)
    judge("tuned", tuned)
    judge.figures["two_thirds"] = judge.figures["distance_untuned"] * 2 / 3
    context.progress(f"seed {seed}: {judge.figures}")
    return Outcome(
        exact={
            "frozen layers keep their codes": tuned.facts["frozen_codes_changed"] == 0,
            "less than half of the weights are tuned": tuned.facts["trained_share"] < 0.5,
            "engine equals the trained network": engine_equals_training(
                next(tuned.exports()), tuned.at(0), 0, sampling.steps, shape=SHAPE
            ),
        },
        figures={**judge.figures, "trained_share": tuned.facts["trained_share"]},
    )


CLAIM = register(
    Claim(
        id="quest-diffusion/fashion",
        paper="quest-diffusion",
        sentence="At 28x28 tuning time embedding and fragile layers brings W4A4 samples a third nearer to float ones.",
        baseline="the untuned W4A4 network (least-squares ranges, nearest rounding)",
        measure=measure,
        compares=(Compare("two_thirds", "distance_tuned"), Compare("accuracy_float", "", 0.8)),
        minutes=30,
        data=("fashion-mnist",),
        methods=("diffusion/quest",),
    )
)
