"""He et al. 2023, "EfficientDM".

Paper: quantization-aware low-rank adapters, trained without data and merged into integer weights, reach the quality of
training at the cost of calibration. Checked: the shipped digits U-Net, 8 sampling steps, W4A4 (first convolution, first
and last layer 8 bits). Exact: merging changes no code; adapters change codes; the compiled program of a step gives the
trained network's output (see `_diffusion`). Statistical, means over four sets of 500 samples: nearer to the float
network's samples, and no further from the real digits, than post-training quantization with scales per step, the
strongest baseline without training (one set tells little of the latter: its distance to real digits goes from 0.10 to
0.16 with the noise that samples start from). Reported: everything for post-training quantization with common scales
("common").
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._diffusion import Judge, engine_equals_training, network

SETS = 4


def measure(context: Context, seed: int) -> Outcome:
    """Post-training with scales per step, and adapters on top of it."""
    from netsuke.methods.diffusion import efficientdm
    from netsuke.methods.diffusion._sampling import Sampling
    from netsuke.methods.diffusion._tuned import quantized

    model, sampling = network("digits_unet"), Sampling(seed=seed)
    judges = [Judge(model, sampling.steps, seed + 101 * i) for i in range(SETS)]

    def judge(name: str, made: Any) -> None:
        for one in judges:
            one(name, made)

    judge("common", quantized(model, sampling, weight_bits=4, activation_bits=4, per_step=False))
    judge("ptq", quantized(model, sampling, weight_bits=4, activation_bits=4, per_step=True))
    tuned = efficientdm.apply(model, sampling)
    judge("tuned", tuned)
    figures = {key: fmean(one.figures[key] for one in judges) for key in judges[0].figures}
    context.progress(f"seed {seed}: {figures} {tuned.facts}")
    return Outcome(
        exact={
            "merging changes no code": tuned.facts["codes_changed_by_merging"] == 0,
            "adapters change codes": tuned.facts["codes_changed"] > 0,
            "engine equals the trained network": engine_equals_training(
                next(tuned.exports()), tuned.at(0), 0, sampling.steps
            ),
        },
        figures={**figures, "codes_changed": tuned.facts["codes_changed"]},
    )


CLAIM = register(
    Claim(
        id="efficientdm/digits",
        paper="efficientdm",
        sentence="With merged low-rank adapters W4A4 samples are nearer to float ones and to real digits than without.",
        baseline="W4A4 post-training quantization with scales per sampling step",
        measure=measure,
        compares=(
            Compare("distance_ptq", "distance_tuned"),
            Compare("real_ptq", "real_tuned"),
            Compare("accuracy_tuned", "accuracy_ptq", -0.005),
        ),
        minutes=6,
        methods=("diffusion/efficientdm",),
    )
)
