"""LR2VQ: the length of vectors decides the bytes of a network, the inner dimension its accuracy.

Paper: the sub-vector length alone sets the compression; the dimension of the clustered space is free and decides how
much accuracy is left.
Checked: the shipped digits network trained end to end with 32 entries a layer, vectors of 4 and of 8 weights, for 8
inner dimensions 1, 2 and 6. Exact: the tables take the predicted bytes whatever the inner dimension is, less entries
that coincide after rounding (at most 2 %); the engine gives every output of the trained network. Statistical: of
vectors of 8, dimension 2 beats 1 and 6 beats 2; vectors of 4 are within 2 points of float.
"""

from __future__ import annotations

from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

VARIANTS = {"m4_d3": (4, 3), "m8_d1": (8, 1), "m8_d2": (8, 2), "m8_d6": (8, 6)}
ENTRIES = 32


def table_bytes(program: Any) -> dict[str, int]:
    """Stored bytes of the weights that are indices, by layer."""
    from netsuke.program.storage import stored_forms

    forms = stored_forms(program)
    layers = [n for n in program.nodes if n.op in ("qconv", "qlinear")]
    found = {n.name: forms.get(n.inputs[1]) for n in layers}
    return {name: form.bytes for name, form in found.items() if form is not None and form.book is not None}


def measure(context: Context, seed: int) -> Outcome:
    """Four networks from the same start."""
    from netsuke.methods.qat.lr2vq import Lr2vq, predicted_bytes
    from netsuke.models import build
    from netsuke.nn.quantizer_vectors import LowRankVectors
    from netsuke.papers.claims._digits_train import served, tensors, top1, trained

    x, y = tensors("test")
    figures, exact = {"top1_float": top1(build("digits_cnn").eval(), x, y)}, {}
    for name, (length, inner) in VARIANTS.items():
        options = {"length": length, "entries": ENTRIES, "inner": inner, "seed": seed}
        network = trained(context, seed, method="qat/lr2vq", options=options, weight_bits=4, activation_bits=8)
        program, out, same = served(network, x)
        layers = {n: m for n, m in network.layers().items() if isinstance(m.weight, LowRankVectors)}
        sizes = [int(m.real_weight().numel()) for m in layers.values()]
        wanted = sum(predicted_bytes(count, Lr2vq(**options)) for count in sizes)
        stored = sum(table_bytes(program).values())
        exact[f"{name}: bytes as predicted"] = 0.98 * wanted <= stored <= wanted and len(table_bytes(program)) == len(
            layers
        )
        exact[f"{name}: engine equals the trained network"] = same
        figures[f"top1_{name}"] = float((out.argmax(1) == y).float().mean())
        figures[f"bytes_{name}"] = float(stored)
        context.progress(f"seed {seed}: {name}: top1 {figures[f'top1_{name}']:.4f}, {stored} bytes, {wanted} predicted")
    exact["vectors twice as long take fewer bytes"] = figures["bytes_m8_d6"] < 0.75 * figures["bytes_m4_d3"]
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="lr2vq/digits",
        paper="lr2vq",
        sentence="The length of vectors alone decides the bytes; accuracy follows the inner dimension.",
        baseline="the float network; the same bytes with a smaller inner dimension",
        measure=measure,
        compares=(
            Compare("top1_m8_d2", "top1_m8_d1", 0.005),
            Compare("top1_m8_d6", "top1_m8_d2"),
            Compare("top1_m4_d3", "top1_float", -0.02),
        ),
        minutes=4,
        methods=("qat/lr2vq",),
    )
)
