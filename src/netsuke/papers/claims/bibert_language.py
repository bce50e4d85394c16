"""Qin et al. 2022, "BiBERT", as a language model: a character decoder with every layer of its blocks at one bit.

Paper: attention by the sign of scores learns where sign(softmax) cannot; shown on encoders. A decoder adds a causal
mask: a key that is masked is not read, whatever its score. Checked: character models of two blocks on
tinyshakespeare, weights, activations and attention at one bit, distilled from the float network; beside it direct
signs with as many steps from the same weights. Exact: all projections and MLP layers run on packed bits; the engine's
perplexity is the trained network's. Statistical: perplexity at least 5 % below direct signs'. `loss_*` figures are 1
- perplexity / that of direct signs.
"""

from __future__ import annotations

import copy
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._language import LENGTH, compiled, held_out, network, perplexity, text, train
from netsuke.papers.claims._text import count
from netsuke.papers.claims.bitnet158_language import torch_perplexity

WIDTH, FLOAT_STEPS, STEPS = 64, 300, 400


def _soft_loss(teacher: Any, heads: int) -> Any:
    """BiBERT's loss for [N, T, classes]: soft targets, half the task's loss, directions."""
    import torch
    from torch.nn import functional

    from netsuke.methods.binarize._attention import recorded
    from netsuke.methods.binarize._fit import soft_cross_entropy
    from netsuke.methods.binarize.bibert import direction_distance

    def loss(model: Any, x: Any, y: Any) -> Any:
        with torch.no_grad(), recorded(teacher) as wanted:
            target = teacher(x)
        with recorded(model) as seen:
            logits = model(x)
        hard = functional.cross_entropy(logits.flatten(0, 1), y.flatten())
        return soft_cross_entropy(logits, target) + 0.5 * hard + direction_distance(seen, wanted, heads)

    return loss


def _batches(path: Any, seed: int) -> Any:
    """(characters, next characters) by step, from the first nine tenths of the text."""
    import torch

    from netsuke.data.text import characters
    from netsuke.models.train_lm import batch

    codes = torch.from_numpy(characters(path))
    codes = codes[: int(len(codes) * 0.9)]

    def draw(step: int) -> tuple[Any, Any]:
        return batch(codes, LENGTH, 32, torch.Generator().manual_seed(seed * 1_000_003 + step))

    return draw


def measure(context: Context, seed: int) -> Outcome:
    """Float, one bit by BiBERT, one bit by direct signs."""
    from netsuke.methods.binarize import bibert
    from netsuke.methods.binarize._fit import Training, fit
    from netsuke.nn.binary_layers import freeze

    path = text(context)
    test, draw = held_out(path, seed), _batches(path, seed + 100)
    teacher = train(network(WIDTH, seed), path, seed, steps=FLOAT_STEPS)
    ours = bibert.apply(copy.deepcopy(teacher), bibert.Config())
    fit(ours, draw, Training(STEPS), _soft_loss(teacher, WIDTH // 32))
    direct = fit(bibert.apply(copy.deepcopy(teacher), bibert.Config("direct")), draw, Training(STEPS))
    freeze(ours)
    program = compiled(ours)
    found, trained, naive = perplexity(program, test), torch_perplexity(ours, test), torch_perplexity(direct, test)
    figures = {
        "perplexity": found,
        "perplexity_direct": naive,
        "perplexity_float": torch_perplexity(teacher, test),
        "loss": 1 - found / naive,
    }
    context.progress(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    return Outcome(
        exact={
            "projections and MLPs run as one-bit layers": count(program, "blinear") == 12,
            "the engine's perplexity is the trained network's": abs(found / trained - 1) < 1e-3,
        },
        figures=figures,
    )


CLAIM = register(
    Claim(
        id="bibert/language",
        paper="bibert",
        sentence="A one-bit character model with bi-attention and direction matching beats direct signs.",
        baseline="sign of the softmax, trained on the task alone with as many steps from the same float network",
        measure=measure,
        compares=(Compare("loss", "", 0.05),),
        minutes=8,
        data=("tinyshakespeare",),
        methods=("binarize/bibert",),
    )
)
