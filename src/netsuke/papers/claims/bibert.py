"""Qin et al. 2022, "BiBERT: Accurate Fully Binarized BERT".

Paper: attention by the sign of scores keeps the information that sign(softmax) loses, and distilling directions trains
it; GLUE 63 against 41 for binarizing directly. Checked: a two-layer encoder on toy sentences whose sentiment a "not"
and a "but" turn round, weights, activations and attention at one bit. Exact: the compiled network runs on packed bits,
and a trained attention gives the same bits in torch and in the engine. Statistical: scores keep at least half a bit of
entropy where sign(softmax) keeps none; accuracy at least 5 points above binarizing directly.
"""

from __future__ import annotations

import copy
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims import _text

STEPS = 500


def _entropy(model: Any, x: Any) -> float:
    """Mean entropy of the share of keys read, over layers."""
    import torch

    from netsuke.nn.binary_attention import BinaryAttention, score_entropy

    found = []
    for module in [m for m in model.modules() if isinstance(m, BinaryAttention)]:
        seen: list[Any] = []
        handle = module.register_forward_pre_hook(lambda _m, inputs, s=seen: s.append(inputs[0].detach()))
        with torch.no_grad():
            model(x)
        handle.remove()
        found.append(score_entropy(module, seen[0]))
    return sum(found) / len(found)


def measure(context: Context, seed: int) -> Outcome:
    """A float encoder; from its weights BiBERT with distillation, and direct signs with as many steps."""
    from netsuke.methods.binarize import bibert
    from netsuke.methods.binarize._fit import Training, fit
    from netsuke.nn.binary_layers import freeze

    x, y = _text.tensors(_text.TRAIN, seed + 1)
    test = _text.tensors(_text.TEST, _text.HELD_OUT)
    teacher = fit(_text.network(seed), _text.batches(x, y, seed), Training(300))
    draw, training = _text.batches(x, y, seed + 100), Training(STEPS)
    ours = bibert.apply(copy.deepcopy(teacher), bibert.Config())
    fit(ours, draw, training, bibert.distillation(teacher, _text.HEADS))
    direct = fit(bibert.apply(copy.deepcopy(teacher), bibert.Config("direct")), draw, training)
    freeze(ours)
    program = _text.compiled(ours)
    figures = {
        "top1": _text.top1(ours, *test),
        "top1_direct": _text.top1(direct, *test),
        "top1_float": _text.top1(teacher, *test),
        "entropy_bits": _entropy(ours, test[0]),
        "entropy_bits_direct": _entropy(direct, test[0]),
        "engine_agreement": _text.agreement(program, ours, test[0]),
    }
    context.progress(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    return Outcome(
        exact={
            "projections and MLPs run as one-bit layers": _text.count(program, "blinear") == 12,
            "scores and sums over values run on packed bits": _text.count(program, "bmatmul") == 4,
            "a trained attention is the same bit for bit in the engine": _text.attention_is_exact(
                ours, ours.get_submodule("blocks.0.attn"), test[0][:200]
            ),
        },
        figures=figures,
    )


CLAIM = register(
    Claim(
        id="bibert/toy-text",
        paper="bibert",
        sentence="A one-bit text encoder with bi-attention and direction matching beats direct signs, on packed bits.",
        baseline="sign of the softmax, trained on the task alone with as many steps from the same float network",
        measure=measure,
        compares=(
            Compare("top1", "top1_direct", 0.05),
            Compare("entropy_bits", "entropy_bits_direct", 0.5),
            Compare("engine_agreement", "", 0.99),
        ),
        seeds=(0, 1),
        minutes=4,
        methods=("binarize/bibert",),
    )
)
