"""Nielsen and Schneider-Kamp 2024, "BitNet b1.58 Reloaded", language: ternary weights need about twice the width.

Paper: small language models with ternary weights and 8-bit activations need twice the hidden size to match 16 bits.
Checked: character models of two blocks on tinyshakespeare, widths 64 and 128, every linear layer but the last ternary
(activations 8 bits, a scale a token), as many steps for all. Exact: all these layers run as ternary `wlinear` on 8-bit
activations, their weights take at most 1.7 bits of the file, and the engine's perplexity is the trained network's.
Statistical: at twice the width perplexity is no worse than float's; at the same width within 15 %, with either scale.
`loss_*` figures are 1 - perplexity / float perplexity: higher is better.
"""

from __future__ import annotations

import math
from typing import Any

from netsuke.data import Dataset
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._language import compiled, held_out, network, perplexity, text, train
from netsuke.papers.claims.bitnet158 import bits_per_weight, ternary_constants

WIDTH, STEPS = 64, 300
CASES = (("median", "median", WIDTH), ("mean", "mean", WIDTH), ("wide", "median", 2 * WIDTH))


def torch_perplexity(model: Any, test: Dataset) -> float:
    """Of the network in torch, next characters of all windows."""
    import torch
    from torch.nn import functional

    total = count = 0.0
    with torch.no_grad():
        for x, _ in test.batches(16):
            tokens = torch.from_numpy(x)
            logits, wanted = model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
            total += float(functional.cross_entropy(logits, wanted, reduction="sum"))
            count += len(wanted)
    return math.exp(total / count)


def measure(context: Context, seed: int) -> Outcome:
    """Float, both scales, and twice the width."""
    from netsuke.methods.binarize import bitnet158
    from netsuke.nn.binary_layers import freeze

    path = text(context)
    test = held_out(path, seed)
    floating = perplexity(compiled(train(network(WIDTH, seed), path, seed, steps=STEPS)), test)
    figures, exact = {"perplexity_float": floating}, {}
    for name, scale, width in CASES:
        model = bitnet158.apply(network(width, seed), bitnet158.Config(scale), keep=("head",))
        freeze(train(model, path, seed, steps=STEPS))
        program = compiled(model)
        names, nodes = ternary_constants(program, ("wlinear",)), [n for n in program.nodes if n.op == "wlinear"]
        found, trained = perplexity(program, test), torch_perplexity(model, test)
        context.progress(f"seed {seed}: {name}: perplexity {found:.3f}, float {floating:.3f}")
        bits = bits_per_weight(program, names)
        figures |= {f"perplexity_{name}": found, f"loss_{name}": 1 - found / floating, f"bits_{name}": bits}
        exact[f"{name}: eight ternary layers on 8-bit activations"] = len(names) == 8 == len(nodes) and all(
            n.attrs["compute"] == "s8" for n in nodes
        )
        exact[f"{name}: a weight takes at most 1.7 bits of the file"] = bits <= 1.7
        exact[f"{name}: the engine's perplexity is the trained network's"] = abs(found / trained - 1) < 1e-3
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="bitnet158-reloaded/language",
        paper="bitnet158-reloaded",
        sentence="A ternary character model at 1.6 bits a weight matches float at twice its width.",
        baseline="the float network of the same width, as many steps",
        measure=measure,
        compares=(Compare("loss_wide"), Compare("loss_median", "", -0.15), Compare("loss_mean", "", -0.15)),
        seeds=(0,),
        minutes=4,
        data=("tinyshakespeare",),
        methods=("binarize/bitnet158",),
    )
)
