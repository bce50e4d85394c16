"""BitNet b1.58 Reloaded on SST-2: the claim of `bitnet158_text` on real sentences (6,920 to train, 872 to judge).

Checked: the encoder of 32 words and 0.36 M parameters, the linear layers of its blocks ternary, no pre-training,
float and both scales with the same schedule. Exact as there. Statistical: either scale within 3 points of float (a
standard error of 872 sentences is 1.4).
"""

from __future__ import annotations

from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims.bitnet158_text import SCALES, served, ternary

STEPS = 1300


def measure(context: Context, seed: int) -> Outcome:
    """Float, then both scales from the same random weights."""
    from netsuke.capture import capture
    from netsuke.methods.binarize._fit import Training, fit
    from netsuke.models import build, train_text
    from netsuke.nn.binary_layers import freeze
    from netsuke.papers.claims._text import agreement
    from netsuke.passes import compile_program

    assert context.data_root is not None
    data, dev, _ = train_text.load(context.data_root / "text" / "sst2")
    training = Training(STEPS, 1e-3, decay=0.05)

    def draw(step: int) -> tuple[Any, Any]:
        return train_text.batch(data, step, seed)

    def network() -> Any:
        return build("text_classifier", weights="random", seed=seed)

    figures, exact = {"top1_float": train_text.accuracy(fit(network(), draw, training), dev)}, dict[str, bool]()
    for scale in SCALES:
        model = fit(ternary(network(), scale), draw, training)
        freeze(model)
        program = compile_program(capture(model, shape=(1, train_text.LENGTH), dtype="i64"), name="sst2")
        figures |= {
            f"top1_{scale}": train_text.accuracy(model, dev),
            f"agreement_{scale}": agreement(program, model, dev.ids),
        }
        exact |= {f"{scale}: {what}": ok for what, ok in served(model, program, dev.ids[:64]).items()}
        context.progress(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="bitnet158-reloaded/sst2",
        paper="bitnet158-reloaded",
        sentence="A ternary text classifier on SST-2 comes within three points of float.",
        baseline="the float network with the same schedule",
        measure=measure,
        compares=tuple(
            compare
            for s in SCALES
            for compare in (Compare(f"top1_{s}", "top1_float", -0.03), Compare(f"agreement_{s}", "", 0.98))
        ),
        minutes=20,
        data=("sst2",),
        methods=("binarize/bitnet158",),
    )
)
