"""Xing et al. 2023, "BiPFT: Binary Pre-trained Foundation Transformer".

Paper: pre-training the binary network itself, with rank-one estimates of what signs take from attention, lifts GLUE
by 15.4 points above binary networks fine-tuned without it. Checked: a two-layer one-bit encoder learns to fill in
masked words of 8,000 toy passages, then two tasks from 40 labelled ones each: their topic and their mood, four of each,
known by the company of words alone. Exact: projections and MLPs of the compiled network are one-bit layers; the
residual estimates were trained. Statistical: at least 10 points above the same network and fine-tuning without
pre-training, on both tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims import _text

PRETRAIN, FINE, LABELLED = 3000, 150, 40
TASKS = ("topic", "mood")


def _passages(count: int, seed: int, task: str = "topic") -> tuple[Any, Any]:
    """ids [count, 16] and the labels of a task."""
    import torch

    from netsuke.data.toy_text import passages

    made = passages(count, seed)
    return torch.from_numpy(made.ids), torch.from_numpy(getattr(made, task))


def _network(seed: int) -> Any:
    """The float encoder with random weights."""
    import torch

    from netsuke.data.toy_text import GROUPS, PASSAGE_WORDS
    from netsuke.models.text_classifier import TextClassifier

    torch.manual_seed(seed)
    return TextClassifier(PASSAGE_WORDS, 64, _text.HEADS, 2, _text.LENGTH, GROUPS)


def _masked(ids: Any, seed: int) -> Callable[[int], tuple[Any, Any]]:
    """Random batches with a fifth of the words hidden."""
    import torch

    from netsuke.data.toy_text import masked

    def draw(step: int) -> tuple[Any, Any]:
        at = seed * 1_000_003 + step
        rows = torch.randint(len(ids), (_text.BATCH,), generator=torch.Generator().manual_seed(at))
        hidden, words = masked(ids[rows].numpy(), at)
        return torch.from_numpy(hidden), torch.from_numpy(words)

    return draw


def _pretrained(model: Any, seed: int) -> tuple[Any, float]:
    """The encoder after masked language modelling, and the share of hidden words it fills in."""
    import torch

    from netsuke.data.toy_text import PASSAGE_WORDS
    from netsuke.methods.binarize import bipft
    from netsuke.methods.binarize._fit import Training, fit

    ids, _ = _passages(8000, seed + 50)
    head = torch.nn.Linear(64, PASSAGE_WORDS)
    pair = torch.nn.ModuleList([model, head])

    def loss(_: Any, x: Any, y: Any) -> Any:
        return bipft.pretraining_loss(model, head, x, y)

    fit(pair, _masked(ids, seed), Training(PRETRAIN), loss)
    x, y = _masked(_passages(_text.TEST, _text.HELD_OUT)[0], 7)(0)
    with torch.no_grad():
        right = (head(model.tokens(x)).argmax(-1) == y)[y >= 0]
    return model, float(right.float().mean())


def _fine_tuned(model: Any, task: str, seed: int) -> Any:
    """A copy with a new head, trained on few labelled passages."""
    import torch

    from netsuke.data.toy_text import GROUPS
    from netsuke.methods.binarize._fit import Training, fit

    torch.manual_seed(seed)
    tuned = copy.deepcopy(model)
    tuned.head = torch.nn.Linear(64, GROUPS)
    x, y = _passages(LABELLED, seed + 2000, task)
    return fit(tuned, _text.batches(x, y, seed), Training(FINE, 1e-3))


def measure(context: Context, seed: int) -> Outcome:
    """The same binary network with and without pre-training, fine-tuned on each task."""
    from netsuke.methods.binarize import bipft
    from netsuke.nn.binary_attention import RankOneScores
    from netsuke.nn.binary_layers import freeze

    start = bipft.apply(_network(seed), bipft.Config())
    trained, filled = _pretrained(copy.deepcopy(start), seed)
    moved = [
        bool((a.qp.map.weight != b.qp.map.weight).any())
        for a, b in zip(start.modules(), trained.modules(), strict=True)
        if isinstance(a, RankOneScores) and isinstance(b, RankOneScores)
    ]
    figures = {"masked_words_filled_in": filled}
    for task in TASKS:
        x, y = _passages(_text.TEST, _text.HELD_OUT, task)
        tuned = _fine_tuned(trained, task, seed)
        figures[f"top1_{task}"] = _text.top1(tuned, x, y)
        figures[f"top1_{task}_without"] = _text.top1(_fine_tuned(start, task, seed), x, y)
    freeze(tuned)
    program = _text.compiled(tuned)
    figures["engine_agreement"] = _text.agreement(program, tuned, x)
    context.progress(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    return Outcome(
        exact={
            "projections and MLPs run as one-bit layers": _text.count(program, "blinear") == 12,
            "the residual estimates were trained in every layer": moved == [True, True],
        },
        figures=figures,
    )


CLAIM = register(
    Claim(
        id="bipft/toy-text",
        paper="bipft",
        sentence="A binary encoder pre-trained with rank-one residual estimates beats one without on two tasks.",
        baseline="the same network and fine-tuning from random weights",
        measure=measure,
        compares=(
            Compare("top1_topic", "top1_topic_without", 0.10),
            Compare("top1_mood", "top1_mood_without", 0.10),
            Compare("engine_agreement", "", 0.99),
        ),
        seeds=(0, 1),
        minutes=10,
        methods=("binarize/bipft",),
    )
)
