"""Shang et al. 2023, "PB-LLM: Partially Binarized Large Language Models".

Paper: all weights at one bit destroy a language model; with a small share of salient weights at 8 bits it works again,
after training by Hessian-guided quantization, or with salient weights frozen in a short further training. Checked: a
character model (two blocks of width 128) on tinyshakespeare, all linear layers but the head, perplexity on text never
trained on, by the engine. After training: 0, 5, 10 and 30 % salient, activations 8 bits. In training: 0 and 10 %,
150 steps. Exact: perplexity falls with every step of the sweep; a weight takes no more of the file than
2 + 7 f bits (1 without salient ones) and 16 bits a row; compiled and stored, the program gives the same perplexity.
Statistical: at 10 % perplexity is below half of fully binary after training; in training it is below fully binary.
`gain_*` figures are log2(perplexity of fully binary / perplexity): 1 is half.
"""

from __future__ import annotations

import math
from typing import Any

from netsuke.data.text import windows
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._language import LENGTH, compiled, held_out, network, perplexity, text, train
from netsuke.papers.claims.bitnet158 import bits_per_weight

WIDTH, STEPS, MORE, CALIB = 128, 300, 150, 64
SHARES = (0.0, 0.05, 0.1, 0.3)
BASE = "quantize/uniform:weight_bits=8,activation_bits=8,samples=64"


def _middle(program: Any) -> list[str]:
    """Weights of all layers but the head, which is the last."""
    return [node.inputs[1] for node in program.nodes if node.op in ("qlinear", "wlinear")][:-1]


def _most_bits(program: Any, names: list[str], share: float) -> float:
    """What the form in the file takes, with the bits of the parts' last bytes."""
    sizes = [(program.constants[n].size, len(program.constants[n])) for n in names]
    total = sum((2 + 7 * share if share else 1) * size + 16 * rows + 24 for size, rows in sizes)
    return float(total / sum(size for size, _ in sizes))


def _swept(context: Context, graph: Any, seed: int) -> tuple[dict[str, bool], dict[str, float]]:
    from netsuke.pipeline import compress
    from netsuke.program import from_bytes, to_bytes

    path, exact, figures = text(context), {}, {}
    test, calib = held_out(path, seed), windows(path, LENGTH, "train").take(CALIB, seed)
    for share in SHARES:
        recipe: Any = [BASE, f"quantize/pb_llm:salient={share},samples={CALIB}"]
        program = compress(graph, recipe=recipe, calib=calib, seed=seed, effort="fast", measure=False).program
        names, label = _middle(program), f"{round(100 * share)}"
        figures[f"perplexity_{label}"] = perplexity(from_bytes(to_bytes(program)), test)
        figures[f"bits_{label}"] = bits_per_weight(program, names)
        exact[f"{label} %: as few bits as the form says"] = len(names) == 8 and figures[f"bits_{label}"] <= _most_bits(
            program, names, share
        )
        context.progress(f"seed {seed}: {label} % salient: perplexity {figures[f'perplexity_{label}']:.3f}")
    found = [figures[f"perplexity_{round(100 * share)}"] for share in SHARES]
    exact["perplexity falls with the share of salient weights"] = found == sorted(found, reverse=True)
    return exact, figures


def _trained(context: Context, model: Any, share: float, seed: int) -> tuple[float, float]:
    """(perplexity, bits a weight) after a short training with frozen salient weights."""
    import copy

    from netsuke.methods.binarize import pb_llm
    from netsuke.nn.binary_layers import freeze

    path = text(context)
    part = pb_llm.apply(copy.deepcopy(model), pb_llm.Config(share), keep=("head",))
    program = compiled(freeze(train(part, path, seed + 1, steps=MORE, rate=1e-3)))
    names = [node.inputs[1] for node in program.nodes if node.op == "wlinear"]
    return perplexity(program, held_out(path, seed)), bits_per_weight(program, names)


def measure(context: Context, seed: int) -> Outcome:
    """Train in float, then binarize both ways."""
    from netsuke.capture import capture

    path = text(context)
    model = train(network(WIDTH, seed), path, seed, steps=STEPS)
    exact, figures = _swept(context, capture(model, shape=(1, LENGTH), dtype="i64"), seed)
    figures["perplexity_float"] = perplexity(compiled(model), held_out(path, seed))
    for share in (0.0, 0.1):
        label = f"trained_{round(100 * share)}"
        figures[f"perplexity_{label}"], figures[f"bits_{label}"] = _trained(context, model, share, seed)
        context.progress(f"seed {seed}: {label}: perplexity {figures[f'perplexity_{label}']:.3f}")
    for label in ("5", "10", "30"):
        figures[f"gain_{label}"] = math.log2(figures["perplexity_0"] / figures[f"perplexity_{label}"])
    figures["gain_trained"] = math.log2(figures["perplexity_trained_0"] / figures["perplexity_trained_10"])
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="pb-llm/perplexity",
        paper="pb-llm",
        sentence="A few salient weights at 8 bits save a binarized character model, after and in training.",
        baseline="all weights binary, same method",
        measure=measure,
        compares=(Compare("gain_10", "", 1.0), Compare("gain_trained")),
        seeds=(0,),
        minutes=4,
        data=("tinyshakespeare",),
        methods=("quantize/pb_llm", "binarize/pb_llm"),
    )
)
