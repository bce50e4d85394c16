"""Liu et al. 2023, "Binary and Ternary Natural Language Generation".

Paper: weights by statistics that keep levels equally likely and trained activation levels let ternary and binary
encoder-decoders learn where rounding collapses (CNN/DailyMail ROUGE-1 44.9 float, 41.0 ternary, 35.6 binary; 12.9 and
2.8 by earlier rules). Checked: a small encoder-decoder translates toy sentences into a second toy language. Exact:
weights take three levels and two. Statistical, by ROUGE-2 of greedy translations: float above ternary, ternary and
binary each at least 5 points above rounding to the nearest of as many levels, trained with as many steps.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

BATCH, TRAIN, TEST, HELD_OUT = 32, 4000, 200, 999
FLOAT_STEPS, STEPS = 600, 300


def rouge(n: int, given: list[int], wanted: list[int]) -> float:
    """F1 of the n-grams that two lists of words share (ROUGE-n), 0 to 1."""
    grams = [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for words in (given, wanted)]
    shared, sizes = sum((grams[0] & grams[1]).values()), [sum(g.values()) for g in grams]
    return 2 * shared / sum(sizes) if shared else 0.0


def _data(count: int, seed: int) -> tuple[Any, Any]:
    import torch

    from netsuke.data.toy_text import translations

    made = translations(count, seed)
    return torch.from_numpy(made.source), torch.from_numpy(made.target)


def _batches(source: Any, target: Any, seed: int) -> Callable[[int], tuple[Any, Any]]:
    """((source, words so far), next words; -100 behind the end)."""
    import torch

    def draw(step: int) -> tuple[Any, Any]:
        rows = torch.randint(len(source), (BATCH,), generator=torch.Generator().manual_seed(seed * 1_000_003 + step))
        wanted = target[rows, 1:]
        return (source[rows], target[rows, :-1]), torch.where(wanted == 0, -100, wanted)

    return draw


def _words(row: Any) -> list[int]:
    """Between start and end."""
    from netsuke.data.toy_text import END

    found = [int(w) for w in row[1:]]
    return found[: found.index(END)] if END in found else [w for w in found if w]


def score(model: Any, source: Any, target: Any) -> dict[str, float]:
    """Mean ROUGE-1 and ROUGE-2 of greedy translations."""
    from netsuke.data.toy_text import START

    pairs = [
        (_words(a), _words(b)) for a, b in zip(model.translate(source, START, target.shape[1]), target, strict=True)
    ]
    return {f"rouge{n}": sum(rouge(n, a, b) for a, b in pairs) / len(pairs) for n in (1, 2)}


def _float_loss(model: Any, x: Any, y: Any) -> Any:
    from torch.nn import functional

    return functional.cross_entropy(model(*x).flatten(0, 1), y.flatten(), ignore_index=-100)


def _levels(model: Any) -> set[int]:
    """Numbers of levels that the weights of the binary layers take."""
    from netsuke.nn.binary_layers import layers

    return {len(layer.weight_terms()[0][0].unique()) for _, layer in layers(model)}


def measure(context: Context, seed: int) -> Outcome:
    """One float translator; four copies with two or three levels, elastic or rounded, distilled alike."""
    import torch

    from netsuke.methods.binarize import elastic
    from netsuke.methods.binarize._fit import Training, fit
    from netsuke.models.seq2seq import toy_translator

    torch.manual_seed(seed)
    source, target = _data(TRAIN, seed + 1)
    test = _data(TEST, HELD_OUT)
    teacher = fit(toy_translator(), _batches(source, target, seed), Training(FLOAT_STEPS), _float_loss)
    figures = {f"{k}_float": v for k, v in score(teacher, *test).items()}
    levels = {}
    for name, count in (("ternary", 3), ("binary", 2)):
        for rule in ("elastic", "rounded"):
            model = elastic.apply(copy.deepcopy(teacher), elastic.Config(count, count, rule=rule))
            draw = _batches(source, target, seed + 100)
            fit(model, draw, Training(STEPS), elastic.distillation(teacher))
            figures |= {f"{k}_{name}_{rule}": v for k, v in score(model, *test).items()}
            levels[name, rule] = _levels(model)
        context.progress(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    return Outcome(
        exact={
            "ternary weights take three levels": levels["ternary", "elastic"] == {3},
            "binary weights take two levels": levels["binary", "elastic"] == {2},
        },
        figures=figures,
    )


CLAIM = register(
    Claim(
        id="ternary-binary-nlg/toy-translation",
        paper="ternary-binary-nlg",
        sentence="Ternary and binary encoder-decoders with elastic levels score between float and naive rounding.",
        baseline="the nearest of as many levels between the extremes, same teacher, loss and steps",
        measure=measure,
        compares=(
            Compare("rouge2_float", "rouge2_ternary_elastic", 0.0),
            Compare("rouge2_float", "rouge2_binary_elastic", 0.0),
            Compare("rouge2_ternary_elastic", "rouge2_ternary_rounded", 0.05),
            Compare("rouge2_binary_elastic", "rouge2_binary_rounded", 0.05),
        ),
        seeds=(0, 1),
        minutes=4,
        methods=("binarize/elastic",),
    )
)
