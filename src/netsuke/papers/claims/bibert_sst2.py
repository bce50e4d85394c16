"""BiBERT on SST-2: the claim of `bibert` on real sentences (6,920 to train, 872 to judge, no pre-training).

Checked: a two-layer encoder of 32 words, all weights, activations and attention of its blocks at one bit. Statistical:
accuracy at least 2 points above sign(softmax) attention trained alike; the float network's accuracy is reported.
"""

from __future__ import annotations

import copy
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

STEPS = 1300


def measure(context: Context, seed: int) -> Outcome:
    """Float, BiBERT with distillation, direct signs."""
    from netsuke.methods.binarize import bibert
    from netsuke.methods.binarize._fit import Training, fit
    from netsuke.models import train_text

    assert context.data_root is not None
    data, dev, _ = train_text.load(context.data_root / "text" / "sst2")
    teacher = train_text.train(data, seed=seed)
    training = Training(STEPS, 1e-3, decay=0.05)

    def draw(step: int) -> tuple[Any, Any]:
        return train_text.batch(data, step, seed + 100)

    ours = bibert.apply(copy.deepcopy(teacher), bibert.Config())
    fit(ours, draw, training, bibert.distillation(teacher, teacher.heads))
    direct = fit(bibert.apply(copy.deepcopy(teacher), bibert.Config("direct")), draw, training)
    models = {"": ours, "_direct": direct, "_float": teacher}
    figures = {f"top1{name}": train_text.accuracy(model, dev) for name, model in models.items()}
    context.progress(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    return Outcome(figures=figures)


CLAIM = register(
    Claim(
        id="bibert/sst2",
        paper="bibert",
        sentence="A one-bit text classifier on SST-2 beats direct signs.",
        baseline="sign of the softmax, trained on the task alone with as many steps from the same float network",
        measure=measure,
        compares=(Compare("top1", "top1_direct", 0.02),),
        minutes=30,
        data=("sst2",),
        methods=("binarize/bibert",),
    )
)
