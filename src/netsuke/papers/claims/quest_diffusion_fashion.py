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
from netsuke.papers.claims._diffusion import fashion_judge, fashion_network
from netsuke.papers.claims.quest_diffusion import compared

SHAPE = (1, 28, 28)


def measure(context: Context, seed: int) -> Outcome:
    """The comparison of `quest_diffusion` on the network trained here."""
    from netsuke.methods.diffusion._sampling import Sampling

    model, sampling = fashion_network(context, "fashion_unet"), Sampling(shape=SHAPE, seed=seed)
    judge = fashion_judge(context, model, sampling.steps, seed)
    context.progress(f"float: {judge.figures}")
    return compared(context, seed, model, sampling, judge)


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
