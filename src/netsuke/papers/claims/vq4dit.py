"""Deng et al. 2024, "VQ4DiT".

Paper: diffusion transformers at 2 bits a weight, codebooks and assignments calibrated together without data. Checked:
the shipped digits DiT, 8 sampling steps, 8 entries of 2 weights in every linear layer of its blocks (indices of 1.5
bits a weight: in layers this small entries and channel scales take the rest). Exact: at most 2.1 bits a weight with
entries and scales counted; the codes of the compiled network are at most 8 pairs in every layer, and it computes what
PyTorch does to 1e-3. Statistical: 500 samples are nearer to the float network's than with
codebooks tuned alone for as many updates, and than with k-means.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke import engine
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._diffusion import Judge, network

ENTRIES = 8


def measure(context: Context, seed: int) -> Outcome:
    """k-means, codebooks alone, both together."""
    from netsuke.methods.diffusion import vq4dit
    from netsuke.methods.diffusion._sampling import Sampling

    model, sampling = network("digits_dit"), Sampling(seed=seed)
    judge = Judge(model, sampling.steps, seed)
    judge(
        "kmeans",
        vq4dit.apply(model, sampling, vq4dit.Vq4Dit(entries=ENTRIES, assignments=False, rounds=0, entry_rounds=0)),
    )
    judge("codebook_only", vq4dit.apply(model, sampling, vq4dit.Vq4Dit(entries=ENTRIES, assignments=False)))
    made = vq4dit.apply(model, sampling, vq4dit.Vq4Dit(entries=ENTRIES))
    judge("both", made)
    context.progress(f"seed {seed}: {judge.figures} {made.facts}")
    stored, near = _served(made)
    return Outcome(
        exact={
            "at most 2.1 bits a weight, entries and scales counted": made.facts["bits_per_weight"] <= 2.1,
            "at most 8 pairs of codes in every layer": stored,
            "the engine computes what PyTorch does": near,
        },
        figures={**judge.figures, **made.facts},
    )


def _served(made: Any) -> tuple[bool, bool]:
    """Whether every quantized layer's codes are at most 8 pairs, and engine and PyTorch agree."""
    import torch

    from netsuke.nn.diffusion import starts
    from netsuke.passes import compile_program

    program = compile_program(made.export())
    codes = [program.constants[n.inputs[1]] for n in program.nodes if n.op == "wlinear"]
    few = [len(np.unique(c.reshape(-1, 2), axis=0)) <= ENTRIES for c in codes]
    noise, labels = starts(8, (1, 8, 8), seed=7)
    t = np.full(8, 500, np.float32)
    given = {"image": noise, "time": t, "label": labels}
    found = np.asarray(next(iter(engine.load(program, threads=1).run(given).values())))
    with torch.no_grad():
        wanted = made.network(*(torch.from_numpy(a) for a in given.values())).numpy()
    return len(codes) == 20 and all(few), bool(np.allclose(found, wanted, atol=1e-3))


CLAIM = register(
    Claim(
        id="vq4dit/digits",
        paper="vq4dit",
        sentence="At about 2 bits a weight, learned assignments beat codebooks tuned alone on sample distance.",
        baseline="codebooks tuned alone for as many updates; k-means",
        measure=measure,
        compares=(Compare("distance_codebook_only", "distance_both"), Compare("distance_kmeans", "distance_both")),
        seeds=(0, 1),
        minutes=3,
        methods=("diffusion/vq4dit",),
    )
)
