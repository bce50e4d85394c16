"""He et al. 2022, "BiViT: Extremely Compressed Binary Vision Transformer".

Paper: a threshold relative to each softmax row's maximum and binarizing attention before the MLP bring a binary
transformer 19.8 points above earlier ones on TinyImageNet. Checked: a two-layer transformer on the shipped digits,
trained in floats first, then attention, then MLPs at one bit. Exact: the compiled network runs one-bit layers and
compares scores with the row's largest on packed bits; a trained attention gives the same bits in torch and in the
engine. Statistical: at least 2 points above sign-binarized attention, the sign of the softmax, trained alike.
"""

from __future__ import annotations

import copy
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims import _text, _vit
from netsuke.papers.claims._binary import top1

FIRST, SECOND = 200, 300  # steps of the two stages


def _staged(teacher: Any, rule: str, seed: int) -> Any:
    """Attention binary, then everything."""
    from netsuke.methods.binarize import bivit
    from netsuke.methods.binarize._fit import Training, fit

    draw = _vit.batches(seed + 100)
    model = bivit.apply(copy.deepcopy(teacher), bivit.Config("attention", rule=rule))
    fit(model, draw, Training(FIRST))
    return fit(bivit.apply(model, bivit.Config("mlp", rule=rule)), lambda step: draw(FIRST + step), Training(SECOND))


def measure(context: Context, seed: int) -> Outcome:
    """One pretrained network, made binary by both rules in the same stages."""
    from netsuke.nn.binary_layers import freeze

    teacher = _vit.pretrained(seed)
    ours, direct = _staged(teacher, "softmax_aware", seed), _staged(teacher, "direct", seed)
    freeze(ours)
    program, x = _vit.compiled(ours), _vit.test_images()
    relative = sum(node.op == "bmatmul" and node.attrs.get("relative") == 1 for node in program.nodes)
    figures = {
        "top1": top1(ours),
        "top1_sign_of_softmax": top1(direct),
        "top1_float": top1(teacher),
        "engine_agreement": _text.agreement(program, ours, x),
    }
    context.progress(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    return Outcome(
        exact={
            "projections and MLPs run on XNOR kernels": _text.count(program, "blinear") == 12,
            "attention runs on packed bits, no softmax": relative == 2
            and _text.count(program, "bmatmul") == 4
            and not _text.count(program, "softmax"),
            "a trained attention is the same bit for bit in the engine": _text.attention_is_exact(
                ours, ours.get_submodule("blocks.0.attn"), x
            ),
        },
        figures=figures,
    )


CLAIM = register(
    Claim(
        id="bivit/digits",
        paper="bivit",
        sentence="A staged one-bit transformer with softmax-aware levels beats sign-binarized attention on digits.",
        baseline="sign of the softmax as attention, same stages and steps",
        measure=measure,
        compares=(Compare("top1", "top1_sign_of_softmax", 0.02), Compare("engine_agreement", "", 0.99)),
        seeds=(0, 1),
        minutes=4,
        methods=("binarize/bivit",),
    )
)
